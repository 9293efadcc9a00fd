package lab

import (
	"testing"
	"time"
)

// newMajority is a lab of two nodes and a witness with everything started, and the group
// online on one of them.
func newMajority(t *testing.T, o Options) (*Lab, *Node) {
	t.Helper()
	o.Group, o.LAN, o.Majority, o.Witness = true, true, true, true
	l := newLab(t, o)
	began := time.Now()
	must(t, l.startGroup())
	on := owner(t, l, downLimit)
	t.Logf("online on %v after %v", on.Side, time.Since(began))
	must(t, l.AwaitComplete(syncLimit))
	return l, on
}

// TestMajorityFailovers is TestFailovers where the cluster's view decides.
func TestMajorityFailovers(t *testing.T) {
	runFailovers(t, Options{Majority: true, Witness: true})
}
