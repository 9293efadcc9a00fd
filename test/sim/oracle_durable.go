package sim

import (
	"fmt"

	"hastd/metadata"
	"hastd/replicate"
)

// Invariant 1: what was acknowledged and flushed survives.
//
// Each replica has a floor: by sector, the newest write that was acknowledged
// before the issue of an acknowledged flush (or with FUA) and that this replica
// must have on stable storage as long as it counts as consistent. A sector may
// hold that write, or any write not settled when that one was issued, or a later
// one. The floor rises when a flush is acknowledged: on both replicas if the
// primary's durable superblock does not say that it went on alone, else on the
// primary's; in async only on the primary's. A completed sync gives the target
// the source's floor; being discarded, adopted or made anew takes it away.

// oracleReply judges the answer to a request.
func (n *node) oracleReply(r *request, e *replicate.Effect) {
	w := n.w
	l := &w.ledger
	ok := e.Err == replicate.OK
	if !ok {
		w.cover.fault("request-error")
		if !w.diskFault && !w.eioOK {
			w.violate("errors", "%s: %s of sector %d ended in error %d although no disk failed and nobody asked for it", n.name, requestNames[r.kind], r.sec, e.Err)
		}
	}
	switch r.kind {
	case replicate.ReqRead:
		if ok {
			stamps := n.lookup(r.buf).stamps
			if e.Buf != 0 {
				body := n.lookup(e.Buf)
				if body == nil || len(body.stamps) < int(r.n) {
					w.violate("handles", "%s: a read is answered from a body that is too short or gone", n.name)
				}
				stamps = body.stamps[:r.n]
			}
			n.oracleRead(r, stamps)
		}
	case replicate.ReqWrite, replicate.ReqZero:
		if l.writes[r.write].settle != 0 {
			break
		}
		l.settle(r.write, w.tick, ok)
		if ok {
			n.oracleAck(r)
			n.judge.pending = append(n.judge.pending, r.write)
			if r.flags&replicate.FUA != 0 {
				n.raiseFloor(n.promise(), l.writes[r.write].sec, l.writes[r.write].n, r.write)
				n.checkRaised(r.write)
			}
		}
	case replicate.ReqFlush:
		if ok {
			n.flushAcknowledged(r)
		} else {
			// Who is told that a flush failed no longer counts on what it was to cover.
			n.judge.gone += len(n.judge.pending)
			n.judge.pending = n.judge.pending[:0]
			n.judge.forget()
			clear(n.judge.seenAt)
		}
	}
}

// holders are the replicas that must have what is durable now.
func (n *node) holders() (own, peer bool) {
	p := n.w.peerOf(n)
	own = n.consistent()
	peer = p.consistent() && p.judge.sb.Resuid == n.judge.sb.Resuid
	if n.w.prof.Mode == replicate.Async && own {
		peer = false
	}
	if n.judge.sb.Marks.Has(metadata.Raised) && own {
		peer = false
	}
	// A primary that slept may answer afterwards what both had done before. What a
	// person meanwhile promoted by force is no longer held to that.
	if p.judge.forced && own {
		peer = false
	}
	return own, peer
}

// promise is by what everything counts that is declared durable at one instant.
type promise struct {
	own, peer bool // must have it
	firm      bool // the views count on it
	other     *node
}

func (n *node) promise() (x promise) {
	x.own, x.peer = n.holders()
	x.other = n.w.peerOf(n)
	x.firm = n.w.prof.Quorum && n.w.hooks.judged(n)
	return x
}

func (n *node) raiseFloor(x promise, sec, cnt, wr int32) {
	l, p := &n.w.ledger, x.other
	if x.firm {
		n.w.keptFirm(sec, cnt, wr)
	}
	for s := sec; s < sec+cnt; s++ {
		n.judge.view[s] = l.newer(wr, n.judge.view[s])
		if x.own {
			n.judge.floor[s] = l.newer(wr, n.judge.floor[s])
		}
		if x.peer {
			p.judge.floor[s] = l.newer(wr, p.judge.floor[s])
		}
	}
}

// checkRaised looks at the media for a write that was just declared durable.
func (n *node) checkRaised(wr int32) {
	w := &n.w.ledger.writes[wr]
	own, peer := n.holders()
	if own {
		n.checkSectors("when it was declared durable", int(w.sec), int(w.n))
	}
	if peer {
		n.w.peerOf(n).checkSectors("when it was declared durable", int(w.sec), int(w.n))
	}
	if !own && !peer && n.w.peerOf(n).judge.sb.Resuid == n.judge.sb.Resuid {
		n.w.violate("durable", "%s: write %d was declared durable, but no replica counts as consistent", n.name, wr)
	}
}

