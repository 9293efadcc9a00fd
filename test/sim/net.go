package sim

import (
	"hastd/metadata"
	"hastd/replicate"
)

// link is the network between the two nodes: sessions of two ordered streams, and
// a direction each that can be cut. dir i carries what node i sends.
type link struct {
	w        *World
	cut      [2]bool
	cutGen   [2]uint32
	slow     int64
	late     [2]int64 // how much later what a node sends arrives
	sessions []*session
	spare    []*session
	nextID   uint32
}

// session is one authenticated connection. A side is up from the delivery of
// EvSessionUp to that of EvSessionDown.
type session struct {
	id   replicate.SessionID
	side [2]side
	out  [2]stream // out[i]: what node i sent
	flow [2]bool   // node i sent or was given MsgFlow
	term int32     // whose writes flow
}

type sideState uint8

const (
	sideComing sideState = iota
	sideUp
	sideDown
)

type side struct {
	state sideState
	life  uint32
}

type streamItem struct {
	at   int64
	up   bool
	fin  bool
	text string
	msg  replicate.Msg
	mem  bool
	kind memKind
	mask uint64
	data []uint32
}

// stream is a ring of what is on its way; reused item memory keeps runs cheap.
type stream struct {
	items   []streamItem
	head    int
	count   int
	last    int64 // when the newest item arrives
	stopped bool  // nothing more will arrive
	queued  bool  // a kDeliver stands in the queue
	wakeAt  int64 // when
	limit   int   // with stopped: how many items still arrive
}

func (s *stream) push() *streamItem {
	if s.count == len(s.items) {
		n := make([]streamItem, max(16, 2*len(s.items)))
		for i := range s.count {
			n[i] = s.items[(s.head+i)%len(s.items)]
		}
		s.items, s.head = n, 0
	}
	it := &s.items[(s.head+s.count)%len(s.items)]
	s.count++
	data := it.data[:0]
	*it = streamItem{data: data}
	return it
}

func (s *stream) pop() { s.head = (s.head + 1) % len(s.items); s.count-- }

func (s *stream) reset() {
	s.head, s.count, s.last, s.stopped, s.queued, s.limit = 0, 0, 0, false, false, 0
}

func (l *link) reset(w *World) {
	l.w = w
	l.cut, l.cutGen, l.slow, l.late, l.nextID = [2]bool{}, [2]uint32{}, 1, [2]int64{}, 0
	l.spare = append(l.spare, l.sessions...)
	l.sessions = l.sessions[:0]
}

func (l *link) find(id replicate.SessionID) *session {
	for i := len(l.sessions) - 1; i >= 0; i-- {
		if l.sessions[i].id == id {
			return l.sessions[i]
		}
	}
	return nil
}

func (l *link) delay() int64 {
	w := l.w
	d := w.span(w.prof.NetTime/4, w.prof.NetTime*2)
	if w.rng.IntN(64) == 0 {
		d *= 8
	}
	return d * l.slow
}

// detect is how long a silent peer goes unnoticed.
func (l *link) detect() int64 { return l.w.span(100*millisecond, 600*millisecond) }

// attempt is a node's try to reach its peer.
func (l *link) attempt(n *node) {
	w := l.w
	p := w.peerOf(n)
	n.attemptGen++
	if !n.wantConnect || n.state != running || n.sess != nil {
		return
	}
	retry := func(d int64, text string, refused bool) {
		life := n.life
		w.after(d, func() {
			if n.life == life && n.state == running && n.wantConnect && n.sess == nil {
				w.tracef("%s: attempt failed: %s", n.name, text)
				n.push(replicate.Event{Kind: replicate.EvUnreachable, Text: text, Refused: refused})
			}
		})
		n.scheduleAttempt(d + w.span(50*millisecond, 400*millisecond))
	}
	switch {
	case l.cut[0] || l.cut[1] || p.state == off || p.frozen():
		w.cover.fault("attempt-silent")
		retry(l.detect(), "no answer", false)
	case p.state != running:
		retry(l.delay(), "connection refused", false)
	case !n.speaks.meet(p.speaks):
		retry(l.delay(), refusal(p, n), true)
	case !p.wantConnect:
		retry(l.delay(), "the peer does not want a connection", true)
	default:
		l.establish(n, p, w.prof.Enabled[faultDup] && !w.quiet && !w.scripted && w.chance(0.5))
	}
}

