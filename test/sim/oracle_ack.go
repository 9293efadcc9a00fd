package sim

import (
	"hastd/metadata"
	"hastd/replicate"
)

// Rule 3.2: nothing is acknowledged that the peer does not back unless the
// primary's superblock says so durably; rule 4.1 likewise for the peer after the
// primary's disk failed; and the crashed-primary mark stands before the first
// acknowledgement of a term.

// oracleAck judges the acknowledgement of a write.
func (n *node) oracleAck(r *request) {
	w := n.w
	x := &w.ledger.writes[r.write]
	p := w.peerOf(n)
	own, peer := x.on(n.id), x.on(p.id)
	backed := peer
	switch w.prof.Mode {
	case replicate.Memsync:
		backed = peer || x.received
	case replicate.Async:
		// Connected, the peer may lag behind; what was issued and answered without a
		// connection is backed by nobody.
		backed = peer || !x.apart || n.linked
	}
	j := &n.judge
	switch {
	case !own && !peer:
		w.violate("ack", "%s: write %d was acknowledged, but no disk completed it", n.name, r.write)
	case !own:
		// (A peer that was created anew since took its record with it.)
		if !p.judge.sb.Marks.Has(metadata.Raised) && p.judge.sb.Resuid == j.sb.Resuid {
			w.violate("ack", "%s: write %d was acknowledged from %s's replica alone, whose superblock does not say raised", n.name, r.write, p.name)
		}
		if n.consistent() {
			w.violate("ack", "%s: write %d was acknowledged although only %s has it and nothing durable says that the own replica is inconsistent", n.name, r.write, p.name)
		}
		p.judge.alone = true
	case !backed:
		// Begun alone and ended while the peer is being filled: a dirty bit sees to it.
		filling := x.apart && (n.inFlow() || n.linked) && p.judge.sb.Marks.Has(metadata.Inconsistent)
		if !j.sb.Marks.Has(metadata.Raised) && !filling {
			w.violate("ack", "%s: write %d was acknowledged alone, but its superblock does not say raised", n.name, r.write)
		}
		if w.prof.Mode != replicate.Fullsync && !n.inFlow() || w.prof.Mode == replicate.Fullsync {
			j.alone = true
			n.oracleSleeper(r.write)
		}
	}
	if own && n.consistent() && !j.sb.Marks.Has(metadata.CrashedPrimary) {
		w.violate("ack", "%s: write %d was acknowledged, but its superblock does not say crashed-primary", n.name, r.write)
	}
	if own && !n.consistent() && !peer && !j.wild {
		w.violate("ack", "%s: write %d was acknowledged on an inconsistent replica alone", n.name, r.write)
	}
}
