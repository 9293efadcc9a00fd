package lab

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// attacks are what strangers do to the replication port. Each is done by a
// process on the peer's node, and is over when it returns.
var attacks = map[string]func(addr string) error{
	"port scanner": func(addr string) error {
		return times(300, func(int) error { return talk(addr, nil, 0) })
	},
	"random bytes": func(addr string) error {
		return times(60, func(i int) error {
			b := make([]byte, 1<<rand.IntN(17))
			for j := range b {
				b[j] = byte(rand.Uint32())
			}
			return talk(addr, b, 200*time.Millisecond)
		})
	},
	"http": func(addr string) error {
		return times(20, func(int) error {
			return talk(addr, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 200*time.Millisecond)
		})
	},
	"old version": func(addr string) error {
		return times(20, func(int) error { return talk(addr, hello(0, 0), time.Second) })
	},
	"future version": func(addr string) error {
		return times(20, func(int) error { return talk(addr, hello(60000, 65535), time.Second) })
	},
	"hello of 4 GiB": func(addr string) error {
		return times(20, func(int) error {
			b := append([]byte("HAST"), 0xff, 0xff, 0xff, 0xff)
			return talk(addr, append(b, make([]byte, 1<<20)...), time.Second)
		})
	},
	"frame of 4 GiB in place of a proof": func(addr string) error {
		return times(20, func(int) error {
			frame := make([]byte, 64)
			copy(frame, "HSF1")
			binary.LittleEndian.PutUint32(frame[36:], 0xffffffff)
			binary.LittleEndian.PutUint32(frame[56:], 0xffffffff)
			return talk(addr, append(hello(1, 1), frame...), time.Second)
		})
	},
	"half a hello, slowly": func(addr string) error {
		return times(5, func(int) error {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				return nil
			}
			defer c.Close()
			for _, b := range hello(1, 1)[:20] {
				if _, err := c.Write([]byte{b}); err != nil {
					return nil
				}
				time.Sleep(10 * time.Millisecond)
			}
			return nil
		})
	},
}

func times(n int, do func(i int) error) error {
	for i := range n {
		if err := do(i); err != nil {
			return err
		}
	}
	return nil
}

// talk says b and listens for a while. What comes back does not matter, a refused
// connection neither.
func talk(addr string, b []byte, listen time.Duration) error {
	c, err := net.DialTimeout("tcp", addr, 2*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(listen + time.Second))
	c.Write(b)
	if listen > 0 {
		c.SetReadDeadline(time.Now().Add(listen))
		io.Copy(io.Discard, c)
	}
	return nil
}

// hello is a first message as the protocol has it, for versions of one's choice.
func hello(oldest, newest int) []byte {
	body := fmt.Sprintf(`{"cluster":"lab","resource":"data","from":"alpha","to":"bravo","min":%d,"max":%d,"kind":"control","nonce":%q,"path":0,"secured":true}`,
		oldest, newest, strings.Repeat("ab", 32))
	b := append([]byte("HAST"), 0, 0, 0, 0)
	binary.BigEndian.PutUint32(b[4:], uint32(len(body)))
	return append(b, body...)
}

// idleConnections holds n connections until stdin ends.
func idleConnections(addr string, n int) error {
	var held []net.Conn
	for range n {
		c, err := net.DialTimeout("tcp", addr, 5*time.Second)
		if err != nil {
			return err
		}
		held = append(held, c)
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	for _, c := range held {
		c.Close()
	}
	return nil
}

// onNode starts the test binary as a helper on a node and waits for its "ready".
// The function returned ends it.
func onNode(t *testing.T, l *Lab, s Side, what string) (end func()) {
	t.Helper()
	argv := l.Network().Command(s, os.Args[0])
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), helperEnv+"="+what)
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if line, _ := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		stdin.Close()
		cmd.Wait()
		t.Fatalf("%s: %q", what, line)
	}
	return func() {
		stdin.Close()
		cmd.Wait()
	}
}

// maxGrowth is how much a daemon's memory may have grown after an attack.
const maxGrowth = 16 << 20

// TestHostileInput: whatever strangers send, the service goes on, and the memory
// of each daemon stays where it was.
func TestHostileInput(t *testing.T) {
	t.Parallel()
	p := newPair(t, Options{LogLevel: "info"})
	p.together()
	p.writeMany(p.a, 0, 8<<20, "warm") // buffers are touched before the first look
	p.same()
	var before [2]int64
	var pid [2]int
	look := func(after string) {
		t.Helper()
		p.write(p.a, 5, after)
		p.holds(p.a, 5, after)
		p.complete()
		for _, n := range p.Nodes {
			rss, err := n.RSS()
			p.ok(err)
			if before[n.Side] == 0 {
				before[n.Side], pid[n.Side] = rss, n.PID()
			}
			if grown := rss - before[n.Side]; grown > maxGrowth {
				t.Errorf("after %s %v has grown by %d bytes to %d", after, n.Side, grown, rss)
			}
			if n.PID() != pid[n.Side] {
				t.Errorf("%v is another process after %s", n.Side, after)
			}
		}
	}
	look("nothing")
	for what := range attacks {
		for _, n := range p.Nodes {
			addr := fmt.Sprintf("%s:%d", p.Network().Address(n.Side, n.Side.Other()), port)
			onNode(t, p.Lab, n.Side.Other(), "attack\t"+addr+"\t"+what)()
		}
		look(what)
	}
	// While a thousand strangers wait, the pair works and finds itself again.
	for _, n := range p.Nodes {
		addr := fmt.Sprintf("%s:%d", p.Network().Address(n.Side, n.Side.Other()), port)
		end := onNode(t, p.Lab, n.Side.Other(), "idle\t"+addr)
		p.cut()
		p.heal()
		look(fmt.Sprintf("1,000 idle connections to %v", n.Side))
		end()
	}
	look("all of it")
	for _, n := range p.Nodes {
		if lines := strings.Count(n.Log(), "\n"); lines > 2000 {
			t.Errorf("strangers made %v log %d lines", n.Side, lines)
		}
	}
}

// TestWrongKey: a peer with another key is refused, says so, and the primary goes
// on; with the right key they find each other again.
func TestWrongKey(t *testing.T) {
	t.Parallel()
	p := newPair(t, Options{})
	p.together()
	p.ok(p.b.Stop())
	key := filepath.Join(p.o.Dir, "cluster.key")
	right, err := os.ReadFile(key)
	p.ok(err)
	wrong := filepath.Join(p.o.Dir, "wrong.key")
	p.ok(os.WriteFile(wrong, newKey(), 0o600))
	config, err := os.ReadFile(p.b.Config())
	p.ok(err)
	p.ok(os.WriteFile(p.b.Config(), []byte(strings.Replace(string(config), key, wrong, 1)), 0o600))
	p.ok(p.b.Start())
	p.logs(p.b, "key")
	p.logs(p.a, "key")
	p.write(p.a, 1, "alone")
	if s, err := p.b.Status(); err != nil || s.Connection == "connected" {
		t.Fatalf("with the wrong key: %v, %v", s, err)
	}
	for _, n := range p.Nodes {
		if strings.Contains(n.Log(), strings.TrimSpace(string(right))) {
			t.Errorf("the log of %v holds the key", n.Side)
		}
	}
	p.ok(p.b.Stop())
	p.ok(os.WriteFile(p.b.Config(), config, 0o600))
	p.ok(p.b.Start())
	p.complete()
}
