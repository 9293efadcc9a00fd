package view

import "testing"

func members(ids ...NodeID) []Member {
	var m []Member
	for _, id := range ids {
		m = append(m, Member{ID: id, Inc: Incarnation(id) + 1})
	}
	return m
}

func TestLeader(t *testing.T) {
	for _, c := range []struct {
		name string
		v    View
		want NodeID
	}{
		{"no resources", View{Members: members(1, 2)}, 1},
		{"a witness is last", View{Members: []Member{{ID: 0, Inc: 1, Witness: true}, {ID: 2, Inc: 1}}}, 2},
		{"witnesses alone", View{Members: []Member{{ID: 3, Inc: 1, Witness: true}, {ID: 4, Inc: 1, Witness: true}}}, 3},
		{"who is in sync", View{Members: members(0, 1), Resources: []Resource{{InSync: SetOf(1)}}}, 1},
		{"in every set", View{Members: members(0, 1, 2), Resources: []Resource{{InSync: SetOf(0, 1)}, {InSync: SetOf(1, 2)}}}, 1},
		{"in no common set", View{Members: members(0, 1), Resources: []Resource{{InSync: SetOf(0)}, {InSync: SetOf(1)}}}, 0},
		{"in most sets", View{Members: members(0, 1), Resources: []Resource{{InSync: SetOf(0)}, {InSync: SetOf(1)}, {InSync: SetOf(1)}}}, 1},
		{"each in one set, and the lowest leaves", View{Members: []Member{{ID: 0, Inc: 1, Leaving: true}, {ID: 1, Inc: 1}}, Resources: []Resource{{InSync: SetOf(0)}, {InSync: SetOf(1)}}}, 1},
		{"who leaves is passed over", View{Members: []Member{{ID: 0, Inc: 1, Leaving: true}, {ID: 1, Inc: 1}}, Resources: []Resource{{InSync: SetOf(0, 1)}}}, 1},
		{"but not for one behind", View{Members: []Member{{ID: 0, Inc: 1, Leaving: true}, {ID: 1, Inc: 1}}, Resources: []Resource{{InSync: SetOf(0)}}}, 0},
		{"the only one in sync is absent", View{Members: members(1, 2), Resources: []Resource{{InSync: SetOf(0)}}}, 1},
	} {
		if got := c.v.Leader(); got != c.want {
			t.Errorf("%s: %d leads, not %d", c.name, got, c.want)
		}
	}
}

func TestQuorum(t *testing.T) {
	four := &View{Members: members(0, 1, 2, 3)}
	for _, c := range []struct {
		v        *View
		voters   Set
		starting bool
		want     bool
	}{
		{four, SetOf(1, 2, 3), false, true},
		{four, SetOf(1, 2, 3), true, true},
		{four, SetOf(0, 3), false, true},
		{four, SetOf(0, 3), true, false},
		{four, SetOf(1, 2), false, false},
		{four, SetOf(0), false, false},
		{four, SetOf(0, 7, 8, 9), false, false}, // who is no member does not count
		{&View{Members: members(2)}, SetOf(2), true, true},
		{&View{Members: members(0, 1)}, SetOf(0), false, true},
		{&View{Members: members(0, 1)}, SetOf(0), true, false},
		{&View{Members: members(0, 1)}, SetOf(1), false, false},
	} {
		if got := quorum(c.v, c.voters, c.starting); got != c.want {
			t.Errorf("%s of %s, starting %v: %v", c.voters, c.v.Set(), c.starting, got)
		}
	}
}

func TestStamps(t *testing.T) {
	for _, c := range []struct {
		a, b Stamp
		want order
	}{
		{Stamp{}, Stamp{0, 1, 5}, older},
		{Stamp{0, 2, 5}, Stamp{0, 1, 5}, newer},
		{Stamp{0, 2, 5}, Stamp{0, 2, 5}, same},
		{Stamp{0, 9, 5}, Stamp{1, 2, 6}, older}, // an era is above every index
		{Stamp{1, 2, 6}, Stamp{1, 2, 7}, apart},
		{Stamp{1, 9, 6}, Stamp{1, 2, 7}, apart},
		{Stamp{2, 1, 6}, Stamp{1, 2, 7}, newer},
	} {
		if got := c.a.against(c.b); got != c.want {
			t.Errorf("%v against %v: %d", c.a, c.b, got)
		}
		if got := c.b.against(c.a); c.want != apart && got != -c.want {
			t.Errorf("%v against %v: %d", c.b, c.a, got)
		}
	}
}

func TestSets(t *testing.T) {
	s := SetOf(5, 0, 63)
	if s.Len() != 3 || !s.Has(63) || s.Has(1) || s.Has(Nobody) || s.String() != "{0,5,63}" || s.lowest() != 0 || Set(0).lowest() != Nobody {
		t.Errorf("%s", s)
	}
}

func TestConfigs(t *testing.T) {
	nodes := []NodeConfig{{ID: 0}, {ID: 1}, {ID: 2, Witness: true}}
	for name, c := range map[string]Config{
		"not among the nodes": {Self: 3, Nodes: nodes},
		"an id twice":         {Nodes: []NodeConfig{{ID: 0}, {ID: 0}}},
		"an id too high":      {Nodes: []NodeConfig{{ID: 0}, {ID: 64}}},
		"too many nodes":      {Nodes: make([]NodeConfig, MaxNodes+1)},
		"on a witness":        {Nodes: nodes, Resources: []ResourceConfig{{"a", []NodeID{0, 2}, 0}}},
		"on three nodes":      {Nodes: append(nodes, NodeConfig{ID: 3}), Resources: []ResourceConfig{{"a", []NodeID{0, 1, 3}, 0}}},
		"nowhere":             {Nodes: nodes, Resources: []ResourceConfig{{"a", nil, 0}}},
		"good elsewhere":      {Nodes: nodes, Resources: []ResourceConfig{{"a", []NodeID{0}, SetOf(1)}}},
		"no name":             {Nodes: nodes, Resources: []ResourceConfig{{"", []NodeID{0, 1}, 0}}},
		"a name twice":        {Nodes: nodes, Resources: []ResourceConfig{{"a", []NodeID{0, 1}, 0}, {"a", []NodeID{0, 1}, 0}}},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
