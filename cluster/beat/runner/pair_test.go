package runner

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hastd/cluster/beat"
)

// member is a running node of a test.
type member struct {
	t   *testing.T
	o   Options
	r   *Runner
	end func()
	why error // to end with

	mu   sync.Mutex
	log  bytes.Buffer
	told []beat.Effect
}

func (m *member) Write(b []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.log.Write(b)
}

func (m *member) said(text string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Count(m.log.String(), text)
}

func (m *member) got(match func(e *beat.Effect) bool) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.told {
		if match(&m.told[i]) {
			n++
		}
	}
	return n
}

// start runs it until the test ends.
func (m *member) start() {
	m.t.Helper()
	m.o.Log = slog.New(slog.NewTextHandler(m, nil))
	m.o.Tell = func(e beat.Effect) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.told = append(m.told, e)
	}
	r, err := New(m.o)
	if err != nil {
		m.t.Fatal(err)
	}
	m.r = r
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	m.end = sync.OnceFunc(func() {
		cancel(m.why)
		select {
		case err := <-done:
			if err != nil {
				m.t.Error(err)
			}
		case <-time.After(10 * time.Second):
			m.t.Error("it does not end")
		}
	})
	m.t.Cleanup(func() {
		m.end()
		if m.t.Failed() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.t.Logf("%s:\n%s%+v", m.o.Self.Name, m.log.String(), m.r.Stats())
		}
	})
}

// status is what it knows of its only peer.
func (m *member) status() beat.NodeStatus {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	list, err := m.r.Status(ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	return list[0]
}

func (m *member) up() bool { return m.status().Up }

var nextNet = struct {
	sync.Mutex
	n int
}{}

// freePort finds a UDP port that is free on loopback addresses.
func freePort(t *testing.T) int {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

// members makes two nodes with so many links over loopback; none is started.
func members(t *testing.T, links int) (a, b *member) {
	t.Helper()
	nextNet.Lock()
	nextNet.n++
	n := nextNet.n
	nextNet.Unlock()
	nodes := []Node{{ID: 0, Name: "alpha"}, {ID: 1, Name: "bravo"}}
	for i := range nodes {
		for l := range links {
			nodes[i].Addresses = append(nodes[i].Addresses, netip.MustParseAddr(fmt.Sprintf("127.%d.%d.%d", 10+n, l, i+1)))
		}
	}
	port := freePort(t)
	make := func(i int) *member {
		return &member{t: t, o: Options{
			Cluster: "red", Key: []byte("0123456789abcdef0123456789abcdef"), Self: nodes[i], Peers: []Node{nodes[1-i]}, Port: port,
			Interval: 100 * time.Millisecond, Trouble: time.Second, Timeout: 2000 * time.Millisecond,
			Shared: beat.Shared{"cluster.name": "red", "cluster.lease": "3s"},
		}}
	}
	return make(0), make(1)
}

func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

func holds(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if !ok() {
			t.Fatalf("%s: not all the time", what)
		}
	}
}

func bothUp(t *testing.T, a, b *member) {
	t.Helper()
	eventually(t, 20*time.Second, "both hear each other", func() bool { return a.up() && b.up() })
}

func TestPair(t *testing.T) {
	t.Parallel()
	a, b := members(t, 2)
	a.start()
	b.start()
	bothUp(t, a, b)
	eventually(t, 20*time.Second, "both links", func() bool {
		s := a.status()
		return s.Links[0].State == beat.LinkUp && s.Links[1].State == beat.LinkUp && len(s.Hears) == 1
	})
	ctx := context.Background()
	long := bytes.Repeat([]byte("long"), 5000)
	for _, ev := range []beat.Event{
		{Kind: beat.EvSend, Body: beat.Body{Kind: 1, Data: long}},
		{Kind: beat.EvView, Era: 3, Index: 4},
	} {
		if err := a.r.Order(ctx, ev); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 20*time.Second, "a long body arrives", func() bool {
		return b.got(func(e *beat.Effect) bool { return e.Kind == beat.EffDeliver && bytes.Equal(e.Body.Data, long) }) == 1
	})
	eventually(t, 20*time.Second, "the view is told", func() bool {
		return b.got(func(e *beat.Effect) bool { return e.Kind == beat.EffView && e.Era == 3 && e.Index == 4 }) == 1
	})
	b.end()
	eventually(t, 10*time.Second, "a goodbye", func() bool { return !a.up() })
	if a.said("it stopped") == 0 {
		t.Error("that it stopped is not said")
	}
	if s := a.r.Stats(); s.Refused[beat.FaultKey]+s.Refused[beat.FaultContent]+s.Refused[beat.FaultReplay]+s.Refused[beat.FaultNode] > 0 {
		t.Errorf("refused %v", s.Refused)
	}
}

// What nodes that are not set up alike send is refused, with the cause in the log, at
// most once in ten seconds.
func TestStrangeNodes(t *testing.T) {
	for name, x := range map[string]struct {
		change func(o *Options)
		fault  beat.Fault
		words  string
	}{
		"another cluster": {func(o *Options) { o.Cluster = "blue" }, beat.FaultCluster, "cluster.name differs"},
		"another key":     {func(o *Options) { o.Key = bytes.Repeat([]byte("x"), 32) }, beat.FaultKey, "another cluster key"},
		"no key":          {func(o *Options) { o.Key = nil }, beat.FaultSecured, "cluster.insecure"},
		"another id":      {func(o *Options) { o.Self.ID = 2 }, beat.FaultNode, "node.*.id"},
		"another address": {func(o *Options) { o.Self.Addresses = []netip.Addr{netip.MustParseAddr("127.9.9.9")} }, beat.FaultSource, "no node's"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := members(t, 1)
			x.change(&b.o)
			a.start()
			b.start()
			eventually(t, 20*time.Second, "it is refused", func() bool { return a.r.Stats().Refused[x.fault] >= 5 })
			if a.up() || b.up() {
				t.Error("they hear each other")
			}
			if a.said(x.words) != 1 || a.said("a heartbeat was refused") != 1 {
				t.Errorf("%d lines", a.said("a heartbeat was refused"))
			}
		})
	}
}

