package transport

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Out is one frame to send.
type Out struct {
	Frame
	// Body is the frame's body in pieces, at most MaxBody bytes together. The
	// pieces and the slice of them belong to the session until Done is told.
	Body [][]byte
	Done Token // may be nil
}

// Token is told once that a frame needs its memory no more: its bytes have left
// for the kernel, or the session ended. That says nothing of their arrival.
// Released runs on the session's writer or inside Send and must not block.
type Token interface{ Released() }

// DoneFunc makes a Token of a function.
type DoneFunc func()

// Released calls the function.
func (f DoneFunc) Released() { f() }

// Handler takes what arrives. Serve calls all three from its own goroutine.
type Handler interface {
	// Body returns memory of exactly n bytes for the body of f, which is about
	// to arrive. It may block, which holds the peer back; after its Timeout the
	// peer gives up. Should the session end meanwhile, Ended says so. Nil ends
	// the session. If Serve returns before the Frame call that would have
	// delivered it, the memory (of one body at most) stays with the handler.
	Body(f *Frame, n int) []byte
	// Frame delivers one frame, body nil if it has none. f is reused afterwards.
	Frame(f *Frame, body []byte)
	// Batch says that nothing more is at hand and the next read may wait. It may
	// come between Body and Frame.
	Batch()
}

// PeerHello is what the peer told of itself.
type PeerHello struct {
	Node, Role, Build string
	Instance          string
	MinVersion        uint16 // protocol versions it speaks
	MaxVersion        uint16
	Version           uint16 // the one in use
	SharedHash        map[string]string
	Session           string // hex, the same on both sides
	Local, Remote     string // addresses of the data connection
	Path              int    // index of the pair of addresses
	Secured           bool   // the cluster key was proved
}

// Session is one authenticated pair of connections to the peer.
//
//	open ──Close──▶ closing ──queue drained, bye said, or closeLinger──▶ ended
//	  └──────bye heard, silence, loss, protocol error, refused body──────▶ ended
//
// In closing nothing more is delivered and nothing more is taken to send.
// Whoever got a session calls Serve once and soon, for until then no keepalive is
// answered, or Close if it does not want it.
type Session struct {
	o     *Options
	peer  PeerHello
	data  *net.TCPConn
	ctl   *net.TCPConn
	birth time.Time

	ended chan struct{} // closed on entering ended
	wake  chan struct{} // one token: the queue or the state changed

	mu      sync.Mutex
	state   state
	serving bool
	dry     bool // the data connection has nothing more to read
	queue   []Out
	w       *writer // once serving
	err     error   // why it ends; the first reason stays
	reason  string  // of Close, for the bye
	linger  *time.Timer

	quiet    atomic.Bool  // not open any more: deliver nothing
	progress atomic.Int64 // since birth: when a blocked write last moved, 0 if none is under way
	rtt      atomic.Int64

	ctlMu  sync.Mutex // one control frame at a time
	ctlOut [headerSize + maxControl]byte
}

type state uint8

const (
	stateOpen state = iota
	stateClosing
	stateEnded
)

func newSession(o *Options, data, ctl *net.TCPConn, peer PeerHello) *Session {
	o.Metrics.Sessions.Add(1)
	return &Session{
		o: o, peer: peer, data: data, ctl: ctl, birth: time.Now(),
		ended: make(chan struct{}), wake: make(chan struct{}, 1),
	}
}

// Hello is what the peer told at the handshake.
func (s *Session) Hello() PeerHello { return s.peer }

// RoundTrip is the smoothed time of a keepalive and its answer, 0 while unknown.
func (s *Session) RoundTrip() time.Duration { return time.Duration(s.rtt.Load()) }

// Ended is closed when the session has ended; Serve returns soon after.
func (s *Session) Ended() <-chan struct{} { return s.ended }

