package lab

import (
	"errors"
	"os"
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

	// A member whose replica cannot be used says so.
	says := func(want string) {
		t.Helper()
		must(t, poll(downLimit, func() (bool, error) {
			out, _, _ := other.Hastctl("node", "state")
			if !strings.Contains(out, "state: running") || !strings.Contains(out, want) {
				return false, errors.New(out)
			}
			return true, nil
		}))
	}
	must(t, other.Kill())
	says("reason: daemon not running")
	must(t, os.Rename(other.Local(), other.Local()+".away"))
	must(t, other.Start())
	says("reason: cannot find disk (resource data: there is no " + other.Local())
	must(t, os.WriteFile(other.Local(), make([]byte, 1<<20), 0o600))
	says("reason: cluster device open failed (resource data: ")
	must(t, os.Rename(other.Local()+".away", other.Local()))
	says("reason: -")
	inSync()
}

// started is when the node's vipd says that it was.
func (n *Node) started(t *testing.T) string {
	t.Helper()
	var st struct{ Started string }
	must(t, newAPI(n.VipdControl()).call("GET", "/v1/node", 5*time.Second, nil, &st))
	return st.Started
}

// TestOthersAreDown: of two nodes the leader dies, and a person says so on the other one.
// What had the leader's part follows when it is back.
func TestOthersAreDown(t *testing.T) {
	beside(t)
	l := newLab(t, Options{Majority: true, Group: true, LAN: true, Plain: true, Size: 16 << 20, Election: "vrrp", Interval: calmInterval})
	must(t, l.startGroup())
	a, b := l.Nodes[Alpha], l.Nodes[Bravo]
	if on := owner(t, l, downLimit); on != a {
		t.Fatalf("the first of the nodes is not owner, but %v", on.Side)
	}
	must(t, l.AwaitComplete(syncLimit))
	must(t, l.awaitInSync(syncLimit))
	must(t, a.KillBoth())
	hastctl := func(n *Node, want string, args ...string) string {
		t.Helper()
		out, errs, code := n.Hastctl(args...)
		if code != 0 || !strings.Contains(out, want) {
			t.Fatalf("%v: hastctl %v: status %d, want %q: %s%s", n.Side, args, code, want, out, errs)
		}
		return out
	}
	_, err := b.WaitCluster("that it waits", downLimit, func(c Cluster) bool { return !c.Votes.Quorate && c.Waits != "" })
	must(t, err)
	t.Log(hastctl(b, "reason: lost quorum", "node", "state"))
	t.Log(hastctl(b, "1 of 2 members heard, 2 needed, or 1 with alpha: no quorum", "cluster", "status"))
	if g, err := b.Group(); err != nil || g.State != "offline" {
		t.Errorf("it serves before anybody said so: %v %v", g, err)
	}
	if _, errs, code := b.Hastctl("node", "start", "--others-are-down"); code != 64 || !strings.Contains(errs, "--yes") {
		t.Errorf("nobody was asked: status %d, %s", code, errs)
	}
	hastctl(b, "state: running", "node", "start", "--others-are-down", "--yes")
	must(t, b.WaitGroup("online", downLimit))
	t.Log(hastctl(b, "(others-are-down)", "cluster", "status"))

	// The one that was down joins what was begun without it.
	must(t, a.Start())
	must(t, a.StartVipd())
	c, err := a.WaitCluster("the same era", downLimit, func(c Cluster) bool { return c.Joined && c.Era.By == "bravo" })
	must(t, err)
	if owner, _ := c.Owner(); owner != "bravo" || c.Era.How != "others-are-down" || c.Era.Who == "" {
		t.Errorf("%+v", c)
	}
	must(t, l.AwaitComplete(syncLimit))
	wantAlone(t, l, b)
}

// TestClusterIsBegunWithOneNode: the other one cannot be had yet. A person begins without
// it, and says that the replica here is the good one; the other follows when it is there.
func TestClusterIsBegunWithOneNode(t *testing.T) {
	beside(t)
	l := newLab(t, Options{Majority: true, Group: true, LAN: true, Plain: true, Size: 16 << 20, Election: "vrrp", Interval: calmInterval})
	a, b := l.Nodes[Alpha], l.Nodes[Bravo]
	must(t, a.Create())
	must(t, a.Start())
	must(t, a.StartVipd())
	hastctl := func(want int, said string, args ...string) {
		t.Helper()
		out, errs, code := a.Hastctl(args...)
		if code != want || !strings.Contains(out+errs, said) {
			t.Fatalf("hastctl %v: status %d, want %d and %q: %s%s\n%s", args, code, want, said, out, errs, l.Tails(5))
		}
	}
	hastctl(0, "state: running", "node", "start", "--bootstrap", "--yes")
	hastctl(CodeRefused, "hastctl role primary "+Resource+" --force", "role", "primary", Resource)
	hastctl(0, "", "role", "primary", Resource, "--force")
	must(t, a.WaitGroup("online", downLimit))

	must(t, b.Create())
	must(t, b.Start())
	must(t, b.StartVipd())
	must(t, l.AwaitComplete(syncLimit))
	must(t, l.awaitInSync(syncLimit))
	wantAlone(t, l, a)
}

// TestOnlyReplicaIsBehind: the node that had the newest data is lost for good. The other
// one begins anew with the witness by a person's word, and serves what it has by another.
func TestOnlyReplicaIsBehind(t *testing.T) {
	beside(t)
	l := newLab(t, Options{Majority: true, Witness: true, Group: true, LAN: true, Plain: true, Size: 16 << 20, Election: "vrrp", Interval: calmInterval})
	must(t, l.startGroup())
	a, b := l.Nodes[Alpha], l.Nodes[Bravo]
	if on := owner(t, l, downLimit); on != a {
		t.Fatalf("the first of the nodes is not owner, but %v", on.Side)
	}
	must(t, l.AwaitComplete(syncLimit))
	must(t, l.awaitInSync(syncLimit))
	must(t, b.KillBoth())
	_, err := a.WaitCluster("bravo out", downLimit, func(c Cluster) bool {
		_, in := c.Owner()
		return c.State("bravo") == "excluded" && len(in) == 1
	})
	must(t, err)
	must(t, a.KillBoth())
	must(t, b.Start())
	must(t, b.StartVipd())
	_, err = b.WaitCluster("that it waits", downLimit, func(c Cluster) bool { return !c.Joined && strings.Contains(c.Waits, "does not name this node") })
	must(t, err)
	out, errs, code := b.Hastctl("node", "start", "--others-are-down", "--yes")
	if code != 0 {
		t.Fatalf("node start: status %d: %s%s\n%s", code, out, errs, l.Tails(5))
	}
	c, err := b.Cluster()
	must(t, err)
	if owner, in := c.Owner(); owner != "" || !slices.Equal(in, []string{"alpha"}) {
		t.Errorf("%+v", c)
	}
	if _, errs, code := b.Hastctl("role", "primary", Resource); code != CodeRefused {
		t.Errorf("without force: status %d, %s", code, errs)
	}
	out, errs, code = b.Hastctl("role", "primary", Resource, "--force")
	if code != 0 {
		t.Errorf("role primary --force: status %d: %s%s", code, out, errs)
	}
	must(t, b.WaitGroup("online", downLimit))
	if s, err := b.Status(); err != nil || s.Role != "primary" || !b.HasAddress() || !b.HasApp() {
		t.Errorf("%v %v, address %v, service %v", s, err, b.HasAddress(), b.HasApp())
	}
}
