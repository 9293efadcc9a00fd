package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newVoters is two nodes and a witness with everything started, and no group: a person
// says who is primary.
func newVoters(t *testing.T) *Lab {
	t.Helper()
	l := newLab(t, Options{LAN: true, Majority: true, Witness: true, Plain: true, Size: 16 << 20})
	must(t, l.CreateAndStart("--assume-clean"))
	for _, n := range l.Nodes {
		must(t, n.StartVipd())
	}
	must(t, l.StartWitness())
	// Of two new replicas one owns; the other is in sync once that was promoted.
	alpha := l.Nodes[Alpha]
	_, err := alpha.WaitCluster("an owner", 30*time.Second, func(c Cluster) bool { owner, _ := c.Owner(); return owner == "alpha" })
	must(t, err)
	for _, role := range []string{"primary", "secondary"} {
		if out, errs, code := alpha.Hastctl("role", role, Resource); code != 0 {
			t.Fatalf("role %s: status %d: %s%s", role, code, out, errs)
		}
		if role == "primary" {
			for _, n := range l.Nodes {
				_, err := n.WaitCluster("an owner and two replicas in sync", 30*time.Second, bothInSync)
				must(t, err)
			}
		}
	}
	return l
}

// TestClusterStatus reads what people are told of the cluster: whole, and with a node
// cut off.
func TestClusterStatus(t *testing.T) {
	t.Parallel()
	l := newVoters(t)
	out, errs, code := l.Nodes[Alpha].Hastctl("cluster", "status")
	t.Log("\n" + out)
	for _, want := range []string{"quorum majority", "generation  0.", "leader      alpha", "3 of 3 members heard, 2 needed: quorum", "link 0 up", "charlie (witness)", "alpha bravo"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("status %d, %q is missing: %s%s", code, want, out, errs)
		}
	}
	must(t, l.Cut(Bravo, CutBoth))
	c, err := l.Nodes[Alpha].WaitCluster("bravo excluded", 20*time.Second, func(c Cluster) bool { return c.State("bravo") == "excluded" })
	must(t, err)
	if owner, in := c.Owner(); owner != "alpha" || len(in) != 1 || !c.Votes.Quorate || c.Votes.TieBreak != "alpha" || !strings.Contains(c.Decision.What, "excluded: bravo") {
		t.Errorf("%+v", c)
	}
	_, err = l.Nodes[Bravo].WaitCluster("that it waits", 20*time.Second, func(c Cluster) bool {
		return !c.Votes.Quorate && c.Votes.Heard == 1 && strings.Contains(c.Waits, "alpha bravo charlie") && c.LeaseLeftMS == 0
	})
	must(t, err)
	out, _, _ = l.Nodes[Bravo].Hastctl("cluster", "status")
	t.Log("\n" + out)
}

