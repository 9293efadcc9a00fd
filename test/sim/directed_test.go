package sim

import (
	"fmt"
	"testing"
)

// TestDirected plays each row with random times around it until it came to its end,
// undisturbed, and once with a fault that nobody expects.
func TestDirected(t *testing.T) {
	rounds := uint64(2)
	if !testing.Short() {
		rounds = 6
	}
	w := NewWorld()
	for i, r := range rows {
		c := NewCoverage()
		for round := range rounds {
			seed := (round*uint64(len(rows))+uint64(i))*directedEvery + directedSeed
			if res := w.Run(Options{Seed: seed, Events: 1, Cover: c}); res.Violation != nil {
				t.Error(res.Violation)
			}
		}
		if key := fmt.Sprint("row ", r.n); c.Other[key] == 0 {
			t.Errorf("%s (%s) never came to its end: %v", key, r.name, c.Other)
		}
	}
}
