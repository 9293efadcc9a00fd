package sim

import (
	"hastd/metadata"
	"hastd/replicate"
)

// nodeJudge is what the oracles know of one node.
type nodeJudge struct {
	// The superblock that a power loss now would leave.
	sb   metadata.Superblock
	sbOK bool

	sectors int   // the provider's size
	term    int32 // of the provider now; 0: none
	last    int32 // of the provider now or, while the role ends, before
	// What this node's replica came from: a term, and which of its writes.
	from int32
	cut  uint32

	floor  []int32 // by sector: newest write that this replica must not lose while consistent
	given  []int32 // the floor when this replica, as the source of a sync, noted its end
	view   []int32 // the same for what the present provider shows
	seenW  []int32 // what a read of this term showed last
	seenAt []uint32
	seen   []observation // in order of the reads
	forgot int           // how many there were before these

	pending []int32 // acknowledged writes that no flush made durable
	gone    int     // how many were taken from its front

	alone       bool // acknowledged something that its peer lacks, since they were equal last
	asked       bool // its primary, whose disk failed, asked it to keep the record for both
	unheard     bool // raised by a write of which no machine heard that it was durable, or for a primary that never heard
	primaryOnce bool // was primary since data flowed last between the two
	forced      bool // promoted by force since
	ordered     bool // somebody ordered that since a sync into it was completed
	wild        bool // its replica is a mixture that was promoted by force
	lastDown    uint32
	givenFrom   int32 // what it came from then
	givenCut    uint32
	lossAt      uint32 // when the loss of writes was last reported
	downAt      int64  // when the last session ended, in virtual time
}

type observation struct {
	sec   int32
	write int32
}

func (j *nodeJudge) reset(w *World) {
	n := len(w.ledger.head)
	if cap(j.floor) < n {
		j.floor, j.given, j.view, j.seenW, j.seenAt = make([]int32, n), make([]int32, n), make([]int32, n), make([]int32, n), make([]uint32, n)
	}
	*j = nodeJudge{floor: j.floor[:n], given: j.given[:n], view: j.view[:n], seenW: j.seenW[:n], seenAt: j.seenAt[:n], seen: j.seen[:0], pending: j.pending[:0], sectors: int(w.prof.DataSize / sectorSize)}
	clear(j.floor)
	clear(j.given)
	clear(j.view)
	clear(j.seenW)
	clear(j.seenAt)
}

// unused says whether it raised for nothing: nobody heard of it, and nothing was
// acknowledged by it.
func (j *nodeJudge) unused() bool { return j.unheard && !j.alone }

// forget: what reads showed until now fixes nothing any more, and a flush that was issued
// before covers none of what they show from now on.
func (j *nodeJudge) forget() {
	j.forgot += len(j.seen)
	j.seen = j.seen[:0]
}

// marks says what a flush issued now covers.
func (j *nodeJudge) marks() (pending, seen int32) {
	return int32(j.gone + len(j.pending)), int32(j.forgot + len(j.seen))
}

// consistent says whether the replica promises what its floor says: its stable
// superblock does not say inconsistent, nor does the state directory.
func (n *node) consistent() bool {
	return n.judge.sbOK && n.judge.sb.Resuid != 0 && !n.judge.sb.Marks.Has(metadata.Inconsistent) && !n.mark && !n.judge.wild
}

// sound says whether the replica can be read: consistent, not known to be old, on a
// disk that works.
func (n *node) sound() bool {
	return n.consistent() && !n.judge.sb.Marks.Has(metadata.Outdated) && !n.toldFailed
}

// inFlow says whether data flows on the node's connection.
func (n *node) inFlow() bool { return n.sess != nil && n.sess.flow[n.id] }

