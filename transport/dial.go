package transport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Path is one pair of addresses, host:port each. Local may lack the port (any is
// taken) or be empty (the kernel chooses).
type Path struct{ Local, Remote string }

// DialerOptions describe the dialing side of one resource.
type DialerOptions struct {
	Options
	Paths []Path // in order of preference
	// Unreached hears of each refusal, and of each round in which nobody answered on
	// any path; may be nil.
	Unreached func(refused bool, err error)
}

// Waiting between rounds over all paths, and for one path.
const (
	// glance is for how long a path is tried before the next one is tried, too: a dead one
	// must not keep the dialer off one that lives for as long as a promotion waits for the
	// peer. A connection that nobody took for longer is not waited for by who asks anew.
	glance       = 300 * time.Millisecond
	backoffFirst = 50 * time.Millisecond
	backoffCap   = 2 * time.Second
	dialTimeout  = 3 * time.Second
	steadyAfter  = 5 * time.Second // a session this old starts the backoff anew
)

// Dialer connects to the peer of one resource. Only the node with the lower id
// has one.
type Dialer struct {
	o     DialerOptions
	lim   logLimit
	local []*net.TCPAddr

	mu      sync.Mutex
	paused  bool
	cancel  context.CancelFunc // of the round under way
	changed chan struct{}      // replaced and closed by Kick, Pause and Resume
	kicked  bool
	lastErr error

	// Only Dial uses these.
	backoff time.Duration
	next    int // path to begin with
	last    *Session
	born    time.Time
}

// NewDialer checks the options; it does not connect.
func NewDialer(o DialerOptions) (*Dialer, error) {
	if err := o.settle(); err != nil {
		return nil, err
	}
	if len(o.Paths) == 0 || len(o.Paths) > maxPaths {
		return nil, fmt.Errorf("transport: resource %s: %d paths to node %s, 1 to %d are needed", o.Resource, len(o.Paths), o.Peer, maxPaths)
	}
	d := &Dialer{o: o, lim: logLimit{log: o.Logger}, changed: make(chan struct{})}
	for _, p := range o.Paths {
		var a *net.TCPAddr
		if p.Local != "" {
			host, _, err := net.SplitHostPort(p.Local)
			if err != nil {
				host = p.Local
			}
			ip, err := net.ResolveIPAddr("ip", host)
			if err != nil {
				return nil, fmt.Errorf("transport: local address %s of node %s: %w", p.Local, o.Node, err)
			}
			a = &net.TCPAddr{IP: ip.IP, Zone: ip.Zone} // any port
		}
		d.local = append(d.local, a)
	}
	return d, nil
}

// Dial returns the next session, however long it takes; only the context ends it
// without one. Call it again once the session ended: it then begins with the
// path after the one that was lost. Not for concurrent use.
func (d *Dialer) Dial(ctx context.Context) (*Session, error) {
	d.afterSession()
	for {
		if err := d.resting(ctx); err != nil {
			return nil, err
		}
		if s := d.round(ctx); s != nil {
			d.last, d.born = s, time.Now()
			d.setErr(nil)
			return s, nil
		}
		d.backoff = min(max(2*d.backoff, backoffFirst), backoffCap)
	}
}

// afterSession chooses where to begin: a lost path is left for the next one at
// once; a peer that closed, or sessions that end soon, are given time.
func (d *Dialer) afterSession() {
	s := d.last
	if s == nil {
		return
	}
	d.last = nil
	err := s.Err()
	var bye *PeerClosed
	switch {
	case errors.As(err, &bye) || errors.Is(err, ErrClosed):
		d.next = 0
	default:
		d.next = (s.peer.Path + 1) % len(d.o.Paths)
	}
	if time.Since(d.born) >= steadyAfter {
		d.backoff = 0
	} else {
		d.backoff = min(max(2*d.backoff, backoffFirst), backoffCap)
	}
}

// LastError is why the most recent attempt failed, nil after a success.
func (d *Dialer) LastError() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lastErr
}

// Kick tries anew what failed, or was not heard for a glance: the peer may answer now. What
// is under way is tried anew should it fail.
func (d *Dialer) Kick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kicked = true
	d.announce()
}

// Pause stops connecting until Resume; an attempt under way is given up. A
// session that stands is not touched.
func (d *Dialer) Pause() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.paused = true
	if d.cancel != nil {
		d.cancel()
	}
	d.announce()
}

// Resume connects again, at once.
func (d *Dialer) Resume() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.paused, d.kicked = false, true
	d.announce()
}

func (d *Dialer) announce() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// resting waits out the backoff and any pause.
func (d *Dialer) resting(ctx context.Context) error {
	// Half of it is certain, half is chance: two nodes of many resources do not
	// meet again in step.
	until := time.Now()
	if d.backoff > 0 {
		until = until.Add(d.backoff/2 + rand.N(d.backoff/2+1))
	}
	for {
		d.mu.Lock()
		paused, changed := d.paused, d.changed
		if d.kicked && !paused {
			d.kicked = false
			d.mu.Unlock()
			d.backoff = 0
			return ctx.Err()
		}
		d.mu.Unlock()
		left := time.Until(until)
		if !paused && left <= 0 {
			return ctx.Err()
		}
		if paused {
			left = time.Hour // until something changes
		}
		t := time.NewTimer(left)
		select {
		case <-t.C:
		case <-changed:
		case <-ctx.Done():
		}
		t.Stop()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

func (d *Dialer) unreached(refused bool, err error) {
	if d.o.Unreached != nil {
		d.o.Unreached(refused, err)
	}
}

// failed notes why a path gave no session, and says whether that was a refusal.
func (d *Dialer) failed(i int, err error) (refused bool) {
	d.o.Metrics.DialFailures.Add(1)
	d.setErr(err)
	cause := "cannot connect to the peer"
	var no *Refused
	if refused = errors.As(err, &no); refused {
		d.unreached(true, err)
		cause = "the peer refused"
		if !no.Remote {
			cause = "the peer is not the one expected"
		}
	}
	d.lim.warn(cause, "resource", d.o.Resource, "peer", d.o.Peer, "address", d.o.Paths[i].Remote, "error", err)
	return refused
}

func (d *Dialer) setErr(err error) {
	d.mu.Lock()
	d.lastErr = err
	d.mu.Unlock()
}
