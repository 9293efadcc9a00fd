package metadata

import "testing"

func gen(id ID) Generation { return Generation{ID: id, Time: int64(id), Node: 1} }

func line(ids ...ID) (l Lineage) {
	for _, id := range ids {
		l = append(l, gen(id))
	}
	return l
}

func TestLineageAgree(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b Lineage
		want bool
	}{
		{"both empty", nil, nil, true},
		{"one new", line(1), nil, true},
		{"equal", line(2, 1), line(2, 1), true},
		{"ancestor", line(3, 2, 1), line(1), true},
		{"siblings", line(2, 1), line(3, 1), false},
		{"strangers", line(1), line(2), false},
		{"an older one shared, both went on", line(4, 2, 1), line(3, 2, 1), false},
		{"newest stands deep in the other", line(9, 8, 7, 6, 5), line(5, 1), true},
	} {
		if Agree(c.a, c.b) != c.want || Agree(c.b, c.a) != c.want {
			t.Errorf("%s: want %t", c.name, c.want)
		}
	}
}

func TestLineageKeepsTheNewestSixteen(t *testing.T) {
	var l Lineage
	for id := ID(1); id <= 40; id++ {
		before := append(Lineage(nil), l...)
		n := l.Add(gen(id))
		for i := range before {
			if l[i] != before[i] {
				t.Fatal("adding changed the lineage it was added to")
			}
		}
		l = n
		if l[0].ID != id || len(l) != int(min(id, MaxGenerations)) {
			t.Fatalf("after %d: %v", id, l)
		}
	}
	if !l.Contains(25) || l.Contains(24) || l.Contains(41) {
		t.Errorf("%v", l)
	}
}

// TestLineageSeventeenFlaps: an ancestor that fell out of the sixteen is told as
// such, and only then.
func TestLineageSeventeenFlaps(t *testing.T) {
	source, target := line(1), line(1)
	for flap := ID(2); flap <= 18; flap++ {
		source = source.Add(gen(flap))
		agree := flap-1 < MaxGenerations
		if Agree(source, target) != agree || TooShort(source, target) == agree || TooShort(target, source) == agree {
			t.Fatalf("%d generations later: agree %t, too short %t", flap-1, Agree(source, target), TooShort(source, target))
		}
	}
	// While a raise stands no generation is added, however many flaps: one for all.
	source, raised := line(1), false
	for range 17 {
		if !raised {
			source, raised = source.Add(gen(99)), true
		}
		if !Agree(source, target) {
			t.Fatal("a flap made a split-brain")
		}
	}
}

func TestLineageTooShort(t *testing.T) {
	var full, other Lineage
	for id := ID(100); id < 120; id++ {
		full, other = full.Add(gen(id)), other.Add(gen(id+100))
	}
	for _, c := range []struct {
		name string
		a, b Lineage
		want bool
	}{
		{"agree", full, full[3:], false},
		{"neither is full", line(1), line(2), false},
		{"full and a stranger", full, line(2), true},
		{"both full, nothing shared", full, other, true},
		{"full, but an ancestor is shared: really parted", full, append(line(2), full[5:]...), false},
		{"empty", full, nil, false},
	} {
		if TooShort(c.a, c.b) != c.want || TooShort(c.b, c.a) != c.want {
			t.Errorf("%s: want %t", c.name, c.want)
		}
	}
}

func TestLineageMerge(t *testing.T) {
	r := testRand(30)
	for range 2000 {
		draw := func(from ID) (l Lineage) {
			for id := from; id < from+ID(r.IntN(20)); id++ {
				l = l.Add(gen(id))
			}
			return l
		}
		common := draw(1)
		own, victim := common, common
		for _, g := range draw(100) {
			own = own.Add(g)
		}
		for _, g := range draw(200) {
			victim = victim.Add(g)
		}
		m := Merge(own, victim, gen(999))
		if len(m) > MaxGenerations || m[0].ID != 999 {
			t.Fatalf("%v", m)
		}
		seen := map[ID]bool{}
		for _, g := range m {
			if seen[g.ID] {
				t.Fatalf("%v twice in %v", g.ID, m)
			}
			seen[g.ID] = true
		}
		// Either history must be recognised as past.
		if !Agree(m, own) || !Agree(m, victim) {
			t.Fatalf("merged %v does not agree with %v or %v", m, own, victim)
		}
		if len(own)+len(victim)+1 <= MaxGenerations {
			for _, l := range []Lineage{own, victim} {
				for _, g := range l {
					if !m.Contains(g.ID) {
						t.Fatalf("%v was lost although there is room", g)
					}
				}
			}
		}
	}
}
