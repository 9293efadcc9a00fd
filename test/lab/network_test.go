package lab

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A TCP conversation from alpha to bravo, over each network, under each cut.

// startEcho runs an echo server on bravo.
func startEcho(t *testing.T, n Network) {
	t.Helper()
	addr := fmt.Sprintf("%s:%d", n.Address(Bravo, Bravo), port)
	argv := n.Command(Bravo, os.Args[0])
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), helperEnv+"="+addr)
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { stdin.Close(); cmd.Wait() })
	if line, _ := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("echo server: %q", line)
	}
}

// alphaTalks sends lines from alpha to bravo with socat-like use of bash, whose
// /dev/tcp needs no further program. It gives what came back within some seconds.
func alphaTalks(n Network, text string, seconds float64) (string, error) {
	script := fmt.Sprintf(`exec 3<>/dev/tcp/%s/%d && echo '%s' >&3 && head -n1 <&3`, n.Address(Bravo, Alpha), port, text)
	argv := n.Command(Alpha, "timeout", fmt.Sprint(seconds), "bash", "-c", script)
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	return strings.TrimSpace(string(out)), err
}

// For how many seconds silence is listened to, and an answer waited for.
const (
	silence = 0.7
	answer  = 10
)

func testNetwork(t *testing.T, n Network) {
	startEcho(t, n)
	before, err := n.Sent(Alpha)
	must(t, err)
	if got, err := alphaTalks(n, strings.Repeat("x", 3000), answer); len(got) != 3000 {
		t.Fatalf("over a whole link: %d bytes, %v", len(got), err)
	}
	after, err := n.Sent(Alpha)
	must(t, err)
	if sent := after - before; sent < 3000 || sent > 6000 {
		t.Fatalf("3,000 bytes were counted as %d", sent)
	}
	for _, c := range []Cut{CutBoth, CutFrom, CutTo, CutReset} {
		for _, side := range []Side{Alpha, Bravo} {
			must(t, n.Cut(side, c))
			if got, _ := alphaTalks(n, "during", silence); got != "" {
				t.Errorf("link %v at %v: %q came through", c, side, got)
			}
			must(t, n.Cut(side, CutNone))
			if got, err := alphaTalks(n, "healed", answer); got != "healed" {
				t.Errorf("after %v at %v was healed: %q, %v", c, side, got, err)
			}
		}
	}
}

func TestNamespaces(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("namespaces need root")
	}
	n, err := NewNamespaces()
	must(t, err)
	defer n.Close()
	testNetwork(t, n)
}

func TestRelay(t *testing.T) {
	t.Parallel()
	n, err := NewRelay(port)
	must(t, err)
	defer n.Close()
	testNetwork(t, n)
}

func TestTwoRelaysSideBySide(t *testing.T) {
	a, err := NewRelay(port)
	must(t, err)
	defer a.Close()
	b, err := NewRelay(port)
	must(t, err)
	defer b.Close()
	if a.Address(Alpha, Bravo) == b.Address(Alpha, Bravo) {
		t.Fatal("two relays have the same addresses")
	}
}