func (n *node) flushAcknowledged(r *request) {
	j := &n.judge
	k := int(r.pend) - j.gone
	by := n.promise()
	for i := 0; i < k; i++ {
		wr := j.pending[i]
		x := &n.w.ledger.writes[wr]
		n.raiseFloor(by, x.sec, x.n, wr)
	}
	if r.term == j.term {
		for _, o := range j.seen[:max(0, min(int(r.seen)-j.forgot, len(j.seen)))] {
			n.raiseFloor(by, o.sec, 1, o.write)
		}
	}
	for i := 0; i < k; i++ {
		n.checkRaised(j.pending[i])
	}
	if k > 0 {
		j.pending = j.pending[:copy(j.pending, j.pending[k:])]
		j.gone += k
	}
}

func (n *node) checkSectors(when string, sec, cnt int) {
	for s := sec; s < min(sec+cnt, len(n.disk.stable)); s++ {
		n.checkSector(when, s, n.disk.stable[s])
	}
}

func (n *node) checkSector(when string, s int, v uint32) {
	l := &n.w.ledger
	f := n.judge.floor[s]
	if f == 0 || v == l.value(f, s) {
		return
	}
	if id, ok := l.permitted(s, v, f); !ok {
		n.w.violate("durable", "%s: sector %d holds write %d on stable storage %s, although write %d was acknowledged and flushed (%s)", n.name, s, id, when, f, l.describe(f))
	}
}

// checkFloor looks at a whole replica.
func (n *node) checkFloor(when string, data []uint32) {
	if !n.consistent() {
		return
	}
	for s, v := range data {
		if n.judge.floor[s] != 0 {
			n.checkSector(when, s, v)
		}
	}
}

// history tells why a write may or may not show in a term.
func (l *ledger) history(id, t int32) string {
	if id <= 0 {
		return "the zeroes at first"
	}
	w := &l.writes[id]
	s := fmt.Sprintf("of term %d, issued at %d, settled at %d, acked %v; term %d", w.term, w.issue, w.settle, w.acked, t)
	for t != 0 {
		s += fmt.Sprintf(" from %d up to %d", l.terms[t].parent, int32(l.terms[t].cut))
		t = l.terms[t].parent
	}
	return s
}

func (l *ledger) describe(id int32) string {
	w := &l.writes[id]
	s := "on " + [...]string{"A", "B"}[w.node]
	if w.zero {
		s = "zeroes " + s
	}
	if w.fua {
		s += " with FUA"
	}
	return s
}

// oracleRead judges what an application read.
func (n *node) oracleRead(r *request, stamps []uint32) {
	w, j := n.w, &n.judge
	l := &w.ledger
	if w.hooks.read != nil {
		w.hooks.read(r, stamps)
	}
	if r.term != j.term {
		return // the provider was cut off meanwhile
	}
	for i := range int(r.n) {
		sec, v := int(r.sec)+i, stamps[i]
		if lied(v) {
			w.cover.fault("lie-answered")
			continue
		}
		if at, ok := l.place(v); v != 0 && (!ok || at != sec) {
			w.violate("garbage", "%s: read of sector %d shows what was never written there (stamp %#x)", n.name, sec, v)
		}
		if w.deaf("reads") {
			continue
		}
		id, ok := n.readable(r, sec, v)
		if !ok {
			w.violate("reads", "%s: read of sector %d shows write %d (%s) in term %d, the newest is write %d (durable: %d, seen before: %d)", n.name, sec, w.owner(v), l.history(w.owner(v), j.term), j.term, l.chain[l.head[sec]].write, j.view[sec], j.seenW[sec])
		}
		if r.issue < j.lossAt {
			continue // issued before a loss was told, it may still have shown what was lost
		}
		if j.seenAt[sec] == 0 || j.seenW[sec] != id {
			j.seenW[sec] = id
			if v != 0 {
				j.seen = append(j.seen, observation{int32(sec), id})
			}
		}
		j.seenAt[sec] = w.tick
	}
}

// readable says whether a read may show a value: that of a write in the history
// of this term, not overwritten by one that was acknowledged in this term before
// the read was issued, nor by what a read or a flush fixed.
func (n *node) readable(r *request, sec int, v uint32) (int32, bool) {
	j, l := &n.judge, &n.w.ledger
	barrier := uint32(0) // settled before this is not allowed any more
	best := int32(-1)
	fixed := int32(-1)
	if j.seenAt[sec] != 0 && j.seenAt[sec] < r.issue && j.seenAt[sec] > j.lossAt {
		fixed = j.seenW[sec]
	}
	for c := l.head[sec]; ; c = l.chain[c].next {
		id := l.chain[c].write // 0 at the end: the zeroes at first
		x := &l.writes[id]
		settle := x.settle
		if x.term != j.term {
			settle = max(1, min(max(settle, 1), l.terms[j.term].start))
		}
		if l.value(id, sec) == v && l.visible(x, j.term) && !l.superseded(x, j.view[sec]) {
			best = id
			allowed := settle == 0 || settle >= barrier
			if fixed >= 0 && l.value(fixed, sec) != v && settle != 0 && settle < j.seenAt[sec] {
				allowed = false
			}
			if allowed {
				return id, true
			}
		}
		if x.term == j.term && x.acked && x.settle < r.issue && x.settle > j.lossAt {
			barrier = max(barrier, x.issue)
		}
		if c == 0 {
			return best, false
		}
	}
}
