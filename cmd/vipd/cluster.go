package main

import (
	"context"
	"fmt"
	"time"

	"hastd/cluster/beat"
	brunner "hastd/cluster/beat/runner"
	mrunner "hastd/cluster/member/runner"
	"hastd/cluster/view"
	"hastd/cmd/internal/api"
)

// Cluster is the cluster as this node knows it: who is heard, and with quorum =
// "majority" what the newest view says.
func (s *server) Cluster(ctx context.Context) (api.Cluster, error) {
	c := api.Cluster{
		Node: s.Node(), Name: s.o.Conf.Cluster.Name, Quorum: string(s.o.Conf.Cluster.Quorum),
		Nodes: []api.ClusterNode{}, Resources: []api.ClusterResource{},
	}
	heard, err := s.heardNodes(ctx)
	if err != nil {
		return c, err
	}
	for _, n := range s.o.Conf.Nodes {
		c.Nodes = append(c.Nodes, s.clusterNode(n.Name, heard))
	}
	if s.quorum != nil {
		s.quorum.describe(&c, s.quorum.run().Status())
	}
	return c, nil
}

// heardNodes is what the heartbeats say; nothing while there are none.
func (s *server) heardNodes(ctx context.Context) (map[string]beat.NodeStatus, error) {
	m := map[string]beat.NodeStatus{}
	b := s.beats.Load()
	if b == nil {
		return m, nil
	}
	list, err := b.status(ctx)
	for _, x := range list {
		m[x.Name] = x
	}
	return m, err
}

func (s *server) clusterNode(name string, heard map[string]beat.NodeStatus) api.ClusterNode {
	n, _ := s.o.Conf.Node(name)
	x := api.ClusterNode{
		Name: name, ID: n.ID, Witness: n.Witness, Self: name == s.Node(), State: api.Unknown,
		Hears: []string{}, Links: []api.Link{}, Differences: []api.Difference{}, Addresses: []string{},
	}
	for _, a := range n.Addresses {
		x.Addresses = append(x.Addresses, a.String())
	}
	if x.Self {
		x.Heard = true
		for _, o := range s.o.Conf.Nodes {
			if h, ok := heard[o.Name]; ok && h.Up {
				x.Hears = append(x.Hears, o.Name)
			}
		}
		return x
	}
	h, ok := heard[name]
	if !ok {
		x.Reason = "this node listens to nobody: it has no heartbeats"
		return x
	}
	x.Heard, x.Reason, x.Jeopardy, x.Duplicate = h.Up, h.Reason, h.Jeopardy, h.Duplicate
	x.ClockAheadMS = int64(h.Ahead / beat.Millisecond)
	if !h.Up && x.Reason == "" {
		x.Reason = "nothing was heard of it yet"
	}
	for _, l := range h.Links {
		y := api.Link{Name: l.Link.String(), State: l.State.String(), SilentMS: -1, Reason: l.Reason}
		if l.Heard {
			y.SilentMS = int64(l.Silent / beat.Millisecond)
		}
		x.Links = append(x.Links, y)
	}
	for _, d := range h.Differences {
		x.Differences = append(x.Differences, api.Difference{Key: d.Key, Here: d.Here, There: d.There})
	}
	for _, y := range h.Hears {
		if y.Best() != beat.LinkDown {
			x.Hears = append(x.Hears, s.nodeName(int(y.Node)))
		}
	}
	return x
}

// nodeName is the name of a configured id.
func (s *server) nodeName(id int) string {
	for _, n := range s.o.Conf.Nodes {
		if n.ID == id {
			return n.Name
		}
	}
	return fmt.Sprintf("node %d", id)
}

// describe adds what the view says.
func (q *quorum) describe(c *api.Cluster, st mrunner.Status) {
	c.Waits, c.Joined = st.Waits, st.Up
	if left := st.Lease - view.Instant(brunner.Boot()); st.Lease != 0 && left > 0 {
		c.LeaseLeftMS = int64(time.Duration(left) / time.Millisecond)
	}
	v := st.View
	if v == nil {
		return
	}
	c.Generation, c.Leader = v.Stamp.String(), q.name(v.Leader())
	c.Era = &api.Era{How: v.Origin.How.String(), By: q.name(v.Origin.By), Who: v.Origin.Who}
	if v.Origin.When != 0 {
		c.Era.When = time.Unix(v.Origin.When, 0)
	}
	c.Votes = q.votes(&st)
	c.Decision = &api.Decision{Time: st.Decided.At, What: st.Decided.What, Why: st.Decided.Why}
	for i := range c.Nodes {
		x := &c.Nodes[i]
		switch m := v.Member(view.NodeID(x.ID)); {
		case m == nil:
			x.State = "excluded"
		case m.Leaving:
			x.State, x.Incarnation = "leaving", fmt.Sprintf("%016x", uint64(m.Inc))
		default:
			x.State, x.Incarnation = "member", fmt.Sprintf("%016x", uint64(m.Inc))
		}
	}
	for i := range v.Resources {
		r := &v.Resources[i]
		x := api.ClusterResource{Name: r.Name, InSync: q.namesOf(r.InSync), Nodes: q.namesOf(r.Nodes), Forced: r.Forced, Serves: st.Owns[r.Name]}
		if r.Owner != view.Nobody {
			x.Owner = q.name(r.Owner)
		}
		c.Resources = append(c.Resources, x)
	}
}

// votes counts whom this node hears among the members. One that starts does not break
// a tie.
func (q *quorum) votes(st *mrunner.Status) *api.Votes {
	v := st.View
	if v == nil {
		return nil
	}
	heard := st.Heard & v.Set()
	if m := v.Member(q.self); m != nil && m.Inc == st.Inc {
		heard |= view.SetOf(q.self)
	}
	n := v.Set().Len()
	x := &api.Votes{Members: n, Needed: n/2 + 1, Heard: heard.Len()}
	if n%2 == 0 && st.Up {
		x.TieBreak = q.name(v.Leader())
	}
	x.Quorate = 2*x.Heard > n || st.Up && v.Quorum(heard)
	return x
}

// namesOf names a set, in the order of the ids.
func (q *quorum) namesOf(s view.Set) []string {
	list := []string{}
	for _, id := range s.IDs() {
		list = append(list, q.name(id))
	}
	return list
}
