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
	// peer.
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
	cancel  context.CancelFunc // of the attempt under way
	changed chan struct{}      // replaced and closed by Kick, Pause and Resume
	kicked  bool
	stale   bool // the attempt under way goes on without a path that failed in it
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

// Kick begins a new round, unless one is under way that just began, or still tries every
// path.
func (d *Dialer) Kick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kicked = true
	if d.stale {
		d.cancel()
	}
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

// round tries every path, each a glance after the one before or as soon as that one failed
// (as RFC 8305 does with addresses): neither a dead path keeps the dialer off one that
// lives, nor is a slow one given up. One at a time goes on to its data connection, with
// which the peer has a session: of two, the peer would end one that the dialer wants.
func (d *Dialer) round(ctx context.Context) *Session {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.mu.Lock()
	if d.paused {
		d.mu.Unlock()
		return nil
	}
	d.cancel = cancel
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.cancel, d.stale = nil, false
		d.mu.Unlock()
	}()
	first, paths := d.next, len(d.o.Paths)
	d.next = 0

	type result struct {
		path int
		s    *Session
		err  error
	}
	results := make(chan result)
	turn := make(chan struct{}, 1)
	begun, open, over := 0, 0, false
	begin := func() {
		i := (first + begun) % paths
		begun++
		open++
		go func() {
			s, err := d.try(ctx, i, turn)
			results <- result{i, s, err}
		}()
	}
	begin()
	next := time.NewTimer(glance)
	defer next.Stop()
	var won *Session
	var err error
	answered := false
	for open > 0 {
		select {
		case <-next.C:
			over = begun == paths
		case r := <-results:
			open--
			switch {
			case r.err == nil:
				won = r.s
				cancel()
			case ctx.Err() == nil:
				// A refusal, too, may be another node's, or nobody's: the rest is tried.
				err = r.err
				answered = d.failed(r.path, err) || answered
			}
		}
		switch {
		case ctx.Err() != nil:
		case begun < paths:
			begin()
			next.Reset(glance)
		case over && open < paths && d.outdated():
			cancel()
		}
	}
	if won == nil && ctx.Err() == nil && !answered {
		d.unreached(false, err)
	}
	return won
}

// outdated notes that a path failed in a round that is not fresh any more, and says whether
// there was a Kick since the round began: who failed may answer now.
func (d *Dialer) outdated() (kicked bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stale = true
	return d.kicked
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

// try makes a session over one path. Its data connection waits for its turn, and keeps that
// unless it fails: it is given as long as the control connection took, and a glance.
func (d *Dialer) try(ctx context.Context, i int, turn chan struct{}) (*Session, error) {
	began, limit := time.Now(), helloTimeout
	ctl, cs, err := d.connect(ctx, i, limit, kindControl, "", d.o.Key)
	if err != nil {
		return nil, err
	}
	if len(d.o.Paths) > 1 {
		limit = min(limit, time.Since(began)+glance)
	}
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		_ = ctl.Close()
		return nil, ctx.Err()
	}
	id := cs.hello.Session
	data, _, err := d.connect(ctx, i, limit, kindData, id, cs.keys.bind)
	if err != nil {
		_ = ctl.Close()
		<-turn
		return nil, err
	}
	s := newSession(&d.o.Options, data, ctl, peerHello(cs, id, data))
	s.peer.Path = i
	return s, nil
}

// connect makes one connection and runs its handshake, each within the limit.
func (d *Dialer) connect(ctx context.Context, i int, limit time.Duration, kind, session string, secret []byte) (*net.TCPConn, *shaken, error) {
	nd := net.Dialer{Timeout: min(limit, dialTimeout, max(d.o.Timeout, backoffFirst)), KeepAlive: -1}
	if d.local[i] != nil {
		nd.LocalAddr = d.local[i]
	}
	nc, err := nd.DialContext(ctx, "tcp", d.o.Paths[i].Remote)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot connect to node %s: %w", d.o.Peer, err)
	}
	c := nc.(*net.TCPConn)
	off := context.AfterFunc(ctx, func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(limit))
	s, err := clientShake(c, &d.o.Options, kind, session, i, secret)
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err == nil {
		err = tune(c, &d.o.Options)
	}
	if !off() && err == nil { // cancelled at the last moment: c is closed
		err = ctx.Err()
	}
	if err != nil {
		_ = c.Close()
		var no *Refused
		if errors.As(err, &no) {
			return nil, nil, err
		}
		return nil, nil, fmt.Errorf("handshake with node %s at %s failed: %w", d.o.Peer, d.o.Paths[i].Remote, err)
	}
	return c, s, nil
}
