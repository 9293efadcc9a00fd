package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hastd/cluster"
)

var quiet = slog.New(slog.DiscardHandler)

// store is a hastd of one resource.
type store struct {
	mu      sync.Mutex
	replica cluster.Replica
	silent  bool
	gone    bool
	busy    int // how often Role is to say: try again
	refuse  error
	down    func() // what happens right after a refusal
	orders  []string
}

var errBusy = errors.New("somebody uses the device")

func (s *store) Role(_ context.Context, _, role string, force bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders = append(s.orders, fmt.Sprint(role, force))
	switch {
	case s.gone:
		return errGone
	case s.silent:
		return errors.New("hastd did not answer")
	case s.refuse != nil:
		err := s.refuse
		if s.down != nil {
			s.down()
		}
		return err
	case s.busy > 0 && !force:
		s.busy--
		return errBusy
	}
	s.replica.Role = role
	return nil
}

func (s *store) Replica(context.Context, string) (cluster.Replica, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.gone:
		return cluster.Replica{}, errGone
	case s.silent:
		return cluster.Replica{}, errors.New("hastd did not answer")
	}
	return s.replica, nil
}

var errGone = errors.New("hastd is not running")

func (s *store) Fail(context.Context, string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders = append(s.orders, "fail")
	return nil
}

func (s *store) Suspend(context.Context, string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders = append(s.orders, "suspend")
	return nil
}

func (s *store) Gone(err error) bool  { return errors.Is(err, errGone) }
func (s *store) Again(err error) bool { return errors.Is(err, errBusy) }

func (s *store) with(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
}

func good(role string) cluster.Replica {
	return cluster.Replica{Name: "data", Role: role, Status: "complete", Connection: "connected", Disk: "uptodate", PeerRole: "secondary", PeerDisk: "uptodate"}
}

// A promotion is refused because the peer is primary, and the peer is secondary
// before anybody can ask.
func TestPeerThatGoesDownAtTheRefusalIsNoFault(t *testing.T) {
	s := &store{replica: good("secondary"), refuse: errors.New("promotion refused: alpha is primary")}
	s.replica.PeerRole = "primary"
	s.down = func() { s.replica.PeerRole, s.refuse = "secondary", nil }
	d := &Resource{Name: "data", Storage: s}
	if err := d.Up(t.Context(), 0); err != nil || s.replica.Role != "primary" {
		t.Errorf("%v, role %s", err, s.replica.Role)
	}
}

func TestResourceIsSwitched(t *testing.T) {
	s := &store{replica: good("init")}
	d := &Resource{Name: "data", Storage: s}
	if _, err := d.Probe(t.Context()); err == nil {
		t.Error("a resource in init is neither up nor down")
	}
	s.replica.Role = "secondary"
	if up, err := d.Probe(t.Context()); up || err != nil {
		t.Errorf("probed: %v, %v", up, err)
	}
	s.busy = 3
	if err := d.Up(within(t, soon), 0); err != nil || s.replica.Role != "primary" {
		t.Errorf("busy for a moment: %v", err)
	}
	// Who uses the device is given time, then cut off.
	s.busy, s.orders = 1<<30, nil
	if err := d.Down(within(t, soon)); err != nil {
		t.Errorf("in use: %v", err)
	}
	if n := len(s.orders); n < 2 || s.orders[0] != "secondaryfalse" || s.orders[n-1] != "secondarytrue" {
		t.Errorf("orders: %d, %v … %v", n, s.orders[0], s.orders[n-1])
	}
	// A refusal is final, unless the peer is on its way down.
	s.busy, s.orders, s.refuse = 0, nil, errors.New("it is outdated")
	if err := d.Up(within(t, soon), 0); !errors.Is(err, s.refuse) || len(s.orders) != 1 {
		t.Errorf("%v after %d orders", err, len(s.orders))
	}
	s.replica.PeerRole = "primary"
	time.AfterFunc(200*time.Millisecond, func() { s.with(func() { s.refuse, s.replica.PeerRole = nil, "secondary" }) })
	if err := d.Up(within(t, soon), 0); err != nil {
		t.Errorf("the peer stepped down: %v", err)
	}
	s.gone = true
	if err := d.Down(within(t, soon)); err != nil {
		t.Errorf("no hastd, no primary: %v", err)
	}
	if err := d.Up(within(t, soon), 0); err == nil {
		t.Error("promoted without a hastd")
	}
}

