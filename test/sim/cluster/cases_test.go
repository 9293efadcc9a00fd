package cluster

import (
	"bytes"
	"fmt"
	"testing"

	"hastd/cluster/view"
	"hastd/test/sim/views"
)

// TestCases plays the cases of the cluster rules with replicas, each at several times.
func TestCases(t *testing.T) {
	seeds := uint64(6)
	if testing.Short() {
		seeds = 2
	}
	for i := range Cases {
		c := &Cases[i]
		t.Run(fmt.Sprintf("row %d %s", c.Row, c.Name), func(t *testing.T) {
			for seed := uint64(1); seed <= seeds; seed++ {
				play := func(opt views.Options) views.Result { return PlayCase(c, opt) }
				fails(t, seed, play)
			}
		})
	}
}

// TestCase13: a node ends at each of its effects while three changes are made at once.
func TestCase13(t *testing.T) {
	every := 2
	if testing.Short() {
		every = 6
	}
	for victim := range view.NodeID(3) {
		t.Run(fmt.Sprintf("node %d", victim), func(t *testing.T) {
			ends := 0
			for step := 1; step <= 24; step += every {
				fails(t, uint64(step), func(opt views.Options) views.Result {
					ended, r := Thrice(victim, step, opt)
					if ended {
						ends++
					}
					return r
				})
			}
			if ends < 12/every {
				t.Errorf("vipd ended in %d of the runs only", ends)
			}
		})
	}
}

// fails tells of a violation with its transcript.
func fails(t *testing.T, seed uint64, play func(views.Options) views.Result) {
	t.Helper()
	r := play(views.Options{Seed: seed})
	if r.Violation == nil {
		return
	}
	var b bytes.Buffer
	play(views.Options{Seed: seed, Trace: &b})
	text := b.Bytes()
	t.Fatalf("%v\n%s", r.Violation, text[max(0, len(text)-20_000):])
}
