package sim

import (
	"fmt"
	"testing"

	"hastd/replicate"
)

// TestScenario plays each row in each mode that it holds in.
func TestScenario(t *testing.T) {
	for i, r := range rows {
		if r.n != i+1 {
			t.Fatalf("row %d stands where row %d belongs", r.n, i+1)
		}
		for _, m := range r.modes {
			t.Run(fmt.Sprintf("row_%02d_%s", r.n, m), func(t *testing.T) {
				r.play(newScript(t, func(p *Profile) { p.Mode = m }))
			})
		}
	}
}

// TestScenarioModes runs the plainest story in every mode and sector size.
func TestScenarioModes(t *testing.T) {
	for _, m := range []replicate.Mode{replicate.Fullsync, replicate.Memsync, replicate.Async} {
		for _, sector := range []uint32{512, 4096} {
			t.Run(fmt.Sprintf("%s-%d", m, sector), func(t *testing.T) {
				s := newScript(t, func(p *Profile) { p.Mode, p.Sector = m, sector })
				s.pair()
				s.write(s.a, 1, 2, 3)
				s.flush(s.a)
				s.cut()
				s.write(s.a, 4)
				s.heal()
				s.complete()
				s.demote(s.a)
				s.promote(s.b)
				s.read(s.b, 4)
				s.write(s.b, 5)
				s.complete()
			})
		}
	}
}
