package view

import (
	"fmt"
)

// Who asks for another view, and when. Nothing here guards anything: a wrong answer
// costs a view, or time.

// links are the nodes with which this one hears and is heard.
func (m *Machine) links() Set {
	var s Set
	for _, o := range m.list {
		if o.since != 0 {
			s |= SetOf(o.id)
		}
	}
	return s
}

// ready are those of them for which that has lasted.
func (m *Machine) ready() Set {
	var s Set
	for _, o := range m.list {
		if o.since != 0 && m.now >= o.since.add(m.cfg.Rejoin) {
			s |= SetOf(o.id)
		}
	}
	return s
}

// meet keeps since when each of two hears the other. One direction is no link: such a
// node could be asked and never answer, or the other way round.
func (m *Machine) meet() {
	mine := m.st.View.stamp()
	for _, o := range m.list {
		heard := m.heard.Has(o.id) && o.told && o.stamp.against(mine) != apart
		both := heard && o.hears.Has(m.cfg.Self)
		switch {
		case both && o.since == 0:
			o.since = max(m.now, 1)
			o.missed = 0
		case both:
			o.missed = 0
		case !heard:
			o.since, o.missed = 0, 0
		case o.since != 0 && o.missed == 0:
			o.missed = max(m.now, 1)
		case o.since != 0 && m.now >= o.missed.add(linkGrace):
			o.since, o.missed = 0, 0
		}
	}
}

// Hello is what this node tells in every heartbeat. It is to be made for each of them.
func (m *Machine) Hello() Message {
	return Message{Kind: Hello, Hears: m.heard, Links: m.links(), Ready: m.ready()}
}

// Greet gives the heartbeats of this moment, one for each other node.
func (m *Machine) Greet() []Effect {
	m.out = nil
	for _, id := range (m.all &^ SetOf(m.cfg.Self)).IDs() {
		m.send(id, m.Hello())
	}
	return m.out
}

// linked says whether two nodes hear each other, as far as this one knows. Of a node
// that is not heard here only the other one's word is known.
func (m *Machine) linked(a, b NodeID) bool {
	says := func(x, y NodeID) bool {
		if x == m.cfg.Self {
			return m.links().Has(y)
		}
		return m.links().Has(x) && m.others[x].links.Has(y)
	}
	switch {
	case a == m.cfg.Self || b == m.cfg.Self || m.links().Has(a) && m.links().Has(b):
		return says(a, b) && says(b, a)
	}
	return says(a, b) || says(b, a)
}

// together says whether all of a set hear each other.
func (m *Machine) together(s Set) bool {
	ids := s.IDs()
	for i, a := range ids {
		for _, b := range ids[:i] {
			if !m.linked(a, b) {
				return false
			}
		}
	}
	return true
}

// best is the best of the subsets of s that hear each other and are good.
func (m *Machine) bestOf(s Set, good func(Set) bool) Set {
	var best Set
	for t := s; t != 0; t = (t - 1) & s {
		if t.Len() < best.Len() || !m.together(t) || !good(t) {
			continue
		}
		if best == 0 || m.better(t, best) {
			best = t
		}
	}
	return best
}

// better: the largest, then the one with the current owners, then the lowest id.
func (m *Machine) better(a, b Set) bool {
	if a.Len() != b.Len() {
		return a.Len() > b.Len()
	}
	if x, y := m.owners(a), m.owners(b); x != y {
		return x > y
	}
	return a != b && a.Has((a ^ b).lowest())
}

func (m *Machine) owners(s Set) int {
	n := 0
	if v := m.st.View; v != nil {
		for i := range v.Resources {
			if s.Has(v.Resources[i].Owner) {
				n++
			}
		}
	}
	return n
}

