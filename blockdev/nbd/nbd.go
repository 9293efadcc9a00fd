// Package nbd serves one replicated resource to NBD clients (qemu, libnbd, fio,
// nbd-client) on a Unix or TCP socket: the provider "nbd-server".
//
// The runner of a resource calls Serve when the resource becomes primary and
// Provider.Close when it stops being so. Everything a client asks for becomes a
// blockdev.Request of the resource's Device.
//
// It never caches, reorders, merges, splits or retries a request, never answers
// one before the device did, and never turns an error of the device into success.
// A client that speaks nonsense, stalls or vanishes costs its own connection and
// bounded memory, nothing else.
//
// The life of a request: the connection's one reader takes as many requests as a
// read(2) brought, hands them over in one Submit, and reads again. The device
// tells conn.Complete of those that are done; it queues their replies and sends
// the whole queue with one writev(2), by itself if that is short and the socket
// takes it at once, else through the connection's one writer.
package nbd

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"hastd/blockdev"
)

// Limits of one provider and of one connection.
const (
	// DefaultMaxConnections is how many clients are served at once if Options do
	// not say.
	DefaultMaxConnections = 64
	// DefaultHandshakeTimeout is how long a client may take to choose its export.
	DefaultHandshakeTimeout = 10 * time.Second
	// MaxInFlight is how many requests of one connection are under way; beyond it
	// the connection is not read from.
	MaxInFlight = 256
	// MaxInFlightBytes is how much of the device's memory one connection holds at
	// most (a single request may always be as large as blockdev.MaxTransfer). Only
	// a pool that is larger keeps serving the other connections while one client
	// does not read its replies, until that one is cut off.
	MaxInFlightBytes = 16 << 20

	readBuffer   = 128 << 10 // bytes read at once: many requests a read(2)
	copyMax      = 32 << 10  // larger payloads go from the socket to their place
	inlineMax    = 16 << 10  // reply bytes that Complete sends by itself
	stallTimeout = 30 * time.Second
	minRate      = 256 << 10 // bytes a second: slower clients keep the device's memory from others
	closeGrace   = 3 * time.Second
	acceptPause  = 100 * time.Millisecond
)

// Options say what to serve and where.
type Options struct {
	Device  blockdev.Device
	Network string      // "unix" or "tcp"
	Address string      // path of the socket, or host:port
	Mode    os.FileMode // permissions of a Unix socket; 0 means 0600
	Logger  *slog.Logger

	MaxConnections   int           // 0 means DefaultMaxConnections
	HandshakeTimeout time.Duration // 0 means DefaultHandshakeTimeout

	// How long a client may leave a payload or our replies half-way, and besides at
	// which rate in bytes a second it has to go on with them; how long Close waits
	// for requests under way. Tests shorten them.
	stallTimeout time.Duration
	minRate      int
	closeGrace   time.Duration
}

// Provider is a resource being served. It implements blockdev.Provider.
type Provider struct {
	opts   Options
	info   blockdev.DeviceInfo
	dev    blockdev.Device
	try    tryAllocator // nil when the device has none
	ln     net.Listener
	path   string
	sock   fs.FileInfo // the Unix socket we made, so as to remove no other
	log    *limitedLog
	work   sync.WaitGroup // accept loop and connections
	closed chan struct{}  // Close was called
	done   chan struct{}  // Close is through

	mu      sync.Mutex
	closing bool
	conns   []*conn // oldest first
	owed    []*conn // ended, and when they did the device was not through with their requests
}

// tryAllocator is what a Device may offer besides: Alloc that returns nil instead
// of waiting, and Alloc that gives up once still, asked now and then, says false.
// With the one, writes that arrive together are submitted together; without it, what
// was parsed has to be submitted before each Alloc, lest the buffers that Alloc waits
// for are the very ones not submitted yet. With the other, a reader that waits for
// memory ends soon after its client.
type tryAllocator interface {
	TryAlloc(n int) []byte
	AllocWhile(n int, still func() bool) []byte
}

var _ blockdev.Provider = (*Provider)(nil)

