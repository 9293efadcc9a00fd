package view

// Samples for the tests: everything that a view can have, and the largest ones.

func sampleView() *View {
	return &View{
		Stamp:   Stamp{Era: 2, Index: 41, Chain: 0xc0ffee},
		Origin:  Origin{How: OthersAreDown, By: 1, Who: "anna", When: 1_790_000_000},
		Members: []Member{{0, 0xa0, false, false}, {1, 0xa1, false, true}, {5, 0xa5, true, false}},
		Absent:  []Absent{{3, 0xa3}},
		Resources: []Resource{
			{"data", SetOf(0, 1), 0, SetOf(0, 1), false, false},
			{"logs", SetOf(1, 3), Nobody, SetOf(3), false, true},
			{"spare", SetOf(1), 1, SetOf(1), true, false},
		},
		Groups: []Group{{"data", "frozen"}, {"logs", "offline"}},
	}
}

func after(v *View) *View {
	w := *v
	w.Stamp.Index++
	return &w
}

func sampleState() *State {
	return &State{
		Node: 1, Inc: 0xa1, Serial: 77, View: sampleView(), Prom: Round{9, 5, 0xa5},
		Acc:  &Proposal{Round{8, 0, 0xa0}, after(sampleView())},
		Seen: []Seen{{0, 0xa0, 4}, {5, 0xa5, 1 << 40}},
	}
}

func sampleMessages() []*Message {
	v := sampleView()
	base := Message{From: 1, Inc: 0xa1, Serial: 77, To: 0, ToInc: 0xa0, Seen: 4, Stamp: v.Stamp}
	with := func(f func(m *Message)) *Message {
		m := base
		f(&m)
		return &m
	}
	r := Round{9, 5, 0xa5}
	return []*Message{
		with(func(m *Message) {
			m.Kind, m.Hears, m.Links, m.Ready = Hello, SetOf(0, 5), SetOf(0), SetOf(0)
		}),
		with(func(m *Message) { m.Kind, m.Round, m.View = Ask, r, v }),
		with(func(m *Message) { m.Kind, m.Stamp, m.Round = Ask, Stamp{}, r }),
		with(func(m *Message) { m.Kind, m.Round, m.Told, m.View = Promise, r, Round{3, 0, 0xa0}, after(v) }),
		with(func(m *Message) { m.Kind, m.Round, m.Leaving = Promise, r, true }),
		with(func(m *Message) { m.Kind, m.Round, m.Told = Refuse, r, Round{10, 0, 0xa0} }),
		with(func(m *Message) { m.Kind, m.Round, m.View = Store, r, after(v) }),
		with(func(m *Message) { m.Kind, m.Round = Stored, r }),
		with(func(m *Message) { m.Kind, m.View = Committed, v }),
	}
}

// largest is the longest view that can be.
func largest() *View {
	long := func(i, n int) string {
		b := make([]byte, n)
		for j := range b {
			b[j] = 'a'
		}
		b[0] += byte(i / 16)
		b[1] += byte(i % 16)
		return string(b)
	}
	v := &View{Stamp: Stamp{maxIndex - 1, maxIndex - 1, 1 << 63}, Origin: Origin{OthersAreDown, MaxNodeID, long(0, MaxName), 1 << 40}}
	for i := range MaxNodes {
		v.Members = append(v.Members, Member{NodeID(i), Incarnation(i + 1), false, true})
		v.Absent = append(v.Absent, Absent{NodeID(20 + i), 9})
	}
	for i := range MaxResources {
		n := NodeID(i % MaxNodes)
		v.Resources = append(v.Resources, Resource{long(i, MaxName), SetOf(n, 20+n), n, SetOf(n, 20+n), false, false})
	}
	for i := range MaxGroups {
		v.Groups = append(v.Groups, Group{long(i, MaxName), long(i, MaxState)})
	}
	return v
}
