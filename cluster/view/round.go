package view

// receive handles a message.
func (m *Machine) receive(msg *Message) {
	if msg.From > MaxNodeID {
		return
	}
	o := m.others[msg.From]
	if o == nil || msg.To != m.cfg.Self {
		return
	}
	if msg.ToInc == m.st.Inc && msg.Seen > m.st.Serial {
		m.restored(msg.From, msg.Seen)
		return
	}
	m.saw(msg.From, msg.Inc, msg.Serial)
	rel := msg.Stamp.against(m.st.View.stamp())
	if msg.Kind == Hello {
		*o = other{id: o.id, inc: msg.Inc, stamp: msg.Stamp, hears: msg.Hears, links: msg.Links, ready: msg.Ready, told: true, since: o.since, missed: o.missed, apart: o.apart}
	}
	if rel == apart {
		if o.apart != msg.Stamp {
			o.apart = msg.Stamp
			m.report(Conflict, msg.From, "node %s has view %s of another chain than this node's %s: both sides were forced; force once more on the side that is to stay", m.name(msg.From), msg.Stamp, m.st.View.stamp())
		}
		return
	}
	switch {
	case rel == older:
		// Whoever lags is told, whatever it says.
		m.send(msg.From, Message{Kind: Committed, View: m.st.View})
		return
	case rel == newer && (msg.Kind == Ask || msg.Kind == Committed):
		m.learn(msg.View)
	case rel == newer:
		if msg.Kind != Hello {
			m.send(msg.From, m.Hello())
		}
		return
	}
	switch msg.Kind {
	case Ask:
		m.onAsk(msg)
	case Promise:
		m.onPromise(msg)
	case Refuse:
		m.onRefuse(msg)
	case Store:
		m.onStore(msg)
	case Stored:
		m.onStored(msg)
	}
}

// promise makes sure that no lower round is served from now on.
func (m *Machine) promise(r Round) {
	if m.st.Prom != r {
		m.st.Prom = r
		m.changed()
	}
}

func (m *Machine) onAsk(msg *Message) {
	// The same round again is the same asker, which heard no answer.
	if msg.Round.Compare(m.st.Prom) < 0 {
		m.send(msg.From, Message{Kind: Refuse, Round: msg.Round, Told: m.st.Prom})
		return
	}
	m.promise(msg.Round)
	a := Message{Kind: Promise, Round: msg.Round, Leaving: m.leaving}
	if acc := m.st.Acc; acc != nil {
		a.Told, a.View = acc.Round, acc.View
	}
	m.send(msg.From, a)
}

// voter says whether a node in this incarnation has a vote on the next view.
func (m *Machine) voter(id NodeID, inc Incarnation) bool {
	return m.st.View == nil || m.st.View.names(id, inc)
}

// quorum says whether these nodes elect the next view. The first one takes everybody.
func (m *Machine) quorum(voters Set) bool {
	if m.st.View == nil {
		return voters == m.all
	}
	return quorum(m.st.View, voters, !m.up)
}

// ask begins a round among these nodes.
func (m *Machine) ask(nodes Set, f *Force) {
	self := m.cfg.Self
	if m.st.Prom.Num >= maxNumber || m.st.View.stamp().Index >= maxIndex {
		return // only a fault elsewhere counts so far
	}
	m.round = Round{m.st.Prom.Num + 1, self, m.st.Inc}
	m.promise(m.round)
	m.ph, m.want, m.force = asking, nodes|SetOf(self), f
	m.votes = map[NodeID]vote{self: {m.st.Inc, m.leaving}}
	m.best = m.st.Acc
	m.ends, m.resend = m.now.add(m.cfg.Round), m.now.add(resendEvery)
	m.askOthers()
	m.advance()
}

func (m *Machine) askOthers() {
	for _, id := range (m.want &^ SetOf(m.cfg.Self)).IDs() {
		if _, ok := m.votes[id]; !ok {
			m.send(id, Message{Kind: Ask, Round: m.round, View: m.st.View})
		}
	}
}

func (m *Machine) onPromise(msg *Message) {
	if m.ph != asking || msg.Round != m.round || !m.want.Has(msg.From) {
		return
	}
	m.votes[msg.From] = vote{msg.Inc, msg.Leaving}
	if msg.View != nil && m.voter(msg.From, msg.Inc) {
		m.best = higher(m.best, &Proposal{msg.Told, msg.View})
	}
}

func (m *Machine) onRefuse(msg *Message) {
	if m.ph == idle || msg.Round != m.round {
		return
	}
	m.fail()
	if msg.Told.Compare(m.st.Prom) > 0 {
		m.promise(msg.Told) // ours is above theirs next time
	}
}

// fail ends a round without a view; the next one waits longer.
func (m *Machine) fail() {
	if m.force != nil {
		m.report(ForceFailed, m.cfg.Self, "nodes %s did not answer: see that they are down, or heard, and order it again", m.names(m.want&^m.voted()))
	}
	m.ph, m.force = idle, nil
	for _, h := range m.holds {
		h.awaited = false
	}
	most := min(backoffFirst<<min(m.tries, 8), backoffMost)
	m.askAt = m.now.add(most/4 + Duration(m.random()%uint64(most)))
	m.tries++
}

func (m *Machine) voted() Set {
	var s Set
	for id := range m.votes {
		s |= SetOf(id)
	}
	return s
}

// voters are those who promised and have a vote.
func (m *Machine) voters() Set {
	var s Set
	for id, v := range m.votes {
		if m.voter(id, v.inc) {
			s |= SetOf(id)
		}
	}
	return s
}

