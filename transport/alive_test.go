package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// rawSession is a peer that finished the handshake and then does only what the
// test does: as if its process were stopped, or gone mad.
func (p *pair) rawSession() (ctl, data *net.TCPConn, s *Session) {
	p.t.Helper()
	ctx := context.Background()
	ctl, cs, err := p.d.connect(ctx, 0, helloTimeout, kindControl, "", p.d.o.Key)
	if err != nil {
		p.t.Fatal(err)
	}
	data, _, err = p.d.connect(ctx, 0, helloTimeout, kindData, cs.hello.Session, cs.keys.bind)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { ctl.Close(); data.Close() })
	return ctl, data, <-p.got
}

func short(o Options) Options { o.Timeout = 400 * time.Millisecond; return o }

// A peer that stops without closing anything is lost after Timeout, with frames
// in flight or without, and every token is told.
func TestPeerSilent(t *testing.T) {
	for _, load := range []int{0, 64} {
		p := newPair(t, options("alpha"), short(options("bravo")))
		_, _, s := p.rawSession()
		var told atomic.Int64
		var out []Out
		for range load {
			out = append(out, Out{Body: [][]byte{noise(1, 1<<20)}, Done: DoneFunc(func() { told.Add(1) })})
		}
		s.Send(out)
		begin := time.Now()
		err := serve(s, newSink()).wait(t)
		if !errors.Is(err, ErrPeerSilent) && (load == 0 || !errors.Is(err, ErrPeerStalled)) {
			t.Errorf("ended with %v", err)
		}
		if d := time.Since(begin); d < 300*time.Millisecond || d > 3*time.Second {
			t.Errorf("noticed after %v", d)
		}
		if told.Load() != int64(load) {
			t.Errorf("%d tokens of %d", told.Load(), load)
		}
	}
}

// A session without traffic lives on keepalives, and knows its round trip.
func TestIdleSessionLives(t *testing.T) {
	p := newPair(t, short(options("alpha")), short(options("bravo")))
	x, y := p.connect()
	ex, ey := serve(x, newSink()), serve(y, newSink())
	select { // three times the time-out
	case err := <-ex.done:
		t.Fatalf("ended with %v", err)
	case err := <-ey.done:
		t.Fatalf("ended with %v", err)
	case <-time.After(3 * 400 * time.Millisecond):
	}
	if rt := x.RoundTrip(); rt <= 0 || rt > 400*time.Millisecond {
		t.Errorf("round trip %v", rt)
	}
	x.Close("")
	ex.wait(t)
	ey.wait(t)
}

// A peer that answers keepalives but takes no data: the sender gives up after
// Timeout, the peer learns why; one that is merely slow is waited for.
func TestPeerStalled(t *testing.T) {
	p := newPair(t, short(options("alpha")), short(options("bravo")))
	x, y := p.connect()
	h := newSink()
	h.alloc = func(f *Frame, n int) []byte { <-y.Ended(); return make([]byte, n) }
	ex, ey := serve(x, newSink()), serve(y, h)
	var out []Out
	for range 64 {
		out = append(out, Out{Body: [][]byte{noise(1, 1<<20)}})
	}
	x.Send(out)
	if err := ex.wait(t); !errors.Is(err, ErrPeerStalled) {
		t.Errorf("the sender ended with %v", err)
	}
	var bye *PeerClosed
	if err := ey.wait(t); !errors.As(err, &bye) || !strings.Contains(bye.Reason, ErrPeerStalled.Error()) {
		t.Errorf("the receiver ended with %v", err)
	}
	if y.Ended() == nil || len(h.frames) != 0 {
		t.Error("a frame arrived")
	}
}

// Back-pressure: a slow receiver loses nothing and keeps the order.
func TestBackPressure(t *testing.T) {
	p := newPair(t, options("alpha"), options("bravo")) // a busy machine is slow as well
	x, y := p.connect()
	gate := make(chan struct{})
	h := newSink()
	h.alloc = func(f *Frame, n int) []byte { <-gate; return make([]byte, n) }
	ex, ey := serve(x, newSink()), serve(y, h)
	body := noise(1, 1<<20)
	const frames = 40
	for i := range frames {
		x.Send([]Out{{Frame: Frame{Seq: uint64(i)}, Body: [][]byte{body}}})
	}
	for i := range frames {
		select {
		case gate <- struct{}{}:
		case <-y.Ended():
			t.Fatalf("ended before frame %d: %v", i, y.Err())
		}
		if got := h.next(t); got.Seq != uint64(i) {
			t.Fatalf("frame %d is %d", i, got.Seq)
		}
	}
	x.Close("")
	ex.wait(t)
	ey.wait(t)
}

