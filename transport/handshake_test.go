package transport

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

// dialOnce makes the dialer try until its first failure and returns it.
func dialOnce(t *testing.T, d *Dialer) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	d.o.Unreached = func(bool, error) { cancel() }
	if s, err := d.Dial(ctx); err == nil {
		s.Close("unexpected")
		return nil
	}
	if err := d.LastError(); err != nil {
		return err
	}
	t.Fatal("no attempt failed within 10 s")
	return nil
}

// Each mismatch is refused with its code, in words that name both sides.
func TestHandshakeRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(a, b *Options, p *pair)
		code   Code
		remote bool
		words  string
	}{
		{"wrong key", func(a, b *Options, p *pair) { a.Key = []byte("another key of 32 bytes, surely..") }, CodeKey, true, "keys of node bravo and node alpha differ"},
		{"client without a key", func(a, b *Options, p *pair) { a.Key, a.Insecure = nil, true }, CodeKey, true, "bravo demands the cluster key"},
		{"server without a key", func(a, b *Options, p *pair) { b.Key, b.Insecure = nil, true }, CodeKey, true, "bravo runs without a cluster key"},
		{"wrong cluster", func(a, b *Options, p *pair) { a.Cluster = "other" }, CodeCluster, true, `"other"`},
		{"unknown resource", func(a, b *Options, p *pair) { a.Resource = "logs" }, CodeResource, true, `no resource "logs"`},
		{"wrong node called", func(a, b *Options, p *pair) { a.Peer = "charlie" }, CodeNode, true, "this is node bravo, not charlie"},
		{"wrong node calls", func(a, b *Options, p *pair) { a.Node = "mallory" }, CodeNode, true, "not mallory"},
		{"not ready", func(a, b *Options, p *pair) { p.ep.Ready = func() error { return errors.New("role is init") } }, CodeNotReady, true, "role is init"},
		{"refused by lookup", func(a, b *Options, p *pair) {
			p.ep.Ready = func() error { return &Refused{Code: "busy", Reason: "ask later"} }
		}, "busy", true, "ask later"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := options("alpha"), options("bravo")
			c.change(&a, &b, &pair{ep: new(Endpoint)})
			p := newPair(t, a, b)
			c.change(new(Options), new(Options), p)
			told := make(chan *Refused, 1)
			p.ep.Refused = func(_ string, no *Refused) {
				select {
				case told <- no:
				default:
				}
			}
			err := dialOnce(t, p.d)
			var no *Refused
			if !errors.As(err, &no) || no.Code != c.code || no.Remote != c.remote || !strings.Contains(no.Reason, c.words) {
				t.Errorf("got %v (%+v), want code %s with %q", err, no, c.code, c.words)
			}
			if len(p.got) != 0 {
				t.Error("the listener made a session")
			}
			if c.code == CodeResource { // nobody's
				return
			}
			select {
			case no = <-told:
				if no.Code != c.code || no.Remote || !strings.Contains(no.Reason, c.words) {
					t.Errorf("the endpoint is told %+v", no)
				}
			case <-time.After(10 * time.Second):
				t.Error("the endpoint is told nothing")
			}
		})
	}
}

// Without keys on both sides a session stands, and says so.
func TestHandshakeInsecure(t *testing.T) {
	a, b := options("alpha"), options("bravo")
	a.Key, a.Insecure, b.Key, b.Insecure = nil, true, nil, true
	x, y := newPair(t, a, b).connect()
	if x.Hello().Secured || y.Hello().Secured {
		t.Error("an insecure session calls itself secured")
	}
	x.Close("")
	y.Close("")
}

