package planted

// viewSim is the simulation of views, which has oracles of its own.
const viewSim = "test/sim/views/cmd/views"

var viewOracles = []string{"views: chain", "views: kept", "views: lease", "views: live", "views: one", "views: owner", "views: still", "views: stored"}

// The mistakes in the rules of cluster/view; and in those of the storage daemon, which
// are a model in test/sim/views.
func init() {
	for _, b := range viewBugs {
		if b.Test == "" {
			b.Sim = viewSim
		}
		Bugs = append(Bugs, b)
	}
}

var viewBugs = []Bug{
	// Who asks counts on no wiped node either, which saves the vote.
	{Name: "a wiped node votes", Oracle: "chain", Runs: 4000, Took: 25, Edits: []Edit{
		{"cluster/view/steer.go", "o != nil && (!o.told || o.inc == mb.Inc)", "o != nil"},
		{"cluster/view/round.go", "return m.st.View == nil || m.st.View.names(id, inc)", "return m.st.View == nil || m.st.View.Member(id) != nil"},
	}},
	{Name: "a lease is not waited out", Oracle: "lease", Runs: 400, Took: 21, Edits: []Edit{
		{"cluster/view/round.go", "held := m.guarded(v); held != 0 {", "held := m.guarded(v); held != 0 && m.st.View == nil {"},
	}},
	{Name: "who learns a view guards nobody", Oracle: "lease", Runs: 4000, Took: 901, Edits: []Edit{
		{"cluster/lease/lease.go", "			m.guard(id, m.promise())\n		}\n	}\n}", "			_ = id\n		}\n	}\n}"},
	}},
	// With replicas under it the guard of the lease of the life before saves it first.
	{Name: "a restarted owner has a lease by what it stored", Test: "./cluster/lease -run TestNoViewWithoutAnOwnerThatServes", Edits: []Edit{
		{"cluster/lease/lease.go", "return m.known && !m.stored &&", "return m.known &&"},
	}},
	{Name: "a lease is renewed although its end is waited for", Oracle: "live", Runs: 4000, Took: 918, Edits: []Edit{
		{"cluster/lease/lease.go", "		m.yields |= ev.Nodes\n", ""},
	}},
	{Name: "a told proposal is not proposed again", Oracle: "chain", Runs: 1000, Took: 237, Edits: []Edit{
		{"cluster/view/round.go", "	case m.best != nil:\n		m.prop = m.best.View\n", ""},
	}},
	{Name: "a lower round is stored", Oracle: "stored", Runs: 1000, Took: 7, Edits: []Edit{
		{"cluster/view/round.go", "if !m.voter(m.cfg.Self, m.st.Inc) || r.Compare(m.st.Prom) < 0 {", "if !m.voter(m.cfg.Self, m.st.Inc) {"},
	}},
	{Name: "a promise is forgotten over a crash", Oracle: "stored", Runs: 1000, Took: 1, Edits: []Edit{
		{"cluster/view/learn.go", "		m.st = *s.Stored\n", "		m.st = *s.Stored\n		m.st.Prom = Round{}\n"},
	}},
	{Name: "a proposal is forgotten over a crash", Oracle: "stored", Runs: 1000, Took: 3, Edits: []Edit{
		{"cluster/view/learn.go", "		m.st = *s.Stored\n", "		m.st = *s.Stored\n		m.st.Acc = nil\n"},
	}},
	{Name: "messages go out before what they stand on is stored", Oracle: "one", Runs: 2000, Took: 137, Edits: []Edit{
		{"cluster/view/machine.go", "	m.settle()\n	m.out = append(m.out, e)\n", "	m.out = append(m.out, e)\n"},
		{"cluster/view/machine.go", "	msg.Stamp = m.st.View.stamp()\n	m.settle()\n", "	msg.Stamp = m.st.View.stamp()\n"},
	}},
	{Name: "the tie is broken for both sides", Oracle: "chain", Runs: 1000, Took: 88, Edits: []Edit{
		{"cluster/view/view.go", "2*c == n && !starting && voters.Has(v.Leader())", "2*c == n && !starting"},
	}},
	{Name: "the hold ends at the proposal", Oracle: "kept", Runs: 1000, Took: 4, Edits: []Edit{
		{"test/sim/views/storage.go", "		s.n.tell(view.Drop{Resource: r.name})\n", "		s.n.tell(view.Drop{Resource: r.name})\n		r.hold = false\n"},
	}},
	{Name: "nothing is held for a proposal", Oracle: "kept", Runs: 1000, Took: 5, Edits: []Edit{
		{"cluster/view/round.go", "		h.awaited = h.primary && !h.hold && r.InSync.Has(p)\n", "		h.awaited = false\n"},
	}},
	{Name: "a third node adds to the in-sync set", Oracle: "kept", Runs: 1000, Took: 4, Edits: []Edit{
		{"cluster/view/choose.go", "	r.InSync, r.Forced, r.Handed = s, false, false\n", "	if s != 0 && s&present != 0 && r.Owner != self {\n		s |= r.Nodes & present\n	}\n	r.InSync, r.Forced, r.Handed = s, false, false\n"},
	}},
	{Name: "a restarted owner goes on from the stored view", Oracle: "one", Runs: 4000, Took: 740, Edits: []Edit{
		{"cluster/view/learn.go", "		m.changed() // a copy taken before this start is older than what is sent now\n", "		m.changed()\n		if v := s.Stored.View; v != nil {\n			m.learn(v)\n		}\n"},
		{"cluster/view/learn.go", "	m.st.View, m.st.Prom, m.st.Acc = v, Round{}, nil\n", "	if v != m.st.View {\n		m.st.View, m.st.Prom, m.st.Acc = v, Round{}, nil\n	}\n"},
	}},
	{Name: "a replica takes writes of an older generation", Oracle: "one", Runs: 4000, Took: 21, Edits: []Edit{
		{"test/sim/views/storage.go", "!r.primary && number >= r.number", "!r.primary"},
	}},
	{Name: "a replica that started takes writes before it is told", Oracle: "one", Runs: 4000, Took: 1106, Edits: []Edit{
		{"test/sim/views/storage.go", "return s.n.on && r.told && ", "return s.n.on && "},
	}},
	{Name: "a confirmation of another incarnation counts", Test: "./test/sim/views -run TestCases/.*wiped_peer", Edits: []Edit{
		{"test/sim/views/storage.go", "if !r.primary || inc != r.peerInc {", "if !r.primary {"},
	}},
	// Each of two ends says so for itself, both must, and so must who wants to come in.
	{Name: "one direction counts as a link", Oracle: "still", Runs: 1000, Took: 29, Edits: []Edit{
		{"cluster/view/steer.go", "return says(a, b) && says(b, a)", "return says(a, b) || says(b, a)"},
		{"cluster/view/steer.go", "		if survivors&^m.others[id].links&^SetOf(id) != 0 {\n", "		if false {\n"},
		{"cluster/view/steer.go", "both := heard && o.hears.Has(m.cfg.Self)", "both := heard"},
	}},
	{Name: "an absent node in sync comes back wiped, and owns", Oracle: "kept", Runs: 2000, Took: 269, Edits: []Edit{
		{"cluster/view/choose.go", "if present.Has(id) && base.InSyncAs(id) != v.Member(id).Inc {", "if present.Has(id) && base.Member(id) != nil && base.Member(id).Inc != v.Member(id).Inc {"},
	}},
	{Name: "an owner that is not in sync", Oracle: "owner", Runs: 100, Took: 11, Edits: []Edit{
		{"cluster/view/choose.go", "	can := s & present\n", "	can := r.Nodes & present\n"},
		{"cluster/view/codec.go", "		case x.Owner != Nobody && !(x.InSync & data).Has(x.Owner):\n			r.fail(\"an owner that is not in sync\")\n", ""},
	}},
	{Name: "a restored store is not recognised", Oracle: "chain", Runs: 6000, Took: 2596, Edits: []Edit{
		{"cluster/view/round.go", "if msg.ToInc == m.st.Inc && msg.Seen > m.st.Serial {", "if false {"},
		{"cluster/view/learn.go", "	case s.Stored.View.stamp().Number() < s.Floor:", "	case false:"},
	}},
	{Name: "nobody asks for an owner that is gone", Oracle: "live", Runs: 200, Took: 1, Edits: []Edit{
		{"cluster/view/steer.go", "	case !m.up:\n		return \"this node started\", true\n", ""},
	}},
}
