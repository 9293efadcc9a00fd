package view

import (
	"strings"
	"testing"
)

// People are told names where there are names, and ids where there are none.
func TestPeopleReadNames(t *testing.T) {
	for _, c := range []struct {
		names [3]string
		want  string
	}{
		{[3]string{"alpha", "bravo", "charlie"}, "heard both ways: bravo"},
		{[3]string{}, "heard both ways: 1"},
	} {
		cfg := Config{Self: 0, Seed: 1}
		for id := range NodeID(3) {
			cfg.Nodes = append(cfg.Nodes, NodeConfig{ID: id, Name: c.names[id]})
		}
		m, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		m.Step(1, Start{})
		m.Step(2, Received{&Message{Kind: Hello, From: 1, To: 0, Inc: 7, Serial: 1, Hears: SetOf(0)}})
		m.Step(3, Heard{SetOf(1)})
		if !strings.HasSuffix(m.Waits(), c.want) {
			t.Errorf("%q, want %q at its end", m.Waits(), c.want)
		}
	}
}

// Why a view is asked for is said once, not at every try.
func TestAsksIsSaidOnce(t *testing.T) {
	c := newCluster(t, withWitness())
	c.beats(8, SetOf(0, 1, 2))
	c.step(0, Move{Resource: "data", To: 1})
	for range 40 { // nobody answers
		c.now += Instant(250 * Millisecond)
		c.step(0, Heard{SetOf(1, 2)})
		c.line = nil
	}
	n := strings.Count(strings.Join(c.said, "\n"), "asks for a view: data was given up here")
	if n != 1 || c.m[0].tries < 3 {
		t.Errorf("said %d times in %d tries: %v", n, c.m[0].tries, c.said)
	}
}

// TestAgreed: a node knows who heard of a view once they say so.
func TestAgreed(t *testing.T) {
	both := SetOf(0, 1)
	c := newCluster(t, pair())
	c.beats(8, both)
	if c.m[0].Agreed() != SetOf(1) {
		t.Fatalf("%v agree", c.m[0].Agreed())
	}
	c.step(0, Leave{On: true})
	for was := c.m[0].View(); c.m[0].View() == was; {
		if len(c.line) == 0 {
			c.now += Instant(50 * Millisecond)
			c.step(0, Tick{})
			continue
		}
		msg := c.line[0]
		c.line = c.line[1:]
		c.step(msg.To, Received{msg})
	}
	c.line = nil // what it tells of the new view is lost
	if c.m[0].Agreed() != 0 || c.m[1].View() == c.m[0].View() {
		t.Fatalf("%v agree, though node 1 has %v", c.m[0].Agreed(), c.m[1].View())
	}
	c.beats(2, both)
	if c.m[0].Agreed() != SetOf(1) {
		t.Errorf("%v agree", c.m[0].Agreed())
	}
}