// advance takes a round as far as it goes.
func (m *Machine) advance() {
	if m.ph == asking && m.st.Prom != m.round {
		m.fail()
	}
	if m.ph == asking && m.voted() == m.want {
		m.propose()
	}
	if m.ph == idle {
		return
	}
	if m.now >= m.ends {
		if m.ph == asking && m.force == nil && m.quorum(m.voters()) {
			m.propose()
		} else {
			m.fail()
		}
		return
	}
	if m.now >= m.resend {
		m.resend = m.now.add(resendEvery)
		switch m.ph {
		case asking:
			m.askOthers()
		case toLeader, storing:
			m.storeOthers()
		}
	}
}

// propose asks for the view to be stored: the one that was told, or a new one.
func (m *Machine) propose() {
	if m.force == nil && !m.quorum(m.voters()) {
		m.fail()
		return
	}
	switch {
	case m.force != nil:
		m.prop = m.forced()
	case m.best != nil:
		m.prop = m.best.View
	default:
		m.prop = m.choose(m.st.View, true)
	}
	m.ph, m.acks = holding, 0
	m.ends, m.resend = m.now.add(m.cfg.Round), m.now.add(resendEvery)
	m.holdFor(m.prop)
	m.publish()
}

// holdFor has writes wait for every peer that the proposal calls in sync, before
// anybody hears of it: it may be committed without this node's knowing.
func (m *Machine) holdFor(v *View) {
	for i := range v.Resources {
		r := &v.Resources[i]
		h, p := m.stake(r.Name), r.peer(m.cfg.Self)
		h.awaited = h.primary && !h.hold && r.InSync.Has(p)
		if h.awaited {
			e := Hold{Resource: r.Name, Peer: p, Number: m.st.View.stamp().Number()}
			if pm := v.Member(p); pm != nil {
				e.Inc = pm.Inc
			}
			m.emit(e)
		}
	}
}

// held is the storage daemon's answer.
func (m *Machine) held(ev Held) {
	h := m.holds[ev.Resource]
	if h == nil || !h.primary || ev.Number != m.st.View.stamp().Number() {
		return // of another view, which said anew what is held
	}
	switch {
	case ev.OK:
		h.hold = true
		h.awaited = false
	case m.ph == holding && h.awaited:
		h.synced = 0
		m.fail()
	}
	m.publish()
}

// publish sends the proposal out once all holds stand.
func (m *Machine) publish() {
	if m.ph != holding {
		return
	}
	for _, h := range m.holds {
		if h.awaited {
			return
		}
	}
	if m.force != nil {
		m.force = nil
		m.learn(m.prop)
		m.report(Forced, m.cfg.Self, "view %s was committed by order of %s, without asking nodes %s", m.prop.Stamp, m.prop.Origin.Who, m.names(m.all&^m.prop.Set()))
		m.tell()
		return
	}
	m.ph = storing
	if l := m.prop.Leader(); l != m.cfg.Self && m.voters().Has(l) {
		m.ph = toLeader
	} else {
		m.storeSelf()
	}
	if m.ph != idle {
		m.storeOthers()
	}
}

// receivers are who is asked to store: the leader of the proposed view alone, as long
// as it did not; then the members of the present one.
func (m *Machine) receivers() Set {
	switch {
	case m.ph == toLeader:
		return SetOf(m.prop.Leader())
	case m.st.View == nil:
		return m.all &^ m.acks &^ SetOf(m.cfg.Self)
	}
	return m.st.View.Set() & m.all &^ m.acks &^ SetOf(m.cfg.Self)
}

func (m *Machine) storeOthers() {
	for _, id := range m.receivers().IDs() {
		m.send(id, Message{Kind: Store, Round: m.round, View: m.prop})
	}
}

// store is a member's answer to a proposal.
func (m *Machine) store(r Round, v *View) bool {
	if !m.voter(m.cfg.Self, m.st.Inc) || r.Compare(m.st.Prom) < 0 {
		return false
	}
	if m.st.View == nil && !v.names(m.cfg.Self, m.st.Inc) {
		return false
	}
	if held := m.guarded(v); held != 0 {
		m.emit(Yield{held})
		return false // as if it had not heard: it is asked again
	}
	m.promise(r)
	if m.st.Acc == nil || m.st.Acc.Round != r {
		m.st.Acc, m.accAt = &Proposal{r, v}, m.now
		m.changed()
	}
	return true
}

func (m *Machine) storeSelf() {
	if m.store(m.round, m.prop) {
		m.acked(m.cfg.Self)
	}
}

func (m *Machine) onStore(msg *Message) {
	if msg.View.Stamp.against(m.st.View.stamp()) != newer {
		return
	}
	if m.store(msg.Round, msg.View) {
		m.send(msg.From, Message{Kind: Stored, Round: msg.Round})
	} else if msg.Round.Compare(m.st.Prom) < 0 {
		m.send(msg.From, Message{Kind: Refuse, Round: msg.Round, Told: m.st.Prom})
	}
}

func (m *Machine) onStored(msg *Message) {
	if (m.ph != toLeader && m.ph != storing) || msg.Round != m.round || !m.voter(msg.From, msg.Inc) {
		return
	}
	m.acked(msg.From)
}

// acked counts a node that stored, and commits when it was a quorum's last.
func (m *Machine) acked(id NodeID) {
	m.acks |= SetOf(id)
	first := m.ph == toLeader
	m.ph = storing
	if first {
		m.storeSelf()
		if m.ph == idle {
			return
		}
	}
	if m.quorum(m.acks) {
		m.learn(m.prop)
		m.tell()
		return
	}
	if first {
		m.storeOthers()
	}
}

// tell spreads a view that was committed here.
func (m *Machine) tell() {
	for _, id := range (m.all &^ SetOf(m.cfg.Self)).IDs() {
		m.send(id, Message{Kind: Committed, View: m.st.View})
	}
}
