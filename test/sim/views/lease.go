package views

import (
	"hastd/cluster/lease"
	"hastd/cluster/view"
)

// Beside each machine of the views stands that of the lease, as in vipd: it is told the
// views that are learned and what is stored, and tells from whom nothing may be taken.

const (
	leaseTime = 1 * second
	// regret is how long a node that renews no lease waits for the view it does so for:
	// those who gave it one wait for its end, and rounds are begun anew.
	regret = 6 * second
)

// leases is a node's part in leases.
type leases struct {
	m        *lease.Machine
	inc      view.Incarnation
	learned  []lease.Event // of the step under way, for its end
	released view.Instant
}

// lease feeds what a step of the views' machine told.
func (n *node) lease() {
	if n.m == nil {
		return
	}
	l := &n.leases
	if l.m == nil || l.inc != n.m.Inc() {
		l.inc = n.m.Inc()
		l.m = lease.New(lease.Config{Self: n.id, Inc: l.inc, Lease: leaseTime, Every: beatEvery})
	}
	events := l.learned
	l.learned = nil
	for _, ev := range events {
		n.leaseStep(ev)
	}
}

func (n *node) leaseStep(ev lease.Event) {
	w := n.w
	if n.m == nil || n.leases.m == nil {
		return
	}
	life, guarded := n.life, false
	for _, e := range n.leases.m.Step(w.now, ev) {
		if life != n.life {
			return
		}
		from, inc := n.id, n.leases.inc
		others := func(ev lease.Event) {
			for _, o := range w.nodes {
				if o != n {
					w.deliver(n.id, o.id, false, func(to *node) { to.leaseStep(ev) })
				}
			}
		}
		switch e := e.(type) {
		case lease.SendRenew:
			others(lease.Renew{From: from, Inc: inc, Number: e.Number, Round: e.Round})
		case lease.SendConfirm:
			w.deliver(n.id, e.To, false, func(to *node) {
				to.leaseStep(lease.Confirm{From: from, Inc: inc, Number: e.Number, Round: e.Round})
			})
		case lease.Until:
			if e.At != 0 {
				w.count("lease")
			}
			n.m.Guard(n.id, e.At)
			guarded = true
		case lease.Guard:
			n.m.Guard(e.Node, e.At)
			guarded = true
		}
	}
	if guarded {
		n.step(view.Tick{})
	}
	w.oracleLease(n)
}

// move hands a resource over: its owner, if it can be reached, gives it up itself.
func (w *World) move(resource string, to view.NodeID, n *node) {
	if id := w.newestOwner(resource); id != view.Nobody && w.nodes[id].m != nil && !w.nodes[id].asleep {
		n = w.nodes[id]
	}
	n.step(view.Move{Resource: resource, To: to})
}

// oracleLease: while a node's lease lasts, no view takes from it what it owns by the
// view that the lease is of.
func (w *World) oracleLease(n *node) {
	b := &w.books
	if n.m == nil || n.leases.m == nil || b.Newest == nil || b.Forced || n.leases.m.Until() <= w.now {
		return
	}
	mine := n.m.View()
	if mine == nil || mine.Stamp == b.Newest.Stamp {
		return
	}
	for i := range mine.Resources {
		r := &mine.Resources[i]
		if r.Owner != n.id {
			continue
		}
		next := b.Newest.Resource(r.Name)
		if next != nil && next.Handed {
			continue
		}
		if m := b.Newest.Member(n.id); next == nil || next.Owner != n.id || m == nil || m.Inc != n.m.Inc() {
			w.violate("lease", "node %d may serve %s by view %s for %d ms more, and view %s is learned, which takes it", n.id, r.Name, mine.Stamp,
				(n.leases.m.Until()-w.now)/view.Instant(millisecond), b.Newest.Stamp)
		}
	}
}