// judgeSuper looks at the stable superblock after something may have changed it.
func (n *node) judgeSuper() {
	j := &n.judge
	sb, ok := newestSuper(n.disk.metaStable)
	if !ok {
		if j.sbOK {
			n.w.violate("metadata", "%s: no copy of the superblock is whole", n.name)
		}
		return
	}
	old, was := j.sb, j.sbOK
	j.sb, j.sbOK = sb, true
	j.unheard = j.unheard && was
	if !was || old.Sequence == sb.Sequence {
		return
	}
	n.w.cover.marks(sb.Marks)
	switch {
	case !sb.Marks.Has(metadata.Raised):
		j.unheard = false
	case !old.Marks.Has(metadata.Raised) && (!n.committed || j.asked && !n.primary):
		// Refused or cut off, and there nevertheless; or taken over for a primary that
		// acknowledges nothing before it hears of that.
		j.unheard = true
	}
	if n.w.trace != nil {
		n.w.tracef("%s: durable %d/%d epoch %d.%d marks %s pair %s prev %s", n.name, sb.Localcnt, sb.Remotecnt, sb.Epoch.Number, sb.Epoch.Node, sb.Marks, sb.Pair, sb.PairPrev)
	}
	n.oracleEpoch(&old, &sb)
	n.oracleMarks(&old, &sb)
}

// startTerm begins the time of a provider.
func (n *node) startTerm() {
	w, j := n.w, &n.judge
	p := w.peerOf(n)
	n.moment(momentTerm)
	w.tick++
	own := (n.consistent() || j.wild) && !j.sb.Marks.Has(metadata.Outdated)
	src := n
	if !own && n.sess != nil && n.sess == p.sess && (p.consistent() || p.judge.wild) {
		src = p
	}
	t := term{node: uint8(n.id), parent: src.judge.from, cut: min(src.judge.cut, w.tick), start: w.tick, wild: j.wild || src.judge.wild}
	w.ledger.terms = append(w.ledger.terms, t)
	j.term = int32(len(w.ledger.terms) - 1)
	j.last = j.term
	j.primaryOnce = true
	if src == n {
		j.from, j.cut = j.term, never
	}
	// What was acknowledged in earlier terms and not flushed is covered by a flush of
	// this one only as far as this replica is what is shown.
	kept := 0
	for _, id := range j.pending {
		if x := &w.ledger.writes[id]; src == n && !t.wild && x.on(n.id) && w.ledger.visible(x, j.term) {
			j.pending[kept] = id
			kept++
		}
	}
	j.gone += len(j.pending)
	j.gone -= kept
	j.pending = j.pending[:kept]
	copy(j.view, src.judge.floor)
	if t.wild {
		clear(j.view)
		clear(j.floor)
		clear(src.judge.floor)
		j.wild, src.judge.wild = false, false
	}
	clear(j.seenAt)
	j.forget()
	if j.sb.Size != 0 {
		j.sectors = int(j.sb.Size / sectorSize)
	} else {
		j.sectors = int(j.sb.DataSize / sectorSize)
	}
	w.tracef("%s: term %d from term %d (cut %d) wild %v", n.name, j.term, t.parent, t.cut, t.wild)
	if w.hooks.term != nil {
		w.hooks.term(n, src, own || src != n)
	}
}

// oracleTermEnds: the provider is gone.
func (n *node) oracleTermEnds() { n.judge.term = 0 }

// oracleProcessGone: the daemon died.
func (n *node) oracleProcessGone() {
	n.w.tick++
	n.closeCut()
	n.judge.term, n.judge.last = 0, 0
}

// closeCut: nothing the peer writes from now on can be in this replica.
func (n *node) closeCut() {
	j := &n.judge
	if j.cut == never && j.from != j.term {
		j.cut = n.w.tick
	}
}

// oracleSessionDown: the node gives up a connection.
func (n *node) sessionEnded() {
	n.w.tick++
	n.closeCut()
	n.judge.lastDown, n.judge.downAt = n.w.tick, n.w.now
}

func (w *World) oracleSessionDown(n *node) { n.sessionEnded() }

// oraclePowerLost: the caches are gone, and with them what was only in them.
func (n *node) oraclePowerLost() {
	j := &n.judge
	j.gone += len(j.pending)
	j.pending = j.pending[:0]
	n.checkFloor("after a power loss", n.disk.stable)
}

