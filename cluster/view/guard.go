package view

// A node that owns something may serve for the time of a lease that members gave it,
// whatever view is elected meanwhile. So who gave one stores no view that takes anything
// from that node before the lease is over, or the owner gave it up itself (Handed): a
// quorum that would elect such a view has one of those who gave it. How long that is, this
// package does not know; it is told (Guard). Nothing of the rules of the views rests on it.

// Guard says until when nothing may be taken from a node: it may still serve by a lease
// (cluster/lease). It is no event, of which others of the same moment could come first and
// decide without it; whoever calls it gives the machine one afterwards.
func (m *Machine) Guard(node NodeID, until Instant) {
	if node <= MaxNodeID {
		m.guards[node] = until
	}
}

// takes says whether a view takes something from a node that the present one says it
// owns, in the life that it names.
func (m *Machine) takes(v *View, from NodeID) bool {
	was := m.st.View.Member(from)
	for i := range m.st.View.Resources {
		if r := &m.st.View.Resources[i]; r.Owner == from {
			next := v.Resource(r.Name)
			if next != nil && next.Handed {
				continue // it gave it up itself
			}
			if next == nil || next.Owner != from || was == nil || !v.names(from, was.Inc) {
				return true
			}
		}
	}
	return false
}

// guarded are the nodes because of which a view may not be stored here now: it takes
// something from them, and they may still serve.
func (m *Machine) guarded(v *View) Set {
	var held Set
	if m.st.View == nil {
		return 0
	}
	for i := range m.st.View.Resources {
		if o := m.st.View.Resources[i].Owner; o != Nobody && m.guards[o] > m.now && m.takes(v, o) {
			held |= SetOf(o)
		}
	}
	return held
}

// patience is until when a view of these nodes could not be stored here, so that no
// round is begun for it before.
func (m *Machine) patience(nodes Set) Instant {
	var until Instant
	v := m.st.View
	if v == nil {
		return 0
	}
	for i := range v.Resources {
		o := v.Resources[i].Owner
		if o == Nobody || m.guards[o] <= m.now {
			continue
		}
		gone := !nodes.Has(o)
		if x := m.others[min(o, MaxNodeID)]; x != nil && x.told && !v.names(o, x.inc) {
			gone = true // another life of it, while the old one's lease lasts
		}
		if gone {
			until = max(until, m.guards[o])
		}
	}
	return until
}
