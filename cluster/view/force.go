package view

// order begins a person's round: all that are heard must promise, and the view is
// committed here, by this node alone, without a vote. Whoever of them stored a proposal
// tells it as always, so that one which was committed by the nodes now down is built
// on, not passed over.
func (m *Machine) order(f Force) {
	switch {
	case f.How == Bootstrap && m.st.View != nil:
		m.report(ForceFailed, m.cfg.Self, "a view is known, %s: bootstrap is for the first one", m.st.View.stamp())
	case f.How == OthersAreDown && m.st.View == nil:
		m.report(ForceFailed, m.cfg.Self, "no view is known here: order it on a node that was a member, or bootstrap a new cluster")
	case f.How != Bootstrap && f.How != OthersAreDown:
		m.report(ForceFailed, m.cfg.Self, "there is no such order")
	case len(f.Who) > MaxName:
		m.report(ForceFailed, m.cfg.Self, "the name of who orders it is longer than %d bytes", MaxName)
	case m.st.View != nil && m.st.View.Stamp.Era >= maxIndex:
		m.report(ForceFailed, m.cfg.Self, "too many eras")
	default:
		m.ask(m.heardTogether(), &f)
	}
}

// forced is the view that a person ordered.
func (m *Machine) forced() *View {
	base := m.st.View
	if m.best != nil {
		base = m.best.View
	}
	v := m.choose(base, m.best == nil)
	was := m.st.View.stamp()
	v.Stamp = Stamp{Era: was.Era + 1, Index: was.Index + 1, Chain: Chain(m.random() | 1)}
	v.Origin = Origin{How: m.force.How, By: m.cfg.Self, Who: m.force.Who, When: m.force.When}
	return v
}
