package main

import (
	"context"
	"time"

	"hastd/cluster/view"
	"hastd/cmd/internal/api"
	"hastd/cmd/internal/exit"
)

const (
	// forceTries is how often a person's view is tried: a round of others may cross it.
	forceTries = 3
	// forceLimit bounds one try. A round takes a second.
	forceLimit = 5 * time.Second
)

// reported takes what the views' machine says. It never waits.
func (q *quorum) reported(r view.Report) {
	if r.Kind != view.Forced && r.Kind != view.ForceFailed {
		return
	}
	select {
	case q.forced <- r:
	default:
	}
}

// force commits a view of the nodes that are heard, by order of a person.
func (q *quorum) force(ctx context.Context, req api.NodeRequest) error {
	// Whoever is there is heard by then, and what was stored is read.
	q.mu.Lock()
	heard := q.began.Add(q.s.o.Conf.Cluster.Heartbeat.Timeout)
	q.mu.Unlock()
	if err := pause(ctx, time.Until(heard)); err != nil {
		return err
	}
	how, known := view.OthersAreDown, q.run().Status().View
	switch {
	case req.Bootstrap && known != nil:
		return exit.New(exit.Refused, "if its other members are down for certain: hastctl node start --others-are-down",
			"node %s knows a membership, %s: bootstrap is for a cluster that has none", q.s.Node(), known.Stamp)
	case req.Bootstrap:
		how = view.Bootstrap
	case known == nil:
		return exit.New(exit.Refused, "order it on a node that was a member; a new cluster begins when all its nodes run, or with hastctl node start --bootstrap",
			"node %s knows no membership that it could go on from", q.s.Node())
	}
	who := req.Who
	if who == "" {
		who = "a person"
	}
	if len(who) > view.MaxName {
		who = who[:view.MaxName]
	}
	why := ""
	for range forceTries {
		select {
		case <-q.forced: // of an order that nobody waits for any more
		default:
		}
		if err := q.run().Do(ctx, view.Force{How: how, Who: who, When: time.Now().Unix()}); err != nil {
			return err
		}
		limit := time.NewTimer(forceLimit)
		select {
		case r := <-q.forced:
			if r.Kind == view.Forced {
				return nil
			}
			why = r.Text
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			why = "it was not done in time"
		}
		limit.Stop()
		if err := pause(ctx, askEvery); err != nil {
			return err
		}
	}
	return exit.New(exit.Again, "hastctl cluster status tells who is heard", "no membership was committed: %s", why)
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