// join: from here on both replicas hold the same and move together.
func (w *World) join(p, s *node) {
	l := &w.ledger
	for i := range p.judge.floor {
		a, b := p.judge.floor[i], s.judge.floor[i]
		if a == b {
			continue
		}
		c := l.newer(a, b)
		p.judge.floor[i] = c
		if w.prof.Mode == replicate.Async && i < len(s.disk.stable) {
			// The primary may have flushed more since it said so; the secondary follows.
			if _, ok := l.permitted(i, s.disk.stable[i], c); !ok {
				continue
			}
		}
		s.judge.floor[i] = c
	}
	p.judge.alone, s.judge.alone = false, false
	p.moment(momentJoined)
	w.tracef("joined")
}

// oracleSent looks at messages that tell where the two stand.
func (w *World) oracleSent(s *session, n *node, m *replicate.Msg) {
	w.cover.message(m)
	switch m.Kind {
	case replicate.MsgFlow:
		s.flow[n.id] = true
		if s.side[1-n.id].state != sideDown { // else nobody will hear it
			w.flowSent(n)
		}
		s.term = n.judge.last
	case replicate.MsgFacts:
		n.oracleQuiet(m)
		s.flow[n.id] = false
		n.judge.asked = false
	case replicate.MsgRenegotiate:
		s.flow[n.id] = false
	case replicate.MsgSyncEnd, replicate.MsgSyncEnded:
		if n.consistent() {
			// The source's step: all it has the target has too. What it acknowledges from
			// here on is another matter.
			n.moment(momentGave)
			copy(n.judge.given, n.judge.floor)
			n.judge.givenFrom, n.judge.givenCut = n.judge.from, n.judge.cut
			n.judge.alone = false
		}
	}
}

// oracleDelivered likewise, when they arrive.
func (w *World) oracleDelivered(s *session, n *node, m *replicate.Msg, it *streamItem) {
	l := &w.ledger
	switch m.Kind {
	case replicate.MsgFlow:
		s.flow[n.id] = true
		w.flowBegins(s, n)
	case replicate.MsgRenegotiate:
		s.flow[n.id] = false
	case replicate.MsgTakeOver:
		n.judge.asked = true
	case replicate.MsgBegin:
		n.judge.asked = w.peerOf(n).toldFailed
	case replicate.MsgTookOver, replicate.MsgReady:
		w.peerOf(n).judge.unheard = false
	case replicate.MsgWrite:
		for _, st := range it.data {
			if st != 0 && !lied(st) && st != poison {
				l.writes[l.owners[st]].received = true
				break
			}
		}
	case replicate.MsgZero:
		sec, cnt := int32(m.Off/sectorSize), int32(m.Len/sectorSize)
		for _, id := range l.zeroes {
			if x := &l.writes[id]; x.sec == sec && x.n == cnt {
				x.received = true
			}
		}
	}
}

// flowSent: the primary p says that data flows; both media say what each is.
func (w *World) flowSent(p *node) {
	w.oracleOneEpoch(p)
	s := w.peerOf(p)
	if t := p.judge.term; t != 0 && p.judge.from != t && p.consistent() && !s.consistent() {
		// The primary was promoted on its peer's replica, and that was given up since:
		// now its own counts, whatever it held.
		w.ledger.terms[t].wild = true
		clear(p.judge.view)
		p.judge.from, p.judge.cut = t, never
	}
	if t := p.judge.last; t != 0 && s.judge.from != t && !w.based(t, s) && !p.sound() && s.consistent() {
		w.rebase(p, s)
	}
}

// flowBegins: the secondary s was told that data flows.
func (w *World) flowBegins(x *session, s *node) {
	p, term := w.peerOf(s), x.term
	p.judge.primaryOnce, s.judge.primaryOnce = true, false
	p.judge.forced, s.judge.forced = false, false
	if s.consistent() && p.consistent() && !s.toldFailed && !p.toldFailed && x.side[p.id].state == sideUp && x.side[p.id].life == p.life {
		// (A word that was held up and comes after the primary gave up the connection
		// says nothing of what that has acknowledged alone since.)
		// Neither has anything to be copied that would make it inconsistent. (A disk that
		// failed cannot say so.)
		w.join(p, s)
	}
	if s.consistent() && term != 0 {
		s.judge.from, s.judge.cut = term, never
	}
}

// based says whether a term already counts all of a replica's history as its own.
func (w *World) based(t int32, s *node) bool {
	tm := &w.ledger.terms[t]
	return tm.parent == s.judge.from && tm.cut >= min(s.judge.cut, w.tick)
}

