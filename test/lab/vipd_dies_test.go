package lab

import (
	"testing"
	"time"
)

// TestVipdDies: the controller of the master is killed and nobody starts it again. Its
// address goes with its lifetime; storage and service stay, and keep the other node
// from being promoted, until the next controller takes them down.
func TestVipdDies(t *testing.T) {
	l := newLab(t, Options{Group: true, LAN: true, Plain: true, Size: 16 << 20, Election: "vrrp"})
	must(t, l.startGroup())
	on := owner(t, l, downLimit)
	must(t, l.AwaitComplete(syncLimit))
	c, err := NewClient(l, l.o.Service)
	must(t, err)
	defer c.Close()
	must(t, c.Watch(l))
	_, err = c.served(on.Side, time.Now())
	must(t, err)

	other := l.other(on)
	began := time.Now()
	must(t, on.KillVipd())
	must(t, c.addressGone(l, on, began))
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if s, err := on.Status(); err != nil || s.Role != "primary" || !on.HasApp() {
			t.Fatalf("%v, whose vipd is dead: %v %v, service %v", on.Side, s, err, on.HasApp())
		}
		if s, err := other.Status(); err != nil || s.Role != "secondary" || other.HasApp() {
			t.Fatalf("%v, beside a primary: %v %v, service %v", other.Side, s, err, other.HasApp())
		}
	}

	// Another is master by now: the next controller cleans up.
	must(t, on.StartVipd())
	if now := owner(t, l, downLimit); now != other {
		t.Errorf("the group is on %v, whose vipd was dead for longer than a master may be silent", now.Side)
	}
	wantAlone(t, l, other)
	must(t, l.AwaitComplete(syncLimit))
	seen := c.Seen()
	if o := seen.Overlap(); o > l.lifetime(on.Side)+beyond() {
		t.Errorf("two cards answered for %v", o)
	}
	t.Logf("two cards answered for the address for %v", ms(seen.Overlap()))
}
