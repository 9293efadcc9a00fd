package sim

import (
	"fmt"
	"strconv"
)

// Directed runs: what chance seldom brings about, each row of the rules is played as
// a script, with random times between its steps, random speeds, sector sizes and
// modes; in every second round with a fault that nobody expects. Undisturbed, a row
// must give its verdict; in any case all oracles judge, and from where the script
// ends the run goes on as a random one.

const (
	// directedEvery: of so many seeds one is directed.
	directedEvery = 16
	// directedSeed is the remainder of such a seed.
	directedSeed = 1
)

// directed says whether a seed is a directed run, of which row, and whether a fault
// disturbs it.
func directed(opt *Options) (r *row, disturbed, ok bool) {
	if opt.Seed%directedEvery != directedSeed || opt.Restores {
		return nil, false, false
	}
	k := opt.Seed / directedEvery
	return &rows[k%uint64(len(rows))], k/uint64(len(rows))%2 == 1, true
}

// direction is the stage of a directed run.
type direction struct{}

// scriptEnds unwinds a script that cannot go on.
type scriptEnds struct {
	missed bool
	text   string
}

func (direction) Helper() {}

func (direction) Fatal(args ...any) { panic(scriptEnds{text: fmt.Sprint(args...)}) }

func (direction) Fatalf(format string, args ...any) {
	panic(scriptEnds{text: fmt.Sprintf(format, args...)})
}

func (direction) Errorf(format string, args ...any) {
	panic(scriptEnds{text: fmt.Sprintf(format, args...)})
}

func (direction) Missed(format string, args ...any) {
	panic(scriptEnds{missed: true, text: fmt.Sprintf(format, args...)})
}

// direct plays a row in a world that was reset, and leaves it to chance.
func (w *World) direct(r *row, disturbed bool) {
	rest := w.prof // of the random part
	p := scriptProfile()
	p.Mode = r.modes[w.rng.IntN(len(r.modes))]
	p.DiskTime, p.NetTime, p.Sector = rest.DiskTime, rest.NetTime, rest.Sector
	w.prof = p
	w.scripted = true
	w.build()
	w.cover.count("run", "directed")
	w.tracef("row %d: %s", r.n, r.name)
	s := listen(w, direction{})
	s.pause = func() {
		switch x := w.rng.IntN(20); {
		case x < 6:
			s.pass(w.span(0, 30*millisecond))
		case x == 6:
			s.pass(w.span(0, second))
		}
	}
	if disturbed {
		w.after(w.span(100*millisecond, 4*second), func() {
			if w.scripted {
				w.fault(disturbances[w.rng.IntN(len(disturbances))], &w.nodes[w.rng.IntN(2)])
			}
		})
	}
	end := w.played(r, s)
	name := strconv.Itoa(r.n)
	switch {
	case end == nil:
		w.cover.count("row", name)
	case !end.missed && !disturbed:
		w.violate("row", "row %d (%s) in %s: %s", r.n, r.name, p.Mode, end.text)
	default:
		w.cover.count("row-left", name)
		w.tracef("the script ends here: %s", end.text)
	}
	w.scripted = false
	w.hooks = hooks{}
	s.fast()
	w.link.setCut(0, false)
	w.link.setCut(1, false)
	w.link.slow = 1
	rest.Mode, rest.DataSize, rest.Sector, rest.Larger, rest.Suspend, rest.AssumeClean = p.Mode, p.DataSize, p.Sector, 0, false, false
	w.prof = rest
	for i := range w.nodes {
		w.nodes[i].app.manual = false
	}
}

// disturbances are the faults that a script survives, or ends early by.
var disturbances = [...]faultKind{faultCrash, faultPower, faultFlap, faultSlowNet, faultSlowDisk, faultFreeze, faultDiskFlush, faultHalfOpen}

// played plays a row and says how its script ended; nil: as written.
func (w *World) played(r *row, s *script) (end *scriptEnds) {
	defer func() {
		switch x := recover().(type) {
		case nil:
		case scriptEnds:
			end = &x
		default:
			panic(x)
		}
	}()
	r.play(s)
	return nil
}
