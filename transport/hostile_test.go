package transport

import (
	"errors"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// alive fails the test if e ends, and shows that frames still pass to it.
func alive(t *testing.T, from *Session, e *end) {
	t.Helper()
	from.Send([]Out{{Body: [][]byte{text(100)}}})
	e.h.next(t)
}

// flood dials n connections from one source and hands each to then.
func flood(t *testing.T, p *pair, source string, n int, then func(i int, c *net.TCPConn)) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	for i := range n {
		c, err := d.Dial("tcp", p.addr())
		if err != nil {
			t.Fatal(err)
		}
		then(i, c.(*net.TCPConn))
	}
}

// settled waits until the listener has seen n connections.
func settled(t *testing.T, p *pair, n uint64) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); p.l.o.Metrics.Accepted.Load() < n; {
		if time.Now().After(end) {
			t.Fatalf("%d of %d connections accepted", p.l.o.Metrics.Accepted.Load(), n)
		}
		runtime.Gosched()
	}
}

// A thousand idle connections are cut down to a few, cost little, are logged
// once, leave a session alone and keep nobody out.
func TestStrangersIdle(t *testing.T) {
	p := newPair(t, options("alpha"), options("bravo"))
	x, y := p.connect()
	ex, ey := serve(x, newSink()), serve(y, newSink())
	alive(t, x, ey)
	before := heap()
	var conns []*net.TCPConn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	keep := func(i int, c *net.TCPConn) { conns = append(conns, c) }
	for _, from := range []string{"127.0.0.1", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6"} {
		flood(t, p, from, 200, keep)
	}
	settled(t, p, 1002)
	for end := time.Now().Add(10 * time.Second); p.l.o.Metrics.Handshakes.Load() > maxStrangers; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d handshakes at once", p.l.o.Metrics.Handshakes.Load())
		}
	}
	if after := heap(); after > before+4<<20 {
		t.Errorf("the heap grew from %d to %d", before, after)
	}
	alive(t, x, ey)
	alive(t, y, ex)
	p.d.Kick()
	x2, y2 := p.connect() // alpha's own address is among the flooders
	x2.Close("")
	y2.Close("")
	if n := strings.Count(p.logs.String(), "too many connections"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, p.logs)
	}
	x.Close("")
	ex.wait(t)
	ey.wait(t)
}

// Random bytes, scanners and dribblers are dropped, counted, logged once a cause.
func TestStrangersGarbage(t *testing.T) {
	p := newHastyPair(t, options("alpha"), options("bravo"), 300*time.Millisecond)
	x, y := p.connect()
	ex, ey := serve(x, newSink()), serve(y, newSink())
	before := heap()
	var wg sync.WaitGroup
	flood(t, p, "127.0.0.3", 300, func(i int, c *net.TCPConn) {
		switch i % 4 {
		case 0: // a port scanner
			_ = c.SetLinger(0)
			c.Close()
			return
		case 1:
			_, _ = c.Write(noise(uint64(i), 4096))
		case 2:
			_, _ = c.Write([]byte("HAST\xff\xff\xff\xff"))
		case 3: // as long as allowed, then nothing
			_, _ = c.Write(append([]byte("HAST\x00\x01\x00\x00"), text(1000)...))
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			b := make([]byte, 1)
			for { // until the listener hangs up
				if _, err := c.Read(b); err != nil {
					var ne net.Error
					if errors.As(err, &ne) && ne.Timeout() {
						t.Error("a stranger was never hung up on")
					}
					return
				}
			}
		}()
	})
	wg.Wait()
	settled(t, p, 302)
	if after := heap(); after > before+4<<20 {
		t.Errorf("the heap grew from %d to %d", before, after)
	}
	alive(t, x, ey)
	alive(t, y, ex)
	if n := strings.Count(p.logs.String(), "\n"); n > 3 {
		t.Errorf("%d lines were logged:\n%s", n, p.logs)
	}
	if m := p.l.o.Metrics; m.Failed.Load() < 290 {
		t.Errorf("%d failed handshakes counted", m.Failed.Load())
	}
	x.Close("")
	ex.wait(t)
	ey.wait(t)
}

// Somebody who connects without pause, from the peer's own address even, does
// not keep the peer out.
func TestStrangersFloodDuringDial(t *testing.T) {
	p := newPair(t, options("alpha"), options("bravo"))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.1")}, Timeout: time.Second}
		for n := 0; n < 20_000; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if c, err := d.Dial("tcp", p.addr()); err == nil {
				_ = c.(*net.TCPConn).SetLinger(0)
				defer c.Close()
			}
		}
	}()
	settled(t, p, 100)
	for range 5 {
		p.d.Kick()
		x, y := p.connect()
		x.Close("")
		y.Close("")
	}
	close(stop)
	wg.Wait()
}

// Who is pushed out: the oldest silent one, of the same host if that one has its
// share, of all if there are too many; the count never exceeds the limits.
func TestStrangersPushedOut(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var l strangers
	add := func(from string) (x, out *stranger) {
		t.Helper()
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		a, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.Close() })
		return l.add(a.(*net.TCPConn))
	}
	honest, _ := add("127.0.0.9")
	first, _ := add("127.0.0.3")
	first.spoke.Store(true)
	second, _ := add("127.0.0.3")
	for range maxFromOneHost - 2 {
		if _, out := add("127.0.0.3"); out != nil {
			t.Fatal("pushed out below the limit")
		}
	}
	if _, out := add("127.0.0.3"); out != second {
		t.Error("not the oldest silent one of the host was pushed out")
	}
	if l.remove(second) || !l.remove(honest) {
		t.Error("remove does not tell who was pushed out")
	}
	for i := len(l.all); i < maxStrangers; i++ {
		if _, out := add([]string{"127.0.0.4", "127.0.0.5", "127.0.0.6"}[i%3]); out != nil {
			t.Fatal("pushed out below the limit")
		}
	}
	oldest := l.all[1] // first has spoken
	if _, out := add("127.0.0.7"); out != oldest {
		t.Error("not the oldest silent one of all was pushed out")
	}
	if len(l.all) != maxStrangers {
		t.Errorf("%d are kept", len(l.all))
	}
}

// Closing the listener with connections in every stage returns at once.
func TestListenerClose(t *testing.T) {
	p := newPair(t, options("alpha"), options("bravo"))
	flood(t, p, "127.0.0.3", 3, func(_ int, c *net.TCPConn) { t.Cleanup(func() { c.Close() }) })
	o := options("alpha")
	_, _ = speak(t, p, o.hello(kindControl, "", 0))
	c, _, err := p.d.connect(t.Context(), 0, helloTimeout, kindControl, "", testKey)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	begin := time.Now()
	p.l.Close()
	if d := time.Since(begin); d > time.Second {
		t.Errorf("took %v", d)
	}
	if len(p.got) != 0 {
		t.Error("a session came out of it")
	}
}
