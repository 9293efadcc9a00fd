package lab

import (
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
	for _, n := range l.Nodes {
		_, err := n.WaitCluster("an owner and two replicas in sync", 30*time.Second, bothInSync)
		must(t, err)
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
