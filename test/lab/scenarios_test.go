package lab

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// The rows of the table of scenarios in the replication rules, on real processes.
// A block's tag says who wrote it.

// aliveAndBehind is row 1: A wrote alone, B is behind. Half of the rows go on
// from here.
func aliveAndBehind(p *pair) {
	p.together()
	p.cut()
	p.write(p.a, 1, "a alone")
	p.counters(p.a, 1, 0)
	p.counters(p.b, 0, 0)
}

// aliveAndFarBehind is the same with so much written that sync takes seconds.
func aliveAndFarBehind(p *pair) {
	aliveAndBehind(p)
	p.writeMany(p.a, 16, slowSyncBytes, "many")
}

// crashedPrimary is row 2 before A returns: it lost its power with a write under
// way, B was promoted and wrote.
func crashedPrimary(p *pair) {
	p.together()
	// B's disk is slow: A has written before the write can be acknowledged.
	p.ok(p.b.Disk.Delay(500 * time.Millisecond))
	p.begin(p.a, 7, "in flight")
	p.ok(poll(waitLimit, func() (bool, error) { return p.localHolds(p.a, 7, "in flight"), nil }))
	p.die(p.a)
	p.ok(p.b.Disk.Delay(0))
	p.promote(p.b)
	p.write(p.b, 2, "b alone")
	p.counters(p.b, 1, 0)
}

// splitByWrites is both writing apart: A1/0 B1/0.
func splitByWrites(p *pair) {
	p.together()
	p.cut()
	p.write(p.a, 1, "a alone")
	p.writeMany(p.a, 16, slowSyncBytes, "a many")
	p.promote(p.b)
	p.write(p.b, 2, "b alone")
	p.writeMany(p.b, 400, slowSyncBytes, "b many")
	p.counters(p.a, 1, 0)
	p.counters(p.b, 1, 0)
	p.demote(p.a)
	p.heal()
	p.splitBrain()
}

// syncEndCut is row 7 up to the cut: the source has noted the end of sync, the
// target has not.
func syncEndCut(p *pair) {
	aliveAndBehind(p)
	before, err := p.a.Status()
	p.ok(err)
	p.ok(p.b.Disk.Delay(400 * time.Millisecond)) // each of the target's durable writes takes long
	p.heal()
	_, err = p.a.Wait(waitLimit, "the source's end of sync", func(s Status) bool {
		return s.Connection == "connected" && !has(s.Marks, "raised") && has(before.Marks, "raised")
	})
	p.ok(err)
	p.die(p.b)
	p.riseApart(p.b)
	s, err := p.b.Wait(waitLimit, "its disk", func(s Status) bool { return s.Disk != "diskless" })
	p.ok(err)
	if s.Disk != "inconsistent" {
		p.Fatalf("the target had noted the end as well before the cut: disk %s", s.Disk)
	}
}

func has(list []string, word string) bool {
	for _, w := range list {
		if w == word {
			return true
		}
	}
	return false
}

