package runner

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"hastd/cluster"
)

// Driver makes one part of a group go up and down. Every call ends soon after its
// context does.
type Driver interface {
	// Probe says whether the part is up, before anything was done; an error if that
	// cannot be told.
	Probe(ctx context.Context) (bool, error)
	Up(ctx context.Context) error
	Down(ctx context.Context) error
	Look(ctx context.Context) (cluster.Look, error)
}

// Decider is who says which node is master: CARP, VRRP, or a person. It is told how
// this node may take part. Calls must not block.
type Decider interface {
	Stand(fit bool, demotion uint8, reason string)
	Take()
	Resign(reason string)
}

// Options of a Group.
type Options struct {
	Config  cluster.Config
	Drivers []Driver // one for each part
	Decider Decider
	Log     *slog.Logger
	// Changed is told of every change of the group's state. It must not block.
	Changed func(from, to cluster.State, reason string)
}

// Status is a group as people see it.
type Status struct {
	State    cluster.State
	Fault    string
	Frozen   bool
	Disabled bool // by `group offline`
	Probed   bool
	Fit      bool // may become master
	Standing string
	Parts    []cluster.PartStatus
}

// Group runs one group on this node.
type Group struct {
	o      Options
	begin  time.Time
	events chan cluster.Event

	// The owner's.
	machine *cluster.Group
	breaks  map[cluster.Op]context.CancelFunc
	running sync.WaitGroup
	answers map[uint64]chan<- string
	facts   cluster.Effect
	stopped bool

	mu     sync.Mutex
	status Status
	lastID uint64
}

const (
	// maxEvents bounds what waits for the owner; who sends more waits.
	maxEvents = 64
	// probeLimit bounds a look at a part at the start.
	probeLimit = 30 * time.Second
	// leastWait keeps a wrong deadline from keeping the processor busy.
	leastWait = time.Millisecond
)

// New makes a group. It does nothing yet.
func New(o Options) *Group {
	return &Group{
		o: o, begin: time.Now(), events: make(chan cluster.Event, maxEvents),
		machine: cluster.NewGroup(o.Config), breaks: map[cluster.Op]context.CancelFunc{}, answers: map[uint64]chan<- string{},
	}
}

func (g *Group) now() cluster.Instant { return cluster.Instant(time.Since(g.begin)) + 1 }

// Tell hands an event to the machine.
func (g *Group) Tell(ev cluster.Event) { g.events <- ev }

// ErrStopped answers orders that the daemon's end overtook.
var ErrStopped = errors.New("the controller ends")

// Order gives an operator's order and waits for its end.
func (g *Group) Order(ctx context.Context, o cluster.Order) error {
	answer := make(chan string, 1)
	g.mu.Lock()
	g.lastID++
	id := g.lastID
	g.answers[id] = answer
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.answers, id)
		g.mu.Unlock()
	}()
	select {
	case g.events <- cluster.Event{Kind: cluster.EvOrder, Order: o, ID: id}:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case text := <-answer:
		if text != "" {
			return errors.New(text)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Status is what the group is now.
func (g *Group) Status() Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.status
}

// Run works until ctx ends, then takes everything down and returns. Limit bounds
// that.
func (g *Group) Run(ctx context.Context, limit time.Duration) {
	work, end := context.WithCancel(context.WithoutCancel(ctx))
	defer g.running.Wait()
	defer end()
	for i, d := range g.o.Drivers {
		g.running.Go(func() {
			ctx, cancel := context.WithTimeout(work, probeLimit)
			defer cancel()
			up, err := d.Probe(ctx)
			ev := cluster.Event{Kind: cluster.EvProbed, Part: i, Up: up}
			if err != nil {
				ev.Err = err.Error()
			}
			g.post(work, ev)
		})
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	done, over := ctx.Done(), (<-chan time.Time)(nil)
	for !g.stopped {
		g.arm(timer)
		select {
		case <-done:
			done, over = nil, time.After(limit)
			g.step(work, cluster.Event{Kind: cluster.EvStop})
		case <-over:
			g.o.Log.Error("the group could not be taken down in time", "group", g.o.Config.Name, "limit", limit)
			return
		case ev := <-g.events:
			g.step(work, ev)
		case <-timer.C:
			g.step(work, cluster.Event{Kind: cluster.EvTick})
		}
	}
}

func (g *Group) post(ctx context.Context, ev cluster.Event) {
	select {
	case g.events <- ev:
	case <-ctx.Done():
	}
}

func (g *Group) arm(t *time.Timer) {
	d := time.Hour
	if at, ok := g.machine.Deadline(); ok {
		d = max(time.Duration(at-g.now()), leastWait)
	}
	t.Reset(d)
}

func (g *Group) step(ctx context.Context, ev cluster.Event) {
	for _, e := range g.machine.Step(g.now(), ev, nil) {
		g.carryOut(ctx, &e)
	}
	if b, ok := g.breaks[ev.Op]; ok && (ev.Kind == cluster.EvDone || ev.Kind == cluster.EvLooked) {
		b()
		delete(g.breaks, ev.Op)
	}
	g.mu.Lock()
	m := g.machine
	g.status = Status{m.State(), m.Fault(), m.Frozen(), m.Disabled(), m.Probed(), g.facts.Fit, g.facts.Reason, m.Parts()}
	g.mu.Unlock()
}

func (g *Group) carryOut(ctx context.Context, e *cluster.Effect) {
	name := g.o.Config.Name
	switch e.Kind {
	case cluster.EffUp, cluster.EffDown, cluster.EffLook:
		g.act(ctx, *e)
	case cluster.EffBreak:
		if b, ok := g.breaks[e.Op]; ok {
			b()
		}
	case cluster.EffStanding:
		g.facts = *e
		g.o.Decider.Stand(e.Fit, e.Demotion, e.Reason)
	case cluster.EffTake:
		g.o.Decider.Take()
	case cluster.EffResign:
		g.o.Decider.Resign(e.Reason)
	case cluster.EffState:
		g.o.Changed(e.From, e.To, e.Reason)
	case cluster.EffReport:
		g.o.Log.Error(g.o.Config.Parts[e.Part].Name+": "+e.Reason, "group", name)
	case cluster.EffAnswer:
		g.mu.Lock()
		if c := g.answers[e.ID]; c != nil {
			delete(g.answers, e.ID)
			c <- e.Err
		}
		g.mu.Unlock()
	case cluster.EffStopped:
		g.stopped = true
	}
}

// act runs one action of a part.
func (g *Group) act(work context.Context, e cluster.Effect) {
	ctx, cancel := context.WithCancel(work)
	g.breaks[e.Op] = cancel
	d, part := g.o.Drivers[e.Part], g.o.Config.Parts[e.Part]
	g.running.Go(func() {
		ev := cluster.Event{Kind: cluster.EvDone, Op: e.Op}
		began := time.Now()
		var err error
		switch e.Kind {
		case cluster.EffUp:
			err = d.Up(ctx)
		case cluster.EffDown:
			err = d.Down(ctx)
		default:
			look, stop := context.WithTimeout(ctx, time.Duration(part.MonitorLimit))
			defer stop()
			ev.Kind = cluster.EvLooked
			ev.Look, err = d.Look(look)
		}
		if err != nil {
			ev.Err = err.Error()
		}
		if e.Kind != cluster.EffLook {
			word := map[bool]string{true: "up", false: "down"}[e.Kind == cluster.EffUp]
			g.o.Log.Info(part.Name+" "+word, "group", g.o.Config.Name, "took", time.Since(began).Round(time.Millisecond).String(), "error", ev.Err)
		}
		g.post(work, ev)
	})
}
