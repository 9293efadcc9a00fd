package view

import (
	"cmp"
	"slices"
)

// choose makes the successor of a view out of those who promised. Only with own is
// what this node owns and wishes heeded: base is then the committed view.
func (m *Machine) choose(base *View, own bool) *View {
	v := &View{Stamp: Stamp{Index: 1, Chain: Chain(m.random() | 1)}, Origin: Origin{How: Elected, By: m.cfg.Self}}
	if base != nil {
		v.Stamp, v.Origin = base.Stamp, base.Origin
		v.Stamp.Index++
		v.Groups = slices.Clone(base.Groups)
		v.Resources = slices.Clone(base.Resources)
	}
	for _, n := range m.cfg.Nodes {
		if vote, ok := m.votes[n.ID]; ok {
			v.Members = append(v.Members, Member{n.ID, vote.inc, n.Witness, vote.leaving})
		}
	}
	slices.SortFunc(v.Members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	for i := range v.Resources {
		m.chooseResource(base, v, &v.Resources[i], own)
	}
	m.enter(v)
	m.recordAbsent(base, v)
	if own {
		for _, name := range sortedKeys(m.groups) {
			setGroup(v, Group{name, m.groups[name]})
		}
	}
	return v
}

// chooseResource decides who is in sync and who owns. A node that is wiped is out; one
// that is absent is out unless all are. Only the owner adds a present node, or drops
// one: nobody else knows what was acknowledged without it.
func (m *Machine) chooseResource(base, v *View, r *Resource, own bool) {
	present := v.Set()
	s := r.InSync
	for _, id := range s.IDs() {
		if present.Has(id) && base.InSyncAs(id) != v.Member(id).Inc {
			s &^= SetOf(id)
		}
	}
	if s&present != 0 {
		s &= present
	}
	self := m.cfg.Self
	if h := m.holds[r.Name]; own && h != nil && h.primary && s.Has(self) {
		p := r.peer(self)
		switch {
		case h.drop:
			s &^= SetOf(p)
		case present.Has(p) && h.synced != 0 && h.synced == v.Member(p).Inc:
			s |= SetOf(p)
		}
	}
	r.InSync, r.Forced, r.Handed = s, false, false
	was, want := r.Owner, Nobody
	if w, ok := m.moves[r.Name]; own && ok {
		if w.Force {
			r.InSync, r.Owner, r.Forced = SetOf(self), self, true
			return
		}
		want = w.To
	}
	can := s & present
	h := m.holds[r.Name]
	gave := own && was == self && h != nil && h.given
	if gave {
		can &^= SetOf(self)
	}
	r.Owner = pickOwner(v, can, r.Owner, want)
	r.Handed = gave
}

// recordAbsent notes which life of an absent node is in sync. Whom there is no room for
// is not in sync: then only force makes an owner, which is safe. (It takes a view of
// more nodes than may be configured.)
func (m *Machine) recordAbsent(base, v *View) {
	for _, id := range (v.inSync() &^ v.Set()).IDs() {
		inc := base.InSyncAs(id)
		if inc != 0 && len(v.Absent) < MaxNodes {
			v.Absent = append(v.Absent, Absent{id, inc})
			continue
		}
		for i := range v.Resources {
			v.Resources[i].InSync &^= SetOf(id)
		}
	}
}

// inSync is who is in any in-sync set.
func (v *View) inSync() Set {
	var s Set
	for i := range v.Resources {
		s |= v.Resources[i].InSync
	}
	return s
}

// pickOwner chooses among the present nodes in sync: who is wanted, else who owns already,
// else the lowest that is not leaving.
func pickOwner(v *View, can Set, now, want NodeID) NodeID {
	switch {
	case can.Has(want):
		return want
	case can.Has(now):
		return now
	}
	for _, id := range can.IDs() {
		if !v.Member(id).Leaving {
			return id
		}
	}
	return Nobody
}

// enters says whether a configured resource that no view had yet may enter one of these
// nodes: whose replica is good is known, and all of them are there. Of an absent one it
// would not be known which life is meant.
func (m *Machine) enters(v *View, c *ResourceConfig, nodes Set) bool {
	first := m.first[c.Name]
	return v.Resource(c.Name) == nil && len(v.Resources) < MaxResources && first != 0 && first&^nodes == 0
}

// enter adds what no view had yet.
func (m *Machine) enter(v *View) {
	for i := range m.cfg.Resources {
		c := &m.cfg.Resources[i]
		if !m.enters(v, c, v.Set()) {
			continue
		}
		r := Resource{Name: c.Name, Nodes: SetOf(c.Nodes...), InSync: m.first[c.Name]}
		r.Owner = pickOwner(v, r.InSync, Nobody, Nobody)
		i, _ := slices.BinarySearchFunc(v.Resources, r.Name, func(r Resource, n string) int { return cmp.Compare(r.Name, n) })
		v.Resources = slices.Insert(v.Resources, i, r)
	}
}

func setGroup(v *View, g Group) {
	i, ok := slices.BinarySearchFunc(v.Groups, g.Name, func(a Group, n string) int { return cmp.Compare(a.Name, n) })
	switch {
	case ok && g.State == "":
		v.Groups = slices.Delete(v.Groups, i, i+1)
	case ok:
		v.Groups[i] = g
	case g.State != "" && len(v.Groups) < MaxGroups:
		v.Groups = slices.Insert(v.Groups, i, g)
	}
}

func sortedKeys[T any](m map[string]T) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