// TestPromotionAsksForAView: with votes a promotion is a view that names the node.
func TestPromotionAsksForAView(t *testing.T) {
	t.Parallel()
	l := newVoters(t)
	alpha, bravo := l.Nodes[Alpha], l.Nodes[Bravo]
	ok := func(n *Node, args ...string) {
		t.Helper()
		if out, errs, code := n.Hastctl(args...); code != 0 {
			t.Fatalf("%v: hastctl %v: status %d: %s%s\n%s", n.Side, args, code, out, errs, l.Tails(5))
		}
	}
	not := func(want int, word, hint string, n *Node, args ...string) {
		t.Helper()
		out, errs, code := n.Hastctl(args...)
		if code != want || !strings.Contains(errs, word) || !strings.Contains(errs, "hint: ") || !strings.Contains(errs, hint) {
			t.Fatalf("%v: hastctl %v: status %d, want %d and %q: %s%s\n%s", n.Side, args, code, want, word, out, errs, l.Tails(5))
		}
	}
	settled := func(n *Node) { // a first promotion compares the replicas once more
		t.Helper()
		must(t, l.AwaitComplete(20*time.Second))
		_, err := n.WaitCluster("both replicas in sync", 20*time.Second, bothInSync)
		must(t, err)
	}
	ok(alpha, "role", "primary", Resource)
	settled(bravo)
	not(CodeRefused, "it is primary on node alpha", "hastctl", bravo, "role", "primary", Resource)
	not(CodeRefused, "it is primary on node alpha", "hastctl node stop", bravo, "role", "primary", Resource, "--force")
	settled(bravo)
	ok(alpha, "role", "secondary", Resource)
	ok(bravo, "role", "primary", Resource)
	c, err := bravo.Cluster()
	must(t, err)
	if owner, _ := c.Owner(); owner != "bravo" {
		t.Errorf("promoted without a view: %+v", c)
	}
	settled(bravo)

	// Without vipd nobody is asked.
	must(t, alpha.KillVipd())
	not(69, "vipd is not running", "start vipd", alpha, "role", "primary", Resource)

	// Bravo goes on without alpha's replica, and loses its own storage daemon then: alpha
	// is behind.
	must(t, alpha.Kill())
	_, err = bravo.WaitCluster("alpha out of sync", 20*time.Second, func(c Cluster) bool {
		_, in := c.Owner()
		return len(in) == 1 && in[0] == "bravo"
	})
	must(t, err)
	must(t, bravo.Kill())
	must(t, alpha.Start())
	must(t, alpha.StartVipd())
	_, err = alpha.WaitCluster("that it is a member", 30*time.Second, func(c Cluster) bool { return c.Joined && c.Votes.Quorate })
	must(t, err)
	not(CodeRefused, "is not in sync", "cluster status", alpha, "role", "primary", Resource)
	ok(alpha, "role", "primary", Resource, "--force")
	c, err = alpha.Cluster()
	must(t, err)
	if owner, in := c.Owner(); owner != "alpha" || len(in) != 1 {
		t.Errorf("by force: %+v", c)
	}
}

// TestReplacedDisk is what docs/failover.md says of a disk that is replaced, in a cluster
// of two with votes, on the node that leads and serves: the empty replica is not taken
// for the one that was in sync.
func TestReplacedDisk(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{LAN: true, Majority: true, Plain: true, Size: 16 << 20})
	must(t, l.CreateAndStart("--assume-clean"))
	for _, n := range l.Nodes {
		must(t, n.StartVipd())
	}
	alpha, bravo := l.Nodes[Alpha], l.Nodes[Bravo]
	ok := func(n *Node, args ...string) string {
		t.Helper()
		out, errs, code := n.Hastctl(args...)
		if code != 0 {
			t.Fatalf("%v: hastctl %v: status %d: %s%s\n%s", n.Side, args, code, out, errs, l.Tails(5))
		}
		return out
	}
	settled := func(n *Node) {
		t.Helper()
		must(t, l.AwaitComplete(20*time.Second))
		_, err := n.WaitCluster("both replicas in sync", 20*time.Second, bothInSync)
		must(t, err)
	}
	_, err := alpha.WaitCluster("an owner", 30*time.Second, func(c Cluster) bool { owner, _ := c.Owner(); return owner == "alpha" })
	must(t, err)
	ok(alpha, "role", "primary", Resource)
	settled(bravo)

	ok(alpha, "node", "stop")
	must(t, alpha.StopVipd())
	must(t, alpha.Stop())
	ok(bravo, "role", "primary", Resource) // alone: it holds all that was acknowledged
	must(t, os.Truncate(alpha.Local(), 0))
	must(t, os.Truncate(alpha.Local(), 32<<20))
	view := filepath.Join(alpha.Dir(), "state", "view")
	if out := ok(alpha, "create", Resource); !strings.Contains(out, "remove "+view) {
		t.Errorf("create does not say that the view has to go:\n%s", out)
	}
	must(t, os.Remove(view))
	must(t, alpha.Start())
	must(t, alpha.StartVipd())
	must(t, alpha.Role("secondary", false))
	settled(bravo)
	ok(bravo, "role", "secondary", Resource)
	ok(alpha, "role", "primary", Resource)
	settled(bravo)
}
