package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"hastd/cluster"
	"hastd/cmd/internal/api"
)

// peers is what the other nodes reported of their groups. Reports travel in heartbeats,
// which know nothing of what is in them.
type peers struct {
	mu    sync.Mutex
	heard map[string]report // by node: those of the configuration alone
}

type report struct {
	at     time.Time
	lost   bool
	groups []cluster.GroupReport
}

// reportFresh is for how long a report is shown as what is so.
const reportFresh = 10 * time.Second

// Report is what this node tells the others.
func (s *server) Report() []byte {
	var r cluster.Report
	for _, u := range s.groups {
		g := u.machine.Status().Report
		g.Fit = g.Fit && (u.seat == nil || u.seat.linked())
		r.Groups = append(r.Groups, g)
	}
	return r.Append(nil)
}

// Heard takes the report of another node. What it does not speak of is not known.
func (s *server) Heard(node string, body []byte) error {
	if _, err := s.o.Conf.Node(node); err != nil || node == s.Node() {
		return fmt.Errorf("%q is none of the other nodes", node)
	}
	r, err := cluster.ParseReport(body)
	if err != nil {
		return fmt.Errorf("node %s: %w", node, err)
	}
	s.note(node, report{at: time.Now(), groups: r.Groups})
	return nil
}

// Lost says that a node is not heard any more.
func (s *server) Lost(node string) {
	if _, err := s.o.Conf.Node(node); err == nil {
		s.note(node, report{at: time.Now(), lost: true})
	}
}

func (s *server) note(node string, r report) {
	s.peers.mu.Lock()
	if s.peers.heard == nil {
		s.peers.heard = map[string]report{}
	}
	s.peers.heard[node] = r
	s.peers.mu.Unlock()
	for _, u := range s.groups {
		u.machine.Tell(cluster.Event{Kind: cluster.EvPeer, Node: node, Peer: r.group(u.conf.Name)})
	}
}

// group is what a report says of a group, nil for nothing.
func (r *report) group(name string) *cluster.GroupReport {
	if i := slices.IndexFunc(r.groups, func(g cluster.GroupReport) bool { return g.Name == name }); i >= 0 {
		return &r.groups[i]
	}
	return nil
}

// able says whether a node reports of itself that it may have a group.
func (s *server) able(node, group string) bool {
	s.peers.mu.Lock()
	defer s.peers.mu.Unlock()
	r, ok := s.peers.heard[node]
	if !ok || r.lost || time.Since(r.at) > reportFresh {
		return false
	}
	g := r.group(group)
	return g != nil && g.Fit
}

// Summary is the cluster as this node knows it.
func (s *server) ClusterSummary() api.Summary {
	sum := api.Summary{Node: s.Node(), Systems: []api.SystemSummary{}, Groups: []api.GroupSummary{}, Failed: []api.FailedPart{}}
	reports := map[string]*report{s.Node(): {}}
	for _, u := range s.groups {
		own := reports[s.Node()]
		own.groups = append(own.groups, u.machine.Status().Report)
	}
	s.peers.mu.Lock()
	for name, r := range s.peers.heard {
		if r.lost || time.Since(r.at) < reportFresh {
			reports[name] = &r
		}
	}
	s.peers.mu.Unlock()
	for _, n := range s.o.Conf.Nodes {
		x := api.SystemSummary{System: n.Name, State: "unknown"}
		if r := reports[n.Name]; r != nil {
			x.State = "running"
			if r.lost {
				x.State = "faulted"
			}
			frozen := func(g cluster.GroupReport) bool { return g.Frozen }
			x.Frozen = len(r.groups) > 0 && !slices.ContainsFunc(r.groups, func(g cluster.GroupReport) bool { return !frozen(g) })
		}
		sum.Systems = append(sum.Systems, x)
	}
	for _, u := range s.groups {
		hosts := u.machine.Status().Hosts
		for _, name := range u.conf.Nodes {
			var g *cluster.GroupReport
			if r := reports[name]; r != nil {
				g = r.group(u.conf.Name)
			}
			sum.Groups = append(sum.Groups, summarise(u.conf.Name, name, g, slices.Contains(hosts, name)))
			if g != nil {
				sum.Failed = append(sum.Failed, failed(g, name)...)
			}
		}
	}
	return sum
}

// summarise is one group on one node. Without a report its adverts may tell.
func summarise(group, system string, g *cluster.GroupReport, hosts bool) api.GroupSummary {
	x := api.GroupSummary{Group: group, System: system, AutoDisabled: true, State: "unknown"}
	switch {
	case g != nil:
		x.Probed, x.AutoDisabled, x.State = g.Probed, g.AutoDisabled, strings.ToLower(g.State.String())
	case hosts:
		x.Probed, x.AutoDisabled, x.State = true, false, "online"
	}
	return x
}

// failed are the parts that a person has to look at.
func failed(g *cluster.GroupReport, system string) (list []api.FailedPart) {
	for _, p := range g.Parts {
		if p.Fault || p.Stray || p.Stuck {
			list = append(list, api.FailedPart{Group: g.Name, Kind: p.Kind.String(), Part: p.Name, System: system})
		}
	}
	return list
}