// A configuration that was changed on one node only: both say the key, and go on.
func TestConfigurationOfOneNode(t *testing.T) {
	t.Parallel()
	a, b := members(t, 1)
	b.o.Shared = beat.Shared{"cluster.name": "red", "cluster.lease": "5s"}
	a.start()
	b.start()
	bothUp(t, a, b)
	for m, words := range map[*member]string{a: "cluster.lease: 3s here, 5s there", b: "cluster.lease: 5s here, 3s there"} {
		eventually(t, 15*time.Second, "the key is told", func() bool { return m.said(words) == 1 })
	}
	if err := b.r.Order(context.Background(), beat.Event{Kind: beat.EvShared, Shared: a.o.Shared}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "it is over", func() bool { return a.said("is as ours again") == 1 })
}

// forger sends from a node's address without being it.
func forger(t *testing.T, from, to *member) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp4", &net.UDPAddr{IP: from.o.Self.Addresses[0].AsSlice()},
		&net.UDPAddr{IP: to.o.Self.Addresses[0].AsSlice(), Port: to.o.Port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Recorded heartbeats bring nobody back, from whatever start.
func TestReplayedHeartbeats(t *testing.T) {
	t.Parallel()
	a, b := members(t, 1)
	tap, err := net.ListenUDP("udp4", &net.UDPAddr{IP: a.o.Self.Addresses[0].AsSlice(), Port: a.o.Port})
	if err != nil {
		t.Fatal(err)
	}
	// Bravo speaks to somebody who records, then to alpha.
	b.start()
	var recorded [][]byte
	tap.SetReadDeadline(time.Now().Add(5 * time.Second))
	for range 10 {
		buf := make([]byte, 2048)
		n, err := tap.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		recorded = append(recorded, buf[:n])
	}
	tap.Close()
	a.start()
	bothUp(t, a, b)
	b.end()
	eventually(t, 20*time.Second, "bravo is gone", func() bool { return !a.up() })
	f := forger(t, b, a)
	again := func() {
		t.Helper()
		holds(t, time.Second, "a recording is not believed", func() bool {
			for _, p := range recorded {
				f.Write(p)
			}
			return !a.up()
		})
	}
	again()
	if a.r.Stats().Refused[beat.FaultReplay] < 10 {
		t.Errorf("refused %v", a.r.Stats().Refused)
	}
	if n := a.said("cause=replay"); n != 1 {
		t.Errorf("said so %d times", n)
	}
	a.end()
	a.start()
	again()
	if s := a.r.Stats(); s.Refused[beat.FaultStale] == 0 || s.Sent > 40 {
		t.Errorf("%+v", s)
	}
}

// A flood from a node's own address: membership holds, and the log stays quiet.
func TestFloodOverLoopback(t *testing.T) {
	a, b := members(t, 1)
	a.o.Timeout, b.o.Timeout = 5*time.Second, 5*time.Second // the flood is what is tested, not a machine that stalls
	a.start()
	b.start()
	bothUp(t, a, b)
	f := forger(t, b, a)
	codec := beat.NewCodec("red", []byte("another key, as long as that one"))
	const rate, d = 10000, 2 * time.Second
	began, sent := time.Now(), 0
	for time.Since(began) < d {
		for due := int(time.Since(began).Seconds() * rate); sent < due; sent++ {
			p := beat.Packet{From: 1, Kind: beat.KindBeat, Incarnation: uint64(sent%1000 + 1), Sequence: 1 << 40}
			f.Write(codec.Seal(nil, &p))
		}
		time.Sleep(time.Millisecond)
	}
	s := a.r.Stats()
	t.Logf("%d forged packets in %v: %v", sent, d, s.Refused)
	if a.got(func(e *beat.Effect) bool { return e.Kind == beat.EffNode }) != 1 || !a.up() || !b.up() {
		t.Error("a flood costs the membership")
	}
	if s.Refused[beat.FaultKey] == 0 || s.Refused[beat.FaultRate] == 0 && sent > 20000 || s.Dropped > 0 {
		t.Errorf("refused %v, dropped %d", s.Refused, s.Dropped)
	}
	if n := a.said("a heartbeat was refused"); n > 2 {
		t.Errorf("%d lines in the log", n)
	}
}

// A host that is back at once says no goodbye: nobody acts on that it was gone.
func TestBackAtOnce(t *testing.T) {
	a, b := members(t, 1)
	a.start()
	b.start()
	bothUp(t, a, b)
	a.why = ErrBack
	a.end()
	a.why = nil
	a.start()
	eventually(t, 5*time.Second, "it is heard again", a.up)
	if b.said("it stopped") > 0 {
		t.Error("it said goodbye")
	}
	a.end()
	eventually(t, 5*time.Second, "it says goodbye", func() bool { return b.said("it stopped") > 0 })
}

// Who must be taken for gone is silent, goodbye included, until that is over.
func TestMuted(t *testing.T) {
	t.Parallel()
	a, b := members(t, 1)
	var muted atomic.Bool
	a.o.Mute = func() string {
		if muted.Load() {
			return "its disk hangs"
		}
		return ""
	}
	a.start()
	b.start()
	bothUp(t, a, b)
	muted.Store(true)
	eventually(t, 20*time.Second, "it is taken for gone", func() bool { return !b.up() })
	if n := a.said("its disk hangs"); n != 1 {
		t.Errorf("it said so %d times", n)
	}
	muted.Store(false)
	bothUp(t, a, b)
	muted.Store(true)
	a.end()
	eventually(t, 20*time.Second, "it is gone", func() bool { return !b.up() })
	if b.said("it stopped") > 0 {
		t.Error("it said goodbye")
	}
}
