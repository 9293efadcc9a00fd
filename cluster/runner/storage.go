package runner

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"hastd/cluster"
)

// Storage is hastd, as a group needs it. Its errors say what failed and what helps.
type Storage interface {
	// Role switches a resource's role; force cuts off who uses the device.
	Role(ctx context.Context, resource, role string, force bool) error
	// Fail lets what a suspended resource holds end in errors, and what comes after it.
	Fail(ctx context.Context, resource string) error
	// Suspend has a primary answer nothing until a person resumes it.
	Suspend(ctx context.Context, resource string) error
	// Replica is what hastd says of a resource; an error if hastd does not answer.
	Replica(ctx context.Context, resource string) (cluster.Replica, error)
	// Again says whether an error of Role may be gone in a moment: somebody still
	// uses the device, a decision is being made.
	Again(err error) bool
	// Gone says whether an error of Replica means that there is no hastd at all: its
	// devices went with it. One that only does not answer may be busy.
	Gone(err error) bool
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
func (d *Resource) Up(ctx context.Context, _ int) error {
	for {
		// Asked before too: the peer may be down between the refusal and the question.
		was := d.peerPrimary(ctx)
		err := d.Storage.Role(ctx, d.Name, "primary", false)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if !d.Storage.Again(err) && !was && !d.peerPrimary(ctx) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(rolePause):
		}
	}
}

func (d *Resource) peerPrimary(ctx context.Context) bool {
	r, err := d.Storage.Replica(ctx, d.Name)
	return err == nil && r.PeerRole == "primary"
}

// Down demotes. A hastd that is gone has no primary, nor has the next one. One that is not
// primary serves nothing, whatever keeps it from being secondary, such as a disk that is not
// there or just failed: that is down, and Watch makes it secondary once it can.
func (d *Resource) Down(ctx context.Context) error {
	began := time.Now()
	for {
		err := d.Storage.Role(ctx, d.Name, "secondary", time.Since(began) >= politeFor)
		switch {
		case err != nil && d.Storage.Gone(err):
			return nil
		case err == nil, ctx.Err() != nil:
			return err
		case !d.Storage.Again(err):
			if r, e := d.Storage.Replica(ctx, d.Name); e == nil && r.Role != "primary" {
				return nil
			}
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(rolePause):
		}
	}
}

// Look finds one that somebody promoted by hand: while it is up it is followed by its
// status.
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

// Hold has it answer nothing until a person resumes it.
func (d *Resource) Hold(ctx context.Context) error { return d.Storage.Suspend(ctx, d.Name) }

// Watch follows the resources of a group (its first parts) and tells it how this
// node stands, and which resource was lost. It ends with ctx.
type Watch struct {
	Group     *Group
	Storage   Storage
	Resources []string
	Every     time.Duration // between two questions
	// Silence is how long hastd may say nothing before its resources count as lost.
	Silence time.Duration
	Log     *slog.Logger

	// Peer names the other node of a resource, for people.
	Peer func(resource string) string

	mu     sync.Mutex
	seen   []cluster.Replica // at the last look
	heard  []time.Time
	was    cluster.Event
	failed map[string]string // by resource: why it could not be made secondary
}

// askLimit bounds one question; hastd answers in milliseconds.
const askLimit = time.Second

// Run works until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	tick := time.NewTicker(w.Every)
	defer tick.Stop()
	w.heard, w.failed = make([]time.Time, len(w.Resources)), map[string]string{}
	for i := range w.heard {
		w.heard[i] = time.Now()
	}
	for ctx.Err() == nil {
		w.look(ctx)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (w *Watch) look(ctx context.Context) {
	// From before the questions: an answer from before a promotion says nothing
	// against what was promoted meanwhile.
	before := w.Group.Status()
	replicas := make([]cluster.Replica, len(w.Resources))
	lost, fresh := make([]string, len(w.Resources)), make([]bool, len(w.Resources))
	var wg sync.WaitGroup
	for i, name := range w.Resources {
		wg.Go(func() {
			ask, cancel := context.WithTimeout(ctx, askLimit)
			defer cancel()
			r, err := w.Storage.Replica(ask, name)
			silence := time.Since(w.heard[i])
			switch {
			case err == nil:
				replicas[i], replicas[i].Reached = r, true
				w.heard[i], fresh[i] = time.Now(), true
				return
			case w.Storage.Gone(err):
				lost[i] = "hastd is not running"
			case silence >= w.Silence:
				lost[i] = fmt.Sprintf("hastd has not answered for %v", w.Silence)
			case w.seen != nil:
				replicas[i] = w.seen[i] // what it said last holds a while
				return
			}
			replicas[i] = cluster.Replica{Name: name}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	w.seen = replicas
	w.mu.Unlock()
	for i := range replicas {
		state := ""
		if i < len(before.Parts) {
			state = before.Parts[i].State
		}
		switch r := &replicas[i]; {
		case lost[i] != "" && state == "up":
			w.Group.Tell(cluster.Event{Kind: cluster.EvLost, Part: i, Err: lost[i]})
		case fresh[i] && state == "up" && r.Role != "primary":
			w.Group.Tell(cluster.Event{Kind: cluster.EvLost, Part: i, Err: "its role is " + r.Role + ", and nobody here ordered that"})
		case fresh[i] && r.Lost() && before.State == cluster.Stopping:
			w.release(ctx, r.Name)
		case fresh[i] && state == "down" && r.Role == "init" && !before.Frozen:
			w.follow(ctx, r.Name)
		}
	}
	ev := cluster.Event{Kind: cluster.EvStanding}
	ev.Fit, ev.Demotion, ev.Reason = cluster.Standing(replicas)
	if ev != w.was {
		w.was = ev
		w.Group.Tell(ev)
	}
}

// release ends the requests that a primary holds for ever (cluster.Replica.Lost), so that
// the programs and the mount that wait for them can be stopped. None of them was
// acknowledged.
func (w *Watch) release(ctx context.Context, name string) {
	ask, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	if err := w.Storage.Fail(ask, name); err != nil {
		w.Log.Warn("what the resource holds could not be ended; it is tried again", "resource", name, "reason", err)
		return
	}
	w.Log.Warn("the group goes down, and this node may not serve any more: what the resource held ends in I/O errors", "resource", name)
}

// follow makes a resource secondary that a hastd which was started again has in
// init: there it would not follow its peer.
func (w *Watch) follow(ctx context.Context, name string) {
	ask, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	text := ""
	if err := w.Storage.Role(ask, name, "secondary", false); err != nil {
		text = err.Error()
	}
	if text != w.failed[name] {
		if w.failed[name] = text; text != "" {
			w.Log.Warn("a resource in init could not be made secondary; it is tried again", "resource", name, "reason", text)
		}
	}
}

// PeerPrimary is the node where the resources are primary, if it is the other one
// and known.
func (w *Watch) PeerPrimary() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.seen {
		if r.Reached && r.Connection == "connected" && r.PeerRole == "primary" {
			return w.Peer(r.Name)
		}
	}
	return ""
}

// PeerUnable says why the other node could not take the resources over, as far as
// it can be seen from here; "" if it can.
func (w *Watch) PeerUnable() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.seen {
		switch {
		case !r.Reached:
			return "hastd does not answer for " + r.Name
		case r.Connection != "connected":
			return fmt.Sprintf("%s is not connected to its peer (%s)", r.Name, r.Connection)
		case r.PeerDisk != "uptodate":
			return fmt.Sprintf("the peer's replica of %s is %s", r.Name, r.PeerDisk)
		}
	}
	return ""
}
