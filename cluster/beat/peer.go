package beat

import (
	"fmt"
	"slices"
)

// peer is what is known of another node.
type peer struct {
	id    NodeID
	name  string
	links []*link

	incarnation uint64 // who is believed; 0: nobody yet
	starts      []start
	up          bool
	why         string // why it is down
	jeopardy    bool
	messages    window
	last        Beat // its last heartbeat
	lastSent    Instant
	gone        bool // it said that it stops

	ahead         Duration // of its wall clock, as warned last
	duplicate     bool
	duplicateTill Instant
	reported      bool         // it says that another host uses our name
	asked         Digest       // of its configuration, when it was last told the groups of ours
	askedAt       Instant      //
	differs       []Difference // told last
}

// start is one incarnation of a node. Of two that both proved that they live, if the
// one that was heard first lived when the other was already heard, there are two.
type start struct {
	incarnation uint64
	first       Instant // when it was first heard
	proven      Instant // until when it lived at least: our send time that it gave back; 0: not known

	// Of one that is not believed, while another one is heard: since when its packets
	// come, when the first of them was sent, how many came, and whether that was told.
	strange, strangeSent Instant
	strangers            int
	told                 bool
}

const (
	// maxStarts bounds the incarnations of a node that are remembered.
	maxStarts = 4
	// sayDuplicate is how long two hosts count as two after the last sign of it.
	sayDuplicate = 30 * Second
	// fewStrangers are packets of another start that may be late, or tried by somebody.
	fewStrangers = 4
	// askAgain is how often nodes whose configurations differ compare them.
	askAgain = 10 * Second
)

// start gives the record of an incarnation.
func (p *peer) start(incarnation uint64, now Instant) *start {
	for i := range p.starts {
		if p.starts[i].incarnation == incarnation {
			return &p.starts[i]
		}
	}
	if len(p.starts) == maxStarts { // the one heard first goes, not the one that is believed
		i := 0
		if p.starts[0].incarnation == p.incarnation {
			i = 1
		}
		p.starts = slices.Delete(p.starts, i, i+1)
	}
	p.starts = append(p.starts, start{incarnation: incarnation, first: now})
	return &p.starts[len(p.starts)-1]
}

// double is until when two incarnations lived at once, as far as is known; 0: never.
func (p *peer) double() (until Instant) {
	for i, older := range p.starts {
		for _, newer := range p.starts[i+1:] { // in the order of first
			if older.proven > newer.first {
				until = max(until, min(older.proven, newer.proven))
			}
		}
	}
	return until
}

// stranger watches packets of a start that is not believed while another one is heard.
// If they go on coming and go on being made, there is a second host, though it does not
// show that it hears us (who has the node's address is one of both), or a recording.
func (m *Machine) stranger(p *peer, s *start, sent Instant, out []Effect) []Effect {
	switch {
	case !p.up:
		s.strange = 0
		return out
	case s.strange == 0:
		s.strange, s.strangeSent, s.strangers = m.now, sent, 0
	}
	s.strangers++
	if s.told || s.strangers < fewStrangers || m.now.since(s.strange) < 2*m.cfg.Timeout || sent.since(s.strangeSent) < m.cfg.Timeout {
		return out
	}
	s.told = true
	return append(out, Effect{Kind: EffDuplicate, Node: p.id, Reason: "heartbeats of a second start of node " + p.name + " go on coming: another host uses its id, or somebody plays a recording"})
}

// who decides whether an incarnation that just proved itself is believed.
func (m *Machine) who(p *peer, incarnation, was uint64, first Instant, out []Effect) ([]Effect, bool) {
	if at := p.double(); at != 0 && m.now.since(at) < sayDuplicate {
		p.duplicateTill = at.add(sayDuplicate)
		if !p.duplicate {
			p.duplicate = true
			out = append(out, Effect{Kind: EffDuplicate, Node: p.id, Reason: "two hosts send heartbeats as node " + p.name + ": stop one of them, or give it an id and a name of its own"})
		}
	}
	if incarnation == p.incarnation {
		return out, true
	}
	if p.incarnation != 0 {
		if current := p.start(was, m.now); first < current.first && p.up {
			return out, false // an older start of it, and the newer one lives
		}
	}
	return m.adopt(p, incarnation, out), true
}

// adopt believes a start of a node from now on. What was known of another is void.
func (m *Machine) adopt(p *peer, incarnation uint64, out []Effect) []Effect {
	if p.incarnation != 0 {
		for _, l := range p.links {
			out = m.setLink(p, l, LinkDown, "it started anew", out)
			fresh := m.newLink(l.id)
			fresh.out = l.out // counts our packets, which never begin anew
			*l = *fresh
		}
		p.why, p.jeopardy = "it started anew", false
		out = m.judgeNode(p, out)
	}
	p.incarnation, p.messages, p.last, p.lastSent, p.gone = incarnation, window{}, Beat{}, 0, false
	p.asked, p.reported = Digest{}, false
	return out
}

// judgeNode says when a node is heard on some link or on none, and when one is left.
func (m *Machine) judgeNode(p *peer, out []Effect) []Effect {
	var left []LinkID
	for _, l := range p.links {
		if l.state != LinkDown {
			left = append(left, l.id)
		}
	}
	if up := len(left) > 0; up != p.up {
		p.up = up
		e := Effect{Kind: EffNode, Node: p.id, Up: up, Incarnation: p.incarnation, Reason: "it is heard, and hears this node"}
		if !up {
			// Who says that it stops, or started anew, is no riddle.
			e.Jeopardy, e.Reason = p.jeopardy && !p.gone, p.why
			p.jeopardy = false
			p.last.Hears = nil
		}
		out = append(out, e)
	}
	if jeopardy := len(left) == 1 && len(p.links) > 1; jeopardy != p.jeopardy && p.up {
		// A node that comes up does so link by link.
		if jeopardy && !p.settled(m.now) {
			return out
		}
		p.jeopardy = jeopardy
		e := Effect{Kind: EffJeopardy, Node: p.id, Up: jeopardy, Link: left[0], Reason: "more than one link is left"}
		if jeopardy {
			e.Reason = fmt.Sprintf("%v is the last one: if it is lost too, nobody can tell whether the node is", left[0])
		}
		out = append(out, e)
	}
	return out
}

// settled: every link of it was up, or had the time to get up.
func (p *peer) settled(now Instant) bool {
	for _, l := range p.links {
		if !l.wasUp && now < p.since(l) {
			return false
		}
	}
	return true
}

// since is when a link has had its time since the node was first heard.
func (p *peer) since(l *link) Instant {
	for _, s := range p.starts {
		if s.incarnation == p.incarnation {
			return s.first.add(l.timeout)
		}
	}
	return 0
}
