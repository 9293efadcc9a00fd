package transport

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
)

// noise is n incompressible bytes.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(b)
	return b
}

func text(n int) []byte { return bytes.Repeat([]byte("all work and no play "), n/21+1)[:n] }

// Bodies of every size that matters pass in every form, both ways at once, and
// every token is told exactly once.
func TestSessionCarriesBodies(t *testing.T) {
	bodies := [][]byte{
		nil, noise(1, 1), make([]byte, 512), text(4096), noise(2, 4096), make([]byte, 4096),
		append(make([]byte, 4096), 1), append(make([]byte, 700), 1), noise(3, 65536), text(readBuffer - 1), noise(4, readBuffer+5), text(1 << 20), make([]byte, 1<<20), noise(5, 1<<20+3), text(2 << 20),
	}
	for _, sum := range []string{"none", "crc32c", "xxh3", "sha256"} {
		for _, pack := range []string{"none", "hole", "lz4", "zstd"} {
			t.Run(sum+"/"+pack, func(t *testing.T) {
				a, b := options("alpha"), options("bravo")
				a.Checksum, a.Compression = sum, pack
				b.Checksum, b.Compression = sum, pack
				p := newPair(t, a, b)
				x, y := p.connect()
				ex, ey := serve(x, newSink()), serve(y, newSink())
				var told atomic.Int64
				sent := int64(0)
				for _, e := range []*end{ex, ey} {
					var out []Out
					for i, body := range bodies {
						o := Out{Frame: Frame{Kind: 7, Flags: 3, Conn: 9, Seq: uint64(i), Off: -5, Len: 1 << 30, Mask: 1 << 63, Aux: 42}}
						o.Done = DoneFunc(func() { told.Add(1) })
						for at := 0; at < len(body); { // in several pieces
							n := min(len(body)-at, len(body)/3+1)
							o.Body = append(o.Body, body[at:at+n])
							at += n
						}
						out = append(out, o)
						sent++
					}
					e.s.Send(out)
				}
				for _, e := range []*end{ex, ey} {
					for i, body := range bodies {
						got := e.h.next(t)
						want := Frame{Kind: 7, Flags: 3, Conn: 9, Seq: uint64(i), Off: -5, Len: 1 << 30, Mask: 1 << 63, Aux: 42}
						want.Zero = pack != "none" && len(body) > 0 && allZero([][]byte{body})
						if got.Frame != want || !bytes.Equal(got.body, body) {
							t.Fatalf("frame %d: got %+v with %d bytes, want %+v with %d", i, got.Frame, len(got.body), want, len(body))
						}
					}
				}
				x.Close("done")
				var bye *PeerClosed
				if err := ey.wait(t); !errors.As(err, &bye) || bye.Reason != "done" {
					t.Errorf("the peer ended with %v", err)
				}
				if err := ex.wait(t); !errors.Is(err, ErrClosed) {
					t.Errorf("the closing side ended with %v", err)
				}
				if told.Load() != sent {
					t.Errorf("%d tokens told, %d frames sent", told.Load(), sent)
				}
				if pack == "lz4" || pack == "zstd" {
					if w, r := a.Metrics.BytesSent.Load(), a.Metrics.BodySent.Load(); w > r*3/4 {
						t.Errorf("%d body bytes took %d on the wire", r, w)
					}
				}
			})
		}
	}
}

// What was sent before Close arrives before the reason does.
func TestCloseDeliversWhatWasSent(t *testing.T) {
	p := newPair(t, options("alpha"), options("bravo"))
	for round := range 20 {
		x, y := p.connect()
		ex, ey := serve(x, newSink()), serve(y, newSink())
		y.Send([]Out{{}})
		ex.h.next(t) // x is being served
		body := noise(uint64(round), 100_000)
		var out []Out
		for i := range 50 {
			out = append(out, Out{Frame: Frame{Seq: uint64(i)}, Body: [][]byte{body}})
		}
		x.Send(out)
		x.Close(fmt.Sprint("round ", round))
		for i := range out {
			if got := ey.h.next(t); got.Seq != uint64(i) || !bytes.Equal(got.body, body) {
				t.Fatalf("round %d: frame %d is %d", round, i, got.Seq)
			}
		}
		var bye *PeerClosed
		if err := ey.wait(t); !errors.As(err, &bye) || bye.Reason != fmt.Sprint("round ", round) {
			t.Fatalf("round %d: %v", round, err)
		}
		ex.wait(t)
		p.d.Kick()
	}
}

