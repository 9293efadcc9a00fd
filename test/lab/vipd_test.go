package lab

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// newGroupLab is a lab with both daemons on both nodes.
func newGroupLab(t *testing.T, election string) *Lab {
	t.Helper()
	l := newLab(t, Options{Group: true, Election: election, Interval: calmInterval, Plain: true, Size: 16 << 20, StartAs: "init"})
	must(t, l.CreateAndStart("--assume-clean"))
	for _, n := range l.Nodes {
		must(t, n.StartVipd())
	}
	return l
}

// owner waits until the group is online on one node and offline on the other, and
// gives that node.
func owner(t *testing.T, l *Lab, limit time.Duration) *Node {
	t.Helper()
	on, err := l.owner(limit)
	must(t, err)
	return on
}

// wantAlone wants everything of the group on n and nothing of it on the other.
func wantAlone(t *testing.T, l *Lab, n *Node) {
	t.Helper()
	o := l.other(n)
	if !n.HasAddress() || !n.HasApp() {
		t.Errorf("%v: address %v, service %v", n.Side, n.HasAddress(), n.HasApp())
	}
	if o.HasAddress() || o.HasApp() {
		t.Errorf("%v has none of it: address %v, service %v", o.Side, o.HasAddress(), o.HasApp())
	}
	if s, err := n.Status(); err != nil || s.Role != "primary" {
		t.Errorf("%v: %v %v", n.Side, s, err)
	}
}

// TestGroupFailsOver is the life of a group on real daemons: first election, a
// switch by hand, a controller that is started again, the death of both daemons of
// the master, an orderly end.
func TestGroupFailsOver(t *testing.T) {
	t.Parallel()
	l := newGroupLab(t, "carp")
	on := owner(t, l, 20*time.Second)
	if on.Side != Alpha {
		t.Errorf("the first election was won by %v, which is not the first of the nodes", on.Side)
	}
	wantAlone(t, l, on)

	// By hand to the other node.
	other := l.other(on)
	must(t, l.AwaitComplete(20*time.Second))
	must(t, poll(10*time.Second, func() (bool, error) { // it asks its hastd four times a second
		g, err := other.Group()
		return g.Online == on.Side.String(), err
	}))
	_, errs, code := other.Hastctl("group", "switch", GroupName)
	if code != CodeRefused || !strings.Contains(errs, on.Side.String()) {
		t.Errorf("a switch ordered on the wrong node: status %d, %s", code, errs)
	}
	began := time.Now()
	out, errs, code := on.Hastctl("group", "switch", GroupName)
	if code != 0 {
		t.Fatalf("group switch: status %d: %s%s", code, out, errs)
	}
	must(t, poll(10*time.Second, func() (bool, error) { return other.HasAddress(), nil }))
	t.Logf("switched by hand: the address was on the other node after %v", time.Since(began).Round(time.Millisecond))
	on, other = owner(t, l, 10*time.Second), on
	wantAlone(t, l, on)
	if on == other {
		t.Fatal("the group did not move")
	}

	// The controller dies and is back at once: nothing happens to the group.
	must(t, on.KillVipd())
	must(t, on.StartVipd())
	deadline := time.Now().Add(6 * time.Second)
	for time.Now().Before(deadline) {
		if !on.HasApp() || other.HasApp() || other.HasAddress() {
			t.Fatalf("the group was harmed by a controller that was started again: service %v, on the other node %v, address there %v", on.HasApp(), other.HasApp(), other.HasAddress())
		}
		time.Sleep(50 * time.Millisecond)
	}
	if on = owner(t, l, 10*time.Second); on == other {
		t.Fatal("the group moved")
	}
	wantAlone(t, l, on)

	// Both daemons of the master die, the machine lives.
	must(t, on.KillVipd())
	must(t, on.Kill())
	began = time.Now()
	must(t, other.WaitGroup("online", 20*time.Second))
	t.Logf("both daemons killed: online on the other node after %v", time.Since(began).Round(time.Millisecond))
	must(t, poll(5*time.Second, func() (bool, error) { return !on.HasAddress(), nil }))
	if !other.HasAddress() {
		t.Error("the address is not on the survivor")
	}

	// They come back: what was left is taken down, nothing stale goes up.
	must(t, on.Start())
	must(t, on.StartVipd())
	must(t, poll(20*time.Second, func() (bool, error) { return !on.HasApp(), nil }))
	must(t, l.AwaitComplete(30*time.Second))
	if now := owner(t, l, 10*time.Second); now != other {
		t.Fatal("the group moved to the one that came back")
	}
	wantAlone(t, l, other)

	// An orderly end hands the group over.
	must(t, other.StopVipd())
	if other.HasAddress() || other.HasApp() {
		t.Error("vipd ended and left something behind")
	}
	must(t, on.WaitGroup("online", 10*time.Second))
	for _, n := range l.Nodes {
		if s, _ := n.Status(); s.Connection == "split-brain" || s.Status == "split-brain" {
			t.Errorf("%v: %v", n.Side, s)
		}
	}
}

