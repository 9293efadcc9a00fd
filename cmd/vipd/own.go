package main

import (
	"context"
	"slices"
	"time"

	"hastd/cluster/view"
	"hastd/cmd/internal/exit"
	"hastd/conf"
)

// Own waits until the cluster's view gives a resource to this node, as a person wants.
func (s *server) Own(ctx context.Context, resource string, force bool) error {
	q := s.quorum
	if q == nil {
		return s.needsMajority("nobody owns a resource")
	}
	if !slices.Contains(q.replicas(), resource) {
		if s.added(resource) {
			return exit.New(exit.Refused, "hastctl node restart, on every node of the cluster", "vipd on node %s does not know resource %q yet: it was added to %s after vipd started", s.Node(), resource, s.o.Flags.File)
		}
		return exit.New(exit.Usage, "hastctl list shows the resources of this node", "resource %q has no replica on node %s", resource, s.Node())
	}
	if err := s.running(ctx); err != nil {
		return err
	}
	if u := q.seated(resource); u != nil && !(force && q.orphaned(resource)) {
		hint := "hastctl group switch " + u.conf.Name + ", on the node where it is online; hastctl group online " + u.conf.Name + " where it was taken offline"
		if st := q.run().Status(); st.View != nil && st.View.Resource(resource) == nil {
			hint = "its two replicas were not compared yet: start hastd on both nodes; if the other replica is lost: hastctl role primary " + resource + " --force"
		}
		return exit.New(exit.Refused, hint, "group %s decides where %s is primary", u.conf.Name, resource)
	}
	if on, err := q.takesPart(); !on {
		if err != nil {
			return exit.New(exit.Refused, "mend what it names, then start vipd again", "node %s takes no part in the cluster any more: %w", s.Node(), err)
		}
		return exit.New(exit.Refused, "hastctl node start", "node %s takes no part in the cluster: it was stopped", s.Node())
	}
	s.o.Log.Info("order", "resource", resource, "order", "own", "force", force)
	if force {
		return q.seize(ctx, resource)
	}
	return q.acquire(ctx, resource, false)
}

// added says whether the configuration gave this node a replica of a resource since vipd
// started.
func (s *server) added(resource string) bool {
	c, err := conf.Load(s.o.Flags.File)
	return err == nil && slices.ContainsFunc(c.ResourceOn(s.Node()), func(r *conf.Resource) bool { return r.Name == resource })
}

// orphaned says whether nobody who is heard owns a resource, as one that is in no view yet:
// then a person may say who is to own it even if a group would else.
func (q *quorum) orphaned(resource string) bool {
	st := q.run().Status()
	r := st.View.Resource(resource)
	return r == nil || r.Owner != q.self && !st.Heard.Has(r.Owner)
}

// needsMajority refuses what makes no sense with quorum off.
func (s *server) needsMajority(why string) error {
	return exit.New(exit.Refused, `docs/two-or-three.md says what quorum = "majority" in [cluster] does`, "with quorum off %s", why)
}

// usedLimit is how long an owner that is heard may take to say that it uses a resource
// before it is taken from it by force. It does not lose what it acknowledged before: it
// has no lease then.
const usedLimit = time.Second

// seize makes this node owner whatever its replica lacks, unless the owner can be asked
// and says that it uses it.
func (q *quorum) seize(ctx context.Context, resource string) error {
	st := q.run().Status()
	if v := q.votes(&st); v == nil || !v.Quorate || !st.Up {
		why := st.Waits
		if why == "" {
			why = "it is in no view of the cluster yet"
		}
		return exit.New(exit.Refused, "hastctl cluster status tells more; "+q.alone(),
			"node %s cannot own %s: %s", q.s.Node(), resource, why)
	}
	r := st.View.Resource(resource)
	switch {
	case r == nil:
		// No view has it: the replica here counts as the good one.
		if err := q.run().Do(ctx, view.Good{Resource: resource, Nodes: view.SetOf(q.self)}); err != nil {
			return err
		}
		return q.acquire(ctx, resource, true)
	case r.Owner != q.self && r.Owner != view.Nobody:
		no, err := q.used(ctx, r)
		if err != nil {
			return err
		}
		if no.kind == inUse {
			return exit.New(exit.Refused, "force takes nothing from a node that is heard and uses it: make it secondary there, or stop that node (hastctl node stop)",
				"node %s owns %s: %s", q.name(r.Owner), resource, no.why)
		}
	}
	if r := q.run().Status().View.Resource(resource); r == nil || r.Owner != q.self {
		if err := q.run().Do(ctx, view.Move{Resource: resource, To: q.self, Force: true}); err != nil {
			return err
		}
	}
	return q.acquire(ctx, resource, true)
}

// alone is what a person can do where the others are waited for.
func (q *quorum) alone() string {
	if q.run().Status().View == nil {
		return "if the cluster is new, and the others are down for certain: hastctl node start --bootstrap"
	}
	return "if the others are down for certain: hastctl node start --others-are-down"
}

// used asks the owner for a resource, and waits for what it says; nothing if it gives it
// up or says nothing.
func (q *quorum) used(ctx context.Context, r *view.Resource) (ask, error) {
	q.mu.Lock()
	delete(q.refused, r.Name)
	q.mu.Unlock()
	limit := time.NewTimer(usedLimit)
	defer limit.Stop()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		changed := q.run().Changed()
		if now := q.run().Status().View.Resource(r.Name); now == nil || now.Owner != r.Owner {
			return ask{}, nil
		}
		q.mu.Lock()
		no := q.refused[r.Name]
		q.mu.Unlock()
		if no.why != "" {
			return no, nil
		}
		q.parcel(r.Owner, kindAsk, ask{resource: r.Name}.append(nil))
		select {
		case <-ctx.Done():
			return ask{}, ctx.Err()
		case <-limit.C:
			return ask{}, nil
		case <-changed:
		case <-tick.C:
		}
	}
}
