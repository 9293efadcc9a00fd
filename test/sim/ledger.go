package sim

import (
	"hastd/replicate"
)

// ledger is what applications know: every write, when it was issued and how it
// ended, in which term of which primary; and from which earlier term each term's
// replica came. Oracles judge replicas and reads by it.
//
// Order is by tick: a counter raised by everything that applications see.
type ledger struct {
	writes []write // [0]: the zeroes everything begins with
	owners []int32 // stamp → write
	head   []int32 // by sector: newest chain entry
	chain  []link2
	terms  []term
	reqs   []request
	zeroes []int32 // writes of zeroes not yet settled
	digest uint64
	acked  int
}

// link2 is one entry of a sector's chain of writes, newest first.
type link2 struct{ write, next int32 }

// write is one write or zeroing that an application issued.
type write struct {
	node     uint8
	zero     bool
	fua      bool
	acked    bool
	failed   bool
	apart    bool // issued while its primary had no peer
	received bool // the peer's machine was given it
	term     int32
	sec, n   int32
	base     uint32 // first stamp
	issue    uint32
	settle   uint32   // 0: under way
	done     [2]int32 // sectors that a node's disk completed
}

// term is the time of one provider.
type term struct {
	node   uint8
	parent int32
	cut    uint32 // writes of the parent issued later are not in it
	start  uint32
	wild   bool // a forced promotion of an inconsistent replica: anything may show
}

const never = ^uint32(0)

// request is one application request.
type request struct {
	node  uint8
	kind  replicate.Request
	flags replicate.Flags
	done  bool
	sec   int32
	n     int32
	write int32
	life  uint32
	term  int32
	issue uint32
	pend  int32 // flush: how many acknowledged writes it covers
	seen  int32 // and how many observations
	at    int64
	buf   replicate.Handle
}

func (l *ledger) reset(sectors int) {
	sectors += (256 << 10) / sectorSize
	if cap(l.head) < sectors {
		l.head = make([]int32, sectors)
	}
	l.head = l.head[:sectors]
	clear(l.head)
	l.writes = append(l.writes[:0], write{zero: true, acked: true, n: int32(sectors), settle: 1})
	l.owners = append(l.owners[:0], 0)
	l.chain = append(l.chain[:0], link2{})
	l.terms = append(l.terms[:0], term{})
	l.reqs = append(l.reqs[:0], request{})
	l.zeroes = l.zeroes[:0]
	l.digest, l.acked = 14695981039346656037, 0
}

func (l *ledger) note(x uint64) { l.digest = (l.digest ^ x) * 1099511628211 }

// issueWrite records a write under way and draws its stamps.
func (l *ledger) issueWrite(n *node, sec, cnt int, zero, fua bool, tick uint32) int32 {
	id := int32(len(l.writes))
	wr := write{node: uint8(n.id), zero: zero, fua: fua, term: n.judge.term, sec: int32(sec), n: int32(cnt), issue: tick, apart: !n.linked}
	if !zero {
		wr.base = uint32(len(l.owners))
		for range cnt {
			l.owners = append(l.owners, id)
		}
	} else {
		l.zeroes = append(l.zeroes, id)
	}
	l.writes = append(l.writes, wr)
	for s := sec; s < sec+cnt; s++ {
		l.chain = append(l.chain, link2{id, l.head[s]})
		l.head[s] = int32(len(l.chain) - 1)
	}
	l.note(uint64(sec)<<32 | uint64(cnt))
	return id
}

// value is what a write leaves in a sector.
func (l *ledger) value(wr int32, sec int) uint32 {
	w := &l.writes[wr]
	if w.zero {
		return 0
	}
	return w.base + uint32(sec) - uint32(w.sec)
}

// place says which sector a stamp belongs to.
func (l *ledger) place(stamp uint32) (sec int, ok bool) {
	if stamp == 0 || int64(stamp) >= int64(len(l.owners)) {
		return 0, false
	}
	w := &l.writes[l.owners[stamp]]
	return int(w.sec) + int(stamp-w.base), true
}

