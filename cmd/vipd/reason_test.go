package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"hastd/cluster/beat"
	mrunner "hastd/cluster/member/runner"
	"hastd/cluster/view"
	"hastd/cmd/internal/api"
)

func TestReasonsOfAState(t *testing.T) {
	refused := func(f beat.Fault) (list [beat.Faults]uint64) {
		list[f] = 3
		return list
	}
	for _, c := range []struct {
		what                  string
		s                     standing
		state, reason, detail string
	}{
		{"a member", standing{up: true, heard: true}, "running", "", ""},
		{"a member alone", standing{up: true, waits: "not enough"}, "waiting", api.ReasonQuorum, "not enough"},
		{"a member without its disk", standing{up: true, trouble: trouble{api.ReasonNoDisk, "there is no /dev/x"}}, "running", api.ReasonNoDisk, "/dev/x"},
		{"a store that cannot be written", standing{up: true, failed: errors.New("no space")}, "failed", api.ReasonUpdate, "no space"},
		{"nobody is there", standing{waits: "nobody"}, "joining", "", "nobody"},
		{"joining", standing{heard: true, joining: time.Second, limit: time.Minute}, "joining", api.ReasonRecovery, ""},
		{"joining for too long", standing{heard: true, joining: time.Hour, limit: time.Minute, waits: "a lease"}, "joining", api.ReasonLate, "for 1h0m0s: a lease"},
		{"another key", standing{refused: refused(beat.FaultKey), deaf: "bravo"}, "joining", api.ReasonKey, ""},
		{"no key", standing{refused: refused(beat.FaultSecured)}, "joining", api.ReasonNoKey, ""},
		{"another version", standing{refused: refused(beat.FaultVersion)}, "joining", api.ReasonVersion, ""},
		{"a bad packet, and a good node", standing{heard: true, refused: refused(beat.FaultKey), limit: time.Second}, "joining", api.ReasonRecovery, ""},
		{"not known there", standing{deaf: "bravo"}, "joining", api.ReasonRefused, "bravo is heard and does not hear"},
		{"the leader is lost", standing{heard: true, gone: "alpha"}, "joining", api.ReasonMaster, "alpha, which leads"},
	} {
		state, reason, detail := c.s.state()
		if state != c.state || reason != c.reason || !strings.Contains(detail, c.detail) {
			t.Errorf("%s: %s, %s (%s); want %s, %s (%s)", c.what, state, reason, detail, c.state, c.reason, c.detail)
		}
	}
}

func TestOneSidedNodes(t *testing.T) {
	v := &view.View{Members: []view.Member{{ID: 0, Inc: 1}, {ID: 1, Inc: 2}}}
	lost, deafened, silent := beat.LinkStatus{Heard: true}, beat.LinkStatus{OneWay: true}, beat.LinkStatus{}
	node := func(id beat.NodeID, name string, up bool, links ...beat.LinkStatus) beat.NodeStatus {
		return beat.NodeStatus{ID: id, Name: name, Up: up, Links: links}
	}
	for _, c := range []struct {
		what       string
		view       *view.View
		nodes      []beat.NodeStatus
		deaf, gone string
	}{
		{"never heard", v, []beat.NodeStatus{node(0, "alpha", false, silent)}, "", ""},
		{"up", v, []beat.NodeStatus{node(0, "alpha", true, lost)}, "", ""},
		{"the leader was heard", v, []beat.NodeStatus{node(0, "alpha", false, silent, lost)}, "", "alpha"},
		{"another one was heard", v, []beat.NodeStatus{node(1, "bravo", false, lost)}, "", ""},
		{"no view", nil, []beat.NodeStatus{node(0, "alpha", false, lost)}, "", ""},
		{"one way", v, []beat.NodeStatus{node(1, "bravo", false, silent, deafened)}, "bravo", ""},
	} {
		deaf, gone := oneSided(c.nodes, &mrunner.Status{View: c.view})
		if deaf != c.deaf || gone != c.gone {
			t.Errorf("%s: %q and %q, want %q and %q", c.what, deaf, gone, c.deaf, c.gone)
		}
	}
}
