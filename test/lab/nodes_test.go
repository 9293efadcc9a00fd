package lab

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestNodeCommands is the life of a node of a cluster with votes, by order: its vipd is
// started again and leaves everything up, it is stopped, started, and aborted.
func TestNodeCommands(t *testing.T) {
	beside(t)
	l := newLab(t, Options{Majority: true, Witness: true, Group: true, LAN: true, Plain: true, Size: 16 << 20, Election: "vrrp", Interval: calmInterval})
	must(t, l.startGroup())
	on := owner(t, l, downLimit)
	other := l.other(on)
	order := func(n *Node, want string, args ...string) {
		t.Helper()
		out, errs, code := n.Hastctl(append([]string{"node"}, args...)...)
		if code != 0 || !strings.Contains(out, want) {
			t.Fatalf("%v: node %v: status %d, want %q: %s%s\n%s", n.Side, args, code, want, out, errs, l.Tails(5))
		}
	}
	inSync := func() {
		t.Helper()
		must(t, l.AwaitComplete(syncLimit))
		must(t, l.awaitInSync(syncLimit))
	}
	inSync()
	if _, errs, code := other.Hastctl("role", "primary", Resource); code != CodeRefused || !strings.Contains(errs, "group switch") {
		t.Errorf("a promotion beside the group: status %d, %s", code, errs)
	}

	// Started again: nothing of the group goes down.
	pid, was := on.vipd.cmd.Process.Pid, on.started(t)
	watch := make(chan string, 1)
	stop := make(chan struct{})
	go func() {
		defer close(watch)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if !on.HasApp() || !on.HasAddress() {
				watch <- "the service or the address was gone"
				return
			}
		}
	}()
	began := time.Now()
	order(on, "state: running", "restart")
	c, err := on.Cluster()
	must(t, err)
	t.Logf("started again in %v: generation %s, %s", time.Since(began).Round(time.Millisecond), c.Generation, c.Decision.What)
	must(t, on.WaitGroup("online", downLimit))
	close(stop)
	if bad, ok := <-watch; ok {
		t.Errorf("during a restart %s", bad)
	}
	if on.vipd.cmd.Process.Pid != pid || on.started(t) == was {
		t.Error("it is not another vipd in the same process")
	}
	wantAlone(t, l, on)

	// Stopped: the other one has everything, this one takes no part.
	inSync()
	order(on, "reason: user initiated stop", "stop")
	if on.HasApp() || on.HasAddress() {
		t.Error("it was stopped before everything was down")
	}
	must(t, other.WaitGroup("online", downLimit))
	c, err = other.WaitCluster("a view without it", downLimit, func(c Cluster) bool { return c.State(on.Side.String()) == "excluded" })
	must(t, err)
	if owner, _ := c.Owner(); owner != other.Side.String() || !c.Votes.Quorate {
		t.Errorf("%+v", c)
	}
	wantAlone(t, l, other)
	if _, errs, code := on.Hastctl("role", "primary", Resource); code != CodeRefused {
		t.Errorf("a promotion on a stopped node: status %d, %s", code, errs)
	}
	order(on, "state: running", "start")
	inSync()

	// Aborted: the other takes over once the lease is over.
	order(other, "reason: user initiated abort", "abort")
	if s, err := other.Status(); err != nil || s.Role == "primary" {
		t.Errorf("after an abort: %v %v", s, err)
	}
	must(t, on.WaitGroup("online", downLimit))
	must(t, other.WaitGroup("offline", downLimit))
	wantAlone(t, l, on)
	order(other, "state: running", "start")
	order(other, "last stop: user initiated abort", "state")
	inSync()
	if out, _, code := other.Hastctl("node", "map"); code != 0 || strings.Count(out, "member") != 3 || !slices.Contains(strings.Fields(out), "charlie") {
		t.Errorf("the map: %d, %s", code, out)
	}
}

// started is when the node's vipd says that it was.
func (n *Node) started(t *testing.T) string {
	t.Helper()
	var st struct{ Started string }
	must(t, newAPI(n.VipdControl()).call("GET", "/v1/node", 5*time.Second, nil, &st))
	return st.Started
}