// Err is why the session is ending, nil while it is open.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Send sends frames in order. What is short and finds nothing before it goes to
// the socket at once, the rest is queued. It never blocks and does not bound the
// queue: the caller bounds what it has in flight. Once the session is closing or
// has ended nothing is sent and the tokens are told before Send returns.
func (s *Session) Send(out []Out) {
	if len(out) == 0 {
		return
	}
	s.mu.Lock()
	if s.state != stateOpen {
		s.mu.Unlock()
		release(out)
		return
	}
	if s.serving && len(s.queue) == 0 && s.w.mu.TryLock() {
		if s.w.fits(out) {
			s.mu.Unlock()
			done := s.w.now(out)
			s.w.mu.Unlock()
			if !done {
				s.nudge()
			}
			return
		}
		s.w.mu.Unlock()
	}
	s.queue = append(s.queue, out...)
	s.mu.Unlock()
	s.nudge()
}

// Close ends the session: what was queued before is sent, the peer is told the
// reason, then the connections close; all that takes closeLinger at most. It
// does not wait: Serve returns when it is done. Before Serve, Close sends the
// reason alone. Later calls change nothing.
func (s *Session) Close(reason string) {
	s.mu.Lock()
	if s.state != stateOpen {
		s.mu.Unlock()
		return
	}
	s.state, s.reason = stateClosing, clip(reason, maxReason)
	s.setErr(fmt.Errorf("%w: %s", ErrClosed, reason))
	s.quiet.Store(true)
	serving := s.serving
	if serving {
		s.lingerLocked()
	}
	s.mu.Unlock()
	if serving {
		s.nudge() // the writer says goodbye after the last frame
		return
	}
	s.bye()
	s.end(nil)
	s.releaseQueue()
}

// Serve runs the session until it ends and returns why. By then all its
// goroutines are gone, both connections are closed and every token of a frame
// sent before is told.
func (s *Session) Serve(h Handler) error {
	s.mu.Lock()
	if s.serving {
		s.mu.Unlock()
		panic("transport: Serve called twice")
	}
	w, err := newWriter(s)
	s.w, s.serving = w, err == nil
	s.mu.Unlock()
	if err != nil {
		s.end(lostError("data", err))
		s.releaseQueue()
		return s.Err()
	}

	var wg sync.WaitGroup
	for _, run := range []func(){s.writeLoop, s.controlLoop, s.pingLoop} {
		wg.Add(1)
		go func() { defer wg.Done(); run() }()
	}
	s.readLoop(h)
	wg.Wait()
	w.close()
	s.releaseQueue()
	return s.Err()
}

// end moves to ended, whatever the state. err is kept if none came before.
func (s *Session) end(err error) {
	s.mu.Lock()
	if s.state == stateEnded {
		s.mu.Unlock()
		return
	}
	s.state = stateEnded
	s.setErr(err)
	s.quiet.Store(true)
	if s.linger != nil {
		s.linger.Stop()
	}
	close(s.ended)
	s.mu.Unlock()
	// Closing wakes whoever is inside a read or a write.
	_ = s.data.Close()
	_ = s.ctl.Close()
}

// fail ends the session over something the peer did or we cannot do, and tells
// the peer, as far as that works without waiting.
func (s *Session) fail(err error) {
	s.mu.Lock()
	s.setErr(err)
	if s.reason == "" {
		s.reason = clip(err.Error(), maxReason)
	}
	s.mu.Unlock()
	s.bye()
	s.end(err)
}

// lost ends the session over a broken connection, but gives a bye that may be
// under way on the other connection closeLinger to arrive.
func (s *Session) lost(err error) {
	t := time.NewTimer(closeLinger)
	defer t.Stop()
	select {
	case <-s.ended:
	case <-t.C:
	}
	s.end(err)
}

// lingerLocked ends the session after closeLinger at the latest.
func (s *Session) lingerLocked() {
	if s.linger == nil {
		s.linger = time.AfterFunc(closeLinger, func() {
			s.bye() // not said yet if the peer takes no data
			s.end(nil)
		})
	}
}

func (s *Session) setErr(err error) {
	if s.err == nil {
		s.err = err
	}
}

func (s *Session) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Session) releaseQueue() {
	s.mu.Lock()
	q := s.queue
	s.queue = nil
	s.mu.Unlock()
	release(q)
}

func release(out []Out) {
	for i := range out {
		if out[i].Done != nil {
			out[i].Done.Released()
		}
		out[i] = Out{} // hold on to nobody's memory
	}
}

func (s *Session) now() int64 { return int64(time.Since(s.birth)) }