// establish makes a session. An older one that a side still believes in is ended
// first, at once or (late) only after a while in which its messages still arrive.
func (l *link) establish(n, p *node, late bool) {
	w := l.w
	for _, x := range [...]*node{n, p} {
		for x.sess != nil && !late {
			l.down(x, newerCame)
		}
	}
	var s *session
	if k := len(l.spare); k > 0 {
		s = l.spare[k-1]
		l.spare = l.spare[:k-1]
	} else {
		s = &session{}
	}
	l.nextID++
	s.id = replicate.SessionID(l.nextID)
	s.flow, s.term = [2]bool{}, 0
	for i := range 2 {
		s.out[i].reset()
		x := &w.nodes[i]
		s.side[i] = side{state: sideComing, life: x.life}
		if x.sess == nil {
			x.sess = s
		} else {
			l.letWait(x, s)
		}
	}
	l.sessions = append(l.sessions, s)
	w.tracef("session %d between %s and %s", s.id, n.name, p.name)
	for i := range 2 {
		it := s.out[1-i].push()
		it.up = true
		l.schedule(s, 1-i, it)
	}
}

// schedule gives an item its time and wakes the stream.
func (l *link) schedule(s *session, dir int, it *streamItem) {
	st := &s.out[dir]
	it.at = max(st.last, l.w.now+l.delay())
	if !it.up {
		it.at = max(it.at, l.w.now+l.late[dir])
	}
	st.last = it.at
	l.wake(s, dir)
}

func (l *link) wake(s *session, dir int) {
	st := &s.out[dir]
	if st.queued || st.count == 0 || l.cut[dir] {
		return
	}
	st.queued, st.wakeAt = true, max(l.w.now, st.items[st.head].at)
	l.w.at(event{at: st.wakeAt, kind: kDeliver, node: uint8(dir), x: uint32(s.id)})
}

// deliver hands over what has arrived on a stream.
func (l *link) deliver(dir int, id uint32, at int64) {
	s := l.find(replicate.SessionID(id))
	if s == nil {
		return
	}
	st := &s.out[dir]
	if !st.queued || st.wakeAt != at {
		return // it was hurried on
	}
	st.queued = false
	to := &l.w.nodes[1-dir]
	if l.cut[dir] || to.next == s {
		return
	}
	for st.count > 0 {
		it := &st.items[st.head]
		if it.at > l.w.now {
			l.wake(s, dir)
			return
		}
		if st.stopped {
			if st.limit == 0 {
				st.count = 0
				return
			}
			st.limit--
		}
		if to.life != s.side[1-dir].life || to.state != running || s.side[1-dir].state == sideDown {
			st.count = 0
			return
		}
		l.arrive(s, to, it)
		if st.count > 0 { // a hook may have cut the session
			st.pop()
		}
	}
}

func (l *link) arrive(s *session, to *node, it *streamItem) {
	w := l.w
	switch {
	case it.up:
		s.side[to.id].state = sideUp
		from := w.peerOf(to)
		role := metadata.Init
		if from.state == running {
			role = from.status().Role
		}
		w.tracef("%s: session %d up", to.name, s.id)
		to.push(replicate.Event{Kind: replicate.EvSessionUp, Session: s.id, PeerRole: role})
	case it.fin:
		l.down(to, it.text)
	default:
		m := it.msg
		if it.mem {
			h, mm := to.alloc(it.kind, len(it.data))
			copy(mm.stamps, it.data)
			mm.mask, mm.target = it.mask, m.Kind == replicate.MsgSyncPull
			m.Buf = h
		}
		if w.trace != nil {
			w.tracef("%s: <- %s", to.name, w.msgString(&m))
		}
		if to.next != nil {
			w.cover.fault("late-message")
		}
		w.oracleDelivered(s, to, &m, it)
		if w.hooks.deliver != nil {
			w.hooks.deliver(to, &m)
		}
		if s.side[to.id].state == sideDown {
			if m.Buf != 0 { // never reached the machine
				to.giveBack(m.Buf, false, "the network")
			}
			return
		}
		to.push(replicate.Event{Kind: replicate.EvMessage, Session: s.id, Msg: m})
	}
}

