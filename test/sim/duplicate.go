package sim

// A connection that comes while the one before still stands, as replicate/runner
// has it: the older one is asked to end, what had arrived on it is still handed
// over, and only behind its EvSessionDown the new one begins. Until then nothing of
// the new one is looked at.

const newerCame = "a newer session came"

// overlapTime is how long the older connection may go on.
const overlapTime = 200 * millisecond

// duplicate makes a connection although there is one, which both nodes or only n
// still believe in.
func (l *link) duplicate(n *node) {
	w, p := l.w, l.w.peerOf(n)
	switch {
	case n.state != running || p.state != running || n.sess == nil || n.next != nil || p.next != nil || l.cut[0] || l.cut[1] || !n.wantConnect || !p.wantConnect:
		return
	case p.sess != n.sess || w.chance(0.5):
		l.down(p, "no word from the peer")
	}
	if n.sess != nil && p.wantConnect && p.state == running {
		l.establish(p, n, true)
	}
}

// letWait has a new session wait until the one before ended on this side.
func (l *link) letWait(x *node, s *session) {
	w := l.w
	if p := w.peerOf(x); p.sess == x.sess {
		w.cover.fault("duplicate-connection-both")
	} else {
		w.cover.fault("duplicate-connection-one")
	}
	if older := x.next; older != nil {
		older.side[x.id].state = sideDown
		l.tellEnd(older, x, newerCame)
	}
	x.next = s
	old, life := x.sess, x.life
	w.after(w.span(0, overlapTime), func() {
		if x.life == life && x.sess == old {
			l.down(x, newerCame)
		}
	})
}

// takeNext begins the session that waited for the end of the one before.
func (l *link) takeNext(n *node) {
	s := n.next
	if s == nil {
		return
	}
	n.sess, n.next = s, nil
	if !n.wantConnect || n.state != running || s.side[n.id].life != n.life {
		l.down(n, "this node does not take part now")
		return
	}
	dir := 1 - n.id
	if p := l.w.peerOf(n); s.side[p.id].state == sideDown || s.side[p.id].life != p.life || l.cut[dir] {
		l.notice(s, n, l.detect())
	}
	l.wake(s, dir)
}

// hurry ends what keeps messages on their way.
func (l *link) hurry() {
	l.late = [2]int64{}
	for _, s := range l.sessions {
		for dir := range s.out {
			st := &s.out[dir]
			at := l.w.now + l.delay()
			st.last = min(st.last, at)
			for i := range st.count {
				it := &st.items[(st.head+i)%len(st.items)]
				it.at = min(it.at, at)
			}
			if st.queued && st.wakeAt > at {
				st.queued = false
				l.wake(s, dir)
			}
		}
	}
}
