package sim

import (
	"hastd/metadata"
	"hastd/replicate"
)

// Invariant 4: a replica that is inconsistent or outdated is not promoted without
// force unless its peer is connected and up to date; a force is on disk before the
// provider exists.

func (n *node) oraclePromotion(e *replicate.Effect) {
	w, j := n.w, &n.judge
	p := w.peerOf(n)
	bad := metadata.Inconsistent | metadata.Outdated
	if !j.sbOK || j.sb.Resuid == 0 {
		w.violate("promote", "%s: a provider is started although no resuid is durable", n.name)
	}
	if j.sb.Marks.Has(bad) || n.mark {
		if !(n.sess != nil && p.sess == n.sess && p.judge.sbOK && p.judge.sb.Resuid == j.sb.Resuid && !p.judge.sb.Marks.Has(bad) && !p.mark && p.state == running) && n.sess == nil && !n.lostMeanwhile() {
			w.violate("promote", "%s is promoted with marks %s and without an up-to-date peer", n.name, j.sb.Marks)
		}
	}
	if j.sb.Size == 0 {
		w.violate("promote", "%s: a provider is started although no size is durable", n.name)
	}
	if e.Size > j.sb.Bytes() || e.Size != j.sb.Size {
		w.violate("promote", "%s: a provider of %d bytes on a replica of %d", n.name, e.Size, j.sb.Size)
	}
	n.startTerm()
}

// oracleForced: the mark of a force replaces others only if somebody ordered it.
func (n *node) oracleForced(old *metadata.Superblock) {
	if n.judge.ordered {
		return
	}
	n.w.violate("promote", "%s: its superblock says forced instead of %s, although nobody ordered a promotion by force", n.name, old.Marks)
}

// forcing says whether an order to promote by force is being carried out.
func (n *node) forcing() bool {
	for _, o := range n.commands {
		if o.kind == replicate.CmdRole && o.role == metadata.Primary && o.force && !o.done {
			return true
		}
	}
	return false
}

// lostMeanwhile says whether the peer was still connected when the order to promote
// came: nothing can keep it from going away afterwards, and the primary suspends.
func (n *node) lostMeanwhile() bool {
	for _, o := range n.commands {
		if o.kind == replicate.CmdRole && o.role == metadata.Primary && n.judge.downAt >= o.asked {
			return true
		}
	}
	return false
}

// oracleCommand notes orders that change what is expected.
func (n *node) oracleCommand(c *replicate.Command) {
	switch c.Kind {
	case replicate.CmdRecover:
		n.recovering = true
	case replicate.CmdDisconnect:
		n.sleep = sleeper{} // by order: the peer is not asked for
	case replicate.CmdResume:
		n.sleep = sleeper{} // by order: it goes on alone
		if c.WithError {
			n.w.eioOK = true
		}
	case replicate.CmdRole:
		if c.Force && c.Role != metadata.Primary {
			n.w.eioOK = true
		}
		if c.Force && c.Role == metadata.Primary {
			// However it ends: a commit that failed may have reached the medium.
			n.judge.ordered = true
		}
	case replicate.CmdShutdown:
		n.w.eioOK = true
	}
}

// oracleAnswer looks at how orders ended.
func (n *node) oracleAnswer(o *order) {
	switch {
	case o.kind == replicate.CmdRecover && o.answer != nil && o.answer.Code != replicate.RefusedIO:
		// (A commit that failed may have reached the medium all the same. One that was
		// refused because another one is carried out ends nothing.)
		if !n.judge.sb.Marks.Has(metadata.Inconsistent) && !n.toRecover(o) {
			n.recovering = false
		}
	case o.kind == replicate.CmdRole && o.role != metadata.Primary && o.answer == nil && !o.force && o.was:
		n.demoted()
	}
	if o.kind == replicate.CmdRole && o.role == metadata.Primary && o.answer == nil && n.prov == provNone {
		n.w.violate("promote", "%s: promotion answered with success, but there is no provider", n.name)
	}
}

// toRecover says whether another order to give up the data is under way.
func (n *node) toRecover(but *order) bool {
	for _, o := range n.commands {
		if o != but && o.kind == replicate.CmdRecover {
			return true
		}
	}
	return false
}

// demoted: a clean demotion flushed both replicas. One while suspended is not clean, also
// if nothing was written that left a mark. One without a peer holds for what was written,
// which was raised for; what was only shown, no application had flushed.
func (n *node) demoted() {
	if n.judge.sb.Marks.Has(metadata.CrashedPrimary) || n.hadError || n.toldSuspended {
		return // it could not
	}
	r := request{kind: replicate.ReqFlush, term: n.judge.term}
	r.pend, r.seen = n.judge.marks()
	if n.steppedAlone {
		r.seen = 0
	}
	n.flushAcknowledged(&r)
}
