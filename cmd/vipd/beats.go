package main

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"hastd/cluster/beat"
	brunner "hastd/cluster/beat/runner"
	"hastd/conf"
)

// kindReport is the kind of the heartbeats' bodies that are reports of groups.
const kindReport = beat.FirstKind

// reportEvery is the time between two looks whether there is something new to report.
const reportEvery = 100 * time.Millisecond

var errEnded = errors.New("the heartbeats ended")

// beats carries the reports of groups between the nodes, in heartbeats.
type beats struct {
	s     *server
	run   *brunner.Runner
	names map[beat.NodeID]string
	doubt *jeopardy
	end   context.CancelCauseFunc
	ended <-chan struct{}
	wg    sync.WaitGroup

	mu   sync.Mutex
	told map[beat.NodeID]beat.Effect // that nobody took yet: the last report of each node, or its loss
	wake chan struct{}               // there is one
}

func newBeats(s *server) *beats {
	return &beats{s: s, names: map[beat.NodeID]string{}, doubt: newJeopardy(len(s.groups)), told: map[beat.NodeID]beat.Effect{}, wake: make(chan struct{}, 1)}
}

// startBeats begins to hear the other nodes, and to be heard. Without heartbeats the
// groups work all the same: what is wrong with them is logged.
func (s *server) startBeats() {
	c := s.o.Conf
	h := c.Cluster.Heartbeat
	b := newBeats(s)
	o := brunner.Options{
		Cluster: c.Cluster.Name, Self: beatNode(s.o.Node), Port: h.Port, Interval: h.Interval, Trouble: h.Trouble, Timeout: h.Timeout,
		Shared: c.SharedHash(), Log: s.o.Log, Mute: s.quorum.mute, Tell: b.hear,
	}
	for _, n := range c.Nodes {
		if n.Name != s.Node() {
			o.Peers = append(o.Peers, beatNode(n))
			b.names[beat.NodeID(n.ID)] = n.Name
		}
	}
	var err error
	if c.Cluster.KeyFile != "" {
		o.Key, err = conf.LoadKey(c.Cluster.KeyFile)
	}
	if err == nil {
		b.run, err = brunner.New(o)
	}
	if err != nil {
		s.o.Log.Error("there are no heartbeats: what the other nodes have is not known here", "reason", err)
		return
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	b.end, b.ended = cancel, ctx.Done()
	b.wg.Go(func() {
		if err := b.run.Run(ctx); err != nil {
			s.o.Log.Error("heartbeats ended", "reason", err)
		}
	})
	b.wg.Go(func() { b.report(ctx) })
	b.wg.Go(func() { b.take(ctx) })
	s.beats.Store(b)
}

func beatNode(n *conf.Node) brunner.Node {
	return brunner.Node{ID: n.ID, Name: n.Name, Addresses: n.Addresses, Serial: n.Serial}
}

// status is what is known of the other nodes; nothing once it has ended.
func (b *beats) status(ctx context.Context) ([]beat.NodeStatus, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-b.ended:
			cancel(errEnded)
		case <-ctx.Done():
		}
	}()
	list, err := b.run.Status(ctx)
	if err != nil && context.Cause(ctx) == errEnded {
		return nil, nil
	}
	return list, err
}

// stop says goodbye, unless why says otherwise.
func (b *beats) stop(why error) {
	if b == nil {
		return
	}
	b.end(why)
	b.wg.Wait()
}

// report has every heartbeat carry what is so now.
func (b *beats) report(ctx context.Context) {
	var last []byte
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		if now := b.s.Report(); !bytes.Equal(now, last) {
			last = now
			if b.run.Order(ctx, beat.Event{Kind: beat.EvAttach, Body: beat.Body{Kind: kindReport, Data: now}}) != nil {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// hear takes what the heartbeats' machine tells, and must not wait for a group.
func (b *beats) hear(e beat.Effect) {
	b.doubt.hear(e, b.names[e.Node])
	if e.Kind == beat.EffNode && e.Up || e.Kind == beat.EffLink && e.State == beat.LinkUp {
		b.s.announce()
	}
	if e.Kind != beat.EffDeliver && e.Kind != beat.EffNode {
		return
	}
	if q := b.s.quorum; q != nil {
		q.hear(e)
	}
	if e.Kind == beat.EffDeliver && e.Body.Kind != kindReport || e.Kind == beat.EffNode && e.Up {
		return
	}
	// A report is all that there is to know of a node, and comes again; its loss does not.
	b.mu.Lock()
	b.told[e.Node] = e
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// announce tells the network again where the addresses are that this node has by the
// view: who was cut off from it may have heard another node last. Without votes the
// elections do so, once they hear each other. It never waits.
func (s *server) announce() {
	for _, u := range s.groups {
		if u.seat != nil && u.keeper != nil && u.seat.left() > 0 {
			u.keeper.Announce()
		}
	}
}

// take hands it to the groups.
func (b *beats) take(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.doubt.wake:
			b.disable()
		case <-b.wake:
			b.mu.Lock()
			told := b.told
			b.told = map[beat.NodeID]beat.Effect{}
			b.mu.Unlock()
			for id, e := range told {
				b.tell(b.names[id], e)
			}
		}
	}
}

func (b *beats) tell(node string, e beat.Effect) {
	if e.Kind == beat.EffNode {
		b.s.Lost(node)
		return
	}
	if err := b.s.Heard(node, e.Body.Data); err != nil {
		b.s.o.Log.Warn("a report cannot be read", "node", node, "reason", err)
	}
}
