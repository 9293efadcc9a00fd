package lab

import (
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestGroupWithoutResources has the votes decide about a group that stores nothing: an
// address and a service, which a cut node gives up before the other one has them.
func TestGroupWithoutResources(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{Group: true, LAN: true, Plain: true, Size: 16 << 20, Majority: true, Witness: true})
	must(t, l.rewrite(func(_ *Node, conf string) string {
		return strings.Replace(conf, `resources   = ["data"]`, `resources   = []`, 1)
	}))
	must(t, l.startGroup())
	on, err := l.owner(20 * time.Second)
	must(t, err)
	off := l.other(on)
	both := func(c Cluster) bool { owner, in := c.Claim(); return owner == on.Side.String() && len(in) == 2 }
	for _, n := range l.Nodes {
		_, err := n.WaitCluster("an owner of the group, and two in sync", 10*time.Second, both)
		must(t, err)
	}

	// A cut: at no instant both have the address, and the service.
	must(t, l.Cut(on.Side, CutBoth))
	err = poll(20*time.Second, func() (bool, error) {
		if address, app := off.HasAddress() && on.HasAddress(), off.HasApp() && on.HasApp(); address || app {
			t.Fatalf("both have it: address %v, service %v", address, app)
		}
		g, err := off.Group()
		return err == nil && g.State == "online" && off.HasAddress(), err
	})
	must(t, err)
	must(t, on.WaitGroup("offline", 10*time.Second))
	if on.HasAddress() || on.HasApp() {
		t.Error("the node that was cut off did not give up what it had")
	}

	// Healed it stays where it is, until somebody switches it; and who heard of the other
	// node last is told.
	lan := l.net.(*LAN)
	was, err := lan.cardOf(on.Side)
	must(t, err)
	is, err := lan.cardOf(off.Side)
	must(t, err)
	time.Sleep(6 * time.Second) // a takeover is announced for five
	must(t, run("", inside(lan.client, "ip", "neigh", "replace", l.o.Service, "lladdr", was, "dev", linkName, "nud", "stale")...))
	must(t, l.Heal())
	err = poll(10*time.Second, func() (bool, error) {
		argv := inside(lan.client, "ip", "neigh", "show", "to", l.o.Service)
		out, err := exec.Command(argv[0], argv[1:]...).Output()
		return strings.Contains(string(out), is), err
	})
	if err != nil {
		t.Errorf("the address was not announced after the heal: %v", err)
	}
	_, err = on.WaitCluster("it is a member and in sync again", 30*time.Second, func(c Cluster) bool { owner, in := c.Claim(); return owner == off.Side.String() && len(in) == 2 })
	must(t, err)
	if now, err := l.owner(5 * time.Second); err != nil || now != off {
		t.Fatalf("it does not stay: %v", err)
	}
	if out, errs, code := off.Hastctl("group", "switch", GroupName); code != 0 {
		t.Fatalf("switch: status %d: %s%s", code, out, errs)
	}
	if now, err := l.owner(10 * time.Second); err != nil || now != on {
		t.Fatalf("it was not switched: %v", err)
	}
}
