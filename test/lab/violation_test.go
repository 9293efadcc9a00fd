package lab

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// lifeline is a client's connection to the service address, over which a word goes to
// and fro every few milliseconds, for as long as it lives.
type lifeline struct {
	server net.Listener
	conn   net.Conn
	ended  chan error
	stop   chan struct{}
}

const lifelinePort = 7777

// newLifeline listens on the node that has the address, and dials from the third host.
func newLifeline(l *Lab, on *Node) (*lifeline, error) {
	lan := l.net.(*LAN)
	addr := net.JoinHostPort(l.o.Service, fmt.Sprint(lifelinePort))
	x := &lifeline{ended: make(chan error, 2), stop: make(chan struct{})}
	err := lan.onNode(on.Side, func() (err error) { x.server, err = net.Listen("tcp", addr); return err })
	if err != nil {
		return nil, err
	}
	if err := lan.onClient(func() (err error) { x.conn, err = net.DialTimeout("tcp", addr, 5*time.Second); return err }); err != nil {
		x.server.Close()
		return nil, err
	}
	c, err := x.server.Accept()
	if err != nil {
		return nil, errors.Join(err, x.server.Close(), x.conn.Close())
	}
	go func() {
		defer c.Close()
		b := make([]byte, 1)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
			c.Write(b)
		}
	}()
	go func() {
		b := make([]byte, 1)
		for {
			select {
			case <-x.stop:
				x.ended <- nil
				return
			case <-time.After(20 * time.Millisecond):
			}
			x.conn.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := x.conn.Write(b); err != nil {
				x.ended <- err
				return
			}
			if _, err := x.conn.Read(b); err != nil {
				x.ended <- err
				return
			}
		}
	}()
	return x, nil
}

// end says how it went.
func (x *lifeline) end() error {
	close(x.stop)
	err := <-x.ended
	return errors.Join(err, x.conn.Close(), x.server.Close())
}

// TestConcurrencyViolation, step by step: somebody sets the service address on the
// standby by hand. Both nodes say so in the same words, it is taken down, and the node that
// has the group serves its clients all the while.
func TestConcurrencyViolation(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{Group: true, LAN: true, Plain: true, Size: 16 << 20, Election: "carp"})
	must(t, l.NameAddress("ip1"))
	must(t, l.Consoles())
	must(t, l.startGroup())
	on := owner(t, l, 20*time.Second)
	standby := l.other(on)
	must(t, standby.WaitVIP("backup", 10*time.Second))
	line, err := newLifeline(l, on)
	must(t, err)
	defer func() {
		if err := line.end(); err != nil {
			t.Errorf("the client's connection broke: %v", err)
		}
	}()

	add := func() {
		t.Helper()
		must(t, run("", l.net.Command(standby.Side, "ip", "addr", "add", prefixed(l.o.Service), "dev", linkName)...))
	}
	lines := []string{
		"Resource ip1 is online on " + standby.Side.String(),
		"CurrentCount increased above 1 for failover group",
		fmt.Sprintf("WARNING: Concurrency violation!!! group=\"data\" hosts=(%v %v)", standby.Side, on.Side),
	}
	began := time.Now()
	add()
	must(t, poll(10*time.Second, func() (bool, error) { return !standby.HasAddress(), nil }))
	t.Logf("the address was taken down after %v", ms(time.Since(began)))
	must(t, standby.WaitGroup("faulted", 5*time.Second))
	if got := standby.Console(); !slices.Equal(got, lines) {
		t.Errorf("on the console: %q", got)
	}
	if log := standby.VipdLog(); !inOrder(log, lines[0], lines[1], "WARNING: Concurrency violation!!!") {
		t.Error("the log has not the three lines in their order")
	}
	// The other node says the same, as soon as a heartbeat has brought it.
	must(t, poll(5*time.Second, func() (bool, error) { return slices.Equal(on.Console(), lines), nil }))
	for _, n := range l.Nodes {
		summary := []string{
			"A alpha RUNNING 0", "A bravo RUNNING 0",
			fmt.Sprintf("B data %v Y N ONLINE", on.Side), fmt.Sprintf("B data %v Y N FAULTED", standby.Side),
			fmt.Sprintf("C data address ip1 %v", standby.Side),
		}
		must(t, poll(5*time.Second, func() (bool, error) {
			out, errs, _ := n.Hastctl("summary")
			var got []string
			for line := range strings.Lines(out) {
				got = append(got, strings.Join(strings.Fields(line), " "))
			}
			for _, want := range summary {
				if !slices.Contains(got, want) {
					return false, fmt.Errorf("%v: the summary has no %q:\n%s%s", n.Side, want, out, errs)
				}
			}
			return true, nil
		}))
	}
	if g, err := standby.Group(); err != nil || !strings.HasPrefix(g.Fault, "data/address/ip1: ") {
		t.Errorf("%v %v", g, err)
	}
	// The rightful node goes on; the other one waits for a person.
	rightful := func() {
		t.Helper()
		if g, err := on.Group(); err != nil || g.State != "online" || !on.HasAddress() || !on.HasApp() {
			t.Fatalf("the rightful node: %v %v", g, err)
		}
	}
	rightful()
	// Once more while it is faulted: taken down once more.
	add()
	must(t, poll(10*time.Second, func() (bool, error) { return !standby.HasAddress(), nil }))
	must(t, standby.WaitGroup("faulted", 5*time.Second))
	rightful()
	if _, errs, code := standby.Hastctl("clear", "data/address/ip1"); code != 0 {
		t.Errorf("clear: status %d, %s", code, errs)
	}
	must(t, standby.WaitGroup("offline", 5*time.Second))
	if strings.Contains(on.VipdLog(), "ONLINE -> ") {
		t.Error("the rightful node did not stay online")
	}
}

