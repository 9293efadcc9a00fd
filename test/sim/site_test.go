package sim

import "testing"

// TestSideBySide: a run is the same alone and beside others in one process. What a
// package kept for itself would show: the pairs share nothing.
func TestSideBySide(t *testing.T) {
	groups := 40
	if testing.Short() {
		groups = 8
	}
	alone := NewWorld()
	worlds := []*World{NewWorld(), NewWorld(), NewWorld()}
	seed := uint64(2)
	for range groups {
		var want [3]Result
		for i := range worlds {
			for seed++; seed%directedEvery == directedSeed; seed++ { // a script is played in one go
			}
			opt := Options{Seed: seed, Events: 600}
			want[i] = alone.Run(opt)
			if want[i].Violation != nil {
				t.Fatal(want[i].Violation)
			}
			worlds[i].prepare(opt)
		}
		for {
			w := earliest(worlds)
			if w == nil {
				break
			}
			w.advance()
		}
		for i, w := range worlds {
			if got := w.result(); got != want[i] {
				t.Errorf("seed %d beside others: %+v; alone: %+v", w.opt.Seed, got, want[i])
			}
		}
	}
}

// TestSiteIsOneHost: whatever happens to a host happens to all pairs at one instant.
func TestSiteIsOneHost(t *testing.T) {
	s := NewSite()
	seen := map[nodeState]bool{}
	sites, frozen := 0, false
	for seed := uint64(siteSeed); sites < 12; seed += siteEvery {
		s.build(Options{Seed: seed, Events: 2000})
		if len(s.pairs) < 2 {
			continue
		}
		sites++
		for s.advance() {
			for h := range 2 {
				a := &s.pairs[0].nodes[h]
				seen[a.state] = true
				for _, w := range s.pairs[1:] {
					b := &w.nodes[h]
					if a.state != b.state || a.skew != b.skew || a.wall != b.wall || a.thaw != b.thaw {
						t.Fatalf("seed %d at %d: host %s is in state %d, %d for another pair; clocks %d, %d; frozen until %d, %d", seed, s.now, a.name, a.state, b.state, a.skew, b.skew, a.thaw, b.thaw)
					}
				}
				frozen = frozen || a.thaw != 0
			}
		}
	}
	if !seen[off] || !seen[stopped] || !seen[running] || !frozen {
		t.Errorf("seen states %v, frozen %v", seen, frozen)
	}
}
