package lab

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestReinit gives a running pair a witness, and takes it away again, without anything of
// the group going down.
func TestReinit(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{Group: true, LAN: true, Plain: true, Size: 16 << 20, Majority: true})
	must(t, l.startGroup())
	on, err := l.owner(20 * time.Second)
	must(t, err)
	must(t, l.awaitInSync(20*time.Second))
	begun, err := os.Stat(on.App())
	must(t, err)
	write := func(witness bool) {
		t.Helper()
		l.o.Witness = witness
		for _, n := range l.Nodes {
			must(t, l.WriteConfig(n))
		}
	}
	not := func(n *Node, want int, word string) {
		t.Helper()
		out, errs, code := n.Hastctl("node", "reinit")
		if code != want || !strings.Contains(errs, word) || !strings.Contains(errs, "hint: ") {
			t.Fatalf("status %d, want %d and %q: %s%s", code, want, word, out, errs)
		}
	}
	reinit := func(n *Node) {
		t.Helper()
		if out, errs, code := n.Hastctl("node", "reinit"); code != 0 || !strings.Contains(out, "state: running") {
			t.Fatalf("%v: status %d: %s%s\n%s", n.Side, code, out, errs, l.Tails(20))
		}
		if g, err := on.Group(); err != nil || g.State != "online" || !on.HasAddress() {
			t.Fatalf("the group did not stay: %v %v", g, err)
		}
	}

	not(on, 77, "are those that run")
	write(true)
	was, err := os.ReadFile(on.Config())
	must(t, err)
	must(t, os.WriteFile(on.Config(), append(was, "[nonsense"...), 0o600))
	not(on, 78, "not TOML")
	must(t, os.WriteFile(on.Config(), []byte(strings.Replace(string(was), `monitor  = ["/bin/sh"`, `monitor  = ["/bin/dash"`, 1)), 0o600))
	not(on, 77, "group.data.service.app.monitor")
	must(t, os.WriteFile(on.Config(), was, 0o600))

	for _, n := range l.Nodes {
		reinit(n)
	}
	must(t, l.StartWitness())
	three := func(c Cluster) bool { return c.State("charlie") == "member" && c.Votes.Members == 3 && c.Votes.Quorate }
	for _, n := range l.Nodes {
		_, err := n.WaitCluster("three members", 20*time.Second, three)
		must(t, err)
	}

	write(false)
	not(on, 77, "still a member and heard")
	must(t, l.KillWitness())
	for _, n := range l.Nodes {
		_, err := n.WaitCluster("two members", 20*time.Second, func(c Cluster) bool { return c.Votes.Members == 2 })
		must(t, err)
	}
	for _, n := range l.Nodes {
		reinit(n)
		_, err := n.WaitCluster("two nodes", 10*time.Second, func(c Cluster) bool { return len(c.Nodes) == 2 && c.Votes.Quorate })
		must(t, err)
	}
	now, err := os.Stat(on.App())
	if err != nil || !now.ModTime().Equal(begun.ModTime()) {
		t.Errorf("the service was started again: %v", err)
	}
}