// Losing either connection ends the session; a goodbye wins over a loss, in
// whatever order the two connections bring it.
func TestLossAndGoodbyeOrder(t *testing.T) {
	bye := func(c *net.TCPConn) {
		h := header{Frame: Frame{Kind: ctlBye}, raw: 2, wire: 2}
		b := make([]byte, headerSize)
		h.put(b)
		_, _ = c.Write(append(b, "ok"...))
	}
	frame := func(c *net.TCPConn) {
		b := make([]byte, headerSize)
		(&header{Frame: Frame{Seq: 77}}).put(b)
		_, _ = c.Write(b)
	}
	for _, c := range []struct {
		name string
		do   func(ctl, data *net.TCPConn, h *sink)
		lost bool
		data bool
	}{
		{"data closed", func(ctl, data *net.TCPConn, h *sink) { data.Close() }, true, false},
		{"control closed", func(ctl, data *net.TCPConn, h *sink) { ctl.Close() }, true, false},
		{"data reset", func(ctl, data *net.TCPConn, h *sink) { _ = data.SetLinger(0); data.Close() }, true, false},
		{"bye first, then data and its end", func(ctl, data *net.TCPConn, h *sink) { bye(ctl); frame(data); data.Close() }, false, true},
		{"data and its end first, then bye", func(ctl, data *net.TCPConn, h *sink) { frame(data); data.Close(); <-h.frames; bye(ctl) }, false, true},
		{"end of data, later bye", func(ctl, data *net.TCPConn, h *sink) { data.Close(); waitDry(h.s); bye(ctl) }, false, false},
		{"bye, data stays open", func(ctl, data *net.TCPConn, h *sink) { bye(ctl) }, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, options("alpha"), options("bravo"))
			ctl, data, s := p.rawSession()
			h := newSink()
			seen := make(chan struct{}, 1)
			h.on = func(f *Frame, _ []byte) { seen <- struct{}{}; h.frames <- arrived{Frame: *f} }
			h.s = s
			e := serve(s, h)
			c.do(ctl, data, h)
			begin := time.Now()
			err := e.wait(t)
			if d := time.Since(begin); strings.Contains(c.name, "then bye") || strings.Contains(c.name, "later bye") {
				if d > closeLinger*3/4 {
					t.Errorf("all was said, but it took %v", d)
				}
			}
			var b *PeerClosed
			if c.lost != errors.Is(err, ErrLost) || !c.lost != (errors.As(err, &b) && b.Reason == "ok") {
				t.Errorf("ended with %v", err)
			}
			if c.data != (len(seen) == 1) {
				t.Errorf("%d frames arrived", len(seen))
			}
		})
	}
}

// waitDry waits until s has seen the end of its data connection.
func waitDry(s *Session) {
	for dry := false; !dry; runtime.Gosched() {
		s.mu.Lock()
		dry = s.dry
		s.mu.Unlock()
	}
}

// Both close at the same time.
func TestCloseTogether(t *testing.T) {
	p := newPair(t, options("alpha"), options("bravo"))
	x, y := p.connect()
	ex, ey := serve(x, newSink()), serve(y, newSink())
	begin := time.Now()
	x.Close("a")
	y.Close("b")
	for _, err := range []error{ex.wait(t), ey.wait(t)} {
		var bye *PeerClosed
		if !errors.Is(err, ErrClosed) && !errors.As(err, &bye) {
			t.Errorf("ended with %v", err)
		}
	}
	if d := time.Since(begin); d > closeLinger+time.Second {
		t.Errorf("took %v", d)
	}
}

// What is no frame ends the session at once, costs nothing, and the peer is told.
func TestSessionRefusesNonsense(t *testing.T) {
	for name, c := range map[string]struct {
		head func() header
		ctl  bool
		want error
	}{
		"4 GiB on data":        {func() header { return header{raw: 1<<32 - 1, wire: 1<<32 - 1} }, false, ErrProtocol},
		"2 KiB on control":     {func() header { return header{Frame: Frame{Kind: ctlBye}, raw: 2048, wire: 2048} }, true, ErrProtocol},
		"unknown on control":   {func() header { return header{Frame: Frame{Kind: 99}} }, true, ErrProtocol},
		"a body nobody wanted": {func() header { return header{raw: 8, wire: 8} }, false, ErrBodyRefused},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, options("alpha"), options("bravo"))
			ctl, data, s := p.rawSession()
			sink := newSink()
			sink.alloc = func(f *Frame, n int) []byte { return nil }
			e := serve(s, sink)
			var b [headerSize]byte
			h := c.head()
			h.put(b[:])
			to := data
			if c.ctl {
				to = ctl
			}
			if _, err := to.Write(b[:]); err != nil {
				t.Fatal(err)
			}
			if err := e.wait(t); !errors.Is(err, c.want) {
				t.Errorf("ended with %v", err)
			}
			all, _ := io.ReadAll(ctl)
			if !strings.Contains(string(all), c.want.Error()) {
				t.Errorf("the peer was not told why: %q", all)
			}
		})
	}
}
