package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
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
	// Up starts it. Try says how often it was started again since it was last stable.
	Up(ctx context.Context, try int) error
	Down(ctx context.Context) error
	Look(ctx context.Context) (cluster.Look, error)
}

// seeker is a Driver that looks in another way whether a part which is down was put up
// outside the controller.
type seeker interface {
	Seek(ctx context.Context) (cluster.Look, error)
}

// holder is a Driver that can hold what programs ask of the part, while it stays up.
type holder interface {
	Hold(ctx context.Context) error
}

// Decider is who says which node is master: CARP, VRRP, or a person. It is told how
// this node may take part, and answers with cluster.EvElected. Calls must not block.
type Decider interface {
	// Join is called once, when every part was looked at: before, nobody takes part.
	// The group may have been found up; then it is kept so until the decider has
	// spoken, and only another master's presence should make it say no.
	Join(found bool)
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
	// Failed is told of every part that failed. It must not block.
	Failed func(part, reason string)
	// Alarmed is told of what a person should hear of. It must not block.
	Alarmed func(Alarm)
	// Fence makes this machine go down at once, or says that nothing can; nil: nothing
	// can. It must not block.
	Fence func(part, reason string) bool
	// Console is where a concurrency violation is written, beside the log; nil: nowhere.
	Console Console
}

// Alarm is something that a person should hear of.
type Alarm struct {
	Kind   string // restart, failfast, concurrency, suspend, critical
	Part   string // its full name, or ""
	Reason string
}

// Status is a group as people see it.
type Status struct {
	State    cluster.State
	Fault    string
	Frozen   bool
	Disabled bool // by `group offline`
	Probed   bool
	Held     bool // found up, and nobody said yet who is master
	Fit      bool // may become master
	Standing string
	Parts    []cluster.PartStatus

	AutoDisabled bool
	Hosts        []string            // where it is online or partial, as far as is known
	Report       cluster.GroupReport // for the other nodes
}

// Group runs one group on this node.
type Group struct {
	o      Options
	begin  time.Time
	events chan cluster.Event
	asked  chan struct{} // taken by the owner: it answers
	ended  chan struct{} // closed when Run returns

	// The owner's.
	machine *cluster.Group
	breaks  map[cluster.Op]context.CancelFunc
	running sync.WaitGroup
	answers map[uint64]chan<- string
	facts   cluster.Effect
	stopped bool
	joined  bool

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
		o: o, begin: time.Now(), events: make(chan cluster.Event, maxEvents), asked: make(chan struct{}), ended: make(chan struct{}),
		machine: cluster.NewGroup(o.Config), breaks: map[cluster.Op]context.CancelFunc{}, answers: map[uint64]chan<- string{},
	}
}

func (g *Group) now() cluster.Instant { return cluster.Instant(time.Since(g.begin)) + 1 }

// Tell hands an event to the machine; it is lost if Run has returned.
func (g *Group) Tell(ev cluster.Event) {
	select {
	case g.events <- ev:
	case <-g.ended:
	}
}

// ErrStopped answers orders that the daemon's end overtook.
var ErrStopped = errors.New("the controller ends")

// Denied says why an order was not carried out.
type Denied struct{ Text string }

func (d *Denied) Error() string { return d.Text }

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
	case <-g.ended:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case text := <-answer:
		if text != "" {
			return &Denied{text}
		}
		return nil
	case <-g.ended:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Alive says whether the machine's owner answers before ctx ends. That its mailbox has
// room would say little: it has for many events that nobody takes.
func (g *Group) Alive(ctx context.Context) bool {
	select {
	case g.asked <- struct{}{}:
		return true
	case <-g.ended:
		return true
	case <-ctx.Done():
		return false
	}
}

// Status is what the group is now.
func (g *Group) Status() Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.status
}

// Run works until ctx ends, then takes everything down and returns. Limit bounds
// that. False is returned if something was left up, as a frozen group is.
func (g *Group) Run(ctx context.Context, limit time.Duration) bool {
	work, end := context.WithCancel(context.WithoutCancel(ctx))
	defer close(g.ended)
	defer g.running.Wait()
	defer end()
	if len(g.o.Drivers) == 0 {
		g.step(work, cluster.Event{Kind: cluster.EvTick}) // there is nothing to look at
	}
	for i, d := range g.o.Drivers {
		g.running.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, probeLimit)
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
			g.o.Log.Error("the group could not be taken down in time", "group", g.o.Config.Name, "limit", limit.String())
			return false
		case ev := <-g.events:
			g.step(work, ev)
		case <-g.asked:
		case <-timer.C:
			g.step(work, cluster.Event{Kind: cluster.EvTick})
		}
	}
	// One that was not looked at says that it is offline, too.
	return g.machine.Probed() && (g.machine.State() == cluster.Offline || g.machine.State() == cluster.Faulted)
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
	effects := g.machine.Step(g.now(), ev, nil)
	for i := range effects {
		if effects[i].Kind != cluster.EffAnswer {
			g.carryOut(ctx, &effects[i])
		}
	}
	if b, ok := g.breaks[ev.Op]; ok && (ev.Kind == cluster.EvDone || ev.Kind == cluster.EvLooked) {
		b()
		delete(g.breaks, ev.Op)
	}
	g.mu.Lock()
	m := g.machine
	g.status = Status{m.State(), m.Fault(), m.Frozen(), m.Disabled(), m.Probed(), m.Held(), g.facts.Fit, g.facts.Reason, m.Parts(), m.AutoDisabled(), m.Hosts(), m.Report()}
	g.mu.Unlock()
	// Who gave an order looks at the status right after its answer.
	for i := range effects {
		if effects[i].Kind == cluster.EffAnswer {
			g.carryOut(ctx, &effects[i])
		}
	}
	if !g.joined && m.Probed() {
		g.joined = true
		g.o.Decider.Join(m.Held())
	}
}