// The client checks the server too, and gives away nothing but its own proof.
func TestHandshakeHostileServer(t *testing.T) {
	for _, c := range []struct {
		name  string
		serve func(t *testing.T, c net.Conn, h *hello, raw []byte)
		want  func(error) bool
	}{
		{"proof sent back", func(t *testing.T, c net.Conn, h *hello, raw []byte) {
			answer(t, c, h, func(*hello) {})
			m, err := readMessage(c)
			if err == nil {
				b, _ := putMessage(nil, json.RawMessage(m))
				_, _ = c.Write(b)
			}
		}, refusedWith(CodeKey, false)},
		{"no proof", func(t *testing.T, c net.Conn, h *hello, raw []byte) {
			answer(t, c, h, func(*hello) {})
			_, _ = readMessage(c)
			_, _ = sendMessage(c, &proof{})
		}, refusedWith(CodeKey, false)},
		{"hello sent back", func(t *testing.T, c net.Conn, h *hello, raw []byte) {
			b, _ := putMessage(nil, json.RawMessage(raw))
			_, _ = c.Write(b)
		}, refusedWith(CodeNode, false)},
		{"nonce sent back", func(t *testing.T, c net.Conn, h *hello, raw []byte) {
			answer(t, c, h, func(x *hello) { x.Nonce = h.Nonce })
		}, refusedWith(CodeBad, false)},
		{"claims to be insecure", func(t *testing.T, c net.Conn, h *hello, raw []byte) {
			answer(t, c, h, func(x *hello) { x.Secured = false })
			m, err := readMessage(c)
			if err == nil && !bytes.Contains(m, []byte(`"refused"`)) {
				t.Errorf("the client went on: %s", m)
			}
		}, refusedWith(CodeKey, false)},
		{"speaks an old version", func(t *testing.T, c net.Conn, h *hello, raw []byte) {
			answer(t, c, h, func(x *hello) { x.Min, x.Max, x.Version = 0, 0, 0 })
		}, refusedWith(CodeVersion, false)},
		{"chooses a version not offered", func(t *testing.T, c net.Conn, h *hello, raw []byte) {
			answer(t, c, h, func(x *hello) { x.Max, x.Version = 9, 9 })
		}, refusedWith(CodeVersion, false)},
		{"long message", func(t *testing.T, c net.Conn, h *hello, raw []byte) {
			_, _ = c.Write([]byte("HAST\xff\xff\xff\xff"))
		}, func(err error) bool { return errors.Is(err, errNoHello) }},
		{"web server", func(t *testing.T, c net.Conn, h *hello, raw []byte) {
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
		}, func(err error) bool { return errors.Is(err, errNoHello) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.2:0")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				raw, err := readMessage(conn)
				if err != nil {
					t.Error(err)
					return
				}
				h, err := parseHello(raw)
				if err != nil {
					t.Error(err)
					return
				}
				c.serve(t, conn, h, raw)
			}()
			d, err := NewDialer(DialerOptions{Options: options("alpha"), Paths: []Path{{"127.0.0.1", ln.Addr().String()}}})
			if err != nil {
				t.Fatal(err)
			}
			if err := dialOnce(t, d); !c.want(err) {
				t.Errorf("the dial ended with %v", err)
			}
			ln.Close()
			<-done
		})
	}
}

// answer sends the hello an honest bravo would send, after change.
func answer(t *testing.T, c net.Conn, h *hello, change func(*hello)) *hello {
	o := options("bravo")
	mine := o.hello(h.Kind, randomHex(sessionBytes), h.Path)
	mine.Version = MaxVersion
	change(mine)
	if _, err := sendMessage(c, mine); err != nil {
		t.Error(err)
	}
	return mine
}

func refusedWith(code Code, remote bool) func(error) bool {
	return func(err error) bool {
		var no *Refused
		return errors.As(err, &no) && no.Code == code && no.Remote == remote
	}
}

// A client's hello that does not fit gets a refusal, not silence.
func TestHandshakeHostileClient(t *testing.T) {
	p := newPair(t, options("alpha"), options("bravo"))
	for _, c := range []struct {
		name string
		code Code
		mod  func(*hello)
	}{
		{"newer only", CodeVersion, func(h *hello) { h.Min, h.Max = 2, 7 }},
		{"older only", CodeVersion, func(h *hello) { h.Min, h.Max = 0, 0 }},
		{"versions reversed", CodeBad, func(h *hello) { h.Min, h.Max = 5, 1 }},
		{"short nonce", CodeBad, func(h *hello) { h.Nonce = "00" }},
		{"kind", CodeBad, func(h *hello) { h.Kind = "bulk" }},
		{"path", CodeBad, func(h *hello) { h.Path = -1 }},
		{"unknown session", CodeSession, func(h *hello) { h.Kind, h.Session = kindData, strings.Repeat("00", sessionBytes) }},
		{"no session", CodeSession, func(h *hello) { h.Kind = kindData }},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options("alpha")
			h := o.hello(kindControl, "", 0)
			c.mod(h)
			_, got := speak(t, p, h)
			if got.Refused == nil || got.Refused.Code != c.code {
				t.Errorf("answered %+v, want a refusal %s", got, c.code)
			}
		})
	}
	t.Run("newer with more fields", func(t *testing.T) {
		o := options("alpha")
		h := o.hello(kindControl, "", 0)
		h.Max = 7
		j, _ := json.Marshal(h)
		j = append(j[:len(j)-1], `,"later":{"x":[1]}}`...)
		conn := rawDial(t, p)
		b, _ := putMessage(nil, json.RawMessage(j))
		_, _ = conn.Write(b)
		got, err := readMessage(conn)
		if err != nil {
			t.Fatal(err)
		}
		if a, err := parseHello(got); err != nil || a.Refused != nil || a.Version != MaxVersion {
			t.Errorf("answered %s", got)
		}
	})
}

func rawDial(t testing.TB, p *pair) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", p.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c.(*net.TCPConn)
}

