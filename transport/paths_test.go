package transport

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bravo is a node whose sessions are looked at.
func bravo(t *testing.T) (addr string, got chan *Session) {
	t.Helper()
	got = make(chan *Session, 8)
	ep := &Endpoint{Options: options("bravo"), Session: func(s *Session) { got <- s }}
	return listen(t, "bravo", ep, "127.0.0.1:0").Addrs()[0].String(), got
}

// ends ends a session on both sides.
func ends(t *testing.T, s, peer *Session) {
	t.Helper()
	peer.end(nil)
	serve(s, newSink()).wait(t)
}

// A peer that takes longer than a glance to answer is reached as soon as over one path.
func TestDialerLetsASlowPeerAnswer(t *testing.T) {
	const slow = glance + 100*time.Millisecond
	got := make(chan *Session, 4)
	ep := &Endpoint{Options: options("bravo"), Session: func(s *Session) { got <- s }, Ready: func() error { time.Sleep(slow); return nil }}
	addr := listen(t, "bravo", ep, "127.0.0.1:0").Addrs()[0].String()
	d, err := NewDialer(DialerOptions{Options: options("alpha"), Paths: []Path{{"", addr}, {"", addr}, {"", addr}}})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s, err := d.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if w := time.Since(began); w > slow+glance {
		t.Errorf("the session came after %v, the peer takes %v to answer", w, slow)
	}
	if s.Hello().Path != 0 {
		t.Errorf("path %d", s.Hello().Path)
	}
	ends(t, s, <-got)
}

// dying is a path to a node over which nothing passes any more once its control
// connection stands.
func dying(t *testing.T, remote string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			if n > 0 {
				continue
			}
			r, err := net.Dial("tcp", remote)
			if err != nil {
				return
			}
			t.Cleanup(func() { r.Close() })
			go io.Copy(r, c)
			go io.Copy(c, r)
		}
	}()
	return l.Addr().String()
}

// A path that dies amid a handshake does not keep the dialer off one that lives.
func TestDialerPassesAPathThatDiesAmidAHandshake(t *testing.T) {
	addr, got := bravo(t)
	d, err := NewDialer(DialerOptions{Options: options("alpha"), Paths: []Path{{"", dying(t, addr)}, {"", addr}}})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s, err := d.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if w := time.Since(began); w > helloTimeout/2 || s.Hello().Path != 1 {
		t.Errorf("the session came after %v over path %d", w, s.Hello().Path)
	}
	ends(t, s, <-got)
}

// Two paths are tried beside each other: the second one's control connection does not take
// its session from the first, and the first one's data connection, if it comes after the
// second one's, does not end that session.
func TestHandshakesOverTwoPaths(t *testing.T) {
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		addr, got := bravo(t)
		d, err := NewDialer(DialerOptions{Options: options("alpha"), Paths: []Path{{"", addr}, {"", addr}}})
		if err != nil {
			t.Fatal(err)
		}
		var controls []*shaken
		for i := range d.o.Paths {
			c, s, err := d.connect(t.Context(), i, helloTimeout, kindControl, "", d.o.Key)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			controls = append(controls, s)
		}
		for _, i := range order {
			s := controls[i]
			c, _, err := d.connect(t.Context(), i, helloTimeout, kindData, s.hello.Session, s.keys.bind)
			if late := order[0] == 1 && i == 0; late != (err != nil) {
				t.Fatalf("order %v, path %d: %v", order, i, err)
			}
			if err != nil {
				continue
			}
			defer c.Close()
			q := <-got
			q.end(nil)
		}
	}
}

// long is a path on which everything takes so long each way.
func long(t *testing.T, remote string, way time.Duration) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	pass := func(to, from *net.TCPConn) {
		type part struct {
			due   time.Time
			bytes []byte
		}
		parts := make(chan part, 256)
		go func() {
			defer close(parts)
			for {
				b := make([]byte, 4096)
				n, err := from.Read(b)
				if err != nil {
					return
				}
				parts <- part{time.Now().Add(way), b[:n]}
			}
		}()
		for p := range parts {
			time.Sleep(time.Until(p.due))
			to.Write(p.bytes)
		}
		time.Sleep(way)
		to.Close()
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r, err := net.Dial("tcp", remote)
			if err != nil {
				c.Close()
				return
			}
			go pass(r.(*net.TCPConn), c.(*net.TCPConn))
			go pass(c.(*net.TCPConn), r.(*net.TCPConn))
		}
	}()
	return l.Addr().String()
}

