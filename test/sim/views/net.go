package views

import (
	"math/rand/v2"

	"hastd/cluster/view"
)

// Network is who hears whom. Heartbeats and rounds go one way, what replicas say to
// each other another: either may be cut alone.
type Network struct {
	N         int
	Cut       [view.MaxNodes][view.MaxNodes]bool // from, to
	NoReplica [view.MaxNodes][view.MaxNodes]bool
	Loss      float64
	Twice     float64
	Late      float64 // chance of a long delay
}

// Init mends all links between so many nodes, and the network's habits.
func (t *Network) Init(n int) { *t = Network{N: n} }

// Latest is how late a message may be.
const Latest = 3 * second

// Arrivals draws after which delays a message arrives: none, one or two.
func (t *Network) Arrivals(r *rand.Rand, count func(what string)) (after []view.Duration) {
	times := 1
	if r.Float64() < t.Twice {
		times = 2
		count("fault message doubled")
	}
	for range times {
		if r.Float64() < t.Loss {
			count("fault message lost")
			continue
		}
		d := span(r, 1*millisecond, 10*millisecond)
		if r.Float64() < t.Late {
			d = span(r, 10*millisecond, Latest)
			count("fault message late")
		}
		after = append(after, d)
	}
	return after
}

// deliver brings something to a node, or does not, or twice.
func (w *World) deliver(from, to view.NodeID, replica bool, do func(n *node)) {
	for _, d := range w.net.Arrivals(w.rng, w.count) {
		w.after(d, func() {
			t := &w.net.Cut
			if replica {
				t = &w.net.NoReplica
			}
			// Cut when it arrives: what was under way is lost too.
			if !t[from][to] {
				n := w.nodes[to]
				n.whenAwake(true, func() { do(n) })
			}
		})
	}
}

// Set cuts one direction for everything, or mends it.
func (t *Network) Set(from, to view.NodeID, cut bool) {
	t.Cut[from][to] = cut
	t.NoReplica[from][to] = cut
}

// SetBoth cuts both directions, or mends them.
func (t *Network) SetBoth(a, b view.NodeID, cut bool) {
	t.Set(a, b, cut)
	t.Set(b, a, cut)
}

// CutOff cuts a node from all others.
func (t *Network) CutOff(a view.NodeID) { t.Split(^view.SetOf(a)) }

// Split leaves links only within a set.
func (t *Network) Split(s view.Set) {
	for a := range view.NodeID(t.N) {
		for b := range a {
			if !s.Has(a) || !s.Has(b) {
				t.SetBoth(a, b, true)
			}
		}
	}
}

func span(r *rand.Rand, a, b view.Duration) view.Duration {
	return a + view.Duration(r.Int64N(int64(b-a)+1))
}
