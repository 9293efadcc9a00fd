package main

import (
	"slices"
	"strings"
	"sync"

	"hastd/cluster"
	"hastd/cluster/beat"
)

// jeopardy is of which nodes nobody can tell whether they live: those that fall silent on
// the last of several links. Without votes their groups are not taken over by themselves:
// they may be up there. A node that says goodbye, or was lost on several links at once,
// is none of them.
type jeopardy struct {
	mu   sync.Mutex
	last map[beat.NodeID]beat.LinkID // of nodes that are heard on one link: which
	why  map[beat.NodeID]string      // of nodes in question
	told []string                    // what each group was told; of one goroutine
	wake chan struct{}               // something changed
}

func newJeopardy(groups int) *jeopardy {
	return &jeopardy{last: map[beat.NodeID]beat.LinkID{}, why: map[beat.NodeID]string{}, told: make([]string, groups), wake: make(chan struct{}, 1)}
}

// hear takes what the heartbeats tell. The last link's trouble is enough: an election
// may not wait until it is down.
func (j *jeopardy) hear(e beat.Effect, name string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	link, alone := j.last[e.Node]
	switch e.Kind {
	case beat.EffJeopardy:
		delete(j.last, e.Node)
		if e.Up {
			j.last[e.Node] = e.Link
		} else {
			delete(j.why, e.Node)
		}
	case beat.EffLink:
		switch {
		case e.State == beat.LinkUp:
			delete(j.why, e.Node)
		case alone && link == e.Link && e.State == beat.LinkTrouble:
			j.why[e.Node] = name + " is silent on its last link, " + link.String()
		}
	case beat.EffNode:
		delete(j.last, e.Node)
		delete(j.why, e.Node)
		if !e.Up && e.Jeopardy {
			j.why[e.Node] = name + " was lost while one link was left"
		}
	default:
		return
	}
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// of says why groups of these nodes are not to be taken over, "" if they may be.
func (j *jeopardy) of(names map[beat.NodeID]string, nodes []string) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var list []string
	for id, why := range j.why {
		if slices.Contains(nodes, names[id]) {
			list = append(list, why)
		}
	}
	slices.Sort(list)
	return strings.Join(list, "; ")
}

// disable tells the groups what changed for them. With votes the view knows.
func (b *beats) disable() {
	if b.s.quorum != nil {
		return
	}
	for i, u := range b.s.groups {
		why := b.doubt.of(b.names, u.conf.Nodes)
		if why == b.doubt.told[i] {
			continue
		}
		b.doubt.told[i] = why
		if why != "" {
			b.s.o.Log.Warn("the group is not taken over here by itself: nobody can tell what the other node does; hastctl clear "+u.conf.Name+" allows it", "group", u.conf.Name, "reason", why)
		} else {
			b.s.o.Log.Info("the group may be taken over here again", "group", u.conf.Name)
		}
		u.machine.Tell(cluster.Event{Kind: cluster.EvJeopardy, Up: why != "", Reason: why})
	}
}