// However long the paths are, a round leaves one session at the listener: another one
// would end the dialer's, in each round anew.
func TestRoundOverLongPathsIsOneSession(t *testing.T) {
	for _, ways := range [][]time.Duration{
		{160 * time.Millisecond, 160 * time.Millisecond},
		{46 * time.Millisecond, 0},
		{39 * time.Millisecond, 0, 46 * time.Millisecond},
	} {
		t.Run(fmt.Sprint(ways), func(t *testing.T) {
			t.Parallel()
			addr, got := bravo(t)
			var paths []Path
			for _, way := range ways {
				paths = append(paths, Path{"", long(t, addr, way)})
			}
			d, err := NewDialer(DialerOptions{Options: options("alpha"), Paths: paths})
			if err != nil {
				t.Fatal(err)
			}
			s, err := d.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			q := <-got
			select {
			case <-got:
				t.Error("a second session came")
			case <-time.After(4 * slices.Max(ways)):
			}
			q.end(nil)
			serve(s, newSink()).wait(t)
		})
	}
}

// Who asks anew again and again does not keep a slow path from its session.
func TestKickLeavesASlowPathAlone(t *testing.T) {
	addr, got := bravo(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	slow := Path{"", long(t, addr, glance/2)}
	for _, paths := range [][]Path{{slow}, {slow, slow}, {{"", closed.Addr().String()}, slow}} {
		d, err := NewDialer(DialerOptions{Options: options("alpha"), Paths: paths})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan *Session, 1)
		go func() { s, _ := d.Dial(t.Context()); done <- s }()
		kicks := time.NewTicker(glance)
		var s *Session
		for began := time.Now(); s == nil; {
			select {
			case s = <-done:
			case <-kicks.C:
				d.Kick()
			}
			if time.Since(began) > helloTimeout {
				t.Fatalf("no session over %v", paths)
			}
		}
		kicks.Stop()
		ends(t, s, <-got)
	}
}

// deaf is a path on which a SYN is lost, as while a link is down, until it is heard.
func deaf(t *testing.T, remote string) (addr string, hear func()) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	addr = l.Addr().String()
	last, err := net.Dial("tcp", addr) // there is room for one
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { last.Close() })
	return addr, func() {
		last.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				r, err := net.Dial("tcp", remote)
				if err != nil {
					c.Close()
					return
				}
				go func() { io.Copy(r, c); r.Close() }()
				go func() { io.Copy(c, r); c.Close() }()
			}
		}()
	}
}

// Who asks anew does not wait until the kernel repeats what was lost while the link was
// down: a promotion asks for a second.
func TestKickTriesAnewWhatIsNotHeard(t *testing.T) {
	for paths, age := range map[int]time.Duration{1: glance / 2, 2: glance + 50*time.Millisecond} {
		addr, got := bravo(t)
		o := DialerOptions{Options: options("alpha")}
		var hear []func()
		for range paths {
			a, h := deaf(t, addr)
			o.Paths, hear = append(o.Paths, Path{"", a}), append(hear, h)
		}
		o.Timeout = helloTimeout
		d, err := NewDialer(o)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan *Session, 1)
		go func() { s, _ := d.Dial(t.Context()); done <- s }()
		time.Sleep(age)
		for _, h := range hear {
			h()
		}
		time.Sleep(50 * time.Millisecond) // the listeners take what filled them
		began := time.Now()
		d.Kick()
		s := <-done
		if w := time.Since(began); w > glance {
			t.Errorf("%d paths: the session came after %v", paths, w)
		}
		ends(t, s, <-got)
	}
}

// hangingUp takes connections, says when, and ends each after a while without a word.
func hangingUp(t *testing.T, after time.Duration) (addr string, at chan time.Time) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	at = make(chan time.Time, 64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			at <- time.Now()
			time.AfterFunc(after, func() { c.Close() })
		}
	}()
	return l.Addr().String(), at
}

// What was asked for while a round was under way is not forgotten at its end: neither by
// who asks anew amid a handshake that fails then, nor by who resumes after a pause. The
// dialer has waited long between rounds by then.
func TestWhatIsAskedOfARoundOutlastsIt(t *testing.T) {
	for name, ask := range map[string]func(*Dialer){
		"kick":   (*Dialer).Kick,
		"resume": func(d *Dialer) { d.Pause(); d.Resume() },
	} {
		addr, at := hangingUp(t, glance)
		d, err := NewDialer(DialerOptions{Options: options("alpha"), Paths: []Path{{"", addr}}})
		if err != nil {
			t.Fatal(err)
		}
		d.backoff = backoffCap
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { _, _ = d.Dial(ctx); close(done) }()
		first := <-at
		time.Sleep(glance / 3)
		ask(d)
		if w := (<-at).Sub(first); w > 2*glance {
			t.Errorf("%s: tried anew after %v", name, w)
		}
		cancel()
		<-done
	}
}
