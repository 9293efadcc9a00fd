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
		n.discard()
		return
	}
	if n.judge.term != 0 && w.diskFault {
		return // its disk failed, and the peer keeps the record
	}
	if j.snapshotOld {
		return
	}
	if j.alone && !p.judge.snapshotOld {
		w.violate("overwrite", "%s is to be overwritten, although it acknowledged writes that %s lacks and nobody discarded them", n.name, p.name)
	}
	if w.prof.Mode == replicate.Async || p.judge.wild || j.wild || p.judge.sb.Marks.Has(metadata.Forced) {
		return
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
	clear(j.floor)
	j.gone += len(j.pending)
	j.pending = j.pending[:0]
	j.alone = false
	j.wild = false
}

// oracleReport looks at what people are told.
func (w *World) oracleReport(n *node, r *replicate.Report) {
	switch r.Kind {
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
		j.pending, j.seen = j.pending[:0], j.seen[:0]
		clear(j.seenAt)
	case replicate.ReportSplitBrain:
		p := w.peerOf(n)
		// Section 12: both raised, and one of them died before it acknowledged anything.
		raised := n.judge.sb.Marks.Has(metadata.Raised) && p.judge.sb.Marks.Has(metadata.Raised)
		if !raised && !n.judge.forced && !p.judge.forced && !(n.judge.primaryOnce && p.judge.primaryOnce) && !n.judge.snapshotOld && !p.judge.snapshotOld {
			w.violate("false-split", "%s reports split-brain (%s), but since data flowed last only one node was primary and nobody used force", n.name, r.Reason)
		}
	}
}

// forked says whether both nodes acknowledged apart from each other.
func (w *World) forked() bool {
	return w.nodes[0].judge.alone && w.nodes[1].judge.alone
}

// splitTime is how long two connected nodes may take to say split-brain.
const splitTime = 20 * second

// oracleFork: with both connected and both parted, both must say so soon.
func (w *World) oracleFork() {
	if !w.forked() {
		return
	}
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.state != running || n.sess == nil || n.frozen() || w.link.cut[0] || w.link.cut[1] {
			n.judge.splitSince = 0
			continue
		}
		st := n.status()
		if st.Status == "split-brain" || st.Connection == "split-brain" || st.Disk == "failed" {
			n.judge.splitSince = 0
			continue
		}
		if n.judge.splitSince == 0 {
			n.judge.splitSince = w.now
		}
		if w.now-n.judge.splitSince > splitTime && st.Role != metadata.Init {
			w.violate("split", "%s is connected for %ds and says %s/%s, although both nodes acknowledged writes apart", n.name, splitTime/second, st.Status, st.Connection)
		}
	}
}