// settle records how a write ended.
func (l *ledger) settle(id int32, tick uint32, ok bool) {
	w := &l.writes[id]
	w.settle, w.acked, w.failed = tick, ok, !ok
	if ok {
		l.acked++
	}
	if w.zero {
		for i, z := range l.zeroes {
			if z == id {
				l.zeroes = append(l.zeroes[:i], l.zeroes[i+1:]...)
				break
			}
		}
	}
}

// wrote counts sectors of writes that a disk completed.
func (l *ledger) wrote(n *node, sec int, stamps []uint32) {
	for i := 0; i < len(stamps); {
		if stamps[i] == 0 || lied(stamps[i]) {
			i++
			continue
		}
		id := l.owners[stamps[i]]
		j := i
		for j < len(stamps) && stamps[j] != 0 && !lied(stamps[j]) && l.owners[stamps[j]] == id {
			j++
		}
		l.writes[id].done[n.id] += int32(j - i)
		i = j
	}
}

// zeroed does so for zeroes, which carry no stamps: the write with that very range
// counts, or else one that contains it. A node with a provider applies its own.
func (l *ledger) zeroed(n *node, sec, cnt int) {
	var inside *write
	for _, id := range l.zeroes {
		w := &l.writes[id]
		if (n.judge.term != 0 || n.app.pending > 0) != (int(w.node) == n.id) || w.done[n.id] >= w.n || sec < int(w.sec) || sec+cnt > int(w.sec+w.n) {
			continue
		}
		if int(w.sec) == sec && int(w.n) == cnt {
			w.done[n.id] += int32(cnt)
			return
		}
		inside = w
	}
	if inside != nil {
		inside.done[n.id] += int32(cnt)
	}
}

func (w *write) on(node int) bool { return w.done[node] >= w.n }

// visible says whether a write can be part of what a term shows.
func (l *ledger) visible(w *write, t int32) bool {
	limit := never
	for {
		if w.term == t {
			return w.issue <= limit
		}
		tm := &l.terms[t]
		if tm.wild {
			return true
		}
		if t == 0 {
			return false
		}
		limit = tm.cut
		t = tm.parent
	}
}

// follows says whether term t is a later one in the history that contains u.
func (l *ledger) follows(t, u int32) bool {
	for t != 0 {
		t = l.terms[t].parent
		if t == u {
			return true
		}
	}
	return false
}

// superseded says whether a write must have been overwritten by what a flush made
// durable.
func (l *ledger) superseded(w *write, durable int32) bool {
	if durable == 0 {
		return false
	}
	d := &l.writes[durable]
	if w == d {
		return false
	}
	if w.term == d.term {
		return w.settle != 0 && w.settle < d.issue
	}
	return w.issue == 0 || l.follows(d.term, w.term)
}

// permitted says whether a sector of a replica may hold a value, given the newest
// write that must not be lost there. It returns the write.
func (l *ledger) permitted(sec int, value uint32, durable int32) (int32, bool) {
	if lied(value) {
		return 0, true // nobody knows
	}
	if value != 0 {
		if int64(value) >= int64(len(l.owners)) {
			return 0, false
		}
		id := l.owners[value]
		w := &l.writes[id]
		return id, int(w.sec)+int(value-w.base) == sec && !l.superseded(w, durable)
	}
	if durable == 0 {
		return 0, true
	}
	for c := l.head[sec]; c != 0; c = l.chain[c].next {
		id := l.chain[c].write
		if w := &l.writes[id]; w.zero && !l.superseded(w, durable) {
			return id, true
		}
	}
	return 0, false
}

// newer gives the later of two durable writes to one sector.
func (l *ledger) newer(a, b int32) int32 {
	if a == b || l.writes[a].issue >= l.writes[b].issue {
		return a
	}
	return b
}
