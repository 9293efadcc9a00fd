package beat

import "fmt"

// link is one way to one node.
type link struct {
	id                         LinkID
	interval, trouble, timeout Duration

	state   LinkState
	reason  string
	wasUp   bool // since the node's start
	carrier bool // at the other end, as far as it said
	out     uint64
	in      window
	echo    Echo    // the newest packet of the start that is believed
	echoAt  Instant // when it came
	inAt    Instant // when a packet was believed last
	proof   Instant // the newest of our send times that it gave back
	outAt   Instant // the same, without the time in which we stood still
	heard   bool    // ever, of this start
	unheard bool    // nothing since this node stood still: no link gets better by that
	came    Instant // when a packet came last, whatever it proved; 0: none did
	replyAt Instant // not before this an answer out of turn
	pieces  assembly
}

// since is when silence began, in the direction that is silent longer. What the other
// end gives back is older than its packet by an interval at most: it waits for its
// turn. A packet that was held back on its way counts from when it was made.
func (l *link) since() Instant { return min(l.inAt, l.outAt.add(l.interval)) }

func (l *link) silence(now Instant) Duration { return max(now.since(l.since()), 0) }

// oneWay says whether the other end is heard, and does not hear this one.
func (l *link) oneWay(now Instant) bool {
	return l.state == LinkDown && l.came != 0 && now.since(l.came) < l.timeout && (!l.heard || now.since(l.outAt) >= l.timeout)
}

// deadline is when its state changes if nothing comes.
func (l *link) deadline() (Instant, bool) {
	at := l.since()
	switch l.state {
	case LinkUp:
		return at.add(l.trouble), true
	case LinkTrouble:
		return at.add(l.timeout), true
	}
	return 0, false
}

// judge sets a link's state.
func (m *Machine) judge(p *peer, l *link, out []Effect) []Effect {
	if !l.heard {
		return out
	}
	silent := l.silence(m.now)
	ours := l.id != Serial && m.noCarrier.Has(NodeID(l.id))
	switch {
	case silent >= l.timeout:
		if l.state != LinkDown {
			p.why = m.silent(p, l)
			return m.setLink(p, l, LinkDown, p.why, out)
		}
	case ours && l.state == LinkUp:
		return m.setLink(p, l, LinkTrouble, "no carrier here", out)
	case !l.carrier && l.state == LinkUp:
		return m.setLink(p, l, LinkTrouble, p.name+" has no carrier", out)
	case silent >= l.trouble:
		if l.state == LinkUp {
			return m.setLink(p, l, LinkTrouble, m.silent(p, l), out)
		}
	case !ours && l.carrier && !l.unheard && l.state != LinkUp:
		return m.setLink(p, l, LinkUp, "heard both ways", out)
	}
	return out
}

// silent says which way is.
func (m *Machine) silent(p *peer, l *link) string {
	silent := seconds(l.silence(m.now))
	if m.now.since(l.inAt) > l.silence(m.now)-l.interval/2 {
		return "nothing heard for " + silent
	}
	return fmt.Sprintf("one way: %s is heard and did not hear this node for %s", p.name, silent)
}

func (m *Machine) setLink(p *peer, l *link, to LinkState, reason string, out []Effect) []Effect {
	if to == l.state {
		return out
	}
	l.state, l.reason = to, reason
	l.wasUp = l.wasUp || to == LinkUp
	return append(out, Effect{Kind: EffLink, Node: p.id, Link: l.id, State: to, Reason: reason})
}

// reply answers a packet out of turn, now and then: who starts, or was not heard for a
// while, is believed once it gives our answer back.
func (m *Machine) reply(p *peer, l *link, echo Echo, out []Effect) []Effect {
	if m.now < l.replyAt {
		return out
	}
	l.replyAt = m.now.add(l.interval / 4)
	return m.beat(p, l, echo, m.now, false, out)
}