// A disk that is missing keeps a resource in init: nothing is served there, so the group is
// down. What is primary and cannot be demoted is not.
func TestResourceThatCannotLeaveInitIsDown(t *testing.T) {
	s := &store{replica: good("init"), refuse: errors.New("open /dev/vg0/data: no such file or directory")}
	d := &Resource{Name: "data", Storage: s}
	if err := d.Down(within(t, soon)); err != nil {
		t.Errorf("in init: %v", err)
	}
	s.replica.Role, s.replica.Disk = "secondary", "failed" // as its promotion found out
	if err := d.Down(within(t, soon)); err != nil {
		t.Errorf("its disk failed: %v", err)
	}
	s.replica.Role = "primary"
	if err := d.Down(within(t, soon)); !errors.Is(err, s.refuse) {
		t.Errorf("primary: %v", err)
	}
}

// Two resources that cannot leave init are said once each, not by turns for ever.
func TestWatchSaysOnceWhatStaysInInit(t *testing.T) {
	h := newHall(t, false)
	var log bytes.Buffer
	w := &Watch{
		Group: h.g, Storage: &inInit{}, Resources: []string{"a", "b"}, Every: 10 * time.Millisecond, Silence: soon,
		Log: slog.New(slog.NewTextHandler(&log, nil)), Peer: func(string) string { return "bravo" },
	}
	w.Run(within(t, 300*time.Millisecond))
	for _, name := range w.Resources {
		if n := strings.Count(log.String(), "resource="+name); n != 1 {
			t.Errorf("%d lines about %s", n, name)
		}
	}
}

// inInit is a hastd whose disks are all missing.
type inInit struct{ store }

func (*inInit) Role(_ context.Context, resource, _ string, _ bool) error {
	return errors.New("open /dev/vg0/" + resource + ": no such file or directory")
}

func (*inInit) Replica(_ context.Context, resource string) (cluster.Replica, error) {
	r := good("init")
	r.Name = resource
	return r, nil
}

// fake is a part that goes up and down at once, or hangs when it is to go up, until it is told to end.
type fake struct {
	h    *hall
	name string
	up   bool
	fail error
	hang bool
	held bool // its going down hangs likewise
}

func (f *fake) Probe(context.Context) (bool, error) { return f.up, nil }
func (f *fake) Up(ctx context.Context, _ int) error { return f.turn(ctx, true) }
func (f *fake) Down(ctx context.Context) error      { return f.turn(ctx, false) }
func (f *fake) Look(context.Context) (cluster.Look, error) {
	return cluster.LookOnline, nil
}

func (f *fake) turn(ctx context.Context, up bool) error {
	f.h.mu.Lock()
	f.h.told = append(f.h.told, map[bool]string{true: "+", false: "-"}[up]+f.name)
	fail, hang := f.fail, up && f.hang || !up && f.held
	f.h.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return fail
}

// hall is a group of two parts with its decider.
type hall struct {
	t     *testing.T
	g     *Group
	a, b  *fake
	end   context.CancelFunc
	ended chan bool

	mu     sync.Mutex
	told   []string
	joined []bool
	fit    bool
	taken  int
}

func (h *hall) Join(found bool) { h.with(func() { h.joined = append(h.joined, found) }) }
func (h *hall) Stand(fit bool, _ uint8, _ string) {
	h.with(func() { h.fit = fit })
}
func (h *hall) Take()         { h.with(func() { h.taken++ }) }
func (h *hall) Resign(string) {}
func (h *hall) with(do func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	do()
}

func (h *hall) heard() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.told, " ")
}

func newHall(t *testing.T, found bool) *hall {
	h := &hall{t: t, ended: make(chan bool, 1)}
	h.a, h.b = &fake{h: h, name: "a", up: found}, &fake{h: h, name: "b", up: found}
	part := func(name string, k cluster.Kind) cluster.Part {
		return cluster.Part{Name: "g/" + k.String() + "/" + name, Kind: k, UpLimit: 500 * cluster.Millisecond, DownLimit: 500 * cluster.Millisecond}
	}
	h.g = New(Options{
		Config:  cluster.Config{Name: "g", Parts: []cluster.Part{part("a", cluster.Resource), part("b", cluster.Service)}},
		Drivers: []Driver{h.a, h.b}, Decider: h, Log: quiet,
		Changed: func(cluster.State, cluster.State, string) {}, Failed: func(string, string) {},
	})
	ctx, end := context.WithCancel(t.Context())
	h.end = end
	go func() { h.ended <- h.g.Run(ctx, 2*time.Second) }()
	t.Cleanup(func() {
		end()
		select {
		case <-h.ended:
		default:
			<-h.g.ended
		}
	})
	h.g.Tell(cluster.Event{Kind: cluster.EvStanding, Fit: true, Reason: "well"})
	eventually(t, "the decider is told to join", func() bool { h.mu.Lock(); defer h.mu.Unlock(); return len(h.joined) == 1 && h.fit })
	return h
}