func (g *Group) carryOut(ctx context.Context, e *cluster.Effect) {
	name := g.o.Config.Name
	switch e.Kind {
	case cluster.EffUp, cluster.EffDown, cluster.EffLook, cluster.EffSeek:
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
		part := g.o.Config.Parts[e.Part].Name
		g.o.Log.Error(part+": "+e.Reason, "group", name)
		g.o.Failed(part, e.Reason)
	case cluster.EffAnswer:
		g.mu.Lock()
		if c := g.answers[e.ID]; c != nil {
			delete(g.answers, e.ID)
			c <- e.Err
		}
		g.mu.Unlock()
	case cluster.EffStopped:
		g.stopped = true
	case cluster.EffRestart:
		part := g.o.Config.Parts[e.Part]
		text := fmt.Sprintf("%s: put up again here, restart %d of %d", e.Reason, e.Try, part.RestartLimit)
		g.o.Log.Warn(part.Name+": "+text, "group", name)
		g.alarm("restart", e.Part, text)
	case cluster.EffFail:
		g.alarm("failfast", e.Part, e.Reason)
		if g.o.Fence != nil && g.o.Fence(g.o.Config.Parts[e.Part].Name, e.Reason) {
			return
		}
		g.o.Log.Error("failfast: this machine would go down now, but nothing can make it (toc): the group fails over instead", "group", name, "reason", e.Reason)
	case cluster.EffSuspend:
		g.running.Go(func() { g.suspend(ctx, e.Part, e.Reason) })
		g.alarm("suspend", e.Part, e.Reason)
	case cluster.EffCritical:
		g.o.Log.Error("group "+name+" is faulted on every node", "group", name, "reason", e.Reason)
		g.alarm("critical", -1, e.Reason)
	case cluster.EffViolation:
		for _, line := range e.Lines {
			g.o.Log.Warn(line, "group", name)
		}
		if g.o.Console != nil {
			g.o.Console.Warn(e.Lines)
		}
		g.alarm("concurrency", e.Part, strings.Join(e.Lines, "; "))
	}
}

func (g *Group) alarm(kind string, part int, reason string) {
	if g.o.Alarmed == nil {
		return
	}
	a := Alarm{Kind: kind, Reason: reason}
	if part >= 0 {
		a.Part = g.o.Config.Parts[part].Name
	}
	g.o.Alarmed(a)
}

// suspend has a part hold what programs ask of it.
func (g *Group) suspend(ctx context.Context, part int, reason string) {
	name := g.o.Config.Parts[part].Name
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	err := errors.New("nothing can")
	if d, ok := g.o.Drivers[part].(holder); ok {
		err = d.Hold(ctx)
	}
	if err != nil {
		g.o.Log.Error("I/O of a resource should be held here and goes on: hastctl role secondary ends it", "group", g.o.Config.Name, "part", name, "reason", reason, "error", err)
		return
	}
	g.o.Log.Error("I/O of a resource is held here: hastctl role secondary ends it, and what it held fails", "group", g.o.Config.Name, "part", name, "reason", reason)
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
			err = d.Up(ctx, e.Try)
		case cluster.EffDown:
			err = d.Down(ctx)
		default:
			look, stop := context.WithTimeout(ctx, time.Duration(part.MonitorLimit))
			defer stop()
			ev.Kind = cluster.EvLooked
			see := d.Look
			if s, ok := d.(seeker); ok && e.Kind == cluster.EffSeek {
				see = s.Seek
			}
			ev.Look, err = see(look)
		}
		if err != nil {
			ev.Err = err.Error()
		}
		if ev.Kind == cluster.EvDone {
			word := map[bool]string{true: "up", false: "down"}[e.Kind == cluster.EffUp]
			took := time.Since(began).Round(time.Millisecond).String()
			if err != nil {
				g.o.Log.Warn(part.Name+" is not "+word, "group", g.o.Config.Name, "took", took, "reason", ev.Err)
			} else {
				g.o.Log.Info(part.Name+" is "+word, "group", g.o.Config.Name, "took", took)
			}
		}
		g.post(work, ev)
	})
}
