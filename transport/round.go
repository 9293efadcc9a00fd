package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// attempt is one try to make a session over one path.
type attempt struct {
	path  int
	ctx   context.Context
	drop  context.CancelFunc
	began time.Time
	// Somebody took its connection: a handshake that is under way is slow, and would be as
	// slow anew.
	taken atomic.Bool
}

// result is how an attempt ended.
type result struct {
	*attempt
	s   *Session
	err error
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
		d.cancel = nil
		d.mu.Unlock()
	}()
	first, paths := d.next, len(d.o.Paths)
	d.next = 0

	results := make(chan result)
	turn := make(chan struct{}, 1)
	trying := make([]*attempt, paths)
	again := make([]bool, paths) // there was a Kick since its attempt began
	begun, open := 0, 0
	begin := func(i int) {
		a := &attempt{path: i, began: time.Now()}
		a.ctx, a.drop = context.WithCancel(ctx)
		trying[i], again[i] = a, false
		open++
		go func() {
			s, err := d.try(a, turn)
			results <- result{a, s, err}
		}()
	}
	next := time.NewTimer(0)
	defer next.Stop()
	var won *Session
	var err error
	answered := false
	failed := func(i int, why error) {
		// A refusal, too, may be another node's, or nobody's: the rest is tried.
		err = why
		answered = d.failed(i, why) || answered
	}
	for {
		changed, kicked := d.asked(ctx)
		for n := range begun {
			i := (first + n) % paths
			again[i] = again[i] || kicked
			if !again[i] || ctx.Err() != nil {
				continue
			}
			a := trying[i]
			switch {
			case a == nil:
				begin(i)
			case a.taken.Load(): // it is begun again should it fail
			case time.Since(a.began) < glance:
				next.Reset(glance - time.Since(a.began))
			default:
				failed(i, fmt.Errorf("cannot connect to node %s: no answer", d.o.Peer))
				a.drop()
				begin(i)
			}
		}
		if open == 0 && (begun == paths || ctx.Err() != nil) {
			break
		}
		select {
		case <-changed:
			continue
		case <-next.C:
		case r := <-results:
			open--
			dropped := r.ctx.Err() != nil
			r.drop()
			if trying[r.path] == r.attempt {
				trying[r.path] = nil
			}
			switch {
			case r.err == nil:
				won = r.s
				cancel()
			case !dropped:
				failed(r.path, r.err)
			}
		}
		if begun < paths && ctx.Err() == nil {
			begin((first + begun) % paths)
			begun++
			next.Reset(glance)
		}
	}
	if won == nil && ctx.Err() == nil && !answered {
		d.unreached(false, err)
	}
	return won
}

// asked tells whether there was a Kick, once, and what tells of the next change. What is
// asked for once a round is over is for the next one.
func (d *Dialer) asked(round context.Context) (changed <-chan struct{}, kicked bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if round.Err() == nil {
		kicked, d.kicked = d.kicked, false
	}
	return d.changed, kicked
}

// try makes a session over one path. Its data connection waits for its turn, and keeps that
// unless it fails: connecting and handshake are each given as long as those of the control
// connection took together, and a glance.
func (d *Dialer) try(a *attempt, turn chan struct{}) (*Session, error) {
	limit := helloTimeout
	c, err := d.reach(a.ctx, a.path, limit)
	if err != nil {
		return nil, err
	}
	a.taken.Store(true)
	ctl, cs, err := d.shake(a.ctx, c, a.path, limit, kindControl, "", d.o.Key)
	if err != nil {
		return nil, err
	}
	if len(d.o.Paths) > 1 {
		limit = min(limit, time.Since(a.began)+glance)
	}
	select {
	case turn <- struct{}{}:
	case <-a.ctx.Done():
		_ = ctl.Close()
		return nil, a.ctx.Err()
	}
	id := cs.hello.Session
	data, _, err := d.connect(a.ctx, a.path, limit, kindData, id, cs.keys.bind)
	if err != nil {
		_ = ctl.Close()
		<-turn
		return nil, err
	}
	s := newSession(&d.o.Options, data, ctl, peerHello(cs, id, data))
	s.peer.Path = a.path
	return s, nil
}

// connect makes one connection and runs its handshake, each within the limit.
func (d *Dialer) connect(ctx context.Context, i int, limit time.Duration, kind, session string, secret []byte) (*net.TCPConn, *shaken, error) {
	c, err := d.reach(ctx, i, limit)
	if err != nil {
		return nil, nil, err
	}
	return d.shake(ctx, c, i, limit, kind, session, secret)
}

// reach makes one connection.
func (d *Dialer) reach(ctx context.Context, i int, limit time.Duration) (*net.TCPConn, error) {
	nd := net.Dialer{Timeout: min(limit, dialTimeout, max(d.o.Timeout, backoffFirst)), KeepAlive: -1}
	if d.local[i] != nil {
		nd.LocalAddr = d.local[i]
	}
	nc, err := nd.DialContext(ctx, "tcp", d.o.Paths[i].Remote)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to node %s: %w", d.o.Peer, err)
	}
	return nc.(*net.TCPConn), nil
}

// shake runs the handshake of a connection.
func (d *Dialer) shake(ctx context.Context, c *net.TCPConn, i int, limit time.Duration, kind, session string, secret []byte) (*net.TCPConn, *shaken, error) {
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