func TestScenarios(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		row  int
		name string
		o    Options
		do   func(p *pair)
	}{
		{1, "A writes alone", Options{}, func(p *pair) {
			aliveAndBehind(p)
			p.heal()
			p.complete()
			p.holds(p.a, 1, "a alone")
		}},
		{2, "A crashes with a write in flight, B promoted", Options{}, func(p *pair) {
			crashedPrimary(p)
			p.rise(p.a)
			p.complete()
			p.holds(p.b, 2, "b alone")
			p.holds(p.b, 7, "", "in flight")
		}},
		{3, "then B dies and A goes on alone", Options{}, func(p *pair) {
			crashedPrimary(p)
			p.ok(p.b.Stop())
			p.rise(p.a)
			p.promote(p.a)
			p.write(p.a, 3, "a alone")
			p.ok(p.b.Start())
			p.splitBrain()
			p.counters(p.a, 1, 0)
			p.counters(p.b, 1, 0)
		}},
		{4, "roles swapped without writes", Options{}, func(p *pair) {
			p.together()
			p.swap(p.a, p.b)
			p.complete()
			p.counters(p.a, 0, 0)
			p.counters(p.b, 0, 0)
			p.swap(p.b, p.a)
			p.complete()
		}},
		{5, "cut mid-sync, A writes, reconnect", slowSync, func(p *pair) {
			aliveAndFarBehind(p)
			p.heal()
			p.midSync(p.a)
			p.cut()
			p.write(p.a, 3, "a again")
			p.heal()
			p.complete()
			p.holds(p.a, 3, "a again")
		}},
		{6, "roles swapped mid-sync, then the link flaps", slowSync, func(p *pair) {
			aliveAndFarBehind(p)
			p.heal()
			p.midSync(p.a)
			p.swap(p.a, p.b)
			last := int64(16 + slowSyncBytes/BlockSize - 1)
			p.holds(p.b, last, fmt.Sprint("many", last-16)) // served by the source, synced or not
			p.midSync(p.b)
			p.cut()
			p.heal()
			p.complete()
			p.holds(p.b, 1, "a alone")
		}},
		{7, "sync end cut in two, A writes, B promoted by force and writes", Options{}, func(p *pair) {
			syncEndCut(p)
			p.write(p.a, 3, "a alone again")
			p.promoteByForce(p.b)
			p.write(p.b, 4, "b forced")
			p.heal()
			p.splitBrain()
		}},
		{8, "sync end cut in two, B not promoted", Options{}, func(p *pair) {
			syncEndCut(p)
			p.write(p.a, 3, "a alone again")
			p.heal()
			p.complete()
			p.holds(p.a, 3, "a alone again")
		}},
		{9, "recovery discards A, cut mid-sync, reconnect", slowSync, func(p *pair) {
			splitByWrites(p)
			p.ok(p.a.RecoverDiscard())
			p.midSync(p.b)
			p.cut()
			p.heal()
			p.complete()
			p.holds(p.b, 2, "b alone")
			p.holds(p.b, 1, "")
		}},
		{10, "recovery cut between its two steps, B writes alone", Options{}, func(p *pair) {
			splitByWrites(p)
			// The victim's word to the winner does not arrive.
			p.ok(p.Cut(Alpha, CutFrom))
			err := p.a.RecoverDiscard() // done here; whether it may say so before the peer heard of it is its own matter
			p.Logf("recover during the cut: %v", err)
			_, err = p.a.Wait(waitLimit, "the victim's mark", func(s Status) bool { return has(s.Marks, "inconsistent") })
			p.ok(err)
			p.ok(p.Cut(Alpha, CutReset))
			p.write(p.b, 5, "b alone again")
			p.heal()
			p.complete()
			p.holds(p.b, 5, "b alone again")
			p.holds(p.b, 1, "")
		}},
		{11, "synced, roles swapped, B writes alone", Options{}, func(p *pair) {
			aliveAndBehind(p)
			p.heal()
			p.complete()
			p.swap(p.a, p.b)
			p.complete()
			p.cut()
			p.write(p.b, 3, "b alone")
			p.heal()
			p.complete()
			p.holds(p.b, 3, "b alone")
			p.holds(p.b, 1, "a alone")
		}},
		{13, "equal-counter resync after a crash, swapped mid-sync", Options{}, func(p *pair) {
			p.together()
			for i := range int64(32) { // many extents in the activity log
				p.write(p.a, i*128, fmt.Sprint("hot ", i))
			}
			p.die(p.a)
			p.ok(p.b.Disk.Delay(50 * time.Millisecond)) // the resync takes a while
			p.rise(p.a)
			p.promote(p.a)
			_, err := p.a.Wait(waitLimit, "a sync or its end", func(s Status) bool {
				return s.Sync.State == "running" || s.Status == "complete"
			})
			p.ok(err)
			p.swap(p.a, p.b)
			p.ok(p.b.Disk.Delay(0))
			p.complete()
			for i := range int64(32) {
				p.holds(p.b, i*128, fmt.Sprint("hot ", i))
			}
		}},
		{15, "B wrote, A promoted and opened, B returns", Options{}, func(p *pair) {
			crashedPrimary(p)
			p.ok(p.b.Stop())
			p.rise(p.a)
			p.promote(p.a)
			p.holds(p.a, 0, "") // opened and read
			p.ok(p.b.Start())
			s, err := p.a.Wait(waitLimit, "the refusal", func(s Status) bool {
				return s.Connection == "refused" || s.Connection == "split-brain"
			})
			p.ok(err)
			if !strings.Contains(s.Reason, "secondary") && !strings.Contains(s.Reason, "demote") {
				p.Fatalf("the reason does not say to demote first: %q", s.Reason)
			}
			p.demote(p.a)
			p.promote(p.b)
			p.complete()
			p.holds(p.b, 2, "b alone")
		}},
		{17, "B re-created, its full sync cut", slowSync, func(p *pair) {
			p.together()
			p.writeMany(p.a, 16, slowSyncBytes, "many")
			p.ok(p.b.Stop())
			p.ok(p.b.Create("--force"))
			p.scribble(p.b, 16*BlockSize, slowSyncBytes) // as on another disk: what is equal is not sent
			p.ok(p.b.Start())
			p.resumesFullSync()
		}},
		{18, "new pair, its first full sync cut", slowSync, func(p *pair) {
			p.ok(p.a.Create())
			p.ok(p.b.Create())
			p.ok(p.a.Start())
			p.promoteByForce(p.a) // nobody is there to ask
			p.writeMany(p.a, 16, slowSyncBytes, "many")
			p.ok(p.b.Start())
			p.resumesFullSync()
		}},
		{19, "B promoted and demoted apart without writes", Options{}, func(p *pair) {
			p.together()
			p.cut()
			p.promote(p.b)
			s, err := p.b.Status()
			p.ok(err)
			p.demote(p.b)
			p.heal()
			p.complete()
			p.counters(p.a, 0, 0)
			now, err := p.a.Status()
			p.ok(err)
			if now.Epoch != s.Epoch+1 {
				p.Fatalf("epoch %d after the meeting, want %d: one more than the higher of both", now.Epoch, s.Epoch+1)
			}
		}},
		{22, "both new, each promoted by force before meeting", Options{}, func(p *pair) {
			p.ok(p.Cut(Alpha, CutReset))
			p.ok(p.CreateAndStart())
			for _, n := range p.Nodes {
				p.promoteByForce(n)
				p.write(n, 1, n.Side.String())
				p.demote(n)
			}
			a, err := p.a.Status()
			p.ok(err)
			b, err := p.b.Status()
			p.ok(err)
			if a.Resuid == b.Resuid {
				p.Fatalf("both drew resuid %s", a.Resuid)
			}
			p.heal()
			for _, n := range p.Nodes {
				p.ok(n.WaitConnection("refused", waitLimit))
				p.logs(n, a.Resuid, b.Resuid)
			}
		}},
		{23, "met once, restarted apart, promoted by force, one write each", Options{}, func(p *pair) {
			p.together()
			p.demote(p.a)
			for _, n := range p.Nodes {
				p.ok(n.Stop())
			}
			p.ok(p.Cut(Alpha, CutReset))
			for _, n := range p.Nodes {
				p.ok(n.Start())
				p.promoteByForce(n)
				p.write(n, 1, n.Side.String())
				p.counters(n, 1, 0)
			}
			p.heal()
			p.splitBrain()
			for _, n := range p.Nodes {
				p.logsFourCounters(n)
			}
		}},
	} {
		t.Run(fmt.Sprintf("row %02d %s", row.row, row.name), func(t *testing.T) {
			t.Parallel()
			row.o.Seed = uint64(row.row)
			row.do(newPair(t, row.o))
		})
	}
}

// resumesFullSync cuts a full sync from A and wants it to go on afterwards.
func (p *pair) resumesFullSync() {
	p.Helper()
	p.midSync(p.a)
	p.cut()
	s, err := p.b.Status()
	p.ok(err)
	if s.Disk != "inconsistent" {
		p.Fatalf("a full sync was cut and B's disk is %s", s.Disk)
	}
	p.heal()
	p.complete()
	last := int64(16 + slowSyncBytes/BlockSize - 1)
	p.holds(p.a, last, fmt.Sprint("many", last-16))
}

// logsFourCounters wants a line that tells the split-brain with l and r of both.
func (p *pair) logsFourCounters(n *Node) {
	p.Helper()
	p.logs(n, "Split-brain detected", "alpha: localcnt 1 remotecnt 0", "bravo: localcnt 1 remotecnt 0")
}

// scribble puts other bytes on a component that no daemon holds.
func (p *pair) scribble(n *Node, off, length int64) {
	p.Helper()
	f, err := os.OpenFile(n.Local(), os.O_WRONLY, 0)
	p.ok(err)
	defer f.Close()
	_, err = f.WriteAt(bytes.Repeat([]byte{0xA5}, int(length)), off)
	p.ok(err)
	p.ok(f.Sync())
}
