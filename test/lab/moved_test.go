package lab

import (
	"testing"
	"time"

	"hastd/test/lab/disk"
)

// TestPrimaryBesideFailedDisk: the disk of the primary fails, a person moves the
// service to the other node and leaves the bad disk where it is. The new primary
// must serve without a pause, however long that lasts.
func TestPrimaryBesideFailedDisk(t *testing.T) {
	t.Parallel()
	const (
		watched = 15 * time.Second
		longest = 3 * time.Second // of a write; the daemon's time-out is one second
	)
	p := newPair(t, Options{})
	p.together()
	p.ok(p.a.Disk.Fail(disk.Fault{Op: disk.OpWrite}))
	p.write(p.a, 1, "on the peer alone")
	_, err := p.a.Wait(waitLimit, "its disk to be told as failed", func(s Status) bool { return s.Disk == "failed" })
	p.ok(err)
	p.swap(p.a, p.b)
	for end, i := time.Now().Add(watched), int64(2); time.Now().Before(end); i++ {
		began := time.Now()
		p.write(p.b, i, "moved")
		if took := time.Since(began); took > longest {
			t.Fatalf("write %d on the new primary took %v, while its peer has a failed disk", i, took)
		}
		time.Sleep(100 * time.Millisecond) // a service that writes now and then
	}
	// With a good disk the node is a member again.
	p.ok(p.a.Role("init", false))
	p.ok(p.a.Disk.Heal())
	p.ok(p.a.Role("secondary", false))
	p.complete()
}
