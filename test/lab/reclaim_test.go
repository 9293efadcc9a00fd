package lab

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
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

// reclaimBytes is how much is written: more than the writer's files hold, so that
// chunks are written again. Short tests must be short.
func reclaimBytes() int64 {
	if testing.Short() {
		return 96 << 20
	}
	return envInt("LAB_LOAD", 1) * 256 << 20
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
// who allocates is an I/O flusher. Where that is refused, too, all depends on the
// daemon allocating nothing: TestMemoryStaysMapped tests that by itself.
func TestReclaimBesideThePrimary(t *testing.T) {
	reservesMemory(t)
	c := newCgroup(t, 0)
	p, dir, unmount := newReclaimPair(t, Options{}, [2]*Cgroup{c, nil})
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

// reservesMemory skips a test where daemons do not have all of their memory and
// threads from the start.
func reservesMemory(t *testing.T) {
	t.Helper()
	if os.Getenv("LAB_RACE") == "1" || os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		t.Skip("under the race detector, with GOGC or with GOMEMLIMIT hastd reserves no heap")
	}
}

// TestMemoryDoesNotGrowWithLoad: what requests need is bounded, and there from the
// start.
func TestMemoryDoesNotGrowWithLoad(t *testing.T) {
	reservesMemory(t)
	seconds := 10 * envInt("LAB_LOAD", 1)
	p := newPair(t, Options{Size: 128 << 20, Plain: true})
	const inexact = 4 << 20 // the kernel counts in batches, each thread its own
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
		if after > before[n.Side]+inexact {
			t.Errorf("%v: its memory grew from %d to %d MiB under load", n.Side, before[n.Side]>>20, after>>20)
		}
	}
}

// mapped is what of a process's address space its runtime maps and gives back, and
// how many threads it has.
type mapped struct {
	Size, Resident int64
	Threads        string
	Maps           []string // with what of each is there
}

func mappedBy(t testing.TB, pid int) mapped {
	t.Helper()
	m := mapped{Size: procBytes(t, pid, "VmSize"), Threads: procStatus(pid, "Threads")}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	must(t, err)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case len(f) >= 5 && strings.Contains(f[0], "-"):
			m.Maps = append(m.Maps, strings.Join(append(f[:2:2], f[5:]...), " "))
		case f[0] == "Rss:": // exact, which VmRSS is not
			n, err := strconv.ParseInt(f[1], 10, 64)
			must(t, err)
			m.Resident += n << 10
			m.Maps[len(m.Maps)-1] += " " + f[1] + " kB"
		}
	}
	return m
}

// TestMemoryStaysMapped: from its first request on a daemon asks the kernel for
// nothing that would have to be found, as finding it may take the daemon: no thread
// is started, nothing is mapped or given back.
func TestMemoryStaysMapped(t *testing.T) {
	reservesMemory(t)
	const slack = 1 << 20 // the runtime's own lists grow by pieces of 256 KiB, seldom
	abs := func(n int64) int64 { return max(n, -n) }
	load := 10 * time.Second * time.Duration(envInt("LAB_LOAD", 1))
	if testing.Short() {
		load = 6 * time.Second
	}
	p := newFUSEPair(t, Options{Size: 256 << 20, Plain: true})
	p.ok(p.CreateAndStart("--assume-clean"))
	p.ok(p.AwaitConnected(waitLimit))
	p.promote(p.a)
	_, err := p.a.Wait(waitLimit, "a complete pair", func(s Status) bool { return s.Status == "complete" })
	p.ok(err)
	var before [2]mapped
	for _, n := range p.Nodes {
		before[n.Side] = mappedBy(t, n.PID())
	}
	p.loadDirect(p.a, load)
	for _, n := range p.Nodes {
		b, a := before[n.Side], mappedBy(t, n.PID())
		t.Logf("%v: %d MiB mapped, %d MiB resident, %s threads", n.Side, a.Size>>20, a.Resident>>20, a.Threads)
		if abs(b.Size-a.Size) > slack || abs(b.Resident-a.Resident) > slack || b.Threads != a.Threads {
			t.Errorf("%v: grew or shrank under load:\n%d kB mapped, %d kB resident, %s threads\n%d kB mapped, %d kB resident, %s threads", n.Side, b.Size>>10, b.Resident>>10, b.Threads, a.Size>>10, a.Resident>>10, a.Threads)
			for _, m := range a.Maps {
				if !slices.Contains(b.Maps, m) {
					t.Logf("now %s", m)
				}
			}
			for _, m := range b.Maps {
				if !slices.Contains(a.Maps, m) {
					t.Logf("before %s", m)
				}
			}
		}
	}
}

// loadDirect keeps a node's device busy past the page cache, with requests of every
// size, and asks for the status meanwhile as a monitor does.
func (p *pair) loadDirect(n *Node, during time.Duration) {
	p.Helper()
	const (
		users   = 48
		largest = 1 << 20
		extent  = 64 << 20
	)
	end := time.Now().Add(during)
	var wg sync.WaitGroup
	var failed sync.Map
	for u := range users {
		wg.Go(func() {
			f, err := os.OpenFile(filepath.Clean(n.device()), os.O_RDWR|syscall.O_DIRECT, 0)
			if err != nil {
				failed.Store(u, err)
				return
			}
			defer f.Close()
			buf, err := syscall.Mmap(-1, 0, largest, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
			if err != nil {
				failed.Store(u, err)
				return
			}
			defer syscall.Munmap(buf)
			r := rand.New(rand.NewPCG(uint64(u), 1))
			for i := 0; time.Now().Before(end); i++ {
				size := BlockSize << r.IntN(9)
				at := r.Int64N((extent-int64(size))/BlockSize) * BlockSize
				switch {
				case i%64 == 63:
					err = f.Sync()
				case i%4 == 3:
					_, err = f.ReadAt(buf[:size], at)
				default:
					_, err = f.WriteAt(buf[:size], at)
				}
				if err != nil {
					failed.Store(u, err)
					return
				}
			}
		})
	}
	for time.Now().Before(end) {
		_, err := n.Status()
		p.ok(err)
		time.Sleep(time.Second / 4)
	}
	wg.Wait()
	failed.Range(func(_, err any) bool { p.Error(err); return true })
}
