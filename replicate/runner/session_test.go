package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"hastd/metadata"
	"hastd/replicate"
	"hastd/transport"
)

// testPair makes two resources that reach each other over loopback.
func testPair(t testing.TB, change func(node int, o *Options)) (a, b *Resource) {
	t.Helper()
	options := func(node int) func(*Options) {
		return func(o *Options) {
			names := []string{"alpha", "bravo"}
			o.Node, o.Peer, o.NodeID, o.PeerID = names[node], names[1-node], 0, 1
			if node == 1 {
				o.NodeID, o.PeerID = 1, 0
			}
			o.Transport = transport.Options{Cluster: "test", Resource: "data", Node: o.Node, Peer: o.Peer, Insecure: true, Timeout: o.Timeout, Compression: "hole"}
			if change != nil {
				change(node, o)
			}
		}
	}
	b = testResource(t, options(1))
	port := freePort(t)
	l, err := transport.Listen(transport.ListenerOptions{
		Cluster: "test", Node: "bravo", Addresses: []string{port},
		Lookup: func(resource, peer string) (*transport.Endpoint, error) {
			if resource != "data" {
				return nil, fmt.Errorf("no resource %s", resource)
			}
			return b.Endpoint(), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	a = testResource(t, func(o *Options) {
		options(0)(o)
		o.Paths = append([]transport.Path{{Remote: port}}, o.Paths...)
	})
	return a, b
}

func freePort(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// eventually waits for a condition that is told on the owner.
func (r *Resource) eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		ok := make(chan bool, 1)
		if err := r.onOwner(ctx, func() { ok <- f() }); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if <-ok {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func TestSessionsComeAndGo(t *testing.T) {
	log := new(syncBuffer)
	a, b := testPair(t, func(node int, o *Options) {
		o.Shared = map[string]string{"resource.data.checksum": fmt.Sprint(node), "cluster": "same"}
		o.machine = new(mirror) // leaves sessions alone
		if node == 1 {
			o.Log = slog.New(slog.NewTextHandler(log, nil))
		}
	})
	up := func(r *Resource) func() bool { return func() bool { return r.session != nil } }
	down := func(r *Resource) func() bool { return func() bool { return r.session == nil } }
	a.link.enable(false)
	b.link.enable(false)
	a.eventually(t, "first session", up(a))
	b.eventually(t, "first session", up(b))

	// A message that makes no sense ends the session; the next one comes.
	var first replicate.SessionID
	a.eventually(t, "send", func() bool {
		first = a.session.id
		a.session.s.Send([]transport.Out{{Frame: transport.Frame{Kind: 200}}})
		return true
	})
	a.eventually(t, "a newer session", func() bool { return a.session != nil && a.session.id > first })
	b.eventually(t, "a newer session", func() bool { return b.session != nil })

	// Disconnected: no session until enabled again, on the accepting side too.
	b.eventually(t, "disconnect", func() bool {
		b.carryOutRare(&replicate.Effect{Kind: replicate.EffDisconnect, Session: b.session.id, Stop: true, Text: "told to"})
		return true
	})
	b.eventually(t, "the session's end", down(b))
	a.eventually(t, "the session's end", down(a))
	b.link.enable(true)
	a.link.enable(true)
	a.eventually(t, "a session after that", up(a))
	b.eventually(t, "a session after that", up(b))

	if s := log.String(); countOf(s, "configuration differs") != 1 || countOf(s, "resource.data.checksum") != 1 || countOf(s, "cluster") != 0 {
		t.Errorf("log: %s", s)
	}
}

func countOf(s, sub string) (n int) {
	for i := 0; i+len(sub) <= len(s); i++ {
		if s[i:i+len(sub)] == sub {
			n++
		}
	}
	return n
}

func TestSessionWaitsForMemoryNoLongerThanItLives(t *testing.T) {
	a, b := testPair(t, func(_ int, o *Options) { o.machine = new(mirror) })
	a.link.enable(false)
	b.link.enable(false)
	a.eventually(t, "session", func() bool { return a.session != nil })
	b.eventually(t, "session", func() bool { return b.session != nil })
	hold := b.peerMem.Get(32 << 20) // all of it
	payload := a.appMem.Get(4096)
	a.eventually(t, "send", func() bool {
		m := a.mem.add(payload, a.appMem)
		m.buf[0] = 1 // no hole
		a.out = pack(a.out, a.mem, &replicate.Msg{Kind: replicate.MsgWrite, Len: 4096, Buf: m.handle}, m)
		a.mem.drop(m)
		a.flushOut()
		return true
	})
	a.eventually(t, "the bytes left", func() bool { return a.appMem.Free() == a.appMem.Size() })
	a.link.disable()
	a.eventually(t, "close", func() bool { a.session.s.Close("enough"); return true })
	b.eventually(t, "the session's end", func() bool { return b.session == nil })
	b.peerMem.Put(hold)
	for end := time.Now().Add(5 * time.Second); b.peerMem.Free() != b.peerMem.Size(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("memory did not come back")
		}
	}
}

// The node that listens says why its peer is refused, until that is over.
func TestStatusTellsWhyThePeerIsRefused(t *testing.T) {
	a, b := realPair(t, 8<<20, nil)
	refuse := func(host string, no *transport.Refused) { b.Endpoint().Refused(host, no) }
	reason := func() string {
		s, err := b.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Reason
	}
	different := &transport.Refused{Code: transport.CodeKey, Reason: "the keys differ"}
	b.until(t, func(s *Snapshot) bool { return s.Status.Status == "complete" })
	if refuse("10.0.0.1", different); reason() != "" {
		t.Errorf("connected, it says %q", reason())
	}
	a.order(t, replicate.Command{Kind: replicate.CmdDisconnect})
	b.until(t, func(s *Snapshot) bool { return s.Connection == "connecting" })
	refuse("10.0.0.1", different)
	if want := "alpha is not connected: a connection from 10.0.0.1 was refused: the keys differ"; reason() != want {
		t.Errorf("%q, want %q", reason(), want)
	}
	b.link.mu.Lock()
	b.link.refusal.at = b.link.refusal.at.Add(-2 * refusalKept)
	b.link.mu.Unlock()
	if strings.Contains(reason(), "the keys differ") {
		t.Errorf("it is not forgotten: %q", reason())
	}
	refuse("10.0.0.1", different)
	a.order(t, replicate.Command{Kind: replicate.CmdConnect})
	b.until(t, func(s *Snapshot) bool { return s.Status.Status == "complete" })
	if why := b.link.lastRefusal(); why != "" {
		t.Errorf("a session began, and there is still %q", why)
	}
}

// The refused node reads which node takes no part, why, and what to do there.
func TestRefusalSaysWhyThisNodeTakesNoPart(t *testing.T) {
	a, b := realPair(t, 8<<20, nil)
	tells := func(want string) {
		t.Helper()
		a.until(t, func(s *Snapshot) bool { return strings.Contains(s.Reason, want) })
	}
	b.order(t, replicate.Command{Kind: replicate.CmdDisconnect})
	tells("refused by the peer: bravo was disconnected by an administrator; hastctl connect data there ends it")
	b.order(t, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Init})
	tells("refused by the peer: data is init on bravo")
}

// What is ordered first comes first, whoever is waited for first: a promotion that a person
// orders while the daemon starts is not undone by the role of the start.
func TestOrderComesBeforeWhatIsOrderedLater(t *testing.T) {
	_, b := realPair(t, 8<<20, nil)
	b.order(t, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Init})
	wait := b.Order(replicate.Command{Kind: replicate.CmdRole, Role: metadata.Secondary})
	second := replicate.Command{Kind: replicate.CmdRole, Role: metadata.Init}
	err := b.Command(t.Context(), second)
	busy := (*replicate.Refusal)(nil)
	for end := time.Now().Add(10 * time.Second); errors.As(err, &busy) && busy.Code == replicate.RefusedBusy && time.Now().Before(end); {
		err = b.Command(t.Context(), second)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s, err := b.Status(t.Context()); err != nil || s.Role != metadata.Init {
		t.Errorf("role %v, %v", s.Role, err)
	}
}