// Serve starts serving. It replaces the socket that a dead daemon left behind and
// refuses one that answers.
func Serve(opts Options) (*Provider, error) {
	if opts.Device == nil {
		return nil, errors.New("nbd server: no device given")
	}
	info := opts.Device.Info()
	if info.Size <= 0 || info.SectorSize < 512 || info.SectorSize&(info.SectorSize-1) != 0 {
		return nil, fmt.Errorf("nbd server for %s: size %d with sectors of %d bytes cannot be served", info.Name, info.Size, info.SectorSize)
	}
	if len(info.Name) > maxString {
		return nil, fmt.Errorf("nbd server: the name of the resource is %d bytes long; at most %d are possible", len(info.Name), maxString)
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Mode == 0 {
		opts.Mode = 0o600
	}
	opts.MaxConnections = orDefault(opts.MaxConnections, DefaultMaxConnections)
	opts.HandshakeTimeout = orDefault(opts.HandshakeTimeout, DefaultHandshakeTimeout)
	opts.stallTimeout = orDefault(opts.stallTimeout, stallTimeout)
	opts.minRate = orDefault(opts.minRate, minRate)
	opts.closeGrace = orDefault(opts.closeGrace, closeGrace)

	p := &Provider{
		opts:   opts,
		info:   info,
		dev:    opts.Device,
		log:    newLimitedLog(opts.Logger.With("resource", info.Name, "provider", "nbd-server")),
		closed: make(chan struct{}),
		done:   make(chan struct{}),
	}
	p.try, _ = opts.Device.(tryAllocator)
	var err error
	if p.ln, p.path, p.sock, err = listen(opts); err != nil {
		return nil, err
	}
	p.work.Go(p.accept)
	return p, nil
}

func orDefault[T int | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// limitFor is when a client has to be through with n bytes that are the device's
// memory meanwhile. Progress does not put it off: a byte now and then would hold the
// memory for ever.
func (p *Provider) limitFor(n int) time.Time {
	return time.Now().Add(p.opts.stallTimeout + time.Duration(n)*time.Second/time.Duration(p.opts.minRate))
}

// nextBefore is when some more of those bytes have to have gone through: a client that
// has stopped is not given the time for all of them.
func (p *Provider) nextBefore(limit time.Time) time.Time {
	if next := time.Now().Add(p.opts.stallTimeout); next.Before(limit) {
		return next
	}
	return limit
}

// Kind is "nbd-server".
func (p *Provider) Kind() string { return "nbd-server" }

// Path is the Unix socket, or the address of the TCP socket as host:port.
func (p *Provider) Path() string { return p.path }

// Users names the clients that chose the export, have not said goodbye and are still
// there, each process or address once.
func (p *Provider) Users() ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.usersLocked(), nil
}

func (p *Provider) usersLocked() []string {
	var users []string
	for _, c := range p.conns {
		if c.phase != phaseServing || c.clientGone() {
			continue
		}
		if name := c.peer.String(); !slices.Contains(users, name) {
			users = append(users, name)
		}
	}
	return users
}

// accept takes in clients until the listener closes.
func (p *Provider) accept() {
	for {
		nc, err := p.ln.Accept()
		if err != nil {
			select {
			case <-p.closed:
				return
			default:
			}
			p.log.Error("accept", "cannot accept a client; trying again", "error", err)
			select {
			case <-p.closed:
				return
			case <-time.After(acceptPause):
			}
			continue
		}
		p.admit(nc)
	}
}

// admit starts a connection if there is room. At the limit, whoever has been
// choosing its export for the longest makes room, so that idle connections cannot
// keep real clients out; else whoever has been leaving for the longest: a client that
// has gone stays as long as its last requests are under way. Those requests stay with
// the device even then, which has no limit of its own for them: while too many of those
// who ended are owed answers, nobody is let in.
func (p *Provider) admit(nc net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		nc.Close()
		return
	}
	p.owed = slices.DeleteFunc(p.owed, func(c *conn) bool { return c.open.Load() == 0 })
	if len(p.owed) >= p.opts.MaxConnections {
		nc.Close()
		p.log.Error("owed", "too many clients left requests behind that are still under way; turned one away", "limit", p.opts.MaxConnections, "client", peerOf(nc).String())
		return
	}
	if len(p.conns) >= p.opts.MaxConnections {
		i := slices.IndexFunc(p.conns, func(c *conn) bool { return c.phase == phaseHandshake })
		if i < 0 {
			i = slices.IndexFunc(p.conns, func(c *conn) bool { return c.phase == phaseLeaving })
		}
		if i < 0 {
			nc.Close()
			p.log.Error("limit", "too many clients; turned one away", "limit", p.opts.MaxConnections, "client", peerOf(nc).String())
			return
		}
		old := p.conns[i]
		p.conns = slices.Delete(p.conns, i, i+1)
		p.log.Error("limit", "too many clients; dropped one that had not chosen its export, or was leaving", "limit", p.opts.MaxConnections, "client", old.peer.String())
		old.cut()
	}
	c := newConn(p, nc)
	p.conns = append(p.conns, c)
	p.work.Go(c.run)
}

// enter moves a connection to the transmission phase, unless the provider closes.
func (p *Provider) enter(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing || !slices.Contains(p.conns, c) {
		return false
	}
	c.phase = phaseServing
	return true
}

// leave stops counting a connection as a user: its client has gone or said so.
func (p *Provider) leave(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.phase = phaseLeaving
}

func (p *Provider) forget(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.open.Load() != 0 {
		p.owed = append(p.owed, c)
	}
	if i := slices.Index(p.conns, c); i >= 0 {
		p.conns = slices.Delete(p.conns, i, i+1)
	}
}

// Close stops serving and removes the socket. Without force it refuses while there
// are users. From its first moment on new requests are answered ESHUTDOWN and none
// reaches the device; those under way get a few seconds to end and be answered
// before the connections are cut.
func (p *Provider) Close(force bool) error {
	p.mu.Lock()
	if p.closing {
		p.mu.Unlock()
		<-p.done
		return nil
	}
	if users := p.usersLocked(); len(users) > 0 && !force {
		p.mu.Unlock()
		return &blockdev.InUseError{Path: p.path, Users: users}
	}
	p.closing = true
	close(p.closed)
	conns := slices.Clone(p.conns)
	for _, c := range conns {
		if c.phase == phaseHandshake {
			c.cut()
		}
	}
	p.mu.Unlock()
	defer close(p.done)

	err := p.ln.Close()
	if rerr := removeSocket(p.path, p.sock); err == nil {
		err = rerr
	}
	for _, c := range conns {
		c.refuse()
	}
	grace := time.NewTimer(p.opts.closeGrace)
	defer grace.Stop()
	for _, c := range conns {
		if !c.awaitIdle(grace.C) {
			break
		}
	}
	for _, c := range conns {
		c.cut()
	}
	// A reader may be waiting in Device.Alloc, which it may not leave before the
	// device wills; no request of its can reach the device any more, so it is not
	// waited for longer than this.
	ended := make(chan struct{})
	go func() { p.work.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(p.opts.closeGrace):
	}
	if err != nil && !force {
		// An error would say that it goes on serving.
		p.log.Error("close", "closing left something behind", "path", p.path, "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("nbd server %s: %w", p.path, err)
	}
	return nil
}