// send puts a message on its way.
func (l *link) send(n *node, e *replicate.Effect) {
	s := l.find(e.Session)
	var body *mem
	if e.Msg.Buf != 0 {
		body = n.named(e.Msg.Buf, "EffSend")
	}
	if e.Msg.Kind == replicate.MsgFlow {
		n.linked = true // although the message may be lost with its session
	}
	if s == nil || s.side[n.id].state != sideUp || s.side[n.id].life != n.life {
		return
	}
	l.w.oracleSent(s, n, &e.Msg)
	if l.w.hooks.send != nil {
		l.w.hooks.send(n, &e.Msg)
		if s.side[n.id].state != sideUp {
			return
		}
	}
	st := &s.out[n.id]
	if st.stopped {
		return
	}
	it := st.push()
	it.msg = e.Msg
	it.msg.Buf = 0
	if len(e.Msg.Seqs) > 0 {
		a := len(l.w.seqArena)
		l.w.seqArena = append(l.w.seqArena, e.Msg.Seqs...)
		it.msg.Seqs = l.w.seqArena[a:len(l.w.seqArena):len(l.w.seqArena)]
	}
	it.msg.Control = copyControl(e.Msg.Control)
	if body != nil {
		it.mem = true
		it.data, it.kind, it.mask = n.gather(&e.Msg, body, it.data)
	}
	l.schedule(s, n.id, it)
}

// gather makes the body of a message as the wire would carry it: only what the
// message means; the rest is poison.
func (n *node) gather(m *replicate.Msg, body *mem, into []uint32) ([]uint32, memKind, uint64) {
	switch m.Kind {
	case replicate.MsgSyncHash, replicate.MsgSyncPull:
		return gatherMask(into, body, m.Mask), memHashes, m.Mask
	case replicate.MsgSyncData, replicate.MsgSyncBlocks:
		return gatherMask(into, body, m.Mask&^m.Zeroes), memBlocks, m.Mask &^ m.Zeroes
	case replicate.MsgWrite, replicate.MsgData:
		want := int(m.Len) / sectorSize
		if want > len(body.stamps) {
			n.w.violate("handles", "%s: message %d of %d sectors has a body of %d", n.name, m.Kind, want, len(body.stamps))
		}
		return append(into, body.stamps[:want]...), memBlocks, 0
	}
	return append(into, body.stamps...), memBlocks, body.mask
}

func gatherMask(into []uint32, body *mem, mask uint64) []uint32 {
	for i := range body.stamps {
		if mask&(1<<uint(i/sectorsPerBlock)) != 0 {
			into = append(into, body.stamps[i])
		} else {
			into = append(into, poison)
		}
	}
	return into
}

// down ends a session on one side and lets the other notice.
func (l *link) down(n *node, text string) {
	w, s := l.w, n.sess
	if s == nil {
		return
	}
	n.sess = nil
	was := s.side[n.id].state
	s.side[n.id].state = sideDown
	s.out[1-n.id].count = 0
	if n.state == running && s.side[n.id].life == n.life && was == sideUp {
		w.tracef("%s: session %d down: %s", n.name, s.id, text)
		w.oracleSessionDown(n)
		n.push(replicate.Event{Kind: replicate.EvSessionDown, Session: s.id, Text: text})
		n.scheduleAttempt(w.span(10*millisecond, 300*millisecond))
	} else if n.state == running {
		n.scheduleAttempt(w.span(10*millisecond, 300*millisecond))
	}
	l.tellEnd(s, n, text)
	l.takeNext(n)
}

