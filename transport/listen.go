package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

// ListenerOptions describe the one listener of a node.
type ListenerOptions struct {
	Cluster, Node string
	Addresses     []string // host:port of this node, one per path, in order
	// Lookup finds the endpoint of a resource for the peer that asks, or says in
	// words for the peer's administrator why there is none. It is asked before
	// the peer has proved anything and must not block. The same resource must
	// give the same pointer for as long as it is served.
	Lookup  func(resource, peer string) (*Endpoint, error)
	Logger  *slog.Logger
	Metrics *ListenerMetrics

	patience time.Duration // helloTimeout, but shorter in tests
}

// Endpoint is the listening side of one resource.
type Endpoint struct {
	Options
	// Ready is asked once the peer has proved itself. Its error, a *Refused or
	// any other, is told to the peer word for word, e.g. "role is init".
	Ready func() error
	// Session receives an established session; it must not block, and it owns
	// the session (Serve or Close). An older session of the endpoint may still
	// stand, when the peer noticed a loss first: the owner closes that one.
	Session func(*Session)
	// Refused, if not nil, hears of each session that came to nothing because a side
	// refused it: no names the side, from is the host. Whoever asked may have proved
	// nothing: show it, do not act on it. It must not block.
	Refused func(from string, no *Refused)

	once sync.Once
	err  error
}

func (e *Endpoint) settle() error {
	e.once.Do(func() {
		e.err = e.Options.settle()
		if e.err == nil && e.Session == nil {
			e.err = errors.New("transport: an endpoint without Session")
		}
	})
	return e.err
}

// How long until an address that is not there yet, or an accept that failed for
// want of descriptors, is tried again.
const (
	relistenAfter = 2 * time.Second
	reacceptAfter = 100 * time.Millisecond
)

// Listener accepts connections for all resources of a node.
type Listener struct {
	o    ListenerOptions
	lim  logLimit
	wait *strangers
	wg   sync.WaitGroup
	ctx  context.Context
	stop context.CancelFunc

	mu      sync.Mutex
	lns     []net.Listener // by address, nil while not there
	pending map[string]*pending
	begun   uint64 // how many there were
}

// pending is an authenticated control connection waiting for its data connection.
type pending struct {
	ep    *Endpoint
	path  int
	begun uint64 // in which order
	bind  []byte
	data  chan *net.TCPConn // one, from whoever took the entry out of the map
}

// Listen opens all addresses. One that this node does not have (yet) is tried
// again for ever; any other failure, or having none of them, is an error.
func Listen(o ListenerOptions) (*Listener, error) {
	if len(o.Addresses) == 0 || len(o.Addresses) > maxPaths {
		return nil, fmt.Errorf("transport: %d addresses to listen on, 1 to %d are needed", len(o.Addresses), maxPaths)
	}
	if o.Lookup == nil || o.Cluster == "" || o.Node == "" {
		return nil, errors.New("transport: a listener needs the names of cluster and node, and Lookup")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.patience == 0 {
		o.patience = helloTimeout
	}
	if o.Metrics == nil {
		o.Metrics = new(ListenerMetrics)
	}
	l := &Listener{
		o: o, lim: logLimit{log: o.Logger}, wait: new(strangers),
		lns: make([]net.Listener, len(o.Addresses)), pending: make(map[string]*pending),
	}
	l.ctx, l.stop = context.WithCancel(context.Background())
	var missing error
	open := 0
	for i, a := range o.Addresses {
		ln, err := l.listen(a)
		switch {
		case err == nil:
			l.lns[i] = ln
			open++
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			missing = err
			o.Logger.Warn("address is not there yet, will listen once it is", "address", a)
		default:
			l.Close()
			return nil, err
		}
	}
	if open == 0 {
		l.Close()
		return nil, missing
	}
	for i := range o.Addresses {
		l.wg.Add(1)
		go func() { defer l.wg.Done(); l.accept(i) }()
	}
	return l, nil
}

func (l *Listener) listen(address string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.KeepAlive = -1 // ours measures the peer, not its kernel
	ln, err := lc.Listen(l.ctx, "tcp", address)
	switch {
	case err == nil:
		return ln, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("cannot listen on %s: another program does (is hastd running already?): %w", address, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("cannot listen on %s: this host does not have the address; check `address` of node %s: %w", address, l.o.Node, err)
	}
	return nil, fmt.Errorf("cannot listen on %s: %w", address, err)
}

// Addrs are the addresses bound, nil for those that are not there.
func (l *Listener) Addrs() []net.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]net.Addr, len(l.lns))
	for i, ln := range l.lns {
		if ln != nil {
			out[i] = ln.Addr()
		}
	}
	return out
}

// Close stops listening and all handshakes, and waits for them. Sessions stay.
func (l *Listener) Close() {
	l.stop()
	l.mu.Lock()
	for _, ln := range l.lns {
		if ln != nil {
			_ = ln.Close()
		}
	}
	l.mu.Unlock()
	l.wait.closeAll()
	l.wg.Wait()
}

// accept serves one address.
func (l *Listener) accept(i int) {
	for l.ctx.Err() == nil {
		l.mu.Lock()
		ln := l.lns[i]
		l.mu.Unlock()
		if ln == nil {
			if !l.sleep(relistenAfter) {
				return
			}
			ln, err := l.listen(l.o.Addresses[i])
			if err != nil {
				l.lim.warn("still cannot listen", "address", l.o.Addresses[i], "error", err)
				continue
			}
			l.mu.Lock()
			if l.ctx.Err() != nil { // Close has been through the list
				_ = ln.Close()
			}
			l.lns[i] = ln
			l.mu.Unlock()
			continue
		}
		c, err := ln.Accept()
		if err != nil {
			if l.ctx.Err() != nil {
				return
			}
			l.lim.warn("cannot accept a connection", "address", l.o.Addresses[i], "error", err)
			l.sleep(reacceptAfter)
			continue
		}
		l.admit(c.(*net.TCPConn))
	}
}

func (l *Listener) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// admit starts the handshake of one connection.
func (l *Listener) admit(c *net.TCPConn) {
	l.o.Metrics.Accepted.Add(1)
	x, out := l.wait.add(c)
	if out != nil {
		l.o.Metrics.Dropped.Add(1)
		l.lim.warn("too many connections without a handshake, dropping the oldest", "from", out.host)
	}
	if l.ctx.Err() != nil { // closeAll may have been before add
		_ = c.Close()
	}
	_ = c.SetDeadline(x.since.Add(l.o.patience))
	l.o.Metrics.Handshakes.Add(1)
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		defer l.o.Metrics.Handshakes.Add(-1)
		l.serve(x)
	}()
}
