package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"hastd/cluster/member"
	"hastd/cluster/view"
	"hastd/cluster/view/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	term  = 500 * time.Millisecond
	every = 50 * time.Millisecond
	soon  = 20 * time.Second // what takes milliseconds, on a machine that does other things
)

// trio is two nodes and a witness in one process: the runners are real, and so are the
// files; the network is a function call, hastd a map.
type trio struct {
	t   *testing.T
	dir string

	mu    sync.Mutex
	run   [3]*Runner
	end   [3]func() error
	told  [3]map[string]member.Grant
	cut   view.Set      // nobody hears these
	fails bool          // the stores do
	hangs chan struct{} // node 0's store does until it is closed; nil: it does not
	log   [3]lines
}

// lines is a log.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) has(words ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			return true
		}
	}
	return false
}

func boot() view.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err)
	}
	return view.Instant(ts.Nano())
}

// hastd is a daemon that takes what it is told.
type hastd struct {
	c  *trio
	id view.NodeID
}

func (h hastd) Grant(_ context.Context, resource string, g member.Grant) error {
	h.c.mu.Lock()
	defer h.c.mu.Unlock()
	if old := h.c.told[h.id][resource]; g.Generation < old.Generation {
		return errors.New("an older view")
	}
	h.c.told[h.id][resource] = g
	return nil
}

func (h hastd) Ask(_ context.Context, resource string) (member.Storage, error) {
	h.c.mu.Lock()
	defer h.c.mu.Unlock()
	return member.Storage{Resource: resource, Told: h.c.told[h.id][resource].Generation, Good: view.SetOf(0, 1)}, nil
}

// failing is a store on a disk that fails, or hangs, when it is told to.
type failing struct {
	Store
	c  *trio
	id view.NodeID
}

func (f failing) Save(s *view.State) error {
	f.c.mu.Lock()
	hangs := f.c.hangs
	f.c.mu.Unlock()
	if hangs != nil && f.id == 0 {
		<-hangs
	}
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if f.c.fails {
		return fmt.Errorf("store: %w", unix.EIO)
	}
	return f.Store.Save(s)
}

func newTrio(t *testing.T) *trio {
	c := &trio{t: t, dir: t.TempDir()}
	for id := range view.NodeID(3) {
		c.start(id)
	}
	t.Cleanup(func() {
		for id := range 3 {
			c.end[id]()
		}
	})
	return c
}

func (c *trio) start(id view.NodeID) {
	c.told[id] = map[string]member.Grant{}
	o := Options{
		Config: member.Config{
			View: view.Config{
				Self: id, Seed: uint64(id)*7 + 1, Rejoin: view.Duration(every),
				Nodes:     []view.NodeConfig{{ID: 0}, {ID: 1}, {ID: 2, Witness: true}},
				Resources: []view.ResourceConfig{{Name: "data", Nodes: []view.NodeID{0, 1}}},
			},
			Lease: view.Duration(term), Every: view.Duration(every),
		},
		Names:   map[view.NodeID]string{0: "alpha", 1: "bravo", 2: "charlie"},
		Storage: hastd{c, id}, Store: failing{store.Open(filepath.Join(c.dir, fmt.Sprint(id))), c, id}, Now: boot, Poll: 20 * time.Millisecond,
		Log:  slog.New(slog.NewTextHandler(&c.log[id], nil)),
		Send: func(to view.NodeID, kind Kind, body []byte) { c.carry(id, to, kind, body) },
	}
	if id != 2 {
		o.Resources = []string{"data"}
	}
	r, err := New(o)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.run[id] = r
	c.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	c.end[id] = sync.OnceValue(func() error { cancel(); return <-ended })
	c.hear()
}

// hear tells everybody who is heard.
func (c *trio) hear() {
	c.mu.Lock()
	run, cut := c.run, c.cut
	c.mu.Unlock()
	for a := range view.NodeID(3) {
		for b := range view.NodeID(3) {
			if a != b && run[a] != nil && run[b] != nil {
				run[a].Node(b, !cut.Has(a) && !cut.Has(b))
			}
		}
	}
}

func (c *trio) carry(from, to view.NodeID, kind Kind, body []byte) {
	c.mu.Lock()
	r, lost := c.run[to], c.cut.Has(from) || c.cut.Has(to)
	c.mu.Unlock()
	if r != nil && !lost {
		r.Deliver(from, kind, body)
	}
}

func (c *trio) isolate(s view.Set) {
	c.mu.Lock()
	c.cut = s
	c.mu.Unlock()
	c.hear()
}

func (c *trio) until(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(soon); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("still not: %s: %+v, %+v, %+v", what, c.run[0].Status(), c.run[1].Status(), c.run[2].Status())
		}
	}
}

func (c *trio) owns(id int) bool { return c.run[id].Status().Owns["data"] }

