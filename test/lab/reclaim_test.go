package lab

import (
	"os"
	"strings"
	"testing"
	"time"
)

// Memory reclaim may wait for hastd: the pages it must write back are on hastd's
// own device. So hastd must never wait for reclaim of them. Here its user dirties
// far more page cache than there is memory, with hastd in the same little memory.
//
// A machine that is short of memory as a whole cannot be had on a test machine
// that others share; a cgroup is.

// reclaimRoom is what is left beside hastd for its user and all page cache.
const reclaimRoom = 48 << 20

// reclaimBytes is how much is written: short tests must be short.
func reclaimBytes() int64 {
	if testing.Short() {
		return 96 << 20
	}
	return 512 << 20
}

// newReclaimPair is a pair with a filesystem on alpha's device. In cgroup 0 runs
// alpha's daemon, in cgroup 1 bravo's; nil: where the test runs.
func newReclaimPair(t *testing.T, o Options, cgroups [2]*Cgroup) (p *pair, dir string, unmount func()) {
	t.Helper()
	needTools(t, "mkfs.ext4", "mount", "umount")
	// Files of a real filesystem as disks: the lab's disks keep all in memory.
	o.Size, o.Plain = 256<<20, true
	p = newFUSEPair(t, o)
	for s, c := range cgroups {
		p.Nodes[s].Cgroup = c
	}
	p.ok(p.CreateAndStart("--assume-clean"))
	p.ok(p.AwaitConnected(waitLimit))
	p.promote(p.a)
	tool(t, "mkfs.ext4", "-q", "-F", p.a.device())
	dir, unmount = p.mount(p.a)
	// The daemons first get what they need, then the little that there is.
	for _, c := range cgroups {
		if c != nil {
			p.ok(c.SetLimit(c.Usage() + reclaimRoom))
		}
	}
	return p, dir, unmount
}

// finish waits for the writer, and compares the replicas.
func (p *pair) finish(w *writer, unmount func(), cgroups ...*Cgroup) {
	p.Helper()
	if !w.advance(-1, p.loopOf(p.a)) {
		p.stalled(w, cgroups...)
	}
	for _, c := range cgroups {
		e, err := c.Events()
		p.ok(err)
		p.Logf("%+v, %d MiB charged", e, c.Usage()>>20)
		if e.OOMKills != 0 {
			p.Errorf("processes were killed for want of memory: %v", c)
		}
		if e.LimitHits == 0 {
			p.Errorf("the limit was never met: this test tested nothing: %v", c)
		}
	}
	for _, n := range p.Nodes {
		p.Logf("%v: RSS %s, highest %s, locked %s, major faults %s", n.Side, procStatus(n.PID(), "VmRSS"),
			procStatus(n.PID(), "VmHWM"), procStatus(n.PID(), "VmLck"), majorFaults(n.PID()))
	}
	unmount()
	p.sameBelow(p.a)
}

func TestReclaimOfAWriterAlone(t *testing.T) {
	c := newCgroup(t, 0)
	p, dir, unmount := newReclaimPair(t, Options{}, [2]*Cgroup{})
	p.ok(c.SetLimit(reclaimRoom))
	w := startWriter(t, c, dir, reclaimBytes())
	p.finish(w, unmount, c)
}

// TestReclaimBesideThePrimary is the one that hangs daemons that were not made
// for it: the same memory for the primary and its user.
//
// With cgroups of version 1 reclaim waits for pages that are being written, unless
// who allocates is an I/O flusher. Where that is refused too, the daemon's buffers
// are safe and what the Go runtime maps for itself is not: it mostly goes well.
func TestReclaimBesideThePrimary(t *testing.T) {
	c := newCgroup(t, 0)
	p, dir, unmount := newReclaimPair(t, Options{}, [2]*Cgroup{c, nil})
	if !c.v2 && strings.Contains(p.a.Log(), "PR_SET_IO_FLUSHER was refused") && os.Getenv("LAB_RECLAIM") != "1" {
		unmount()
		t.Skip("needs CAP_SYS_RESOURCE for hastd, or cgroups of version 2; LAB_RECLAIM=1 runs it all the same")
	}
	w := startWriter(t, c, dir, reclaimBytes())
	p.finish(w, unmount, c)
}

// TestReclaimWhileThePeerIsLost: the daemons have little more than they locked,
// each in a cgroup of its own as is recommended; all of the writer's memory is dirty pages of the device when
// writes are suspended, and the peer comes back in no better state.
func TestReclaimWhileThePeerIsLost(t *testing.T) {
	own, b, a := newCgroup(t, 0), newCgroup(t, 0), newCgroup(t, reclaimRoom)
	p, dir, unmount := newReclaimPair(t, Options{OnPeerLoss: "suspend"}, [2]*Cgroup{own, b})
	w := startWriter(t, a, dir, reclaimBytes())
	get := func(to int64) {
		t.Helper()
		if !w.advance(to, p.loopOf(p.a)) {
			p.stalled(w, a, own, b)
		}
	}
	get(reclaimBytes() / 4)
	p.ok(p.Cut(Alpha, CutReset))
	_, err := p.a.Wait(waitLimit, "suspended I/O", func(s Status) bool { return s.IO.Suspended })
	p.ok(err)
	// The writer fills what memory there is, and waits.
	p.ok(poll(waitLimit, func() (bool, error) {
		for len(w.said) > 0 {
			w.last = <-w.said
		}
		n := a.Usage()
		time.Sleep(time.Second)
		return a.Usage() == n && len(w.said) == 0, nil
	}))
	t.Logf("suspended with %d MiB dirty and %d MiB being written", a.Stat("dirty")>>20, a.Stat("writeback")>>20)
	p.heal()
	get(reclaimBytes() / 2)
	p.finish(w, unmount, a)
}

// heapStep is by how much the runtime maps heap, all of it locked.
const heapStep = 64 << 20

// TestMemoryDoesNotGrowWithLoad: what requests need is bounded, and there from the
// start.
func TestMemoryDoesNotGrowWithLoad(t *testing.T) {
	seconds := 60
	if testing.Short() {
		seconds = 10
	}
	p := newPair(t, Options{Size: 128 << 20, Plain: true})
	p.together()
	var before [2]int64
	for _, n := range p.Nodes {
		before[n.Side] = procBytes(t, n.PID(), "VmRSS")
	}
	var written int64
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); {
		const each = 32 << 20 // so many writes are under way at once
		p.writeMany(p.a, written%(64<<20)/BlockSize, each, "load")
		written += each
	}
	for _, n := range p.Nodes {
		after := procBytes(t, n.PID(), "VmHWM")
		t.Logf("%v: %d MiB before, %d MiB at most under %d MiB of writes", n.Side, before[n.Side]>>20, after>>20, written>>20)
		if after > before[n.Side]+heapStep+heapStep/4 {
			t.Errorf("%v: its memory grew from %d to %d MiB under load", n.Side, before[n.Side]>>20, after>>20)
		}
	}
}
