package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"hastd/cluster/lease"
	"hastd/cluster/member"
	"hastd/cluster/view"
)

// Storage is hastd on this node.
type Storage interface {
	// Grant passes on what a view allows. The error is an ErrGone if there is no hastd.
	Grant(ctx context.Context, resource string, g member.Grant) error
	// Ask is what hastd says of a resource.
	Ask(ctx context.Context, resource string) (member.Storage, error)
}

// Store keeps the stored view (cluster/view/store).
type Store interface {
	Load() (*view.State, error)
	Save(*view.State) error
}

// What travels between the nodes.
type Kind uint8

const (
	KindView  Kind = iota + 1 // a view.Message
	KindLease                 // a renewal or its answer
)

// Options of a Runner.
type Options struct {
	Config    member.Config
	Names     map[view.NodeID]string // of all nodes, for people
	Resources []string               // that have a replica here
	Storage   Storage
	Store     Store
	Now       func() view.Instant // CLOCK_BOOTTIME
	Poll      time.Duration       // between two questions to hastd
	Log       *slog.Logger
	// Send sends to another node, once; it may be lost.
	Send func(to view.NodeID, kind Kind, body []byte)
	// Own is told when this node may serve a resource, and when no more; Learned of
	// every view; Reported what the views' machine says. None may block, nor call back.
	Own      func(resource string, on bool)
	Learned  func(*view.View)
	Reported func(view.Report)
}

const (
	// maxHeard bounds what other nodes sent and nobody looked at yet: it comes again.
	maxHeard = 256
	// askLimit bounds one question or grant; hastd answers in milliseconds.
	askLimit = time.Second
	// leastWait keeps a wrong deadline from keeping the processor busy.
	leastWait = time.Millisecond
)

// Status is what is known of the cluster.
type Status struct {
	View  *view.View // nil: none is known
	Inc   view.Incarnation
	Up    bool     // a view that names this node was learned since the start
	Waits string   // what for, if there should be another view and cannot be
	Heard view.Set // now
	// Agreed are the other nodes that know this view, as far as they said.
	Agreed view.Set
	Lease  view.Instant // its end; 0: none
	Owns   map[string]bool
	Last   string // the last report
	Since  time.Time
	// Decided is the last decision.
	Decided Decision
}

// Decision is what a view changed, for people.
type Decision struct {
	At   time.Time
	What string
	Why  string // as the node knows that asked for it; "" on the others
}

// Runner is one node's part. Run it.
type Runner struct {
	o Options
	m *member.Machine

	heard   chan heard
	calls   chan func()
	said    chan member.Storage
	ended   chan member.Answered
	wake    chan struct{} // nodes changed
	done    chan struct{} // Run has returned
	working context.Context
	wg      sync.WaitGroup

	failed error      // the owner's: why it must end
	was    *view.View // the last one that was told
	asked  string     // why this node asked for a view, if it did since
	race   race
	owns   map[string]bool

	mu     sync.Mutex
	nodes  view.Set
	status Status
	moved  chan struct{} // closed and made anew at every change of status
}

type heard struct {
	from view.NodeID
	kind Kind
	body []byte
}

// New makes a runner; it does nothing yet.
func New(o Options) (*Runner, error) {
	m, err := member.New(o.Config)
	if err != nil {
		return nil, err
	}
	return &Runner{
		o: o, m: m, heard: make(chan heard, maxHeard), calls: make(chan func()), said: make(chan member.Storage),
		ended: make(chan member.Answered, len(o.Resources)), wake: make(chan struct{}, 1), done: make(chan struct{}),
		owns: map[string]bool{}, moved: make(chan struct{}),
	}, nil
}

// Deliver takes what another node sent, as the heartbeats say. It never waits.
func (r *Runner) Deliver(from view.NodeID, kind Kind, body []byte) {
	select {
	case r.heard <- heard{from, kind, body}:
	default:
	}
}

