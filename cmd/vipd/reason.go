package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"hastd/cluster/beat"
	mrunner "hastd/cluster/member/runner"
	"hastd/cluster/view"
	"hastd/cmd/internal/api"
	"hastd/cmd/internal/exit"
)

// standing is what a node's state is read from.
type standing struct {
	failed  error // it had to give up
	up      bool  // a view names this node
	waits   string
	heard   bool                // some other node, both ways
	refused [beat.Faults]uint64 // packets, by what is wrong with them
	deaf    string              // a node that is heard and does not hear this one
	gone    string              // the leader that it knows, heard since the start and not now
	joining time.Duration       // since the start
	limit   time.Duration       // of joining
	trouble trouble             // with a replica here
}

// trouble is why a replica of this node cannot be used; the zero value: it can.
type trouble struct{ reason, detail string }

// state tells it in words.
func (s *standing) state() (state, reason, detail string) {
	switch {
	case s.failed != nil:
		return "failed", api.ReasonUpdate, s.failed.Error()
	case !s.up:
		reason, detail = s.unjoined()
		return "joining", reason, detail
	case s.waits != "":
		return "waiting", api.ReasonQuorum, s.waits
	}
	return "running", s.trouble.reason, s.trouble.detail
}

// unjoined says why no view names this node yet.
func (s *standing) unjoined() (reason, detail string) {
	switch {
	case !s.heard && s.refused[beat.FaultKey] > 0:
		return api.ReasonKey, s.waits
	case !s.heard && s.refused[beat.FaultSecured] > 0:
		return api.ReasonNoKey, s.waits
	case !s.heard && s.refused[beat.FaultVersion] > 0:
		return api.ReasonVersion, s.waits
	case s.deaf != "":
		return api.ReasonRefused, fmt.Sprintf("node %s is heard and does not hear this node: see hastctl cluster status and the log there", s.deaf)
	case s.gone != "":
		return api.ReasonMaster, fmt.Sprintf("node %s, which leads, is not heard any more: %s", s.gone, s.waits)
	case s.heard && s.joining > s.limit:
		return api.ReasonLate, fmt.Sprintf("for %v: %s", s.joining.Round(time.Second), s.waits)
	case s.heard:
		return api.ReasonRecovery, s.waits
	}
	return "", s.waits
}

const (
	// stateLimit bounds what the other parts are asked for a node's state.
	stateLimit = 500 * time.Millisecond
	// joinSlack is how much longer than rejoin a node may need to join: the rounds of
	// votes, and leases that are waited for.
	joinSlack = 10 * time.Second
)

// NodeState says whether this node takes part in the cluster.
func (s *server) NodeState() api.NodeState {
	p := &s.part
	p.mu.Lock()
	n := api.NodeState{Node: s.Node(), State: p.state, Reason: p.reason, Detail: p.detail, Since: p.since, Started: p.started, Last: p.last}
	p.mu.Unlock()
	if n.State != "" {
		return n
	}
	ctx, cancel := context.WithTimeout(s.ctx, stateLimit)
	defer cancel()
	st := standing{up: true, trouble: s.trouble(ctx)}
	if s.quorum != nil {
		s.quorum.standing(ctx, &st)
	}
	n.State, n.Reason, n.Detail = st.state()
	return n
}

// standing fills in what is known of the votes.
func (q *quorum) standing(ctx context.Context, s *standing) {
	st := q.run().Status()
	_, s.failed = q.takesPart()
	s.up, s.waits, s.heard = st.Up, st.Waits, st.Heard != 0
	s.limit = q.s.o.Conf.Cluster.Rejoin + joinSlack
	q.mu.Lock()
	s.joining = time.Since(q.began)
	q.mu.Unlock()
	b := q.s.beats.Load()
	if s.up || b == nil {
		return
	}
	s.refused = b.run.Stats().Refused
	if s.joining < q.s.o.Conf.Cluster.Heartbeat.Timeout {
		return // who starts is not heard both ways at once
	}
	if list, err := b.status(ctx); err == nil {
		s.deaf, s.gone = oneSided(list, &st)
	}
}

// oneSided finds a node that is heard and does not hear this one, and a leader that was
// heard and is not any more.
func oneSided(list []beat.NodeStatus, st *mrunner.Status) (deaf, gone string) {
	leader := view.Nobody
	if st.View != nil {
		leader = st.View.Leader()
	}
	for _, n := range list {
		if n.Up {
			continue
		}
		for _, l := range n.Links {
			switch {
			case l.OneWay:
				deaf = n.Name
			case l.Heard && view.NodeID(n.ID) == leader:
				gone = n.Name
			}
		}
	}
	return deaf, gone
}

// trouble looks for a replica of this node that cannot be used.
func (s *server) trouble(ctx context.Context) trouble {
	st := newStorage(s.hastd.Control)
	for _, r := range s.o.Conf.ResourceOn(s.Node()) {
		x, err := st.ask.Resource(ctx, r.Name)
		switch {
		case exit.CodeOf(err) == exit.Unreachable:
			return trouble{api.ReasonNoDaemon, "hastd does not run on this node"}
		case err != nil:
			return trouble{api.ReasonNoDaemon, "hastd does not answer: " + err.Error()}
		case x.Disk == "failed" || x.Disk == "diskless" && x.Role != "init":
			local, _ := r.OnNode(s.Node())
			if _, err := os.Stat(local.Local); errors.Is(err, fs.ErrNotExist) {
				return trouble{api.ReasonNoDisk, fmt.Sprintf("resource %s: there is no %s", r.Name, local.Local)}
			}
			return trouble{api.ReasonOpen, fmt.Sprintf("resource %s: %s", r.Name, x.Reason)}
		}
	}
	for _, u := range s.groups {
		if f := u.machine.Status().Fault; strings.HasPrefix(f, u.conf.Name+"/resource/") {
			return trouble{api.ReasonRole, f}
		}
	}
	return trouble{}
}