func (h *hall) wait(s cluster.State) {
	h.t.Helper()
	eventually(h.t, "the group is "+s.String(), func() bool { return h.g.Status().State == s })
}

func TestGroupGoesUpAndDownInOrder(t *testing.T) {
	h := newHall(t, false)
	if h.joined[0] {
		t.Error("nothing was found up")
	}
	h.g.Tell(cluster.Event{Kind: cluster.EvElected, Master: true})
	h.wait(cluster.Online)
	if err := h.g.Order(within(t, soon), cluster.OrderOffline); err != nil {
		t.Error(err)
	}
	if got := h.heard(); got != "+a +b -b -a" {
		t.Errorf("order: %s", got)
	}
	h.with(func() { h.told = nil })
	must(t, h.g.Order(within(t, soon), cluster.OrderOnline))
	h.g.Tell(cluster.Event{Kind: cluster.EvElected, Master: true})
	h.wait(cluster.Online)
	h.end()
	if clean := <-h.ended; !clean || h.heard() != "+a +b -b -a" {
		t.Errorf("at the end: clean %v, %s", clean, h.heard())
	}
	// Nobody hangs on a group that has ended.
	h.g.Tell(cluster.Event{Kind: cluster.EvTick})
	if err := h.g.Order(within(t, soon), cluster.OrderFreeze); !errors.Is(err, ErrStopped) {
		t.Errorf("an order after the end: %v", err)
	}
}

func TestStatusIsThereWithTheAnswer(t *testing.T) {
	h := newHall(t, false)
	for range 5000 {
		must(t, h.g.Order(within(t, soon), cluster.OrderFreeze))
		if !h.g.Status().Frozen {
			t.Fatal("the order was answered, and the status is older")
		}
		must(t, h.g.Order(within(t, soon), cluster.OrderUnfreeze))
	}
}

// TestOwnerThatHangsDoesNotAnswer: a mailbox with room is no answer.
func TestOwnerThatHangsDoesNotAnswer(t *testing.T) {
	h := newHall(t, false)
	if !h.g.Alive(within(t, soon)) {
		t.Error("it does not answer")
	}
	held, free := make(chan struct{}), make(chan struct{})
	h.g.o.Changed = func(cluster.State, cluster.State, string) { close(held); <-free }
	h.g.Tell(cluster.Event{Kind: cluster.EvElected, Master: true})
	<-held
	if h.g.Alive(within(t, 50*time.Millisecond)) {
		t.Error("it answers although its owner hangs")
	}
	h.g.o.Changed = func(cluster.State, cluster.State, string) {}
	close(free)
	if !h.g.Alive(within(t, soon)) {
		t.Error("it does not answer any more")
	}
	h.end()
	<-h.g.ended
	if !h.g.Alive(within(t, soon)) {
		t.Error("one that ended is not hung")
	}
}

// TestFailfastAsksTheFence, and says it if there is none.
func TestFailfastAsksTheFence(t *testing.T) {
	h := newHall(t, false)
	var asked []string
	h.g.o.Fence = func(part, reason string) bool { asked = append(asked, part+"|"+reason); return false }
	h.g.carryOut(t.Context(), &cluster.Effect{Kind: cluster.EffFail, Part: 1, Reason: "it is offline"})
	if len(asked) != 1 || asked[0] != "g/service/b|it is offline" {
		t.Errorf("%q", asked)
	}
	h.g.o.Fence = nil
	h.g.carryOut(t.Context(), &cluster.Effect{Kind: cluster.EffFail, Part: 1, Reason: "it is offline"})
}