// Both ends know the same session and what the other one said of itself.
func TestHelloTellsFacts(t *testing.T) {
	p := newPair(t, options("alpha"), options("bravo"))
	x, y := p.connect()
	hx, hy := x.Hello(), y.Hello()
	if hx.Node != "bravo" || hy.Node != "alpha" || hx.Role != "secondary" || hx.Build != "test-bravo" ||
		hy.Build != "test-alpha" || hx.SharedHash["size"] != "1" || hx.Session != hy.Session || hx.Session == "" ||
		hx.Version != MaxVersion || hy.Version != MaxVersion || !hx.Secured || hx.Instance == hy.Instance || hx.Remote != hy.Local {
		t.Errorf("dialer heard %+v, listener %+v", hx, hy)
	}
	x.Close("unserved")
	var bye *PeerClosed
	if err := serve(y, newSink()).wait(t); !errors.As(err, &bye) {
		t.Errorf("ended with %v", err)
	}
	if err := x.Serve(newSink()); !errors.Is(err, ErrClosed) {
		t.Errorf("serving a closed session gave %v", err)
	}
	told := 0
	x.Send([]Out{{Done: DoneFunc(func() { told++ })}})
	if told != 1 {
		t.Errorf("a frame sent after the end was told %d times", told)
	}
}

// Batch comes before the reader waits, also in the middle of a body, so nothing
// delivered is left lying.
func TestBatchBeforeWaiting(t *testing.T) {
	p := newPair(t, options("alpha"), options("bravo"))
	ctl, data, s := p.rawSession()
	h := &batchSink{mem: make([]byte, 100)}
	got, acted := 0, make(chan int, 10)
	h.frame = func(*Frame) { got++ }
	h.batch = func() { acted <- got }
	e := &end{s: s, done: make(chan error, 1)}
	go func() { e.done <- s.Serve(h) }()
	var b [3*headerSize + 50]byte
	(&header{}).put(b[:])
	(&header{}).put(b[headerSize:])
	(&header{raw: 100, wire: 100}).put(b[2*headerSize:])
	if _, err := data.Write(b[:]); err != nil { // half a body
		t.Fatal(err)
	}
	if n := <-acted; n != 2 {
		t.Errorf("the first batch had %d frames", n)
	}
	if _, err := data.Write(make([]byte, 50)); err != nil {
		t.Fatal(err)
	}
	if n := <-acted; n != 3 {
		t.Errorf("the second batch ended at %d frames", n)
	}
	ctl.Close()
	e.wait(t)
}

// A close while the peer takes no data still ends in time and tells the reason.
func TestCloseWhileStalled(t *testing.T) {
	p := newPair(t, options("alpha"), options("bravo"))
	x, y := p.connect()
	h := newSink()
	started := make(chan struct{}, 1)
	h.alloc = func(f *Frame, n int) []byte {
		select {
		case started <- struct{}{}:
		default:
		}
		<-y.Ended()
		return make([]byte, n)
	}
	ex, ey := serve(x, newSink()), serve(y, h)
	var told atomic.Int64
	for range 32 {
		x.Send([]Out{{Body: [][]byte{make([]byte, 1<<20)}, Done: DoneFunc(func() { told.Add(1) })}})
	}
	<-started
	x.Close("enough")
	if err := ex.wait(t); !errors.Is(err, ErrClosed) {
		t.Errorf("the closing side ended with %v", err)
	}
	var bye *PeerClosed
	if err := ey.wait(t); !errors.As(err, &bye) || bye.Reason != "enough" {
		t.Errorf("the other side ended with %v", err)
	}
	if told.Load() != 32 {
		t.Errorf("%d tokens told", told.Load())
	}
}

// What is short leaves within Send; what the socket does not take then leaves
// later, before all that was sent after it, and the session outlives its time-out.
func TestSendGoesAheadByItself(t *testing.T) {
	a, b := options("alpha"), options("bravo")
	a.Timeout, b.Timeout = time.Second, time.Second
	p := newPair(t, a, b)
	x, y := p.connect()
	gate := make(chan struct{})
	h := newSink()
	h.alloc = func(f *Frame, n int) []byte { <-gate; return make([]byte, n) }
	ex, ey := serve(x, newSink()), serve(y, h)
	y.Send([]Out{{}})
	ex.h.next(t) // x is being served
	body := noise(1, 4096)
	const frames = 4000 // more than the sockets hold
	var told atomic.Int64
	atOnce := 0
	for i := range frames {
		x.Send([]Out{{Frame: Frame{Seq: uint64(i)}, Body: [][]byte{body}, Done: DoneFunc(func() { told.Add(1) })}})
		if i == 0 && told.Load() == 1 {
			atOnce++
		}
	}
	if told.Load() == frames {
		t.Error("the sockets took everything: nothing was left for the writer")
	}
	close(gate)
	for i := range frames {
		if got := h.next(t); got.Seq != uint64(i) || !bytes.Equal(got.body, body) {
			t.Fatalf("frame %d is %d", i, got.Seq)
		}
	}
	// Silence for longer than the time-out, after a write by Send.
	x.Send([]Out{{Frame: Frame{Seq: frames}}})
	if got := h.next(t); got.Seq != frames {
		t.Fatalf("frame %d is %d", frames, got.Seq)
	}
	select {
	case err := <-ex.done:
		t.Fatalf("ended with %v", err)
	case <-time.After(a.Timeout * 3 / 2):
	}
	if atOnce != 1 {
		t.Error("the first frame waited for the writer")
	}
	x.Close("")
	ex.wait(t)
	ey.wait(t)
	if told.Load() != frames {
		t.Errorf("%d tokens told, %d frames sent", told.Load(), frames)
	}
}
