package main

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"hastd/carp"
	"hastd/cluster"
	brunner "hastd/cluster/beat/runner"
	"hastd/cluster/member"
	crunner "hastd/cluster/runner"
	"hastd/cluster/seat"
	"hastd/cluster/view"
)

// chair is the shell of a group's seat: it tells that what is so here and in the cluster,
// and carries out what it decides.
type chair struct {
	u    *group
	q    *quorum
	cfg  seat.Config
	m    *seat.Machine // of run alone
	wake chan struct{}

	mu   sync.Mutex
	said []seat.Event // since the last look, at most one of a kind

	until atomic.Int64 // the end of the lease by which this node is master; 0: it is not
}

// seatEvery is the time between two looks at what the other node reports.
const seatEvery = 100 * time.Millisecond

func newChair(u *group, q *quorum) *chair {
	c := &chair{u: u, q: q, wake: make(chan struct{}, 1)}
	c.cfg = seat.Config{
		Self: q.self, Needs: owned(u.conf), Names: q.opts.Names,
		// Members promise to wait as long as the watchdog takes.
		Reset: view.Duration(max(u.s.o.Conf.Cluster.WatchdogTimeout-u.s.o.Conf.Cluster.Lease, 0)),
	}
	for _, name := range u.conf.Nodes {
		c.cfg.Nodes = append(c.cfg.Nodes, q.ids[name])
	}
	c.m = seat.New(c.cfg, now())
	return c
}

func now() view.Instant { return view.Instant(brunner.Boot()) }

// Join, Stand, Take and Resign are the group's words (cluster/runner.Decider).

// Join begins to decide.
func (c *chair) Join(bool) {
	if e := c.u.election; e != nil {
		e.Join(false) // it only says what is decided here
	}
	c.say(seat.Join{})
}

// Stand says whether this node may have the group.
func (c *chair) Stand(fit bool, _ uint8, why string) { c.say(seat.Stand{Fit: fit, Why: why}) }

// Take does nothing: who owns a group is asked to give it up there (group switch).
func (c *chair) Take() {}

// Resign gives the group to the other node, once it is down here.
func (c *chair) Resign(reason string) { c.say(seat.Resign{Reason: reason}) }

// say never waits: the group's machine calls it.
func (c *chair) say(ev seat.Event) {
	c.mu.Lock()
	for i := range c.said {
		if reflect.TypeOf(c.said[i]) == reflect.TypeOf(ev) {
			c.said = append(c.said[:i], c.said[i+1:]...)
			break
		}
	}
	c.said = append(c.said, ev)
	c.mu.Unlock()
	c.poke()
}

func (c *chair) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run decides until ctx ends.
func (c *chair) run(ctx context.Context) {
	tick := time.NewTicker(seatEvery)
	defer tick.Stop()
	for {
		changed := c.q.run().Changed()
		c.mu.Lock()
		said := c.said
		c.said = nil
		c.mu.Unlock()
		for _, ev := range said {
			c.step(ctx, ev)
		}
		c.step(ctx, c.facts())
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-changed:
		case <-tick.C:
		}
	}
}

func (c *chair) step(ctx context.Context, ev seat.Event) {
	for _, e := range c.m.Step(now(), ev) {
		switch e := e.(type) {
		case seat.Tell:
			word := "backup"
			if e.Master {
				word = "master"
			}
			c.u.s.o.Log.Info(fmt.Sprintf("group %s: %s", c.u.conf.Name, word), "group", c.u.conf.Name, "reason", e.Reason)
			c.u.onElected(e.Master, e.Reason)
		case seat.Appoint:
			c.until.Store(int64(e.Until))
			if x := c.u.election; x != nil {
				x.tell(carp.Event{Kind: carp.EvAppoint, Up: e.Until != 0, Until: carp.Instant(e.Until), Reason: "by the cluster's view"})
			}
		case seat.Hand:
			c.u.s.o.Log.Info("the group is handed over", "group", c.u.conf.Name, "node", c.q.name(e.To), "reason", e.Reason)
			_ = c.q.run().Do(ctx, member.Stopped{Resources: e.What, To: e.To})
		case seat.Reset:
			if f := c.u.s.fencer.Load(); f != nil {
				f.LeaseEnded(c.u.conf.Name)
			}
		}
	}
}

// facts are what is so now.
func (c *chair) facts() seat.Facts {
	st := c.q.run().Status()
	g := c.u.machine.Status()
	return seat.Facts{
		View: st.View, Up: st.Up, Lease: st.Lease, Owns: st.Owns, Waits: st.Waits,
		Linked: c.linked(), Down: isDown(&g), Faulted: g.State == cluster.Faulted, Able: c.able(),
	}
}

// linked says whether an interface of the group has a link. Without one nobody can reach
// it here.
func (c *chair) linked() bool {
	if c.u.election == nil {
		return true
	}
	state, _ := c.u.election.state()
	return state != carp.Init
}

// isDown says whether nothing of the group is up here or on its way.
func isDown(g *crunner.Status) bool {
	if !g.Probed || g.Frozen || g.State != cluster.Offline && g.State != cluster.Faulted {
		return false
	}
	for _, p := range g.Parts {
		if p.State != "down" {
			return false
		}
	}
	return true
}

// able are the nodes that say that they can have the group.
func (c *chair) able() (set view.Set) {
	for _, name := range c.u.conf.Nodes {
		if c.u.s.able(name, c.u.conf.Name) {
			set |= view.SetOf(c.q.ids[name])
		}
	}
	return set
}

// unable says why no other node can have the group, "" if one can.
func (c *chair) unable() string { return c.cfg.Unable(c.q.run().Status().View, c.able()) }

// left is how much longer this node may hold the group's addresses.
func (c *chair) left() time.Duration { return time.Duration(c.until.Load() - int64(now())) }