func TestGroupThatWasFoundIsKept(t *testing.T) {
	h := newHall(t, true)
	if !h.joined[0] || h.g.Status().State != cluster.Online {
		t.Errorf("found up: told %v, state %v", h.joined[0], h.g.Status().State)
	}
	h.g.Tell(cluster.Event{Kind: cluster.EvElected, Master: true})
	eventually(t, "it is made sure of", func() bool { return h.heard() == "+a" })
	h.g.Tell(cluster.Event{Kind: cluster.EvElected})
	h.wait(cluster.Offline)
	if got := h.heard(); got != "+a -b -a" {
		t.Errorf("then another was elected: %s", got)
	}
}

func TestHangingPartsEndAtTheirLimit(t *testing.T) {
	h := newHall(t, false)
	h.with(func() { h.b.hang = true })
	h.g.Tell(cluster.Event{Kind: cluster.EvElected, Master: true})
	eventually(t, "the start of a part that hangs is given up", func() bool { return h.g.Status().Fault != "" })
	h.wait(cluster.Faulted)
	if st := h.g.Status(); !strings.HasPrefix(st.Fault, "g/service/b: could not be started: it took longer") || h.fit {
		t.Errorf("fault %q, fit %v", st.Fault, h.fit)
	}
	h.with(func() { h.b.hang = false })
	must(t, h.g.Order(within(t, soon), cluster.OrderClear))
	h.wait(cluster.Online)
	// A stop that fails: the end is bounded, and not called clean.
	h.with(func() { h.b.fail = errors.New("it will not") })
	began := time.Now()
	h.end()
	if clean := <-h.ended; clean || time.Since(began) > soon {
		t.Errorf("clean %v after %v", clean, time.Since(began))
	}
	if got := h.heard(); !strings.HasSuffix(got, "-b") {
		t.Errorf("what is below a part that would not stop was taken away: %s", got)
	}
}

func TestWatchTellsWhatCounts(t *testing.T) {
	h := newHall(t, false)
	s := &store{replica: good("primary")}
	w := &Watch{Group: h.g, Storage: s, Resources: []string{"data"}, Every: 10 * time.Millisecond, Silence: 400 * time.Millisecond, Log: quiet,
		Peer: func(string) string { return "bravo" }}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { w.Run(ctx) })
	defer wg.Wait()
	defer stop()
	h.g.Tell(cluster.Event{Kind: cluster.EvElected, Master: true})
	h.wait(cluster.Online)

	// Shorter than the limit: nothing happens. Longer: lost.
	s.with(func() { s.silent = true })
	for range 10 {
		time.Sleep(10 * time.Millisecond)
		if st := h.g.Status(); st.Fault != "" || !st.Fit {
			t.Errorf("lost after a moment of silence: %+v", st)
		}
	}
	s.with(func() { s.silent = false })
	time.Sleep(100 * time.Millisecond)
	if w.PeerUnable() != "" || w.PeerPrimary() != "" {
		t.Errorf("peer: %q, %q", w.PeerUnable(), w.PeerPrimary())
	}
	s.with(func() { s.silent = true })
	eventually(t, "a silent hastd counts as lost", func() bool { return strings.Contains(h.g.Status().Fault, "has not answered for 400ms") })
	if w.PeerUnable() == "" {
		t.Error("nobody knows what the peer is")
	}

	// It comes back in init: it is made secondary, and the group returns.
	s.with(func() { s.silent, s.replica, s.orders = false, good("init"), nil })
	eventually(t, "a resource in init is made secondary", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Contains(s.orders, "secondaryfalse")
	})
	s.with(func() { s.replica.PeerRole = "primary" })
	eventually(t, "the peer is known to be primary", func() bool { return w.PeerPrimary() == "bravo" })
	eventually(t, "the fault is forgotten, its cause is gone", func() bool { return h.g.Status().Fault == "" })

	// Up again, and switched by somebody else.
	s.with(func() { s.replica = good("primary") })
	h.g.Tell(cluster.Event{Kind: cluster.EvElected, Master: true})
	h.wait(cluster.Online)
	s.with(func() { s.replica = good("secondary") })
	eventually(t, "a demotion by hand is noticed", func() bool { return strings.Contains(h.g.Status().Fault, "nobody here ordered") })

	// Up again, and hastd dies: that is known at once.
	s.with(func() { s.replica = good("primary") })
	h.g.Tell(cluster.Event{Kind: cluster.EvElected, Master: true})
	must(t, h.g.Order(within(t, soon), cluster.OrderClear))
	h.wait(cluster.Online)
	s.with(func() { s.gone = true })
	eventually(t, "the death of hastd is noticed", func() bool { return strings.Contains(h.g.Status().Fault, "is not running") })
}

