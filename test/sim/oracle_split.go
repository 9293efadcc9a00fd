package sim

import (
	"hastd/metadata"
	"hastd/replicate"
)

// Invariant 3: writes acknowledged apart are reported as split-brain on both
// nodes, and no byte of either is overwritten until a person chose.

// oracleOverwrite: the replica durably became inconsistent: it is about to be
// overwritten, or its own disk failed.
func (n *node) oracleOverwrite() {
	w, j := n.w, &n.judge
	p := w.peerOf(n)
	l := &w.ledger
	if n.recovering {
		if p.judge.sb.Marks.Has(metadata.Outdated | metadata.Forced | metadata.Inconsistent) {
			w.restored = true // a person took the replica that was known to lack something
		}
		n.discard()
		return
	}
	if n.judge.term != 0 && w.diskFault {
		return // its disk failed, and the peer keeps the record
	}
	if j.alone {
		w.violate("overwrite", "%s is to be overwritten, although it acknowledged writes that %s lacks and nobody discarded them", n.name, p.name)
	}
	if w.prof.Mode == replicate.Async || p.judge.wild || j.wild || p.judge.sb.Marks.Has(metadata.Forced) {
		return
	}
	if p.judge.sb.Resuid != j.sb.Resuid {
		return // a person made the one anew that this node agreed with, and slept
	}
	for s, f := range j.floor {
		g := p.judge.floor[s]
		if f == g || f == 0 || !p.consistent() {
			continue
		}
		if s >= len(p.disk.cur) {
			break
		}
		if _, ok := l.permitted(s, p.disk.cur[s], f); !ok && !l.superseded(&l.writes[f], g) {
			w.violate("overwrite", "%s is to be overwritten, although write %d in sector %d was acknowledged and flushed there and %s lacks it", n.name, f, s, p.name)
		}
	}
}

// discard: an operator gave up this replica.
func (n *node) discard() {
	j := &n.judge
	n.moment(momentGiven)
	clear(j.floor)
	j.gone += len(j.pending)
	j.pending = j.pending[:0]
	j.alone = false
	j.wild = false
}

// oracleReport looks at what people are told.
func (w *World) oracleReport(n *node, r *replicate.Report) {
	switch r.Kind {
	case replicate.ReportRole:
		if n.primary {
			n.steppedAlone = !n.inFlow() && !n.linked
		}
		n.primary = r.New == metadata.Primary.String()
		n.toldSuspended = n.toldSuspended && !n.primary // (a demotion ends it without a word)
		n.sleep = sleeper{}                             // a promotion asks for itself
	case replicate.ReportVerdict:
		n.heardOfPeer()
	case replicate.ReportSuspended, replicate.ReportResumed:
		n.toldSuspended = r.Kind == replicate.ReportSuspended
	case replicate.ReportDataLoss:
		// Told: what no flush covered may be gone, and the next flush says so too.
		j := &n.judge
		w.eioOK = true
		if n.consistent() && !w.diskFault && !j.sb.Marks.Has(metadata.Outdated) {
			w.violate("loss", "%s reports a loss of data although its own replica is good: %s", n.name, r.Reason)
		}
		w.tick++
		j.lossAt = w.tick
		j.gone += len(j.pending)
		j.pending = j.pending[:0]
		j.forget()
		clear(j.seenAt)
	case replicate.ReportSplitBrain:
		p := w.peerOf(n)
		// Section 12: both raised, and one of them died before it acknowledged anything. Or
		// one raised for a primary that never heard of it, and goes on with its own replica.
		raised := n.judge.sb.Marks.Has(metadata.Raised) && p.judge.sb.Marks.Has(metadata.Raised) || n.judge.unused() || p.judge.unused()
		if !raised && !n.judge.forced && !p.judge.forced && !(n.judge.primaryOnce && p.judge.primaryOnce) &&
			!n.promotedSince(p) && !p.promotedSince(n) {
			w.violate("false-split", "%s reports split-brain (%s), but since data flowed last only one node was primary and nobody used force", n.name, r.Reason)
		}
	}
}

// forked says whether both nodes acknowledged apart from each other.
func (w *World) forked() bool {
	return w.nodes[0].judge.alone && w.nodes[1].judge.alone
}

// splitTime is how long two nodes that can reach each other may take to say
// split-brain. The operator who helps waits a little longer.
const splitTime = 3 * second

// oracleFork: when both wrote apart and can reach each other, both must say so
// soon, and say that and nothing milder.
func (w *World) oracleFork() {
	if !w.forked() || !w.canMeet() {
		w.forkSince = 0
		return
	}
	if w.forkSince == 0 {
		w.forkSince = w.now
	}
	if w.now-w.forkSince <= splitTime {
		return
	}
	for i := range w.nodes {
		n := &w.nodes[i]
		if st := n.status(); st.Status != "split-brain" && st.Connection != "split-brain" {
			w.violate("split", "%s could reach its peer for %ds and says %s/%s, although both nodes acknowledged writes apart", n.name, splitTime/second, st.Status, st.Connection)
		}
	}
}

// canMeet says whether nothing keeps the two from judging each other, and nothing
// but a split-brain can be the verdict.
func (w *World) canMeet() bool {
	l := &w.link
	if l.cut[0] || l.cut[1] || l.slow > 1 || w.strangers() || w.skewed() {
		return false
	}
	primaries := 0
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.state != running || n.asleep > w.now || !n.wantConnect || n.disk.slow > 1 || n.disk.gone || n.recovering || !n.consistent() || !n.idleOrders() ||
			n.judge.sb.Size > w.peerOf(n).judge.sb.DataSize {
			return false
		}
		st := n.status()
		if st.Disk == "failed" || st.Role == metadata.Init {
			return false
		}
		if st.Role == metadata.Primary {
			primaries++
		}
	}
	return primaries < 2
}

// promotedSince: its superblock says that it was promoted after the other one, even
// if it died before anybody saw it as primary.
func (n *node) promotedSince(p *node) bool {
	e := n.judge.sb.Epoch
	return p.judge.sb.Epoch.Less(e) && e.Node == metadata.NodeID(n.id+1)
}
