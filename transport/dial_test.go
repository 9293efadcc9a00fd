package transport

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// listen is a node with one endpoint, whoever asks.
func listen(t *testing.T, node string, ep *Endpoint, addresses ...string) *Listener {
	t.Helper()
	l, err := Listen(ListenerOptions{
		Cluster: "c", Node: node, Addresses: addresses,
		Lookup: func(string, string) (*Endpoint, error) { return ep, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// twoPaths is a bravo with two addresses and an alpha that knows both, after a
// path where nobody listens.
func twoPaths(t *testing.T) (*Dialer, chan *Session) {
	t.Helper()
	got := make(chan *Session, 4)
	ep := &Endpoint{Options: options("bravo"), Session: func(s *Session) { got <- s }}
	l := listen(t, "bravo", ep, "127.0.0.2:0", "127.1.0.2:0")
	closed, err := net.Listen("tcp", "127.2.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	d, err := NewDialer(DialerOptions{Options: options("alpha"), Paths: []Path{
		{"127.2.0.1", closed.Addr().String()},
		{"127.0.0.1:8457", l.Addrs()[0].String()},
		{"127.1.0.1", l.Addrs()[1].String()},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return d, got
}

// A dead path costs nothing but its attempt; after a loss the next path is tried
// first; each connection leaves from its path's own address.
func TestDialerPaths(t *testing.T) {
	d, got := twoPaths(t)
	for i, want := range []int{1, 2, 1} { // after path 2 comes path 0, which is dead
		d.Kick()
		s, err := d.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		q := <-got
		h := s.Hello()
		if h.Path != want || q.Hello().Path != want {
			t.Errorf("session %d took path %d (peer: %d), want %d", i, h.Path, q.Hello().Path, want)
		}
		if local := []string{"", "127.0.0.1:", "127.1.0.1:"}[want]; !strings.HasPrefix(h.Local, local) || q.Hello().Remote != h.Local {
			t.Errorf("session %d left from %s", i, h.Local)
		}
		q.end(nil) // without a word
		if err := serve(s, newSink()).wait(t); !errors.Is(err, ErrLost) {
			t.Errorf("ended with %v", err)
		}
	}
}

// Pause gives up and holds, Resume goes on at once, the context ends it.
func TestDialerPauseResume(t *testing.T) {
	d, got := twoPaths(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	d.Pause()
	type result struct {
		s   *Session
		err error
	}
	res := make(chan result, 1)
	dial := func() { s, err := d.Dial(ctx); res <- result{s, err} }
	go dial()
	d.Kick() // not while paused
	select {
	case r := <-res:
		t.Fatalf("dialed while paused: %v", r.err)
	case <-time.After(100 * time.Millisecond):
	}
	d.Resume()
	r := <-res
	if r.err != nil {
		t.Fatal(r.err)
	}
	r.s.Close("")
	(<-got).Close("")
	d.Pause()
	go dial()
	cancel()
	if r := <-res; !errors.Is(r.err, context.Canceled) {
		t.Errorf("got %v", r.err)
	}
}

// Rounds that fail come ever less often, up to the cap; Kick comes at once.
func TestDialerBackoff(t *testing.T) {
	o := options("alpha")
	ln, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	var mu sync.Mutex
	var at []time.Time
	fails := make(chan struct{}, 100)
	d, err := NewDialer(DialerOptions{Options: o, Paths: []Path{{"127.0.0.1", addr}}, Unreached: func(bool, error) {
		mu.Lock()
		at = append(at, time.Now())
		mu.Unlock()
		fails <- struct{}{}
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := d.Dial(ctx); done <- err }()
	for range 6 {
		<-fails
	}
	begin := time.Now()
	d.Kick()
	<-fails
	if w := time.Since(begin); w > 300*time.Millisecond {
		t.Errorf("a kick took %v", w)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	for i := 1; i < 6; i++ {
		most := min(backoffFirst<<(i-1), backoffCap)
		if w := at[i].Sub(at[i-1]); w < most/2 || w > most+500*time.Millisecond {
			t.Errorf("wait %d took %v, want %v to %v", i, w, most/2, most)
		}
	}
	if d.LastError() == nil || o.Metrics.DialFailures.Load() < 7 {
		t.Errorf("last error %v, %d failures", d.LastError(), o.Metrics.DialFailures.Load())
	}
}

// An address in use is an error that names it; one that the host lacks is
// waited for as long as another one serves.
func TestListenAddresses(t *testing.T) {
	lookup := func(string, string) (*Endpoint, error) { return nil, nil }
	o := ListenerOptions{Cluster: "c", Node: "n", Lookup: lookup, Addresses: []string{"127.0.0.2:0", "192.0.2.1:8457"}}
	l, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a := l.Addrs()
	if a[0] == nil || a[1] != nil {
		t.Errorf("listens on %v", a)
	}
	o.Addresses = []string{a[0].String()}
	if _, err := Listen(o); err == nil || !strings.Contains(err.Error(), a[0].String()) {
		t.Errorf("a busy address gave %v", err)
	}
	o.Addresses = []string{"192.0.2.1:8457"}
	if _, err := Listen(o); err == nil || !strings.Contains(err.Error(), "does not have the address") {
		t.Errorf("a missing address gave %v", err)
	}
}

// Options that cannot work are refused with what to do.
func TestOptionsRefused(t *testing.T) {
	for want, change := range map[string]func(*Options){
		"hastctl keygen":          func(o *Options) { o.Key = []byte("short") },
		"exclude each other":      func(o *Options) { o.Insecure = true },
		"at least 16 are needed":  func(o *Options) { o.Key = nil },
		`unknown checksum "md5"`:  func(o *Options) { o.Checksum = "md5" },
		`unknown compression "x"`: func(o *Options) { o.Compression = "x" },
		"is below":                func(o *Options) { o.Timeout = 0 },
		"cluster name":            func(o *Options) { o.Cluster = "" },
		"own peer":                func(o *Options) { o.Peer = o.Node },
	} {
		o := options("alpha")
		change(&o)
		if _, err := NewDialer(DialerOptions{Options: o, Paths: []Path{{"", "127.0.0.2:1"}}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// Whoever answers on one path, another node or a stranger, does not keep the dialer off
// the others: a refusal proves nothing.
func TestDialerGoesOnAfterARefusal(t *testing.T) {
	got := make(chan *Session, 4)
	var addrs []string
	for _, node := range []string{"charlie", "bravo"} {
		ep := &Endpoint{Options: options(node), Session: func(s *Session) { got <- s }}
		l := listen(t, node, ep, "127.0.0.1:0")
		addrs = append(addrs, l.Addrs()[0].String())
	}
	var refused *Refused
	d, err := NewDialer(DialerOptions{
		Options: options("alpha"), Paths: []Path{{"", addrs[0]}, {"", addrs[1]}},
		Unreached: func(_ bool, err error) {
			if !errors.As(err, &refused) {
				t.Errorf("failed with %v", err)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s, err := d.Dial(ctx)
	if err != nil {
		t.Fatalf("no session over the path to bravo: %v", err)
	}
	if path := s.Hello().Path; path != 1 || refused == nil || refused.Code != CodeNode {
		t.Errorf("path %d after %v", path, refused)
	}
	q := <-got
	q.end(nil)
	serve(s, newSink()).wait(t)
}

// mute accepts connections and says nothing, as a path does on which packets are lost.
func mute(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// A path that is silent does not keep the dialer off one that lives: neither the first
// time, nor when the peer refused at first and is ready now.
func TestDialerPassesSilentPaths(t *testing.T) {
	for _, c := range []struct {
		first bool          // the silent path
		pause time.Duration // from the refusal to the kick
	}{{true, 0}, {false, 0}, {false, glance + 100*time.Millisecond}} {
		first := c.first
		got := make(chan *Session, 4)
		var ready atomic.Bool
		ready.Store(first)
		ep := &Endpoint{Options: options("bravo"), Session: func(s *Session) { got <- s }, Ready: func() error {
			if ready.Load() {
				return nil
			}
			return errors.New("role is init")
		}}
		l := listen(t, "bravo", ep, "127.0.0.1:0")
		paths := []Path{{"", l.Addrs()[0].String()}, {"", mute(t)}}
		if first {
			slices.Reverse(paths)
		}
		refused := make(chan bool, 8)
		d, err := NewDialer(DialerOptions{Options: options("alpha"), Paths: paths, Unreached: func(no bool, _ error) { refused <- no }})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan *Session, 1)
		go func() { s, _ := d.Dial(t.Context()); done <- s }()
		if !first {
			if !<-refused {
				t.Error("a refusal is told as silence")
			}
			time.Sleep(c.pause) // it waits for the other path meanwhile
			ready.Store(true)
			d.Kick()
		}
		began := time.Now()
		s := <-done
		if w := time.Since(began); w > helloTimeout/2 {
			t.Errorf("silent path first %v, asked anew after %v: the session came after %v", first, c.pause, w)
		}
		q := <-got
		q.end(nil)
		serve(s, newSink()).wait(t)
	}
}

// What is told of a round: a refusal at once, and silence only if it was all that came.
func TestDialerTellsWhatARoundWas(t *testing.T) {
	ep := &Endpoint{Options: options("bravo"), Session: func(s *Session) { s.Close("") }, Ready: func() error { return errors.New("role is init") }}
	l := listen(t, "bravo", ep, "127.0.0.1:0")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	no, nobody := Path{"", l.Addrs()[0].String()}, Path{"", closed.Addr().String()}
	for _, c := range []struct {
		paths []Path
		want  []bool // refused
	}{
		{[]Path{nobody, nobody}, []bool{false}},
		{[]Path{no, nobody}, []bool{true}},
		{[]Path{nobody, no}, []bool{true}},
		{[]Path{no, no}, []bool{true, true}},
	} {
		var got []bool
		d, err := NewDialer(DialerOptions{Options: options("alpha"), Paths: c.paths, Unreached: func(no bool, _ error) { got = append(got, no) }})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			got = nil
			if s := d.round(t.Context()); s != nil || !slices.Equal(got, c.want) {
				t.Errorf("%v: told %v, want %v", c.paths, got, c.want)
			}
		}
	}
}

// A round in which nobody answered is told once, after all the time that a path may take.
func TestDialerTellsOfSilenceOnce(t *testing.T) {
	told := make(chan bool, 8)
	o := options("alpha")
	o.Timeout = 100 * time.Millisecond
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	d, err := NewDialer(DialerOptions{Options: o, Paths: []Path{{"", mute(t)}, {"", closed.Addr().String()}}, Unreached: func(no bool, _ error) { told <- no }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { _, _ = d.Dial(ctx); close(done) }()
	began := time.Now()
	if <-told {
		t.Error("silence is told as a refusal")
	}
	if w := time.Since(began); w < helloTimeout {
		t.Errorf("told after %v: the silent path was not given its time", w)
	}
	cancel()
	<-done
	if len(told) > 0 || o.Metrics.DialFailures.Load() < 2 {
		t.Errorf("told %d times more, %d failures", len(told), o.Metrics.DialFailures.Load())
	}
}
