package main

import (
	"context"
	"strings"
	"testing"

	"hastd/cluster/beat"
)

// What heartbeats tell of a node's last link becomes whether a group may be taken over.
func TestJeopardy(t *testing.T) {
	servers, _ := newPair(t)
	s := servers[0]
	b := newBeats(s)
	b.names[1] = "bravo"
	lost := func(jeopardy bool) beat.Effect {
		return beat.Effect{Kind: beat.EffNode, Node: 1, Jeopardy: jeopardy}
	}
	link := func(l beat.LinkID, st beat.LinkState) beat.Effect {
		return beat.Effect{Kind: beat.EffLink, Node: 1, Link: l, State: st}
	}
	alone := beat.Effect{Kind: beat.EffJeopardy, Node: 1, Up: true, Link: 1}
	heard := beat.Effect{Kind: beat.EffNode, Node: 1, Up: true}
	for name, c := range map[string]struct {
		told []beat.Effect
		why  string // "" if the group may be taken over
	}{
		"lost on several links":      {[]beat.Effect{lost(false)}, ""},
		"one link is left":           {[]beat.Effect{alone}, ""},
		"the last is in trouble":     {[]beat.Effect{alone, link(1, beat.LinkTrouble)}, "silent on its last link"},
		"another is in trouble":      {[]beat.Effect{alone, link(0, beat.LinkTrouble)}, ""},
		"and is down":                {[]beat.Effect{alone, link(1, beat.LinkTrouble), link(1, beat.LinkDown), lost(true)}, "lost while one link was left"},
		"and is well again":          {[]beat.Effect{alone, link(1, beat.LinkTrouble), link(1, beat.LinkUp)}, ""},
		"it said goodbye":            {[]beat.Effect{alone, link(1, beat.LinkTrouble), link(1, beat.LinkDown), lost(false)}, ""},
		"it is heard again":          {[]beat.Effect{alone, lost(true), heard}, ""},
		"several links are up again": {[]beat.Effect{alone, link(1, beat.LinkTrouble), {Kind: beat.EffJeopardy, Node: 1}}, ""},
	} {
		for _, e := range c.told {
			b.hear(e)
		}
		b.disable()
		eventually(t, name, func() bool {
			g := s.Groups()[0]
			return g.AutoDisabled == (c.why != "") && strings.Contains(g.Standing, c.why) && strings.HasPrefix(g.Standing, "autodisabled") == (c.why != "")
		})
		b.hear(heard)
		b.disable()
	}
	// A person may say that it is down.
	b.hear(lost(true))
	b.disable()
	eventually(t, "it is disabled", func() bool { return s.Groups()[0].AutoDisabled })
	if err := ordered(t, s, "clear"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is cleared", func() bool { return !s.Groups()[0].AutoDisabled })
}

// Reports come again, the loss of a node does not: it counts however many nobody took yet.
func TestLossIsHeardAmongReports(t *testing.T) {
	servers, _ := newPair(t)
	b := newBeats(servers[0])
	b.names[1] = "bravo"
	for range 1000 {
		b.hear(beat.Effect{Kind: beat.EffDeliver, Node: 1, Body: beat.Body{Kind: kindReport, Data: servers[1].Report()}})
	}
	b.hear(beat.Effect{Kind: beat.EffNode, Node: 1})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); b.take(ctx) }()
	defer func() { cancel(); <-ended }()
	eventually(t, "bravo is lost", func() bool {
		sum := servers[0].ClusterSummary()
		return len(sum.Systems) == 2 && sum.Systems[1].State == "faulted"
	})
}
