package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hastd/cluster/member"
	"hastd/cluster/view"
	"hastd/cmd/internal/exit"
)

// A node that wants to own a resource which another one owns asks it to give it up. That
// is done only if nobody uses it there.

// ask is what one node asks another, or answers.
type ask struct {
	from     view.NodeID
	kind     askKind
	resource string
	why      string // of a refusal
}

// askKind is what it is about.
type askKind byte

const (
	asksFor askKind = iota // give it up
	refuses                // it is not given up
	inUse                  // it is not, and is used where it is owned
)

const (
	maxAsks   = 16
	askFormat = 1
	// askEvery is the time between two questions of the same, and moveLimit how long it
	// is asked.
	askEvery  = 200 * time.Millisecond
	moveLimit = 10 * time.Second
	maxWhy    = 200 // bytes
)

var errAsk = errors.New("a question of another node cannot be read")

// append writes it: format, kind, the length of the name, the name, and for a refusal the
// reason.
func (a ask) append(b []byte) []byte {
	b = append(b, askFormat, byte(a.kind), byte(len(a.resource)))
	b = append(b, a.resource...)
	return append(b, a.why[:min(len(a.why), maxWhy)]...)
}

func readAsk(from view.NodeID, b []byte) (ask, error) {
	if len(b) < 3 || b[0] != askFormat || b[1] > byte(inUse) || len(b) < 3+int(b[2]) || len(b) > 3+int(b[2])+maxWhy {
		return ask{}, errAsk
	}
	n := 3 + int(b[2])
	return ask{from, askKind(b[1]), string(b[3:n]), string(b[n:])}, nil
}

// answers answers what other nodes ask.
func (q *quorum) answers(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-q.asks:
			q.answer(ctx, a)
		}
	}
}

// answer gives a resource up that another node asks for, or says why not.
func (q *quorum) answer(ctx context.Context, a ask) {
	if a.kind != asksFor {
		q.mu.Lock()
		q.refused[a.resource] = a
		q.mu.Unlock()
		return
	}
	v := q.run().Status().View
	if v == nil || v.Resource(a.resource) == nil || v.Resource(a.resource).Owner != q.self {
		return // the other one hears of the view
	}
	if kind, why := q.mayGive(ctx, v.Resource(a.resource), a.from); why != "" {
		q.parcel(a.from, kindAsk, ask{kind: kind, resource: a.resource, why: why}.append(nil))
		return
	}
	q.s.o.Log.Info("a resource is given up: another node asks for it", "resource", a.resource, "node", q.name(a.from))
	_ = q.run().Do(ctx, member.Stopped{Resources: []string{a.resource}, To: a.from})
}

// mayGive says why a resource is not given up, "" if it is.
func (q *quorum) mayGive(ctx context.Context, r *view.Resource, to view.NodeID) (askKind, string) {
	here := q.s.Node()
	if u := q.seated(r.Name); u != nil {
		return inUse, fmt.Sprintf("group %s decides about it; on node %s: hastctl group switch %s", u.conf.Name, here, u.conf.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	st := newStorage(q.s.hastd.Control)
	x, err := st.Replica(ctx, r.Name)
	switch {
	case err != nil && !st.Gone(err):
		return refuses, fmt.Sprintf("hastd on node %s does not say whether it is used there", here)
	case err == nil && x.Role == "primary":
		return inUse, fmt.Sprintf("it is primary on node %s; there: hastctl role secondary %s", here, r.Name)
	case !r.InSync.Has(to):
		return refuses, fmt.Sprintf("the replica on node %s is not in sync", q.name(to))
	}
	return 0, ""
}

// seated is the group for which a seat decides about a resource, or nil.
func (q *quorum) seated(resource string) *group {
	for _, u := range q.s.groups {
		if u.seat != nil && slices.Contains(owned(u.conf), resource) {
			return u
		}
	}
	return nil
}

// acquire waits until this node owns a resource, and asks who does for it; forced: until
// a view that was ordered by force says so, and nobody is asked.
func (q *quorum) acquire(ctx context.Context, resource string, forced bool) error {
	began, limit := time.Now(), time.NewTimer(moveLimit)
	defer limit.Stop()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	q.mu.Lock()
	delete(q.refused, resource)
	q.mu.Unlock()
	for {
		st, changed := q.run().Status(), q.run().Changed()
		if st.Owns[resource] {
			return nil
		}
		var why string
		r := st.View.Resource(resource)
		switch {
		case st.View == nil || st.View.Member(q.self) == nil:
			why = "this node is in no view of the cluster"
		case r == nil:
			why = "it is in no view yet: the replicas were not compared"
		case r.Owner == q.self:
			why = "this node owns it, and has no lease yet"
		case forced:
			why = "no view that names it owner was committed"
		case !r.InSync.Has(q.self) && time.Since(began) > peerWait: // two that have just met agree within a moment
			return exit.New(exit.Refused, "hastctl status tells how far the sync is, hastctl cluster status who is in sync; two new replicas are promoted first where the resource is owned",
				"the replica of %s on node %s is not in sync", resource, q.s.Node())
		case r.Owner == view.Nobody:
			why = "nobody owns it"
		default:
			q.mu.Lock()
			no := q.refused[resource]
			q.mu.Unlock()
			if no.kind == inUse || no.why != "" && r.InSync.Has(q.self) {
				return exit.New(exit.Refused, "hastctl cluster status tells who owns what", "node %s owns %s: %s", q.name(r.Owner), resource, no.why)
			}
			why = fmt.Sprintf("node %s owns it and does not answer", q.name(r.Owner))
			q.parcel(r.Owner, kindAsk, ask{resource: resource}.append(nil))
		}
		if st.Waits != "" {
			why = st.Waits
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return exit.New(exit.Refused, "hastctl cluster status tells more", "node %s may not serve %s: %s", q.s.Node(), resource, why)
		case <-changed:
		case <-tick.C:
		}
	}
}