// standing is the set of nodes that the next view should have: of the members, the
// best set that hears each other and is a quorum; and of the others all that every one
// of these hears. It is 0 if there is no quorum.
func (m *Machine) standing() (survivors, all Set) {
	v, self := m.st.View, m.cfg.Self
	if v == nil {
		for _, o := range m.list {
			if !o.told || o.stamp.Index != 0 {
				return 0, 0
			}
		}
		if !m.together(m.all) {
			return 0, 0
		}
		return m.all, m.all
	}
	var can Set
	for _, mb := range v.Members {
		o := m.others[mb.ID]
		if mb.ID == self && mb.Inc == m.st.Inc || o != nil && (!o.told || o.inc == mb.Inc) {
			can |= SetOf(mb.ID)
		}
	}
	survivors = m.bestOf(can, func(s Set) bool { return quorum(v, s, !m.up && s.Has(self)) })
	if survivors == 0 {
		return 0, 0
	}
	outside := m.ready() &^ can
	for _, s := range survivors.IDs() {
		if s != self {
			outside &= m.others[s].ready & m.others[s].links
		}
	}
	for _, id := range outside.IDs() {
		if survivors&^m.others[id].links&^SetOf(id) != 0 {
			outside &^= SetOf(id)
		}
	}
	return survivors, survivors | m.bestOf(outside, func(Set) bool { return true })
}

// heardTogether is the largest set around this node that hears each other.
func (m *Machine) heardTogether() Set {
	self := SetOf(m.cfg.Self)
	return self | m.bestOf(m.links(), func(Set) bool { return true })
}

// reason says why there should be another view of these nodes, and whether this node
// alone can know; "" if there is no reason.
func (m *Machine) reason(all Set) (why string, mine bool) {
	v, self := m.st.View, m.cfg.Self
	switch {
	case v == nil:
		return "there is no view yet", false
	case !m.up:
		return "this node started", true
	case v.Member(self).Leaving != m.leaving:
		return "this node leaves, or stays", true
	}
	for i := range v.Resources {
		r := &v.Resources[i]
		if h := m.holds[r.Name]; h != nil && h.primary {
			p := r.peer(self)
			in := r.InSync.Has(p)
			if h.given {
				return r.Name + " was given up here", true
			}
			if h.drop && (in || h.hold || h.stuck) {
				return "the replica of " + r.Name + " does not answer", true
			}
			if (h.hold || h.stuck) && !in && h.synced == 0 {
				return "writes of " + r.Name + " wait for a replica that is not in sync", true
			}
			if !h.drop && !in && h.synced != 0 && all.Has(p) && m.others[p].inc == h.synced {
				return "the replica of " + r.Name + " is in sync", true
			}
		}
	}
	for _, name := range sortedKeys(m.moves) {
		w := m.moves[name]
		if r := v.Resource(name); w.Force || r.Owner != w.To && pickOwner(v, r.InSync&all&v.Set(), r.Owner, w.To) == w.To {
			return "a person moves " + name, true
		}
	}
	if len(m.groups) > 0 {
		return "a group's state is ordered", true
	}
	if m.st.Acc != nil && m.now >= m.accAt.add(undecided*m.cfg.Round) {
		// Who stored one gives and takes no lease by the present view any more.
		return fmt.Sprintf("proposal %s was neither committed nor replaced", m.st.Acc.Round), false
	}
	if all != v.Set() {
		return fmt.Sprintf("the nodes are %s, not %s", m.names(all), m.names(v.Set())), false
	}
	for _, id := range all.IDs() {
		if o := m.others[id]; o != nil && !v.names(id, o.inc) {
			return fmt.Sprintf("node %s is new", m.name(id)), false
		}
	}
	for i := range v.Resources {
		r := &v.Resources[i]
		if next := pickOwner(v, r.InSync&all&v.Set(), r.Owner, Nobody); next != r.Owner {
			return fmt.Sprintf("%s should be owned by %s", r.Name, m.name(next)), false
		}
	}
	for i := range m.cfg.Resources {
		if c := &m.cfg.Resources[i]; m.enters(v, c, all) {
			return c.Name + " is new", false
		}
	}
	return "", false
}

