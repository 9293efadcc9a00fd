package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limits of both HTTP servers. A stranger may hold connections, not memory.
const (
	maxConnections    = 128
	headerTimeout     = 5 * time.Second
	bodyTimeout       = 10 * time.Second
	idleTimeout       = time.Minute
	maxHeader         = 16 << 10
	serverStopTimeout = 2 * time.Second
)

func newServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// limited holds back connections beyond a number: they wait in the kernel's queue.
type limited struct {
	net.Listener
	slots chan struct{}
	end   chan struct{}
	once  sync.Once
}

func limit(l net.Listener, n int) *limited {
	return &limited{Listener: l, slots: make(chan struct{}, n), end: make(chan struct{})}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.end:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.end) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// Servers are the HTTP servers of a daemon.
type Servers struct {
	Log  *slog.Logger
	list []*http.Server
	wg   sync.WaitGroup
}

// Serve answers on a listener. The end of ctx ends streams of events. A write
// timeout bounds a whole answer; 0 is none.
func (s *Servers) Serve(ctx context.Context, l net.Listener, h http.Handler, write time.Duration) {
	srv := newServer(h, s.Log)
	srv.WriteTimeout = write
	srv.BaseContext = func(net.Listener) context.Context { return ctx }
	s.list = append(s.list, srv)
	lim := limit(l, maxConnections)
	s.wg.Go(func() {
		if err := srv.Serve(lim); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.Log.Error("a server ended", "address", l.Addr().String(), "reason", err)
		}
	})
}

// WebTimeout bounds a scrape or a page from its request to its last byte.
const WebTimeout = 30 * time.Second

// ServeWeb answers on the address of http, "" for none. A port that is taken does
// not keep the daemon from its work.
func (s *Servers) ServeWeb(ctx context.Context, address string, h http.Handler) {
	if address == "" {
		return
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		s.Log.Error("no metrics and no status page: the address of http cannot be used", "reason", err)
		return
	}
	s.Serve(ctx, l, h, WebTimeout)
}

// Stop lets answers under way go out, for a moment.
func (s *Servers) Stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, serverStopTimeout)
	defer cancel()
	for _, srv := range s.list {
		if srv.Shutdown(ctx) != nil {
			srv.Close()
		}
	}
	s.wg.Wait()
}
