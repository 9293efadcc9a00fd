package transport

import (
	"io"
	"net"
	"slices"
	"testing"
	"time"
)

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
	q := <-got
	q.end(nil)
	serve(s, newSink()).wait(t)
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
	got := make(chan *Session, 4)
	ep := &Endpoint{Options: options("bravo"), Session: func(s *Session) { got <- s }}
	addr := listen(t, "bravo", ep, "127.0.0.1:0").Addrs()[0].String()
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
	q := <-got
	q.end(nil)
	serve(s, newSink()).wait(t)
}

// Two paths are tried beside each other, over a long link: the second one's control
// connection does not take its data connection from the first.
func TestHandshakesOverTwoPaths(t *testing.T) {
	got := make(chan *Session, 4)
	ep := &Endpoint{Options: options("bravo"), Session: func(s *Session) { got <- s }}
	addr := listen(t, "bravo", ep, "127.0.0.1:0").Addrs()[0].String()
	d, err := NewDialer(DialerOptions{Options: options("alpha"), Paths: []Path{{"", addr}, {"", addr}}})
	if err != nil {
		t.Fatal(err)
	}
	var controls []*shaken
	for i := range d.o.Paths {
		c, s, err := d.connect(t.Context(), i, kindControl, "", d.o.Key)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		controls = append(controls, s)
	}
	slices.Reverse(controls)
	for i, s := range controls {
		c, _, err := d.connect(t.Context(), 1-i, kindData, s.hello.Session, s.keys.bind)
		if err != nil {
			t.Fatalf("path %d: %v", 1-i, err)
		}
		defer c.Close()
		q := <-got
		q.end(nil)
	}
}