// TestGroupsBootTogetherOverAFlappingLink: bravo went down first, alpha wrote alone
// and lost its power. Both come back at once while the link comes and goes: each may
// be elected for an instant, what bravo has is never served, and nothing splits.
func TestGroupsBootTogetherOverAFlappingLink(t *testing.T) {
	t.Parallel()
	l := newGroupLab(t, "carp")
	alpha, bravo := l.Nodes[0], l.Nodes[1]
	if on := owner(t, l, 20*time.Second); on != alpha {
		t.Fatalf("the first election was won by %v", on.Side)
	}
	must(t, bravo.KillVipd())
	must(t, bravo.Kill())
	_, err := alpha.Wait(20*time.Second, "the loss of bravo", func(s Status) bool { return s.Connection != "connected" })
	must(t, err)
	text := []byte(strings.Repeat("written alone. ", 4096/15+1)[:4096])
	c, err := alpha.NBD(background(t))
	must(t, err)
	_, err = c.WriteAt(text, 0)
	must(t, errors.Join(err, c.Flush()))
	c.Close()
	must(t, alpha.KillVipd())
	must(t, alpha.Kill())

	must(t, l.Cut(Alpha, CutBoth))
	for _, n := range l.Nodes {
		must(t, n.Start())
		must(t, n.StartVipd())
	}
	const short, long = 800 * time.Millisecond, 4 * time.Second // in the long one both are elected
	for _, cut := range []time.Duration{short, short, long, short, short} {
		time.Sleep(cut)
		must(t, l.Heal())
		time.Sleep(150 * time.Millisecond)
		must(t, l.Cut(Alpha, CutBoth))
		s, err := bravo.Status()
		must(t, err)
		if s.Role != "primary" {
			continue
		}
		// It was elected while alpha answered, whose data it serves: its own never.
		got := served(t, bravo, len(text))
		if got != nil && !bytes.Equal(got, text) {
			t.Fatalf("bravo, which is stale (%v), serves %.30q", s, got)
		}
		t.Logf("bravo is elected, and serves %.30q", got)
	}
	must(t, l.Heal())
	on := owner(t, l, 40*time.Second)
	must(t, l.AwaitComplete(30*time.Second))
	wantAlone(t, l, on)
	c, err = on.NBD(background(t))
	must(t, err)
	defer c.Close()
	got := make([]byte, len(text))
	_, err = c.ReadAt(got, 0)
	must(t, err)
	if string(got) != string(text) {
		t.Errorf("%v serves what it had before alpha wrote alone: %.30q", on.Side, got)
	}
	for _, n := range l.Nodes {
		if s, _ := n.Status(); s.Connection == "split-brain" || s.Status == "split-brain" {
			t.Errorf("%v: %v", n.Side, s)
		}
		t.Logf("%v was elected %d times", n.Side, strings.Count(n.VipdLog(), "-> MASTER"))
	}
}

// served is what the first bytes of n's device are, or nil if no answer comes at once.
func served(t *testing.T, n *Node, size int) []byte {
	t.Helper()
	const patience = 300 * time.Millisecond
	ctx, cancel := context.WithTimeout(background(t), patience)
	defer cancel()
	c, err := n.NBD(ctx)
	if err != nil {
		return nil
	}
	defer time.AfterFunc(patience, c.Abort).Stop()
	p := make([]byte, size)
	_, err = c.ReadAt(p, 0)
	c.Abort()
	if err != nil {
		return nil
	}
	return p
}

// TestGroupLeavesAStorageThatFails: only hastd of the master hangs, later dies. Its
// group goes to the other node, and the storage that comes back follows it.
func TestGroupLeavesAStorageThatFails(t *testing.T) {
	t.Parallel()
	l := newGroupLab(t, "vrrp")
	on := owner(t, l, 20*time.Second)
	settle := func(from *Node, began time.Time, what string) *Node {
		t.Helper()
		to := l.other(from)
		must(t, to.WaitGroup("online", 30*time.Second))
		t.Logf("hastd of the master %s: online on the other node after %v", what, time.Since(began).Round(time.Millisecond))
		if from.HasAddress() || from.HasApp() {
			t.Errorf("%v: address %v, service %v", from.Side, from.HasAddress(), from.HasApp())
		}
		return to
	}
	heal := func(want *Node) {
		t.Helper()
		must(t, l.AwaitComplete(40*time.Second))
		if now := owner(t, l, 40*time.Second); now != want {
			t.Errorf("the group moved to %v", now.Side)
		}
		wantAlone(t, l, want)
	}
	must(t, on.Freeze())
	began := time.Now()
	to := settle(on, began, "hangs")
	if d := time.Since(began); d < 4*time.Second {
		t.Errorf("a hastd that hangs has 5 s by default, and lost the group after %v", d)
	}
	// It was killed, and its supervisor starts another one.
	must(t, poll(10*time.Second, func() (bool, error) { return !on.Alive(), nil }))
	must(t, on.gone())
	must(t, on.Start())
	heal(to)

	must(t, to.Kill())
	began = time.Now()
	back := settle(to, began, "dies")
	must(t, to.Start())
	heal(back)
}
