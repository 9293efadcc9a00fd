package transport

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testKey = []byte("0123456789abcdef0123456789abcdef")

// options of node alpha (the dialer) or bravo (the listener).
func options(node string) Options {
	peer := "bravo"
	if node == "bravo" {
		peer = "alpha"
	}
	return Options{
		Cluster: "c", Resource: "data", Node: node, Peer: peer, Key: testKey,
		Timeout: 2 * time.Second, Role: func() string { return "secondary" },
		Build: "test-" + node, SharedHash: map[string]string{"size": "1"},
		Metrics: new(Metrics),
	}
}

// pair is a listener with one endpoint and a dialer for it.
type pair struct {
	t    testing.TB
	l    *Listener
	ep   *Endpoint
	got  chan *Session // sessions the listener made
	d    *Dialer
	logs *safeBuffer
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newPair listens on 127.0.0.2 and dials from 127.0.0.1.
func newPair(t testing.TB, a, b Options) *pair { return newHastyPair(t, a, b, 0) }

// newHastyPair has a listener that waits less for a handshake.
func newHastyPair(t testing.TB, a, b Options, patience time.Duration) *pair {
	t.Helper()
	p := &pair{t: t, got: make(chan *Session, 16), logs: new(safeBuffer)}
	p.ep = &Endpoint{Options: b, Session: func(s *Session) { p.got <- s }}
	var err error
	p.l, err = Listen(ListenerOptions{
		Cluster: b.Cluster, Node: b.Node, Addresses: []string{"127.0.0.2:0"},
		Lookup: func(r, peer string) (*Endpoint, error) {
			if r != b.Resource {
				return nil, nil
			}
			return p.ep, nil
		},
		Logger: slog.New(slog.NewTextHandler(p.logs, nil)), patience: patience,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.l.Close)
	p.d, err = NewDialer(DialerOptions{Options: a, Paths: []Path{{Local: "127.0.0.1", Remote: p.addr()}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pair) addr() string { return p.l.Addrs()[0].String() }

// connect makes one session and returns both ends.
func (p *pair) connect() (dialed, accepted *Session) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := p.d.Dial(ctx)
	if err != nil {
		p.t.Fatalf("dial: %v (%v)", err, p.d.LastError())
	}
	select {
	case q := <-p.got:
		return s, q
	case <-ctx.Done():
		p.t.Fatal("the listener made no session")
	}
	return nil, nil
}

// end is one served session of a test.
type end struct {
	s    *Session
	h    *sink
	done chan error
}

func serve(s *Session, h *sink) *end {
	e := &end{s: s, h: h, done: make(chan error, 1)}
	go func() { e.done <- s.Serve(h) }()
	return e
}

func (e *end) wait(t testing.TB) error {
	t.Helper()
	select {
	case err := <-e.done:
		return err
	case <-time.After(15 * time.Second):
		t.Fatal("Serve did not return")
		return nil
	}
}

type arrived struct {
	Frame
	body []byte
}

// sink keeps what arrives, or hands it to on.
type sink struct {
	on      func(f *Frame, body []byte)
	alloc   func(f *Frame, n int) []byte
	batches int
	frames  chan arrived
	s       *Session // for tests that look inside
}

func newSink() *sink { return &sink{frames: make(chan arrived, 1<<16)} }

func (h *sink) Body(f *Frame, n int) []byte {
	if h.alloc != nil {
		return h.alloc(f, n)
	}
	return make([]byte, n)
}

func (h *sink) Frame(f *Frame, body []byte) {
	if h.on != nil {
		h.on(f, body)
		return
	}
	h.frames <- arrived{*f, body}
}

func (h *sink) Batch() { h.batches++ }

func (h *sink) next(t testing.TB) arrived {
	t.Helper()
	select {
	case a := <-h.frames:
		return a
	case <-time.After(10 * time.Second):
		t.Fatal("no frame arrived")
		return arrived{}
	}
}
