package lab

import (
	"testing"
	"time"
)

// TestGroupWithoutAddresses is a group of a role and a service alone: the election
// goes over the interface's own addresses, and the group moves as any other.
func TestGroupWithoutAddresses(t *testing.T) {
	t.Parallel()
	for _, election := range []string{"carp", "vrrp"} {
		t.Run(election, func(t *testing.T) {
			l := newLab(t, Options{Group: true, Bare: true, LAN: true, Plain: true, Size: 16 << 20, Election: election, Interval: calmInterval})
			must(t, l.startGroup())
			on := owner(t, l, downLimit)
			must(t, l.AwaitComplete(syncLimit))
			settled := func(want *Node, what string, began time.Time) {
				t.Helper()
				must(t, want.WaitGroup("online", downLimit))
				t.Logf("%s: online on %v after %v", what, want.Side, ms(time.Since(began)))
				if s, err := want.Status(); err != nil || s.Role != "primary" || !want.HasApp() {
					t.Errorf("%v %v, service %v", s, err, want.HasApp())
				}
			}
			began := time.Now()
			if out, errs, code := on.Hastctl("group", "switch", GroupName); code != 0 {
				t.Fatalf("group switch: status %d: %s%s", code, out, errs)
			}
			on = l.other(on)
			settled(on, "switched by hand", began)
			must(t, l.AwaitComplete(syncLimit))
			if now := owner(t, l, downLimit); now != on {
				t.Fatalf("the group moved to %v", now.Side)
			}
			began = time.Now()
			must(t, on.KillBoth())
			settled(l.other(on), "both daemons killed", began)
		})
	}
}