// Node says whether another node is heard. It never waits.
func (r *Runner) Node(id view.NodeID, up bool) {
	r.mu.Lock()
	r.nodes &^= view.SetOf(id)
	if up {
		r.nodes |= view.SetOf(id)
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Status is what is known now.
func (r *Runner) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Changed is closed when the status is another.
func (r *Runner) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.moved
}

// ErrGone says that nobody is there to take an order.
var ErrGone = errors.New("hastd does not run")

// ErrEnded answers orders that the end overtook.
var ErrEnded = errors.New("the cluster's node on this host ends")

// Do hands the machine an event, and returns once its effects are carried out, or ctx
// ends: then they may be still. A disk may hang that they wait for.
func (r *Runner) Do(ctx context.Context, ev member.Event) error {
	did := make(chan struct{})
	select {
	case r.calls <- func() { r.step(ev); close(did) }:
	case <-r.done:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-did:
		return nil
	case <-r.done:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Alive says whether the owner answers before ctx ends.
func (r *Runner) Alive(ctx context.Context) bool {
	select {
	case r.calls <- func() {}:
		return true
	case <-r.done:
		return true
	case <-ctx.Done():
		return false
	}
}

// Run takes part until ctx ends. An error says that this node must not go on: what it
// promised could not be stored.
func (r *Runner) Run(ctx context.Context) error {
	stored, err := r.o.Store.Load()
	if err != nil {
		close(r.done)
		return err
	}
	var end context.CancelFunc
	r.working, end = context.WithCancel(ctx)
	defer r.wg.Wait()
	defer close(r.done)
	defer r.quit()
	defer end()
	for _, name := range r.o.Resources {
		r.wg.Go(func() { r.poll(name) })
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	beat := time.NewTicker(time.Duration(r.o.Config.Every))
	defer beat.Stop()
	r.step(member.Start{Stored: stored})
	for r.failed == nil {
		if at, ok := r.m.Deadline(); ok {
			timer.Reset(max(time.Duration(at-r.o.Now()), leastWait))
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return nil
		case x := <-r.heard:
			r.hear(x)
		case call := <-r.calls:
			call()
		case s := <-r.said:
			r.step(s)
		case a := <-r.ended:
			r.step(a)
		case <-r.wake:
			r.hears()
		case <-beat.C:
			r.hears()
			r.carry(r.m.Greet())
		case <-timer.C:
			// What came before the time was over counts first.
			for n := len(r.heard); n > 0; n-- {
				r.hear(<-r.heard)
			}
			r.step(member.Tick{})
		}
	}
	return r.failed
}

// quit makes the status that of a node that takes no part.
func (r *Runner) quit() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Owns, r.status.Lease, r.status.Up = nil, 0, false
	close(r.moved)
	r.moved = make(chan struct{})
}

func (r *Runner) hears() {
	r.mu.Lock()
	nodes := r.nodes
	r.mu.Unlock()
	r.silent(nodes)
	r.step(view.Heard{Nodes: nodes})
}

// hear reads what a node sent. What it says of itself must be what the heartbeats say.
func (r *Runner) hear(x heard) {
	switch x.kind {
	case KindView:
		msg, err := view.ReadMessage(x.body)
		if err == nil && (msg.From != x.from || msg.To != r.o.Config.View.Self) {
			err = fmt.Errorf("it is from node %d to node %d", msg.From, msg.To)
		}
		if err != nil {
			r.o.Log.Warn("what a node said of views cannot be taken", "node", r.name(x.from), "reason", err)
			return
		}
		r.step(view.Received{Msg: msg})
	case KindLease:
		ev, err := lease.Read(x.from, x.body)
		if err != nil {
			r.o.Log.Warn("what a node said of leases cannot be taken", "node", r.name(x.from), "reason", err)
			return
		}
		r.step(ev)
	}
}

func (r *Runner) step(ev member.Event) {
	if r.failed != nil {
		return
	}
	r.carry(r.m.Step(r.o.Now(), ev))
	if v := r.m.View(); v != nil && (r.was == nil || v.Stamp != r.was.Stamp) {
		r.tell(v)
		r.raced(r.was, v)
		r.decided(r.was, v)
		r.was, r.asked = v, ""
		if r.o.Learned != nil {
			r.o.Learned(v)
		}
	}
	r.note()
}

// carry carries effects out, in order.
func (r *Runner) carry(effects []member.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case view.Persist:
			if err := r.o.Store.Save(&e.State); err != nil {
				r.failed = err // nothing that follows may be said
				return
			}
		case view.Send:
			r.o.Send(e.Msg.To, KindView, view.AppendMessage(nil, e.Msg))
		case lease.SendRenew:
			body := lease.AppendRenew(nil, lease.Renew{Inc: r.m.Inc(), Number: e.Number, Round: e.Round})
			for _, id := range (r.m.View().Set() &^ view.SetOf(r.o.Config.View.Self)).IDs() {
				r.o.Send(id, KindLease, body)
			}
		case lease.SendConfirm:
			r.o.Send(e.To, KindLease, lease.AppendConfirm(nil, lease.Confirm{Inc: r.m.Inc(), Number: e.Number, Round: e.Round}))
		case member.Order:
			r.wg.Go(func() { r.grant(e) })
		case member.Own:
			r.owns[e.Resource] = e.On
			r.o.Log.Info("this node "+map[bool]string{true: "may serve", false: "may no longer serve"}[e.On]+" a resource", "resource", e.Resource)
			if r.o.Own != nil {
				r.o.Own(e.Resource, e.On)
			}
		case view.Report:
			r.report(e)
		}
	}
}

// grant passes one on. Its end is always told: there is one for each resource.
func (r *Runner) grant(e member.Order) {
	ctx, cancel := context.WithTimeout(r.working, askLimit)
	defer cancel()
	err := r.o.Storage.Grant(ctx, e.Resource, e.Grant)
	if err != nil && r.working.Err() == nil {
		r.o.Log.Debug("hastd did not take what the view allows; it is told again", "resource", e.Resource, "generation", e.Grant.Generation, "reason", err)
	}
	// A hastd that died before it answered is another one now, and says so.
	r.ended <- member.Answered{Resource: e.Resource, OK: err == nil, Lost: err != nil && ctx.Err() != nil, Gone: errors.Is(err, ErrGone)}
}

// poll asks hastd of a resource until the end.
func (r *Runner) poll(name string) {
	tick := time.NewTicker(r.o.Poll)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(r.working, askLimit)
		s, err := r.o.Storage.Ask(ctx, name)
		cancel()
		if err == nil {
			select {
			case r.said <- s:
			case <-r.working.Done():
				return
			}
		}
		select {
		case <-r.working.Done():
			return
		case <-tick.C:
		}
	}
}

// note makes the status what is so now.
func (r *Runner) note() {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.status
	next := Status{View: r.m.View(), Inc: r.m.Inc(), Up: r.m.Up(), Waits: r.m.Waits(), Heard: r.nodes, Agreed: r.m.Agreed(), Lease: r.m.Lease(), Owns: s.Owns, Last: s.Last, Since: s.Since, Decided: s.Decided}
	if !maps.Equal(r.owns, s.Owns) {
		next.Owns = maps.Clone(r.owns)
	}
	same := s.View == next.View && s.Up == next.Up && s.Waits == next.Waits && s.Heard == next.Heard && s.Agreed == next.Agreed && maps.Equal(s.Owns, next.Owns)
	if s.View != next.View {
		next.Since = time.Now()
	}
	*s = next
	if !same {
		close(r.moved)
		r.moved = make(chan struct{})
	}
}
