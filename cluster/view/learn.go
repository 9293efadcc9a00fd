package view

// start takes over what was stored. A node that finds nothing is a new one.
func (m *Machine) start(s Start) {
	m.ph, m.accAt, m.began = idle, m.now, m.now
	switch {
	case s.Stored == nil:
		m.fresh()
	case s.Stored.Node != m.cfg.Self:
		m.fresh()
		m.report(Wiped, m.cfg.Self, "the stored state is that of node %s", m.name(s.Stored.Node))
	case s.Stored.View.stamp().Number() < s.Floor:
		m.fresh()
		m.report(Wiped, m.cfg.Self, "the stored state ends at view %s; this node has known %d.%d", s.Stored.View.stamp(), s.Floor>>32, uint32(s.Floor))
	default:
		m.st = *s.Stored
		m.st.Seen = nil
		for _, x := range s.Stored.Seen { // of nodes that are still configured
			if m.others[x.Node] != nil {
				m.st.Seen = append(m.st.Seen, x)
			}
		}
		m.changed() // a copy taken before this start is older than what is sent now
	}
	m.emit(Known{m.st.View.stamp().Number()})
}

// fresh makes this node one that nobody knows and that knows nothing.
func (m *Machine) fresh() {
	m.st = State{Node: m.cfg.Self, Inc: Incarnation(m.random() | 1)} // never 0
	m.changed()
}

// restored ends this incarnation: somebody saw a later state of it than there is.
func (m *Machine) restored(from NodeID, serial uint64) {
	was := m.st.Serial
	m.fresh()
	m.ph, m.up, m.force, m.askAt = idle, false, nil, 0
	clear(m.holds)
	m.report(Wiped, m.cfg.Self, "node %s saw change %d of this node's state, which ends at %d: it was put back from an older copy", m.name(from), serial, was)
	m.emit(Learned{View: &View{}})
}

// learn takes a newer committed view over. What an own proposal held for is decided
// with it: the resource is held for who is in sync in this view.
func (m *Machine) learn(v *View) {
	if m.force != nil {
		m.report(ForceFailed, m.cfg.Self, "view %s was learned meanwhile: order it again if it is still needed", v.Stamp)
		m.force = nil
	}
	old := m.st.View
	m.st.View, m.st.Prom, m.st.Acc = v, Round{}, nil
	m.changed()
	m.ph, m.askAt, m.tries, m.waits, m.asked = idle, 0, 0, "", ""
	m.up = v.names(m.cfg.Self, m.st.Inc)
	for i := range v.Resources {
		r := &v.Resources[i]
		h := m.stake(r.Name)
		if !m.up || r.Owner != m.cfg.Self {
			*h = stake{}
			continue
		}
		if !h.primary {
			h.synced, h.drop = 0, false
		}
		h.primary, h.hold, h.stuck, h.awaited, h.given = true, r.InSync.Has(r.peer(m.cfg.Self)), false, false, false
		if !h.hold {
			h.drop = false
		}
	}
	for name := range m.holds {
		if v.Resource(name) == nil {
			delete(m.holds, name)
		}
	}
	m.granted(v)
	m.emit(Learned{v, m.mine()})
	if old != nil && old.Stamp.Era != v.Stamp.Era && v.Origin.By != m.cfg.Self {
		m.report(Gone, v.Origin.By, "a person began era %d on node %s (%s): what was done apart from it since view %s is not part of it", v.Stamp.Era, m.name(v.Origin.By), v.Origin.How, old.Stamp)
	}
}

// mine is what this node owns, and what it holds for, by now.
func (m *Machine) mine() []Grant {
	var mine []Grant
	v := m.st.View
	for i := range v.Resources {
		r := &v.Resources[i]
		h := m.holds[r.Name]
		if h == nil || !h.primary || h.given {
			continue
		}
		g := Grant{Resource: r.Name, Peer: r.peer(m.cfg.Self), Hold: h.hold}
		if p := v.Member(g.Peer); p != nil {
			g.PeerInc = p.Inc
		}
		mine = append(mine, g)
	}
	return mine
}

// recall tells a storage daemon that started all it was told before. What it knew of
// its peers is gone, and with it the reason to call one in sync: a proposal that waits
// to be held for is not made. Nor is it told, on trust, to hold for that: this may be
// heard late, and what it acknowledged since it started would be missing there.
func (m *Machine) recall() {
	waits := m.ph == holding
	if v := m.st.View; v == nil {
		m.emit(Known{})
	} else {
		m.emit(Learned{v, m.mine()})
	}
	for _, h := range m.holds {
		h.synced, h.drop = 0, false
	}
	if waits {
		m.fail()
	}
}

// granted drops the wishes that a view fulfils, or that it makes impossible.
func (m *Machine) granted(v *View) {
	for name, w := range m.moves {
		r := v.Resource(name)
		if r == nil || w.Force && r.Forced && r.Owner == m.cfg.Self || !w.Force && (r.Owner == w.To || !r.InSync.Has(w.To)) {
			delete(m.moves, name)
		}
	}
	for _, name := range sortedKeys(m.groups) {
		now := v.Group(name)
		if now == "" && len(v.Groups) == MaxGroups {
			m.report(Refused, m.cfg.Self, "group %s: %d groups have a state, which is the most", name, MaxGroups)
		} else if now != m.groups[name] {
			continue
		}
		delete(m.groups, name)
	}
}
