package beat

import "slices"

// hears is what this node says of the others.
func (m *Machine) hears() []Hears {
	list := make([]Hears, 0, len(m.peers))
	for _, p := range m.peers {
		h := Hears{Node: p.id, Duplicate: p.duplicate, Links: make([]HeardLink, 0, len(p.links))}
		for _, l := range p.links {
			age := uint16(1<<16 - 1)
			if l.heard {
				age = uint16(clamp(m.now.since(l.inAt)/Millisecond, 0, 1<<16-1))
			}
			h.Links = append(h.Links, HeardLink{l.id, l.state, age})
		}
		list = append(list, h)
	}
	return list
}

// Pair is two nodes that hear each other, the lower one first.
type Pair struct{ A, B NodeID }

// Pairs tells who hears whom, both ways: of this node what it finds itself, of two
// others what both said last. They are in order. A node that this node does not hear
// is in none.
func (m *Machine) Pairs() (list []Pair) {
	says := func(p *peer, of NodeID) bool {
		i := slices.IndexFunc(p.last.Hears, func(h Hears) bool { return h.Node == of })
		return i >= 0 && p.last.Hears[i].Best() != LinkDown
	}
	for i, p := range m.peers {
		if !p.up {
			continue
		}
		if says(p, m.cfg.Self) {
			list = append(list, Pair{min(p.id, m.cfg.Self), max(p.id, m.cfg.Self)})
		}
		for _, q := range m.peers[i+1:] {
			if q.up && says(p, q.id) && says(q, p.id) {
				list = append(list, Pair{p.id, q.id})
			}
		}
	}
	slices.SortFunc(list, func(a, b Pair) int { return (int(a.A)-int(b.A))*MaxNodes*2 + int(a.B) - int(b.B) })
	return list
}

// NodeStatus is what a machine knows of another node.
type NodeStatus struct {
	ID          NodeID
	Name        string
	Up          bool
	Reason      string // why it is down
	Jeopardy    bool
	Duplicate   bool
	Incarnation uint64
	Era, Index  uint64
	Ahead       Duration // of its wall clock, where that was warned of
	Differences []Difference
	Links       []LinkStatus
	Hears       []Hears // what it says of the others
	// Proof is the newest of this node's send times that it gave back: whatever was
	// sent to it by then on some link, it may have heard, and it lived then.
	Proof Instant
}

// LinkStatus is one link to it.
type LinkStatus struct {
	Link   LinkID
	State  LinkState
	Reason string
	Heard  bool     // ever
	OneWay bool     // packets come, and do not show that it hears this node
	Silent Duration // the longer one of both ways'
}

// Status is all of it.
func (m *Machine) Status(now Instant) (list []NodeStatus) {
	for _, p := range m.peers {
		s := NodeStatus{
			ID: p.id, Name: p.name, Up: p.up, Jeopardy: p.jeopardy, Duplicate: p.duplicate, Incarnation: p.incarnation,
			Era: p.last.Era, Index: p.last.Index, Ahead: p.ahead, Differences: p.differs, Hears: p.last.Hears,
		}
		if !p.up {
			s.Reason = p.why
		}
		for _, l := range p.links {
			x := LinkStatus{Link: l.id, State: l.state, Reason: l.reason, Heard: l.heard, OneWay: !p.gone && l.oneWay(now)}
			if l.heard {
				x.Silent = l.silence(now)
			}
			s.Links = append(s.Links, x)
			s.Proof = max(s.Proof, l.proof)
		}
		list = append(list, s)
	}
	return list
}
