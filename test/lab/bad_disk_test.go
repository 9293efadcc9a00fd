package lab

import (
	"testing"
	"time"

	"hastd/test/lab/disk"
)

// TestBadDisk is a disk that fails where the group is, in a cluster with votes: the group
// stays and goes on from the peer's replica. When the peer's storage is lost, too, the
// group moves there: the peer is a member, in sync, and not shut out.
func TestBadDisk(t *testing.T) {
	beside(t)
	l := newLab(t, Options{Majority: true, Witness: true, Group: true, LAN: true, Size: 16 << 20, LogLevel: "info", Seed: *seedFlag})
	v, err := StartVotes(background(t), l, Alpha, *seedFlag)
	defer v.Stop()
	must(t, err)
	a, b := l.Nodes[Alpha], l.Nodes[Bravo]

	must(t, a.Disk.Fail(disk.Fault{Op: disk.OpWrite}))
	_, err = a.Wait(downLimit, "its disk to be told as failed", func(s Status) bool { return s.Disk == "failed" })
	must(t, err)
	must(t, v.Writes(background(t), fewWrites))
	must(t, v.Stays(a, time.Second))

	v.Begin()
	began := time.Now()
	must(t, v.lan.Wall(Way{HostAlpha, HostBravo, AllLinks, true}, Way{HostBravo, HostAlpha, AllLinks, true}))
	must(t, v.Serves(background(t), b))
	t.Logf("disk failed and peer lost: served by the peer after %v, the client's longest pause %v", ms(time.Since(began)), ms(v.client.pause()))
	if n := v.Count(HostAlpha, "owner=alpha in-sync=alpha"); n > 0 {
		t.Errorf("the only good replica was shut out of the view")
	}
	must(t, a.WaitGroup("offline", downLimit))
	must(t, v.Stays(b, time.Second))

	// A good disk is put in: the same, with what it held before.
	must(t, a.Role("init", false))
	must(t, a.Disk.Heal())
	must(t, a.Role("secondary", false))
	must(t, v.End(background(t)))
	if owner, _ := l.owner(downLimit); owner != b {
		t.Errorf("the group is on %v", owner)
	}
}
