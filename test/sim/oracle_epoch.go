package sim

import "hastd/metadata"

// Section 5: epochs only go up. A replica's durable superblock never speaks of an
// older epoch than before, and when data begins to flow both say the same one, or a
// later verdict would take the wrong node for the one that was primary last.

// oracleEpoch judges a change of the durable superblock.
func (n *node) oracleEpoch(old, sb *metadata.Superblock) {
	if sb.Epoch.Less(old.Epoch) {
		n.w.violate("epoch", "%s: its epoch went back from %d.%d to %d.%d", n.name, old.Epoch.Number, old.Epoch.Node, sb.Epoch.Number, sb.Epoch.Node)
	}
}

// oracleOneEpoch looks at both media when the primary p says that data flows.
func (w *World) oracleOneEpoch(p *node) {
	s := w.peerOf(p)
	if p.sess == nil || s.sess != p.sess {
		return // the peer may be another by now, or none
	}
	if !p.judge.sbOK || !s.judge.sbOK || p.toldFailed || p.hadError || s.toldFailed {
		return // without a disk there is nothing to note it on
	}
	if a, b := p.judge.sb.Epoch, s.judge.sb.Epoch; a != b {
		w.violate("epoch", "data flows, but %s notes epoch %d.%d and %s epoch %d.%d", p.name, a.Number, a.Node, s.name, b.Number, b.Node)
	}
}
