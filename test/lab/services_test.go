package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fussyServices are a dependency that is only watched, and a service that notes which
// try each start is, whose stop may hang, and which may refuse to start.
const fussyServices = `
[[group.data.service]]
name     = "gate"
monitor  = ["/bin/sh", "-c", "test -e $dir/closed && exit 100; exit 110"]
interval = "1s"

[[group.data.service]]
name     = "app"
requires = ["gate"]
start    = ["/bin/sh", "-c", "echo $RESTART_COUNT >>$dir/tries; test ! -e $dir/broken && touch $app"]
stop     = ["/bin/sh", "-c", "while test -e $dir/hang; do sleep 0.2; done & echo $! >$dir/stop.pid; wait; rm -f $app"]
monitor  = ["/bin/sh", "-c", "test -e $app && exit 110; exit 100"]
interval = "1s"
stop-timeout  = "2s"
restart-limit = 2
`

// tries are the values of RESTART_COUNT since the last call.
func (n *Node) tries() string {
	b, _ := os.ReadFile(n.path("tries"))
	os.Remove(n.path("tries"))
	return strings.Join(strings.Fields(string(b)), " ")
}

func (n *Node) flag(name string, on bool) error {
	if on {
		return os.WriteFile(n.path(name), nil, 0o600)
	}
	return os.Remove(n.path(name))
}

// settled wants the group online on a node, both in sync, and the other node ready.
func settled(t *testing.T, l *Lab, want *Node) {
	t.Helper()
	must(t, want.WaitGroup("online", 20*time.Second))
	must(t, l.AwaitComplete(20*time.Second))
	must(t, l.other(want).WaitVIP("backup", 10*time.Second))
}

// TestServices is what happens to a group whose services fail, on real daemons: local
// restarts up to the limit, then a failover; a dependency that is only watched; a stop
// that hangs, which a switch ends PARTIAL for.
func TestServices(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{Group: true, Plain: true, Size: 16 << 20, Election: "vrrp", Interval: calmInterval})
	must(t, l.GroupServices(fussyServices))
	must(t, l.startGroup())
	on := owner(t, l, 20*time.Second)
	other := l.other(on)
	settled(t, l, on)
	if got := on.tries(); got != "0" {
		t.Errorf("the first start is try %q", got)
	}

	// It dies, and is started again where it is; the address stays.
	for _, want := range []string{"1", "2"} {
		must(t, os.Remove(on.App()))
		must(t, poll(10*time.Second, func() (bool, error) {
			if !on.HasAddress() {
				t.Fatalf("a restart took the address down: %s", on.VipdLog())
			}
			return on.HasApp(), nil
		}))
		must(t, on.WaitGroup("online", 10*time.Second))
		if got := on.tries(); got != want {
			t.Errorf("RESTART_COUNT is %q, want %s", got, want)
		}
	}
	// Once more is too often: the group leaves this node.
	began := time.Now()
	must(t, os.Remove(on.App()))
	must(t, other.WaitGroup("online", 20*time.Second))
	t.Logf("after its last restart: online on the other node %v after the service died", ms(time.Since(began)))
	must(t, on.WaitGroup("faulted", 5*time.Second))
	if g, _ := on.Group(); !strings.HasPrefix(g.Fault, "data/service/app: ") || on.tries() != "" {
		t.Errorf("fault %q", g.Fault)
	}
	wantAlone(t, l, other)
	// A faulted node takes nothing over: not even from one that is gone.
	must(t, other.StopVipd())
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if on.HasApp() || on.HasAddress() {
			t.Fatalf("%v, which is faulted, took the group over", on.Side)
		}
	}
	_, errs, code := on.Hastctl("clear", "app")
	if code != 0 {
		t.Fatalf("clear: status %d, %s", code, errs)
	}
	must(t, on.WaitGroup("online", 10*time.Second))
	must(t, other.StartVipd())
	settled(t, l, on)
	if got := on.tries(); got != "0" {
		t.Errorf("after it was cleared the start is try %q", got)
	}

	// What it depends on is gone: there is nothing to restart.
	must(t, on.flag("closed", true))
	must(t, other.WaitGroup("online", 20*time.Second))
	if g, _ := on.Group(); !strings.HasPrefix(g.Fault, "data/service/gate: ") {
		t.Errorf("fault %q", g.Fault)
	}
	must(t, on.flag("closed", false))
	if _, errs, code = on.Hastctl("clear", "data/service/gate"); code != 0 {
		t.Errorf("clear: status %d, %s", code, errs)
	}
	on, other = other, on
	settled(t, l, on)

	// Its stop hangs: killed at its limit with all that it started; the switch says so.
	must(t, on.flag("hang", true))
	began = time.Now()
	out, errs, code := on.Hastctl("group", "switch", GroupName)
	if code != CodeRefused || !strings.Contains(errs, "data/service/app could not be stopped: it took longer than 2 s") {
		t.Errorf("a switch whose stop hangs: status %d after %v: %s%s", code, ms(time.Since(began)), out, errs)
	}
	if g, err := on.Group(); err != nil || g.State != "partial" || !strings.Contains(g.Reason, "data/service/app") {
		t.Errorf("after a switch whose stop hangs: %v %v", g, err)
	}
	pid, err := os.ReadFile(on.path("stop.pid"))
	must(t, err)
	if stat, err := os.ReadFile(filepath.Join("/proc", strings.TrimSpace(string(pid)), "stat")); err == nil && !strings.Contains(string(stat), ") Z ") {
		t.Errorf("what the stop program started is still there: %s", stat)
	}
	if on.HasAddress() || other.HasAddress() || other.HasApp() {
		t.Errorf("address here %v, there %v, service there %v", on.HasAddress(), other.HasAddress(), other.HasApp())
	}
	must(t, on.flag("hang", false))
	began = time.Now()
	now := owner(t, l, 40*time.Second)
	t.Logf("after the stop hangs no more: online on %v after %v", now.Side, ms(time.Since(began)))
	must(t, l.AwaitComplete(20*time.Second))
	wantAlone(t, l, now)
}
