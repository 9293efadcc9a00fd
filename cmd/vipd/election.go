package main

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"hastd/carp"
	"hastd/carp/runner"
	"hastd/cluster"
)

// election decides by CARP or VRRP: it is what stands between the group's machine
// and the election's.
type election struct {
	o   runner.Options
	log *slog.Logger
	// elected is told what the election says; changed and active what people want to
	// know. None may block for long.
	elected func(master bool, reason string)
	changed func(from, to carp.State, reason string)
	// listen is how long a node whose group was found up listens for another master.
	listen time.Duration

	join chan bool     // what Join said
	wake chan struct{} // something is in waiting

	mu      sync.Mutex
	waiting []carp.Event // at most one of a kind
	run     *runner.Runner
	runs    atomic.Bool // run is under way
	held    bool        // the group was found up, and nothing was said of that yet
}

const (
	// listenSlack is how much later than it should a master's packet may come.
	listenSlack = 100 * time.Millisecond
	// takeEvery and takeFor bound the attempts to become master after listening.
	takeEvery = 100 * time.Millisecond
	takeFor   = 5 * time.Second
	// rejoinAfter is the pause after an election that could not begin.
	rejoinAfter = time.Second
)

func newElection() *election {
	return &election{join: make(chan bool, 1), wake: make(chan struct{}, 1)}
}

// Join, Stand, Take and Resign are the group's words (cluster/runner.Decider).

// Join begins the election.
func (e *election) Join(found bool) { e.join <- found }

// Stand says how this node may take part.
func (e *election) Stand(fit bool, demotion uint8, reason string) {
	e.tell(carp.Event{Kind: carp.EvStanding, Fit: fit, Demotion: demotion, Reason: reason})
}

// Take asks to be master.
func (e *election) Take() { e.tell(carp.Event{Kind: carp.EvTake}) }

// Resign gives up being master.
func (e *election) Resign(reason string) { e.tell(carp.Event{Kind: carp.EvResign, Reason: reason}) }

// tell never waits: the election's machine may be waiting for the group's. A newer
// word takes the place of an older of its kind.
func (e *election) tell(ev carp.Event) {
	e.mu.Lock()
	for i := range e.waiting {
		if e.waiting[i].Kind == ev.Kind {
			e.waiting = append(e.waiting[:i], e.waiting[i+1:]...)
			break
		}
	}
	e.waiting = append(e.waiting, ev)
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *election) next() (carp.Event, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting) == 0 {
		return carp.Event{}, false
	}
	ev := e.waiting[0]
	e.waiting = e.waiting[1:]
	return ev, true
}

// state and stats are those of the runner, as far as there is one.
func (e *election) state() (carp.State, runner.Stats) {
	r := e.runner()
	if r == nil {
		return carp.Init, runner.Stats{}
	}
	return r.State(), r.Stats()
}

// ours and rightful are the runner's words for who holds the addresses.
func (e *election) ours(mac net.HardwareAddr) bool {
	r := e.runner()
	return r != nil && r.Ours(mac)
}

func (e *election) rightful() bool {
	r := e.runner()
	return r != nil && r.Rightful()
}

func (e *election) runner() *runner.Runner {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.run
}

// Run takes part from Join on until ctx ends.
func (e *election) Run(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case found := <-e.join:
		if found {
			e.held = true
			e.o.Election.StartDelay = 0
		}
	}
	e.o.Changed = e.onChange
	r := runner.New(e.o)
	e.mu.Lock()
	e.run = r
	e.mu.Unlock()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { e.forward(ctx, r) })
	if e.held {
		wg.Go(func() { e.keep(ctx, r) })
	}
	for {
		e.runs.Store(true)
		err := r.Run(ctx)
		e.runs.Store(false)
		if ctx.Err() != nil {
			return
		}
		e.log.Error("the election cannot be taken part in; it is tried again", "group", e.o.Group, "reason", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(rejoinAfter):
		}
	}
}

func (e *election) forward(ctx context.Context, r *runner.Runner) {
	for {
		for ev, ok := e.next(); ok; ev, ok = e.next() {
			if r.Tell(ctx, ev) != nil {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-e.wake:
		}
	}
}

// onChange hands a transition on. A node that found its group up says nothing of
// having begun to listen.
func (e *election) onChange(from, to carp.State, reason string) {
	e.changed(from, to, reason)
	e.mu.Lock()
	quiet := e.held && to == carp.Backup
	if !quiet {
		e.held = false
	}
	e.mu.Unlock()
	if !quiet {
		e.elected(to == carp.Master, reason)
	}
}

// keep listens for another master, and takes the place of a silent one.
func (e *election) keep(ctx context.Context, r *runner.Runner) {
	wait := func(d time.Duration) bool {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(d):
			return true
		}
	}
	holding := func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.held
	}
	for end := time.Now().Add(e.listen); time.Now().Before(end); {
		if !wait(min(takeEvery, time.Until(end))) {
			return
		}
		if r.Stats().Received > 0 {
			break
		}
	}
	if r.Stats().Received > 0 {
		e.mu.Lock()
		e.held = false
		e.mu.Unlock()
		e.elected(false, "another master advertises, and the group was found up here")
		return
	}
	for end := time.Now().Add(takeFor); holding() && time.Now().Before(end); {
		if r.Tell(ctx, carp.Event{Kind: carp.EvTake, Reason: "the group was found up, and no other master was heard"}) != nil || !wait(takeEvery) {
			return
		}
	}
}

// person is the decider of groups whose election is external: somebody orders them
// online and offline.
type person struct{}

func (person) Join(bool)                 {}
func (person) Stand(bool, uint8, string) {}
func (person) Take()                     {}
func (person) Resign(string)             {}

// everywhere is the decider of parallel groups: they are to be up on every node.
type everywhere struct {
	elected func(master bool, reason string)
}

// Join says so, without waiting for the group that calls it.
func (e everywhere) Join(bool) {
	go e.elected(true, "a parallel group is online on every node")
}
func (everywhere) Stand(bool, uint8, string) {}
func (everywhere) Take()                     {}
func (everywhere) Resign(string)             {}

// electedEvent is what the group's machine is told.
func electedEvent(master bool, reason string) cluster.Event {
	return cluster.Event{Kind: cluster.EvElected, Master: master, Reason: reason}
}
