package views

import (
	"hastd/cluster/view"
)

// network is who hears whom. Heartbeats and rounds go one way, what replicas say to
// each other another: either may be cut alone.
type network struct {
	n         int
	cut       [view.MaxNodes][view.MaxNodes]bool // from, to
	noReplica [view.MaxNodes][view.MaxNodes]bool
	loss      float64
	twice     float64
	late      float64 // chance of a long delay
}

func (t *network) init(n int) { *t = network{n: n} }

func (t *network) heal() { t.init(t.n) }

// latest is how late a message may be.
const latest = 3 * second

// deliver brings something to a node, or does not, or twice.
func (w *World) deliver(from, to view.NodeID, replica bool, do func(n *node)) {
	times := 1
	if w.chance(w.net.twice) {
		times = 2
		w.count("fault message doubled")
	}
	for range times {
		if w.chance(w.net.loss) {
			w.count("fault message lost")
			continue
		}
		d := w.span(1*millisecond, 10*millisecond)
		if w.chance(w.net.late) {
			d = w.span(10*millisecond, latest)
			w.count("fault message late")
		}
		w.after(d, func() {
			t := &w.net.cut
			if replica {
				t = &w.net.noReplica
			}
			// Cut when it arrives: what was under way is lost too.
			if !t[from][to] {
				n := w.nodes[to]
				n.whenAwake(true, func() { do(n) })
			}
		})
	}
}

// set cuts one direction for everything, or mends it.
func (t *network) set(from, to view.NodeID, cut bool) {
	t.cut[from][to] = cut
	t.noReplica[from][to] = cut
}

func (t *network) setBoth(a, b view.NodeID, cut bool) {
	t.set(a, b, cut)
	t.set(b, a, cut)
}
