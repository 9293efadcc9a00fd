package runner

import (
	"context"
	"fmt"
	"time"

	"hastd/cluster"
)

// Storage is hastd, as a group needs it. Its errors say what failed and what helps.
type Storage interface {
	// Role switches a resource's role; force cuts off who uses the device.
	Role(ctx context.Context, resource, role string, force bool) error
	// Replica is what hastd says of a resource; an error if hastd does not answer.
	Replica(ctx context.Context, resource string) (cluster.Replica, error)
	// Again says whether an error of Role may be gone in a moment: somebody still
	// uses the device, a decision is being made.
	Again(err error) bool
}

// Resource makes a replicated device primary and secondary.
type Resource struct {
	Name    string
	Storage Storage
}

const (
	// rolePause is the time between two tries of a switch that may work soon.
	rolePause = 50 * time.Millisecond
	// politeFor is how long a demotion waits for those who use the device before it
	// cuts them off: everything of the group is down by then.
	politeFor = time.Second
)

// Probe: a resource in init is neither up nor down.
func (d *Resource) Probe(ctx context.Context) (bool, error) {
	for {
		r, err := d.Storage.Replica(ctx, d.Name)
		if err == nil {
			if r.Role != "primary" && r.Role != "secondary" {
				return false, fmt.Errorf("its role is %s", r.Role)
			}
			return r.Role == "primary", nil
		}
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("hastd does not say what resource %s is: %w", d.Name, err)
		case <-time.After(rolePause):
		}
	}
}

// Up promotes. While the peer is still primary, it is on its way down: tried again.
func (d *Resource) Up(ctx context.Context) error {
	for {
		err := d.Storage.Role(ctx, d.Name, "primary", false)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if !d.Storage.Again(err) {
			r, askErr := d.Storage.Replica(ctx, d.Name)
			if askErr != nil || r.PeerRole != "primary" {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(rolePause):
		}
	}
}

// Down demotes.
func (d *Resource) Down(ctx context.Context) error {
	began := time.Now()
	for {
		err := d.Storage.Role(ctx, d.Name, "secondary", time.Since(began) >= politeFor)
		if err == nil || ctx.Err() != nil || !d.Storage.Again(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(rolePause):
		}
	}
}

// Look is not used: a resource is followed by its status.
func (d *Resource) Look(ctx context.Context) (cluster.Look, error) {
	up, err := d.Probe(ctx)
	if err != nil {
		return cluster.LookUnknown, err
	}
	if up {
		return cluster.LookOnline, nil
	}
	return cluster.LookOffline, nil
}

// Watch follows the resources of a group and tells it how this node stands, and
// which resource was lost. It ends with ctx.
func Watch(ctx context.Context, g *Group, s Storage, resources []string, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var was cluster.Event
	missed := make([]int, len(resources))
	for {
		replicas := make([]cluster.Replica, len(resources))
		for i, name := range resources {
			ask, cancel := context.WithTimeout(ctx, max(every, time.Second))
			r, err := s.Replica(ask, name)
			cancel()
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				r = cluster.Replica{Name: name}
				missed[i]++
			} else {
				r.Reached, missed[i] = true, 0
			}
			replicas[i] = r
			if err == nil && r.Role != "primary" {
				g.Tell(cluster.Event{Kind: cluster.EvLost, Part: i, Err: "its role is " + r.Role + ", and nobody here ordered that"})
			}
			if missed[i]*int(every/time.Millisecond) >= int(HastdTimeout/time.Millisecond) {
				g.Tell(cluster.Event{Kind: cluster.EvLost, Part: i, Err: "hastd does not answer"})
			}
		}
		ev := cluster.Event{Kind: cluster.EvStanding}
		ev.Fit, ev.Demotion, ev.Reason = cluster.Standing(replicas)
		if ev != was {
			was = ev
			g.Tell(ev)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// HastdTimeout is how long a hastd may be silent before its resources count as lost.
const HastdTimeout = 5 * time.Second