// dialRelay is a connection from alpha to an echo server on bravo.
func dialRelay(t *testing.T, r *Relay) net.Conn {
	t.Helper()
	startEcho(t, r)
	c, err := net.Dial("tcp", r.at(r.Address(Bravo, Alpha)))
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func roundTrip(t *testing.T, c net.Conn, b []byte, limit time.Duration) error {
	t.Helper()
	c.SetDeadline(time.Now().Add(limit))
	if _, err := c.Write(b); err != nil {
		return err
	}
	got := make([]byte, len(b))
	for n := 0; n < len(got); {
		m, err := c.Read(got[n:])
		if err != nil {
			return err
		}
		n += m
	}
	if !bytes.Equal(got, b) {
		return fmt.Errorf("other bytes came back")
	}
	return nil
}

func TestRelayDelays(t *testing.T) {
	r, err := NewRelay(port)
	must(t, err)
	defer r.Close()
	c := dialRelay(t, r)
	must(t, roundTrip(t, c, []byte("x"), time.Second))
	r.Delay(50 * time.Millisecond)
	began := time.Now()
	must(t, roundTrip(t, c, make([]byte, 1<<20), 5*time.Second))
	if took := time.Since(began); took < 100*time.Millisecond || took > 2*time.Second {
		t.Fatalf("1 MiB and back took %v with 50 ms each way", took)
	}
}

func TestRelayHalfOpenKeepsConnection(t *testing.T) {
	r, err := NewRelay(port)
	must(t, err)
	defer r.Close()
	c := dialRelay(t, r)
	must(t, roundTrip(t, c, []byte("before"), time.Second))
	must(t, r.Cut(Alpha, CutBoth))
	if err := roundTrip(t, c, []byte("during"), 200*time.Millisecond); !os.IsTimeout(err) {
		t.Fatalf("during a silent cut: %v, want silence", err)
	}
	// What was swallowed cannot be made good: healing ends the connection.
	must(t, r.Cut(Alpha, CutNone))
	if err := roundTrip(t, c, []byte("after"), 2*time.Second); err == nil || os.IsTimeout(err) {
		t.Fatalf("after healing: %v, want the end of the connection", err)
	}
}

func TestRelayResets(t *testing.T) {
	r, err := NewRelay(port)
	must(t, err)
	defer r.Close()
	c := dialRelay(t, r)
	must(t, roundTrip(t, c, []byte("before"), time.Second))
	must(t, r.Cut(Alpha, CutReset))
	if err := roundTrip(t, c, []byte("during"), 2*time.Second); err == nil || os.IsTimeout(err) {
		t.Fatalf("on a reset link: %v", err)
	}
}

// answerTime is how long alpha waits for an answer of bravo.
func answerTime(t *testing.T, n Network) (took time.Duration, ok bool) {
	t.Helper()
	script := fmt.Sprintf(`exec 3<>/dev/tcp/%s/%d && for i in 1 2 3; do echo x >&3 && head -n1 <&3; done`, n.Address(Bravo, Alpha), port)
	argv := n.Command(Alpha, "timeout", "10", "bash", "-c", script)
	began := time.Now()
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	return time.Since(began), err == nil && string(out) == "x\nx\nx\n"
}

// TestNamespacesSlow: connections go over the relay of packets and back, and a
// lossy link loses.
func TestNamespacesSlow(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("namespaces need root")
	}
	n, err := NewNamespaces()
	must(t, err)
	defer n.Close()
	startEcho(t, n)
	const delay = 100 * time.Millisecond
	for range 2 {
		must(t, n.Slow(delay, 1<<20))
		// Four round trips at least: the connection's and three lines'.
		if took, ok := answerTime(t, n); !ok || took < 8*delay {
			t.Errorf("over a slow link: %v, %v; want at least %v", took, ok, 8*delay)
		}
		must(t, n.Cut(Alpha, CutBoth))
		if got, _ := alphaTalks(n, "during", silence); got != "" {
			t.Errorf("a slow link that was cut: %q came through", got)
		}
		must(t, n.Cut(Alpha, CutNone))
		must(t, n.Slow(0, 0))
		if took, ok := answerTime(t, n); !ok || took >= 8*delay {
			t.Errorf("after that: %v, %v; want less than %v", took, ok, 8*delay)
		}
	}
	must(t, n.Lose(99))
	if got, _ := alphaTalks(n, "lost", silence); got != "" {
		t.Errorf("a link that loses nearly everything: %q came through", got)
	}
	must(t, n.Lose(0))
	if got, err := alphaTalks(n, "whole", answer); got != "whole" {
		t.Errorf("a link that loses nothing: %q, %v", got, err)
	}
}
