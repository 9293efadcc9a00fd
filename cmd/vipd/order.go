package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"hastd/cluster"
	crunner "hastd/cluster/runner"
	"hastd/cluster/seat"
	"hastd/cluster/view"
	"hastd/cmd/internal/api"
	"hastd/cmd/internal/exit"
)

// order carries an operator's order out.
func (u *group) order(ctx context.Context, order, part string) error {
	st := u.status()
	switch order {
	case "switch":
		if err := u.maySwitch(ctx, st); err != nil {
			return err
		}
	case "clear":
		if err := mayClear(st, part); err != nil {
			return err
		}
	}
	var before uint64
	if u.election != nil {
		_, s := u.election.state()
		before = s.Received
	}
	err := u.machine.Order(ctx, orders[order])
	var denied *crunner.Denied
	switch {
	case errors.As(err, &denied):
		return exit.New(exit.Refused, u.advice(order), "%s of group %s on node %s: %s", order, st.Name, u.s.Node(), denied.Text)
	case errors.Is(err, crunner.ErrStopped):
		return exit.New(exit.Again, "start vipd again", "vipd on node %s is stopping", u.s.Node())
	case err != nil:
		return err
	}
	switch {
	case order == "switch" && u.seat != nil:
		return u.awaitOwner(ctx)
	case order == "switch" && u.election != nil:
		return u.awaitOther(ctx, before)
	}
	return nil
}

func (u *group) advice(order string) string {
	switch st := u.machine.Status(); {
	case st.Frozen:
		return "hastctl group unfreeze " + u.conf.Name
	case st.State == cluster.Partial:
		return "hastctl group status " + u.conf.Name + " names the part; it is tried again until it is down"
	case st.Fault != "":
		return "mend what failed, then: hastctl clear " + strings.SplitN(st.Fault, ":", 2)[0]
	}
	return "hastctl group status " + u.conf.Name + " tells more"
}

const (
	// peerWait is how long a switch waits for a peer that cannot take the group over.
	// What is known of the replicas is up to watchEvery old, and two that have just
	// met, or were just promoted, agree within a moment.
	peerWait = 2 * time.Second
	// peerEvery is the time between two looks meanwhile.
	peerEvery = 50 * time.Millisecond
)

// maySwitch refuses what would only take the group down.
func (u *group) maySwitch(ctx context.Context, st api.Group) error {
	online := st.State == "online" || st.State == "partial" || st.State == "starting"
	switch {
	case !online && st.Online != "":
		return exit.New(exit.Refused, "run it there", "group %s is online on node %s, not on node %s", st.Name, st.Online, u.s.Node())
	case !online:
		return exit.New(exit.Refused, "hastctl group status on the other node tells whether it is there",
			"group %s is %s on node %s, and where it is online is not known here", st.Name, st.State, u.s.Node())
	case u.conf.Parallel:
		return exit.New(exit.Refused, "hastctl group offline "+st.Name+" takes it down here", "group %s is parallel and does not move", st.Name)
	case u.election == nil && u.seat == nil:
		return exit.New(exit.Refused, "hastctl group offline "+st.Name+" here, then hastctl group online "+st.Name+" there",
			"the election of group %s is external: nobody would take it over", st.Name)
	}
	if why := u.awaitPeer(ctx); why != "" {
		return exit.New(exit.Refused, "hastctl status tells more; hastctl group offline "+st.Name+" takes it down all the same",
			"no other node can take group %s over: %s", st.Name, why)
	}
	return nil
}

// awaitPeer says why the other node cannot take the group over, for peerWait; "" if it
// can.
func (u *group) awaitPeer(ctx context.Context) string {
	limit := time.NewTimer(peerWait)
	defer limit.Stop()
	for {
		why := ""
		if u.seat != nil {
			why = u.seat.unable()
		} else {
			why = u.watch.PeerUnable()
		}
		if why == "" {
			return ""
		}
		select {
		case <-ctx.Done():
			return why
		case <-limit.C:
			return why
		case <-time.After(peerEvery):
		}
	}
}

// otherEvery is the time between two looks whether another node took over.
const otherEvery = 50 * time.Millisecond

// awaitOther waits until another node advertises as master.
func (u *group) awaitOther(ctx context.Context, before uint64) error {
	limit := time.NewTimer(2 * time.Duration(carpDown(u.conf, u.electionConfig())))
	defer limit.Stop()
	for {
		if _, s := u.election.state(); s.Received > before {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return exit.New(exit.Again, "look at vipd on the other node; the group comes back here by itself",
				"group %s went down on node %s, and no other node took it over", u.conf.Name, u.s.Node())
		case <-time.After(otherEvery):
		}
	}
}

// awaitOwner waits until the view gives the group to another node.
func (u *group) awaitOwner(ctx context.Context) error {
	limit := time.NewTimer(time.Duration(seat.ResignFor))
	defer limit.Stop()
	for {
		changed, st := u.seat.q.run().Changed(), u.seat.q.run().Status()
		r := st.View.Resource(owned(u.conf)[0])
		if r != nil && r.Owner != u.seat.q.self && r.Owner != view.Nobody {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return exit.New(exit.Again, "hastctl cluster status tells who owns what, hastctl group status on the other node why it did not; the group comes back here by itself",
				"group %s went down on node %s, and no other node took it over", u.conf.Name, u.s.Node())
		case <-changed:
		}
	}
}

// mayClear finds out whether there is something to clear.
func mayClear(st api.Group, part string) error {
	if part == "" {
		return nil
	}
	for _, p := range st.Parts {
		if !api.PartMatches(p, part) {
			continue
		}
		if strings.HasPrefix(st.Fault, p.Name+":") || p.State == "failed" || p.State == "stuck" {
			return nil
		}
		return exit.New(exit.Usage, "hastctl group status "+st.Name+" names what is faulted", "%s is %s and not faulted", p.Name, p.State)
	}
	return exit.New(exit.Usage, "hastctl group status "+st.Name+" names its parts", "group %s has no part %s", st.Name, fmt.Sprintf("%q", part))
}