// Silence right after a promotion leaves an answer from before it: nothing is lost.
func TestOldAnswersLoseNothing(t *testing.T) {
	h := newHall(t, false)
	s := &store{replica: good("secondary")}
	w := &Watch{Group: h.g, Storage: s, Resources: []string{"data"}, Every: time.Hour, Silence: time.Hour, Log: quiet, heard: make([]time.Time, 1)}
	w.heard[0] = time.Now()
	w.look(t.Context())
	h.g.Tell(cluster.Event{Kind: cluster.EvElected, Master: true})
	h.wait(cluster.Online)
	s.with(func() { s.silent = true })
	w.look(t.Context())
	must(t, h.g.Order(within(t, soon), cluster.OrderUnfreeze)) // comes after what the look told
	if st := h.g.Status(); st.Fault != "" || !st.Fit {
		t.Errorf("%+v", st)
	}
}

// What a primary holds that was overtaken, or has neither its disk nor its peer, ends in
// errors as soon as the group goes down, and not before: the programs that wait for it
// could not be stopped.
func TestLostPrimaryLetsGo(t *testing.T) {
	for name, change := range map[string]func(*cluster.Replica){
		"overtaken": func(r *cluster.Replica) { r.Suspended = "peer-primary" },
		"no disk and no peer": func(r *cluster.Replica) {
			r.Suspended, r.Disk, r.Connection = "reconfiguration", "failed", "connecting"
		},
	} {
		t.Run(name, func(t *testing.T) { lostPrimary(t, change) })
	}
}

func lostPrimary(t *testing.T, change func(*cluster.Replica)) {
	h := newHall(t, false)
	s := &store{replica: good("primary")}
	w := &Watch{Group: h.g, Storage: s, Resources: []string{"data"}, Every: time.Hour, Silence: time.Hour, Log: quiet, heard: make([]time.Time, 1)}
	h.g.Tell(cluster.Event{Kind: cluster.EvElected, Master: true})
	h.wait(cluster.Online)
	s.with(func() { change(&s.replica) })
	w.look(t.Context())
	if st := h.g.Status(); len(s.orders) != 0 {
		t.Fatalf("orders %v although the group is %v", s.orders, st.State)
	}
	eventually(t, "the node is unfit", func() bool { return !h.g.Status().Fit })
	h.with(func() { h.b.held = true })
	h.g.Tell(cluster.Event{Kind: cluster.EvElected})
	h.wait(cluster.Stopping)
	w.look(t.Context())
	if len(s.orders) != 1 || s.orders[0] != "fail" {
		t.Errorf("orders %v", s.orders)
	}
	h.with(func() { h.b.held = false })
}

// A primary that came up here while the group is up elsewhere is suspended.
func TestSecondPrimaryIsSuspended(t *testing.T) {
	s := &store{replica: good("secondary")}
	g := New(Options{
		Config: cluster.Config{
			Name: "g", Node: "rum", Nodes: []string{"rum", "coke"},
			Parts: []cluster.Part{{Name: "g/resource/data", Kind: cluster.Resource, UpLimit: cluster.Second, DownLimit: cluster.Second, OffInterval: 10 * cluster.Millisecond, MonitorLimit: cluster.Second}},
		},
		Drivers: []Driver{&Resource{Name: "data", Storage: s}}, Decider: &hall{t: t}, Log: quiet,
		Changed: func(cluster.State, cluster.State, string) {}, Failed: func(string, string) {},
	})
	ctx, end := context.WithCancel(t.Context())
	go g.Run(ctx, time.Second)
	defer func() { end(); <-g.ended }()
	eventually(t, "it is probed", func() bool { return g.Status().Probed })
	g.Tell(cluster.Event{Kind: cluster.EvElected})
	g.Tell(cluster.Event{Kind: cluster.EvPeer, Node: "coke", Peer: &cluster.GroupReport{Name: "g", State: cluster.Online, Probed: true}})
	s.with(func() { s.replica.Role = "primary" })
	eventually(t, "it is suspended", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return slices.Contains(s.orders, "suspend") })
	s.with(func() {
		if slices.ContainsFunc(s.orders, func(o string) bool { return o != "suspend" }) {
			t.Errorf("orders %v", s.orders)
		}
	})
}
