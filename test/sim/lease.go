package sim

import "hastd/replicate"

// With quorum the shell looks at the lease once more right before applications are told
// (replicate/runner/lease.go): the process may have stood still since the machine
// decided, and here it does so now and then.

// shellLease is a daemon's part in the lease.
type shellLease struct {
	grant    replicate.Grant    // what the machine took last
	decided  []replicate.Effect // answers of the turn under way
	withheld []replicate.Effect // successes that wait for the lease
	leaving  bool               // the provider is being stopped
}

// granted keeps what the machine accepted.
func (n *node) granted() {
	if n.w.prof.Quorum {
		n.lease.grant = n.status().Grant
	}
}

// mayAnswer says whether applications may be told now that something succeeded.
func (n *node) mayAnswer() bool {
	return n.lease.grant.Owner && n.clock() < n.lease.grant.Until
}

// decided takes an answer of the machine. With quorum it is told at the end of the turn;
// what was read from the peer is in the application's memory by then.
func (n *node) decided(e *replicate.Effect) {
	if !n.w.prof.Quorum {
		n.reply(e)
		return
	}
	if e.Buf != 0 && e.Err == replicate.OK {
		r := &n.w.ledger.reqs[e.Req]
		body := n.named(e.Buf, "EffReply")
		if len(body.stamps) < int(r.n) {
			n.w.violate("handles", "%s: a read is answered from a body that is too short", n.name)
		}
		copy(n.lookup(r.buf).stamps, body.stamps[:r.n])
	}
	e.Buf = 0
	n.lease.decided = append(n.lease.decided, *e)
}

// tell ends a turn: applications are told, unless the process stands still first.
func (n *node) tell() {
	l := &n.lease
	if len(l.decided) == 0 && len(l.withheld) == 0 {
		return
	}
	if f := n.w.hooks.pause; f != nil && len(l.decided) > 0 {
		if d := f(n); d > 0 {
			n.tellLater(d)
			return
		}
	}
	n.tellNow()
}

func (n *node) tellLater(d int64) {
	life := n.life
	n.w.after(d, func() {
		switch {
		case n.life != life:
		case n.frozen():
			n.tellLater(n.thaw - n.w.now)
		default:
			n.tellNow()
		}
	})
}

// tellNow leaves to be told what may be: without a lease only failures. The rest waits
// for the lease; once the device goes away it has failed.
func (n *node) tellNow() {
	l := &n.lease
	may := n.mayAnswer()
	told := append(l.withheld, l.decided...)
	l.withheld, l.decided = nil, l.decided[:0]
	for i := range told {
		e := &told[i]
		switch {
		case may || e.Err != replicate.OK:
		case l.leaving:
			e.Err = replicate.ErrIO
		default:
			n.w.cover.fault("answer-withheld")
			l.withheld = append(l.withheld, *e)
			continue
		}
		n.reply(e)
	}
}