func TestOwnerServesAndIsReplaced(t *testing.T) {
	c := newTrio(t)
	c.until("node 0 serves", func() bool { return c.owns(0) })
	if c.owns(1) || c.run[2].Status().View.Resource("data").Owner != 0 {
		t.Error("two own it, or the witness does not know")
	}
	c.isolate(view.SetOf(0))
	c.until("node 1 serves", func() bool { return c.owns(1) })
	// Measured with one clock: the lease of the lost owner was over.
	c.mu.Lock()
	lost, now := c.told[0]["data"].Until, boot()
	c.mu.Unlock()
	if now < lost {
		t.Errorf("node 1 serves, and node 0 may for another %v", time.Duration(lost-now))
	}
	c.until("node 0 knows that it may not", func() bool { return !c.owns(0) })
	c.isolate(0)
	c.until("node 0 is a member again", func() bool { return c.run[1].Status().View.Set() == view.SetOf(0, 1, 2) })
	if !c.owns(1) {
		t.Error("the owner changed")
	}
	// People are told in the words they know.
	racer := 1
	if c.log[2].has("this node is racer") {
		racer = 2
	}
	for _, x := range []struct {
		node  int
		words []string
	}{
		{0, []string{"msg=reconfiguration", `silent="bravo charlie"`, "leader=alpha", "leader-side=this"}},
		{0, []string{`msg="race lost"`, "which is not enough"}},
		{0, []string{`msg="race lost"`, "the view does not name this node"}},
		{1, []string{"msg=reconfiguration", "silent=alpha", "leader=alpha", "leader-side=other"}},
		{racer, []string{`msg="this node is racer"`, "spectators=", "pre-race-delay="}},
		{racer, []string{`msg="race won"`, "as=racer", `members="bravo charlie"`, "leader=bravo", "post-race-delay=0s"}},
		{3 - racer, []string{`msg="race won"`, "as="}}, // both may have asked
		{1, []string{`msg="fencing completed"`, "node=alpha", `reason="its lease is over"`}},
	} {
		if !c.log[x.node].has(x.words...) {
			t.Errorf("node %d did not say %q", x.node, x.words)
		}
	}
}

func TestHandedOverAndBack(t *testing.T) {
	c := newTrio(t)
	c.until("node 0 serves", func() bool { return c.owns(0) })
	for _, to := range []view.NodeID{1, 0} {
		if err := c.run[1-to].Do(t.Context(), member.Stopped{Resources: []string{"data"}, To: to}); err != nil {
			t.Fatal(err)
		}
		c.until("it is handed over", func() bool { return c.owns(int(to)) })
	}
}

// A node that comes back with what it stored is the one it was; one without is another.
func TestStoredViewIsTheNodesMemory(t *testing.T) {
	c := newTrio(t)
	c.until("node 0 serves", func() bool { return c.owns(0) })
	was := c.run[1].Status()
	if err := c.end[1](); err != nil {
		t.Fatal(err)
	}
	c.start(1)
	c.until("it is back", func() bool { s := c.run[1].Status(); return s.Up && s.View.Stamp.Number() > was.View.Stamp.Number() })
	if now := c.run[1].Status(); now.Inc != was.Inc {
		t.Errorf("it was %x and is %x", was.Inc, now.Inc)
	}
}

// What cannot be stored ends the node: it says nothing that stands on it, and serves
// nothing.
func TestStoreThatFailsEndsTheNode(t *testing.T) {
	c := newTrio(t)
	c.until("node 0 serves", func() bool { return c.owns(0) })
	c.mu.Lock()
	c.fails = true
	c.mu.Unlock()
	_ = c.run[0].Do(t.Context(), member.Leave{})
	select {
	case <-c.run[0].done:
	case <-time.After(soon):
		t.Fatal("it goes on")
	}
	if err := c.end[0](); !errors.Is(err, unix.EIO) {
		t.Errorf("it ended with %v", err)
	}
	if s := c.run[0].Status(); s.Owns["data"] || s.Up || s.Lease != 0 {
		t.Errorf("it still serves: %+v", s)
	}
	if err := c.run[0].Do(t.Context(), member.Tick{}); !errors.Is(err, ErrEnded) {
		t.Errorf("an order ended with %v", err)
	}
}

// While a disk hangs the lease runs out, and nobody waits for it: neither who gives an
// order nor the other node.
func TestStoreThatHangsHoldsUpNobody(t *testing.T) {
	c := newTrio(t)
	c.until("node 0 serves", func() bool { return c.owns(0) })
	hangs := make(chan struct{})
	c.mu.Lock()
	c.hangs = hangs
	c.mu.Unlock()
	defer close(hangs)
	ctx, cancel := context.WithTimeout(t.Context(), 2*term)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.run[0].Do(ctx, view.Force{How: view.OthersAreDown}) }()
	select {
	case err := <-ended:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an order ended with %v", err)
		}
	case <-time.After(soon):
		t.Error("an order waits")
	}
	if c.run[0].Alive(ctx) {
		t.Error("they answer")
	}
	if st := c.run[0].Status(); st.Lease > boot() {
		t.Errorf("it has a lease for another %v", time.Duration(st.Lease-boot()))
	}
	c.isolate(view.SetOf(0)) // as its heartbeats end
	c.until("node 1 serves", func() bool { return c.owns(1) })
}

// Bodies that are none of theirs change nothing.
func TestBodiesThatAreNotBelieved(t *testing.T) {
	c := newTrio(t)
	c.until("node 0 serves", func() bool { return c.owns(0) })
	r := c.run[0]
	v := r.Status().View
	later := *v
	later.Stamp.Index += 5
	later.Resources = nil
	good := &view.Message{Kind: view.Committed, From: 2, To: 0, Inc: v.Member(2).Inc, Serial: 1 << 40, Stamp: later.Stamp, View: &later}
	body := view.AppendMessage(nil, good)
	r.Deliver(1, KindView, body) // of node 2, in a packet of node 1
	wrong := *good
	wrong.To = 1
	r.Deliver(2, KindView, view.AppendMessage(nil, &wrong)) // to another node
	r.Deliver(2, KindView, body[:len(body)-1])
	r.Deliver(1, KindLease, []byte(strings.Repeat("x", 26)))
	r.Deliver(1, Kind(9), body)
	if err := r.Do(t.Context(), member.Tick{}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * every)
	if now := r.Status().View.Stamp; now.Number() >= later.Stamp.Number() {
		t.Errorf("view %v was believed", now)
	}
	// As it should be, it is taken: the test is not blind.
	r.Deliver(2, KindView, body)
	c.until("the true one is believed", func() bool { return r.Status().View.Stamp.Number() >= later.Stamp.Number() })
}