// tellEnd lets the peer notice that a side gave a session up.
func (l *link) tellEnd(s *session, n *node, text string) {
	w, p := l.w, l.w.peerOf(n)
	if s.side[p.id].state == sideDown || s.side[p.id].life != p.life || p.state != running {
		return
	}
	// The end travels behind what was sent, if the way is open and this side can
	// still speak; a random part of what was sent arrives.
	st := &s.out[n.id]
	if !st.stopped {
		st.stopped = true
		st.limit = st.count
		if st.count > 0 && w.chance(0.5) {
			st.limit = w.rng.IntN(st.count + 1)
		}
		if n.state != off && !l.cut[n.id] {
			for st.count > st.limit {
				st.count--
			}
			it := st.push()
			it.fin, it.text = true, text
			st.limit++
			l.schedule(s, n.id, it)
		} else {
			l.wake(s, n.id)
		}
	}
	l.notice(s, p, l.detect())
}

// notice lets a side find out by itself that its peer is silent.
func (l *link) notice(s *session, p *node, d int64) {
	life := p.life
	l.w.after(d, func() {
		if p.life == life && p.sess == s {
			l.down(p, "no word from the peer")
		}
	})
}

// setCut opens or closes a direction. Who listens at its end notices after a
// time-out, the two ends each at their own time.
func (l *link) setCut(dir int, cut bool) {
	if l.cut[dir] == cut {
		return
	}
	l.cut[dir] = cut
	l.cutGen[dir]++
	gen := l.cutGen[dir]
	w := l.w
	if !cut {
		for _, s := range l.sessions {
			if s.out[dir].count > 0 {
				l.wake(s, dir)
			}
		}
		return
	}
	for _, x := range [...]struct {
		n    *node
		late int64
	}{{&w.nodes[1-dir], l.detect()}, {&w.nodes[dir], l.detect() + l.detect()}} {
		s, n := x.n.sess, x.n
		if s == nil {
			continue
		}
		life := n.life
		w.after(x.late, func() {
			if n.life == life && n.sess == s && l.cut[dir] && l.cutGen[dir] == gen {
				l.down(n, "no word from the peer")
			}
		})
	}
}

// gone tells the network that a process ended: what it had sent may arrive.
func (l *link) gone(n *node) {
	n.wantConnect = false
	for n.sess != nil {
		l.down(n, "connection reset")
	}
}

// idle says whether nothing is on its way.
func (l *link) idle() bool {
	for _, s := range l.sessions {
		for i := range 2 {
			if s.out[i].count > 0 && s.side[1-i].state != sideDown {
				return false
			}
		}
	}
	return true
}

func copyControl(c any) any {
	lineage := func(l metadata.Lineage) metadata.Lineage { return append(metadata.Lineage(nil), l...) }
	switch x := c.(type) {
	case nil:
		return nil
	case *replicate.Facts:
		y := *x
		y.Lineage = lineage(x.Lineage)
		return &y
	case replicate.Facts:
		x.Lineage = lineage(x.Lineage)
		return x
	case *replicate.Begin:
		y := *x
		y.Lineage = lineage(x.Lineage)
		return &y
	case *replicate.SyncEnd:
		y := *x
		y.Lineage = lineage(x.Lineage)
		return &y
	case *replicate.TakeOver:
		y := *x
		y.Lineage = lineage(x.Lineage)
		return &y
	case *replicate.MapPart:
		y := *x
		y.Bits = append([]byte(nil), x.Bits...)
		return &y
	case *replicate.RoleChange:
		y := *x
		return &y
	case *replicate.Renegotiate:
		y := *x
		return &y
	case []byte:
		return append([]byte(nil), x...)
	case []uint64:
		return append([]uint64(nil), x...)
	}
	return c
}

// silence makes a node's end vanish without a word, as a power loss does.
func (l *link) silence(n *node) {
	for _, s := range [...]*session{n.sess, n.next} {
		if s != nil {
			l.silent(s, n)
		}
	}
}

func (l *link) silent(s *session, n *node) {
	st := &s.out[n.id]
	st.stopped = true
	st.limit = 0
	if st.count > 0 {
		st.limit = l.w.rng.IntN(st.count + 1)
	}
	l.wake(s, n.id)
}