// inOrder says whether a text has all words, one behind the other.
func inOrder(text string, words ...string) bool {
	for _, w := range words {
		_, rest, ok := strings.Cut(text, w)
		if !ok {
			return false
		}
		text = rest
	}
	return true
}

// TestAddressTakenAway: somebody takes the address away on the node that rightfully has
// it. It is put back, until that has happened too often.
func TestAddressTakenAway(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{Group: true, Plain: true, Size: 16 << 20, Election: "vrrp", Interval: calmInterval})
	must(t, l.startGroup())
	on := owner(t, l, 20*time.Second)
	settled(t, l, on)
	other := l.other(on)
	take := func() {
		t.Helper()
		must(t, run("", l.net.Command(on.Side, "ip", "addr", "del", prefixed(l.o.Service), "dev", linkName)...))
	}
	for n := range 3 {
		take()
		must(t, poll(10*time.Second, func() (bool, error) {
			var g struct {
				State string
				Parts []struct{ Restarts int }
			}
			err := newAPI(on.VipdControl()).call(http.MethodGet, "/v1/groups/"+GroupName, 5*time.Second, nil, &g)
			if err == nil && g.State != "online" {
				t.Fatalf("%+v", g)
			}
			return err == nil && g.Parts[len(g.Parts)-1].Restarts == n+1 && on.HasAddress(), err
		}))
	}
	take()
	must(t, other.WaitGroup("online", 20*time.Second))
	must(t, on.WaitGroup("faulted", 5*time.Second))
	if g, _ := on.Group(); g.Fault != "data/address/"+l.o.Service+": "+l.o.Service+" was taken away by somebody else, after it was put back 3 times" {
		t.Errorf("fault %q", g.Fault)
	}
	wantAlone(t, l, other)
	if _, errs, code := on.Hastctl("clear", l.o.Service); code != 0 {
		t.Errorf("clear: status %d, %s", code, errs)
	}
	must(t, on.WaitGroup("offline", 5*time.Second))
}