// rebase: a primary that went on with nothing of its own becomes a target: from
// here on it shows what its peer has. What it has under way goes on top of that.
func (w *World) rebase(p, s *node) {
	l, old := &w.ledger, p.judge.last
	p.moment(momentRebase)
	w.tick++
	l.terms = append(l.terms, term{node: uint8(p.id), parent: s.judge.from, cut: min(s.judge.cut, w.tick), start: w.tick})
	t := int32(len(l.terms) - 1)
	p.judge.last = t
	if p.judge.term != 0 {
		p.judge.term = t
	}
	for i := len(l.reqs) - 1; i > 0; i-- {
		r := &l.reqs[i]
		if r.term == old && !r.done && int(r.node) == p.id {
			r.term = t
			if r.write != 0 {
				l.writes[r.write].term = t
			}
		}
	}
	kept := 0
	for _, id := range p.judge.pending {
		if l.writes[id].term == t {
			p.judge.pending[kept] = id
			kept++
		}
	}
	p.judge.gone += len(p.judge.pending) - kept
	p.judge.pending = p.judge.pending[:kept]
	copy(p.judge.view, s.judge.floor)
	clear(p.judge.seenAt)
	p.judge.forget()
	w.tracef("%s: term %d goes on as term %d from term %d (cut %d)", p.name, old, t, l.terms[t].parent, l.terms[t].cut)
	if w.hooks.term != nil {
		w.hooks.term(p, s, true)
	}
}

// oracleMarks judges a change of the durable superblock.
func (n *node) oracleMarks(old, sb *metadata.Superblock) {
	w, j := n.w, &n.judge
	p := w.peerOf(n)
	set := sb.Marks &^ old.Marks
	cleared := old.Marks &^ sb.Marks
	if set.Has(metadata.Inconsistent) && old.Resuid != 0 {
		n.oracleOverwrite()
	}
	if old.Resuid == 0 && sb.Resuid != 0 && sb.Marks.Has(metadata.Inconsistent) {
		// Adopted: whatever was here is given up.
		clear(j.floor)
		j.alone, j.from, j.cut = false, 0, 0
	}
	switch {
	case cleared.Has(metadata.Inconsistent) && sb.Marks.Has(metadata.Forced):
		j.wild = true
		j.forced = true
		clear(j.floor)
	case cleared.Has(metadata.Inconsistent):
		n.syncCompleted(p)
	}
	if set.Has(metadata.Forced) {
		j.forced = true
		n.moment(momentForced)
		n.oracleForced(old)
	}
}

// syncCompleted: this replica was made equal to its peer's.
func (n *node) syncCompleted(p *node) {
	w, j := n.w, &n.judge
	n.moment(momentSynced)
	if w.prof.Mode == replicate.Async {
		// The source may have flushed more since; the target follows. Zeroes prove
		// nothing: they may be older than the floor, and what comes between the two may
		// still be on its way.
		for i, f := range p.judge.given {
			j.floor[i] = 0
			if f != 0 && i < len(n.disk.stable) && n.disk.stable[i] != 0 {
				if _, ok := w.ledger.permitted(i, n.disk.stable[i], f); ok {
					j.floor[i] = f
				}
			}
		}
	} else {
		copy(j.floor, p.judge.given)
	}
	j.wild = p.judge.wild
	j.alone = false
	n.recovering, j.ordered = false, n.forcing()
	if j.term == 0 {
		// What this node acknowledged earlier and did not flush is now what the source
		// has of it.
		j.gone += len(j.pending)
		j.pending = j.pending[:0]
		j.from, j.cut = p.judge.givenFrom, p.judge.givenCut
		if n.sess == nil {
			j.cut = min(j.cut, j.lastDown)
		}
	} else {
		j.from, j.cut = j.term, never
		if n.inFlow() && n.sess == p.sess && p.judge.from != j.term { // the source follows this primary
			p.judge.from, p.judge.cut = j.term, never
		}
	}
	n.checkFloor("at the end of a sync", n.disk.stable)
	w.tracef("%s: sync into it completed", n.name)
}