// speak sends a hello and returns the connection and the answer.
func speak(t *testing.T, p *pair, h *hello) (net.Conn, *hello) {
	t.Helper()
	c := rawDial(t, p)
	if _, err := sendMessage(c, h); err != nil {
		t.Fatal(err)
	}
	raw, err := readMessage(c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseHello(raw)
	if err != nil {
		t.Fatal(err)
	}
	return c, got
}

// The server says nothing computed from the key to a client that proves nothing,
// and does not tell its role and build.
func TestHandshakeServerSpeaksSecond(t *testing.T) {
	p := newPair(t, options("alpha"), options("bravo"))
	o := options("alpha")
	for _, mine := range []string{"", strings.Repeat("00", proofBytes)} {
		c, got := speak(t, p, o.hello(kindControl, "", 0))
		if got.Refused != nil {
			t.Fatal(got.Refused)
		}
		if _, err := sendMessage(c, &proof{Proof: mine}); err != nil {
			t.Fatal(err)
		}
		raw, err := readMessage(c)
		if err != nil {
			t.Fatal(err)
		}
		q, _, err := parseProof(raw)
		if err != nil || q.Refused == nil || q.Refused.Code != CodeKey || q.Proof != "" || q.Facts != nil || bytes.Contains(raw, []byte("secondary")) {
			t.Errorf("proof %q was answered %s", mine, raw)
		}
	}
}

// Data connections: recorded, proved with the wrong secret, or a second one.
func TestHandshakeDataBinding(t *testing.T) {
	p := newPair(t, options("alpha"), options("bravo"))
	ctx := context.Background()
	control := func() (net.Conn, *shaken) {
		c, s, err := p.d.connect(ctx, 0, helloTimeout, kindControl, "", testKey)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c, s
	}
	t.Run("cluster key alone", func(t *testing.T) {
		_, s := control()
		_, _, err := p.d.connect(ctx, 0, helloTimeout, kindData, s.hello.Session, testKey)
		if !refusedWith(CodeKey, true)(err) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("recorded", func(t *testing.T) {
		_, s := control()
		o := options("alpha")
		h := o.hello(kindData, s.hello.Session, 0)
		c1, a1 := speak(t, p, h)
		sent, _ := json.Marshal(h)
		got, _ := json.Marshal(a1)
		k, err := deriveKeys(s.keys.bind, kindData, h.Nonce, a1.Nonce, sent, got)
		if err != nil {
			t.Fatal(err)
		}
		c2, _ := speak(t, p, h) // the same first message again
		m := &proof{Proof: k.clientProof(nil)}
		for i, c := range []net.Conn{c2, c1} {
			if _, err := sendMessage(c, m); err != nil {
				t.Fatal(err)
			}
			raw, err := readMessage(c)
			if err != nil {
				t.Fatal(err)
			}
			q, _, err := parseProof(raw)
			if err != nil {
				t.Fatal(err)
			}
			if ok := q.Refused == nil; ok != (i == 1) {
				t.Errorf("connection %d: answered %s", i, raw)
			}
		}
		(<-p.got).Close("")
		// And once more, now that the session has its data connection.
		if _, a := speak(t, p, h); a.Refused == nil || a.Refused.Code != CodeSession {
			t.Errorf("a second data connection was answered %+v", a)
		}
	})
	t.Run("of a session given up", func(t *testing.T) {
		_, s1 := control()
		_, s2 := control() // begins anew
		_, _, err := p.d.connect(ctx, 0, helloTimeout, kindData, s1.hello.Session, s1.keys.bind)
		if !refusedWith(CodeSession, true)(err) {
			t.Errorf("the older session's data connection: %v", err)
		}
		c, _, err := p.d.connect(ctx, 0, helloTimeout, kindData, s2.hello.Session, s2.keys.bind)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		(<-p.got).Close("")
	})
}

// Proofs differ by direction, kind, nonce, key and every byte of both hellos.
func TestProofsAreBound(t *testing.T) {
	base := func() (key []byte, kind, cn, sn string, ch, sh []byte) {
		return testKey, kindControl, "aa", "bb", []byte("client"), []byte("server")
	}
	seen := map[string]string{}
	add := func(name string, key []byte, kind, cn, sn string, ch, sh []byte) {
		k, err := deriveKeys(key, kind, cn, sn, ch, sh)
		if err != nil {
			t.Fatal(err)
		}
		for dir, v := range map[string]string{"client": k.clientProof(nil), "server": k.serverProof("", nil), "facts": k.clientProof([]byte("x"))} {
			if old := seen[v]; old != "" {
				t.Errorf("%s %s equals %s", name, dir, old)
			}
			seen[v] = name + " " + dir
		}
	}
	key, kind, cn, sn, ch, sh := base()
	add("base", key, kind, cn, sn, ch, sh)
	add("key", append([]byte{1}, key...), kind, cn, sn, ch, sh)
	add("kind", key, kindData, cn, sn, ch, sh)
	add("client nonce", key, kind, "ab", sn, ch, sh)
	add("server nonce", key, kind, cn, "ab", ch, sh)
	add("client hello", key, kind, cn, sn, []byte("clienT"), sh)
	add("server hello", key, kind, cn, sn, ch, []byte("serveR"))
	add("boundary moved", key, kind, cn, sn, []byte("clients"), []byte("erver"))
}
