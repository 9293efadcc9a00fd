package lab

import (
	"testing"
)

// TestSwitchRightAfterResync orders a switch the moment the replicas are in sync again:
// what the controller saw last of them is a moment old.
func TestSwitchRightAfterResync(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{Group: true, Election: "vrrp", Interval: calmInterval, Plain: true, Size: 16 << 20})
	must(t, l.startGroup())
	on := owner(t, l, downLimit)
	must(t, l.AwaitComplete(syncLimit))
	for range 3 {
		other := l.other(on)
		must(t, other.WaitVIP("backup", downLimit))
		must(t, other.Kill())
		_, err := on.Wait(downLimit, "the loss of its peer", func(s Status) bool { return s.Connection != "connected" })
		must(t, err)
		must(t, other.Start())
		must(t, l.AwaitComplete(syncLimit))
		if out, errs, code := on.Hastctl("group", "switch", GroupName); code != 0 {
			t.Fatalf("group switch: status %d: %s%s", code, out, errs)
		}
		must(t, other.WaitGroup("online", downLimit))
		must(t, l.AwaitComplete(syncLimit))
		if on = owner(t, l, downLimit); on != other {
			t.Fatalf("the group is on %v", on.Side)
		}
	}
}
