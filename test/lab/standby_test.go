package lab

import (
	"cmp"
	"errors"
	"os"
	"testing"
	"time"
)

// busyMove is what a machine that does other things may take in addition to a move.
const busyMove = 2 * time.Second

// TestStandbyInterface pulls the cable of the interface that has the address: it moves
// to the next one within a second, the storage stays primary and connected, and no
// other node takes over. With the cable back the address goes back; with both cables
// gone the group moves. LAB_ELECTION=carp does it with CARP.
func TestStandbyInterface(t *testing.T) {
	election := cmp.Or(os.Getenv("LAB_ELECTION"), "vrrp")
	l := newLab(t, Options{Group: true, LAN: true, Standby: true, Plain: true, Size: 16 << 20, Election: election})
	lan := l.net.(*LAN)
	must(t, l.startGroup())
	on := owner(t, l, downLimit)
	other := l.other(on)
	must(t, l.AwaitComplete(syncLimit))
	c, err := NewClient(l, l.o.Service)
	must(t, err)
	defer c.Close()
	_, err = c.served(on.Side, time.Now())
	must(t, err)
	must(t, other.WaitVIP("backup", downLimit))
	if where := on.where(l.o.Service); where != linkName {
		t.Fatalf("the address is on %q first", where)
	}
	role, err := on.Status()
	must(t, err)

	limit := time.Second
	if !strict() {
		limit += busyMove
	}
	move := func(plug bool, to string) {
		t.Helper()
		c.Begin()
		began := time.Now()
		must(t, lan.Plug(on.Side, plug))
		must(t, poll(downLimit, func() (bool, error) { return on.where(l.o.Service) == to, nil }))
		moved := time.Since(began)
		first, err := c.served(on.Side, began.Add(moved))
		must(t, err)
		t.Logf("%s: cable in %v: the address is on %s after %v, the client is answered after %v, its longest time without an answer is %v",
			election, plug, to, ms(moved), ms(first.Sub(began)), ms(c.pause()))
		if moved > limit || c.pause() > limit {
			t.Errorf("more than %v", limit)
		}
	}
	// still wants nothing else to have happened, for longer than an election takes.
	still := func() {
		t.Helper()
		for end := time.Now().Add(l.masterDown(Bravo) + time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			s, err := on.Status()
			v, errV := other.VIP()
			g, errG := on.Group()
			must(t, errors.Join(err, errV, errG))
			if s.Role != "primary" || s.Connection != "connected" || s.Epoch != role.Epoch || v.State != "backup" || g.State != "online" || other.HasAddress() || other.HasApp() {
				t.Fatalf("%v: %v, group %v; the other's election: %v, address %v, service %v", on.Side, s, g, v.State, other.HasAddress(), other.HasApp())
			}
		}
	}
	move(false, standbyName)
	still()
	move(true, linkName)
	still()
	must(t, lan.Plug(on.Side, false))
	must(t, lan.plugStandby(on.Side, false))
	must(t, other.WaitGroup("online", downLimit))
	must(t, poll(downLimit, func() (bool, error) { return !on.HasAddress() && other.HasAddress(), nil }))
}
