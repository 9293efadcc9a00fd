package views

import (
	"bytes"
	"fmt"
	"testing"

	"hastd/cluster/view"
)

// TestCases plays the cases of the cluster rules that views decide, each at many times.
func TestCases(t *testing.T) {
	seeds := uint64(20)
	if testing.Short() {
		seeds = 4
	}
	for i := range Cases {
		c := &Cases[i]
		t.Run(fmt.Sprintf("row %d %s", c.Row, c.Name), func(t *testing.T) {
			for seed := uint64(1); seed <= seeds; seed++ {
				r := PlayCase(c, Options{Seed: seed})
				if r.Violation == nil {
					continue
				}
				var b bytes.Buffer
				PlayCase(c, Options{Seed: seed, Trace: &b})
				t.Fatalf("%v\n%s", r.Violation, b.String())
			}
		})
	}
}

// TestCase13: a node ends at each of its effects while three changes are made at once.
func TestCase13(t *testing.T) {
	for shape := range shapes {
		if testing.Short() && shape != 2 {
			continue
		}
		nodes := shapes[shape].data + shapes[shape].witness
		t.Run(fmt.Sprintf("%d data %d witness %d resources", shapes[shape].data, shapes[shape].witness, len(shapes[shape].pairs)), func(t *testing.T) {
			for victim := range nodes {
				ends := 0
				for step := 1; step <= 30; step += 1 + shape%3 {
					opt := Options{Seed: uint64(100*shape + step)}
					r, ended := Twice(shape, view.NodeID(victim), step, opt)
					if ended {
						ends++
					}
					if r.Violation == nil {
						continue
					}
					var b bytes.Buffer
					opt.Trace = &b
					Twice(shape, view.NodeID(victim), step, opt)
					t.Fatalf("node %d ends at effect %d: %v\n%s", victim, step, r.Violation, b.String())
				}
				if ends < 8 {
					t.Errorf("node %d ended in %d of the runs only", victim, ends)
				}
			}
		})
	}
}
