package main

import (
	"strings"
	"testing"
	"time"

	"hastd/cmd/internal/api"
)

func TestClusterTable(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 1, 0, time.Local)
	c := api.Cluster{
		Node: "alpha", Name: "office", Quorum: "majority", Generation: "1.7", Leader: "alpha", LeaseLeftMS: 2400, Joined: true,
		Era: &api.Era{How: "others-are-down", By: "alpha", Who: "root", When: at}, Votes: &api.Votes{Members: 2, Needed: 2, Heard: 1, TieBreak: "alpha", Quorate: true},
		Decision: &api.Decision{Time: at, What: "excluded: charlie", Why: "the nodes are alpha bravo, not alpha bravo charlie"},
		Waits:    "view 1.7 of nodes alpha bravo, leader alpha",
		Nodes: []api.ClusterNode{
			{Name: "alpha", Self: true, State: "member", Heard: true, Hears: []string{"bravo"}, Incarnation: "0123456789abcdef"},
			{Name: "bravo", ID: 1, State: "leaving", Heard: true, Incarnation: "1123456789abcdef", Links: []api.Link{{Name: "link 0", State: "up", SilentMS: 240, Reason: "heard both ways"}, {Name: "serial line", State: "down", SilentMS: -1}},
				Jeopardy: true, Duplicate: true, ClockAheadMS: -1500, Differences: []api.Difference{{Key: "cluster.lease", Here: "3s", There: "2s"}}},
			{Name: "charlie", ID: 2, Witness: true, State: "excluded", Reason: "nothing heard for 3.0 s", Links: []api.Link{{Name: "link 0", State: "down", SilentMS: 75000, Reason: "no carrier here"}}},
		},
		Resources: []api.ClusterResource{{Name: "data", Owner: "alpha", InSync: []string{"alpha", "bravo"}, Forced: true, Serves: true}, {Name: "logs"}},
	}
	const want = `cluster     office, quorum majority, as node alpha knows it
generation  1.7, its era was begun by root on node alpha at 2026-11-22 10:00:01 (others-are-down)
leader      alpha
votes       1 of 2 members heard, 2 needed, or 1 with alpha: quorum
decided     2026-11-22 10:00:01 excluded: charlie (asked for here: the nodes are alpha bravo, not alpha bravo charlie)
lease       2.4s left
waiting     view 1.7 of nodes alpha bravo, leader alpha

NODE               ID  STATE     HEARD  HEARS  INCARNATION
alpha*             0   member    -      bravo  0123456789abcdef
bravo              1   leaving   yes    -      1123456789abcdef
  link 0 up, silent for 0.2s
  serial line down, never heard
  in jeopardy: one link is left; if it is lost too, nobody can tell whether the node is
  duplicate: two hosts send heartbeats as this node
  its clock is 1.5s behind: set both by NTP
  its configuration differs: cluster.lease is 3s here and 2s there
charlie (witness)  2   excluded  no     -      -
  nothing heard for 3.0 s
  link 0 down, silent for 1m15s: no carrier here

RESOURCE  OWNER           IN SYNC      SERVED HERE
data      alpha (forced)  alpha bravo  yes
logs      nobody          -            no
`
	var b strings.Builder
	printCluster(&b, c, false)
	if b.String() != want {
		t.Errorf("it is\n%swant\n%s", b.String(), want)
	}
	b.Reset()
	printCluster(&b, api.Cluster{Node: "alpha", Name: "office", Quorum: "off", Nodes: []api.ClusterNode{{Name: "alpha", Self: true, State: "unknown"}}}, false)
	const off = `cluster     office, quorum off, as node alpha knows it

NODE    ID  STATE  HEARD  HEARS  INCARNATION
alpha*  0   -      -      -      -
`
	if b.String() != off {
		t.Errorf("with quorum off it is\n%swant\n%s", b.String(), off)
	}
}

func TestNodeStateAndMap(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 1, 0, time.Local)
	last := &api.NodeEnd{Reason: api.ReasonAbort, Who: "root", Time: at}
	for _, c := range []struct {
		st   api.NodeState
		want string
	}{
		{api.NodeState{State: "running", Last: last}, "state: running\nreason: -\nlast stop: user initiated abort, by root at 2026-11-22 10:00:01\n"},
		{api.NodeState{State: "aborted", Reason: api.ReasonAbort, Last: last}, "state: aborted\nreason: user initiated abort\n"},
		{api.NodeState{State: "waiting", Reason: api.ReasonQuorum, Detail: "view 0.2"}, "state: waiting\nreason: lost quorum (view 0.2)\n"},
		{api.NodeState{State: "joining", Detail: "no view is known"}, "state: joining\nreason: no view is known\n"},
	} {
		var b strings.Builder
		printNode(&b, c.st)
		if b.String() != c.want {
			t.Errorf("it is\n%swant\n%s", b.String(), c.want)
		}
	}
	var b strings.Builder
	printMap(&b, api.Cluster{Quorum: "majority", Nodes: []api.ClusterNode{
		{Name: "alpha", Self: true, State: "member", Heard: true, Addresses: []string{"10.0.0.1", "10.0.1.1"}},
		{Name: "charlie", ID: 2, Witness: true, State: "excluded", Addresses: []string{"10.0.0.3"}},
	}}, false)
	const want = `ID  NODE     STORAGE            STATE
0   alpha*   10.0.0.1 10.0.1.1  member
2   charlie  none: a witness    excluded, not heard
`
	if b.String() != want {
		t.Errorf("it is\n%swant\n%s", b.String(), want)
	}
}