// steer begins a round when there is a reason and nothing speaks against it. Where
// several nodes have the reason, one begins and the others give it time.
func (m *Machine) steer() {
	if m.ph != idle {
		return
	}
	survivors, all := m.standing()
	if !survivors.Has(m.cfg.Self) {
		m.askAt = 0
		m.wait()
		return
	}
	m.waits = ""
	why, mine := m.reason(all)
	if why == "" {
		m.askAt, m.tries, m.asked = 0, 0, ""
		return
	}
	if m.early() {
		m.askAt = 0 // the next heartbeat looks again
		return
	}
	if m.askAt == 0 {
		m.askAt = m.now.add(Duration(m.random() % uint64(stagger/4)))
		if !mine {
			before := survivors & (SetOf(m.cfg.Self) - 1)
			m.askAt = m.askAt.add(Duration(before.Len()) * stagger)
		}
	}
	if at := m.patience(all); at > m.askAt {
		m.askAt = at.add(Duration(m.random() % uint64(stagger/4)))
	}
	if m.now >= m.askAt {
		if m.asked != why { // not at every try
			m.asked = why
			m.report(Asks, m.cfg.Self, "%s", why)
		}
		m.ask(all, nil)
	}
}

// early says whether this node has just started and not heard every member yet. Whom it
// leaves out would have to be copied to again, although nothing is wrong with it.
func (m *Machine) early() bool {
	v := m.st.View
	return !m.up && v != nil && m.now < m.began.add(startGrace) && v.Set()&^m.links()&^SetOf(m.cfg.Self) != 0
}

// wait tells once why nothing can be decided here.
func (m *Machine) wait() {
	var s string
	v := m.st.View
	switch {
	case v == nil:
		s = fmt.Sprintf("no view is known: the first one needs all nodes, each new; heard both ways: %s", m.names(m.links()))
	case !v.names(m.cfg.Self, m.st.Inc):
		s = fmt.Sprintf("view %s of nodes %s does not name this node as it is now: it waits to be taken in", v.Stamp, m.names(v.Set()))
	default:
		s = fmt.Sprintf("view %s of nodes %s, leader %s: heard both ways: %s, which is not enough", v.Stamp, m.names(v.Set()), m.name(v.Leader()), m.names(m.links()))
		if !m.up {
			s += " (a node that starts needs more than half)"
		}
	}
	if s != m.waits {
		m.waits = s
		m.report(Waiting, m.cfg.Self, "%s", s)
	}
}

func (m *Machine) wishMove(w Move) {
	r := m.st.View.Resource(w.Resource)
	switch {
	case r == nil || !m.up:
		m.report(Refused, m.cfg.Self, "%s is in no view that names this node", w.Resource)
	case w.Force && !r.Nodes.Has(m.cfg.Self):
		m.report(Refused, m.cfg.Self, "this node has no replica of %s", w.Resource)
	case !w.Force && !r.InSync.Has(w.To):
		m.report(Refused, w.To, "node %s is not in sync of %s (in sync: %s); only force makes it owner", m.name(w.To), w.Resource, m.names(r.InSync))
	case !w.Force && r.Owner == w.To:
	default:
		m.moves[w.Resource] = w
		if h := m.stake(w.Resource); !w.Force && h.primary {
			h.given = true
		}
	}
}

func (m *Machine) wishGroup(g Group) {
	switch {
	case g.Name == "" || len(g.Name) > MaxName || len(g.State) > MaxState:
		m.report(Refused, m.cfg.Self, "group %q: 1 to %d bytes of name and %d of state are possible", g.Name, MaxName, MaxState)
	case len(m.groups) >= MaxGroups:
		m.report(Refused, m.cfg.Self, "%d groups wait for their state", len(m.groups))
	case m.st.View.Group(g.Name) == g.State:
		delete(m.groups, g.Name)
	default:
		m.groups[g.Name] = g.State
	}
}
