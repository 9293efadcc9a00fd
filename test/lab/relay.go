package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Relay is a network of loopback addresses for those who are not root, and for
// links with delay. Each node knows its peer by an address of the relay, which
// passes bytes on, counts, delays and swallows them. A node's own configuration
// therefore differs in the peer's address from the other's.
type Relay struct {
	net  byte // 127.0.NET.x: several labs live side by side
	port int

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	lns    []net.Listener

	sent  [2]atomic.Int64
	delay atomic.Int64 // nanoseconds, each way
	rate  atomic.Int64 // bytes a second each way, 0: no limit

	mu      sync.Mutex
	swallow [2]bool // bytes from this side vanish
	refuse  bool    // new connections are reset
	conns   map[*net.TCPConn]struct{}
}

// relayBuffer is what one direction of a connection holds, in bytes.
const relayBuffer = 64 << 10

// NewRelay makes a network for daemons that listen on port.
func NewRelay(port int) (*Relay, error) {
	r := &Relay{port: port, conns: map[*net.TCPConn]struct{}{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	// The third byte is drawn until the addresses are free: another lab may run.
	for range 50 {
		r.net = byte(1 + rand.IntN(254))
		err := r.listen()
		if err == nil {
			return r, nil
		}
		for _, l := range r.lns {
			l.Close()
		}
		r.lns = nil
	}
	r.cancel()
	return nil, errors.New("lab: no free loopback addresses for a relay")
}

// own is where a node listens, shown where its peer finds it.
func (r *Relay) own(s Side) string   { return fmt.Sprintf("127.0.%d.%d", r.net, s+1) }
func (r *Relay) shown(s Side) string { return fmt.Sprintf("127.0.%d.%d", r.net, s+11) }

func (r *Relay) at(ip string) string { return fmt.Sprintf("%s:%d", ip, r.port) }

func (r *Relay) listen() error {
	for _, s := range []Side{Alpha, Bravo} {
		// The node's own address must be free as well.
		probe, err := net.Listen("tcp", r.at(r.own(s)))
		if err != nil {
			return err
		}
		probe.Close()
		l, err := net.Listen("tcp", r.at(r.shown(s)))
		if err != nil {
			return err
		}
		r.lns = append(r.lns, l)
	}
	for i, l := range r.lns {
		r.wg.Go(func() { r.accept(l, Side(i)) })
	}
	return nil
}

// Address is the node's own, or the relay's.
func (r *Relay) Address(at, reader Side) string {
	if at == reader {
		return r.own(at)
	}
	return r.shown(at)
}

// Command runs it as it is: both nodes are this machine.
func (r *Relay) Command(_ Side, argv ...string) []string { return argv }

// Sent counts what a side sent and the relay took.
func (r *Relay) Sent(s Side) (int64, error) { return r.sent[s].Load(), nil }

// Delay makes every byte arrive later.
func (r *Relay) Delay(d time.Duration) { r.delay.Store(int64(d)) }

// Limit bounds the bytes a second each way; 0 lifts it.
func (r *Relay) Limit(rate int64) { r.rate.Store(rate) }

// Slow sets both.
func (r *Relay) Slow(delay time.Duration, rate int64) error {
	r.Delay(delay)
	r.Limit(rate)
	return nil
}

// Lose is refused: what this relay passes on are bytes of TCP, not packets.
func (r *Relay) Lose(percent int) error {
	if percent == 0 {
		return nil
	}
	return errors.New("lab: a relay of connections loses no packets; use namespaces")
}

// Cut does what Network says. Bytes swallowed are lost to their connection, so
// healing a silent cut ends the connections that were cut, as a stateful device
// on the way does.
func (r *Relay) Cut(s Side, c Cut) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	had := r.swallow[0] || r.swallow[1]
	r.swallow, r.refuse = [2]bool{}, false
	switch c {
	case CutNone:
		if had {
			r.endAll()
		}
	case CutBoth:
		r.swallow = [2]bool{true, true}
	case CutFrom:
		r.swallow[s] = true
	case CutTo:
		r.swallow[s.Other()] = true
	case CutReset:
		r.refuse = true
		r.endAll()
	default:
		return fmt.Errorf("lab: unknown cut %d", c)
	}
	return nil
}

func (r *Relay) endAll() {
	for c := range r.conns {
		c.SetLinger(0)
		c.Close()
	}
}

// Close ends every connection.
func (r *Relay) Close() error {
	r.cancel()
	for _, l := range r.lns {
		l.Close()
	}
	r.mu.Lock()
	r.endAll()
	r.mu.Unlock()
	r.wg.Wait()
	return nil
}

// accept takes connections to side s.
func (r *Relay) accept(l net.Listener, s Side) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		r.wg.Go(func() { r.carry(c.(*net.TCPConn), s) })
	}
}

func (r *Relay) state(from Side) (swallow, refuse bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.swallow[from], r.refuse
}

func (r *Relay) track(c *net.TCPConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[c] = struct{}{}
}

func (r *Relay) untrack(c *net.TCPConn) {
	c.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
}

// carry passes one connection on to side to.
func (r *Relay) carry(in *net.TCPConn, to Side) {
	r.track(in)
	defer r.untrack(in)
	from := to.Other()
	swallow, refuse := r.state(from)
	if refuse {
		in.SetLinger(0)
		return
	}
	if back, _ := r.state(to); swallow || back {
		// A connection made during a silent cut is answered by nobody.
		io.Copy(io.Discard, in)
		return
	}
	// It comes from the address under which that side knows the caller.
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(r.shown(from))}, Timeout: 5 * time.Second}
	c, err := d.DialContext(r.ctx, "tcp", r.at(r.own(to)))
	if err != nil {
		in.SetLinger(0)
		return
	}
	out := c.(*net.TCPConn)
	r.track(out)
	defer r.untrack(out)
	var wg sync.WaitGroup
	wg.Go(func() { r.pump(out, in, from) })
	wg.Go(func() { r.pump(in, out, to) })
	wg.Wait()
}

type parcel struct {
	b   []byte
	due time.Time
}

// pump passes bytes of side from on, each after the delay.
func (r *Relay) pump(dst, src *net.TCPConn, from Side) {
	queue := make(chan parcel, 256)
	var wg sync.WaitGroup
	wg.Go(func() {
		for p := range queue {
			if d := time.Until(p.due); d > 0 {
				time.Sleep(d)
			}
			if _, err := dst.Write(p.b); err != nil {
				src.Close()
			}
		}
	})
	for {
		b := make([]byte, relayBuffer)
		n, err := src.Read(b)
		if n > 0 {
			if rate := r.rate.Load(); rate > 0 {
				time.Sleep(time.Duration(int64(n) * int64(time.Second) / rate))
			}
			r.sent[from].Add(int64(n))
			if swallow, _ := r.state(from); !swallow {
				queue <- parcel{b[:n], time.Now().Add(time.Duration(r.delay.Load()))}
			}
		}
		if err != nil {
			close(queue)
			wg.Wait()
			r.end(dst, from, err)
			return
		}
	}
}

// end passes the end of a connection on, unless the cut swallows that too.
func (r *Relay) end(dst *net.TCPConn, from Side, err error) {
	if swallow, _ := r.state(from); swallow {
		return
	}
	if errors.Is(err, io.EOF) {
		dst.CloseWrite()
		return
	}
	if !errors.Is(err, os.ErrClosed) && !errors.Is(err, net.ErrClosed) {
		dst.SetLinger(0)
	}
	dst.Close()
}
