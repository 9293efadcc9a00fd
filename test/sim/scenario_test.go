package sim

import (
	"fmt"
	"strings"
	"testing"

	"hastd/metadata"
	"hastd/replicate"
)

// The scenarios of the replication rules, section 11, row by row.

func TestScenario01WriteAlone(t *testing.T) {
	s := newScript(t)
	s.pair()
	s.cut()
	s.write(s.a, 3)
	s.counters(1, 0, 0, 0)
	s.heal()
	s.verdict("behind by rule 8, from A")
	s.complete()
}

// crashWithWrites: A is primary and loses power with writes in flight.
func crashWithWrites(s *script) {
	s.t.Helper()
	s.pair()
	s.write(s.a, 1, 2)
	for _, b := range []int{7, 90, 300} {
		s.ask(s.a, replicate.ReqWrite, b)
	}
	s.until("the writes to reach A's disk", func() bool { return s.a.busy >= 2 })
	s.power(s.a)
}

// row2 ends with A down and B having written alone.
func row2(s *script) {
	s.t.Helper()
	crashWithWrites(s)
	s.until("B to notice", func() bool { return s.b.sess == nil })
	s.promote(s.b)
	s.write(s.b, 50, 7)
}

func TestScenario02PrimaryCrashesOtherWrites(t *testing.T) {
	s := newScript(t)
	row2(s)
	s.counters(0, 0, 1, 0)
	s.boot(s.a)
	s.verdict("behind by rule 8, from B")
	s.complete()
}

func TestScenario03BothWroteInTurn(t *testing.T) {
	s := newScript(t)
	row2(s)
	s.power(s.b)
	s.boot(s.a)
	s.promote(s.a)
	s.write(s.a, 60)
	s.counters(1, 0, 1, 0)
	s.boot(s.b)
	s.split()
}

func TestScenario04SwapWithoutWrites(t *testing.T) {
	s := newScript(t)
	s.pair()
	s.demote(s.a)
	s.promote(s.b)
	s.complete()
	s.counters(0, 0, 0, 0)
	s.cut()
	s.heal()
	s.verdict("equal")
	s.complete()
	if s.splits > 0 {
		t.Fatal("split-brain was reported")
	}
}

// behindMidSync: A wrote much alone, and a slow sync to B is half done.
func behindMidSync(s *script) {
	s.t.Helper()
	s.pair()
	s.cut()
	s.write(s.a, many(90)...)
	s.crawl()
	s.heal()
	s.midSync()
}

func TestScenario05CutMidSync(t *testing.T) {
	s := newScript(t)
	behindMidSync(s)
	s.cut()
	s.write(s.a, 3, 200)
	s.heal()
	s.verdict("behind by rule 5, from A")
	s.complete()
}

func TestScenario06SwapMidSyncThenFlap(t *testing.T) {
	s := newScript(t)
	behindMidSync(s)
	s.demote(s.a)
	s.promote(s.b)
	s.flowing()
	s.read(s.b, 5)
	s.do(func() { s.w.link.down(s.a, "flap") })
	s.verdicts = [2][]string{}
	s.until("the flap to be noticed", func() bool { return s.b.sess == nil })
	s.verdict("behind by rule 5, from A")
	s.fast()
	s.complete()
	if s.splits > 0 {
		t.Fatal("split-brain was reported")
	}
}

// cutAtSyncEnd: A wrote alone; the sync is cut between its end's two durable
// writes.
func cutAtSyncEnd(s *script) {
	s.t.Helper()
	s.pair()
	s.cut()
	s.write(s.a, 3, 4, 5)
	s.heal()
	hit := false
	s.w.hooks.send = func(n *node, m *replicate.Msg) {
		if m.Kind == replicate.MsgSyncEnd && !hit {
			hit = true
			s.cutNow()
		}
	}
	s.until("the end of the sync", func() bool { return hit })
	if s.a.judge.sb.Marks.Has(metadata.Raised) || !s.b.judge.sb.Marks.Has(metadata.Inconsistent) {
		s.t.Fatalf("not between the two: A %s, B %s", s.a.judge.sb.Marks, s.b.judge.sb.Marks)
	}
	s.pass(10 * millisecond)
	s.write(s.a, 9)
}

func TestScenario07SyncEndCutBothWrite(t *testing.T) {
	s := newScript(t)
	cutAtSyncEnd(s)
	s.force(s.b)
	s.write(s.b, 11)
	s.demote(s.a)
	s.heal()
	s.split()
}

func TestScenario08SyncEndCut(t *testing.T) {
	s := newScript(t)
	cutAtSyncEnd(s)
	s.heal()
	s.verdict("behind by rule 5, from A")
	s.complete()
}

// parted: both wrote much apart, 1/0 each; B is primary, A secondary; they met.
func parted(s *script) {
	s.t.Helper()
	s.pair()
	s.cut()
	s.write(s.a, many(60)...)
	s.demote(s.a)
	s.promote(s.b)
	s.write(s.b, many(40)...)
	s.counters(1, 0, 1, 0)
	s.heal()
	s.split()
}

func TestScenario09RecoveryCutMidSync(t *testing.T) {
	s := newScript(t)
	parted(s)
	s.crawl()
	s.recover(s.a)
	s.midSync()
	s.cut()
	s.heal()
	s.verdict("behind by rule 5, from B")
	s.complete()
}

func TestScenario10RecoveryCutBetweenSteps(t *testing.T) {
	s := newScript(t)
	parted(s)
	s.recover(s.a)
	s.do(s.cutNow)
	if !s.b.judge.sb.Marks.Has(metadata.Raised) {
		t.Fatal("the winner was faster than the cut")
	}
	s.pass(10 * millisecond)
	s.write(s.b, 77)
	s.heal()
	s.verdict("behind by rule 5, from B")
	s.complete()
}

func TestScenario11SwapAfterSyncThenAlone(t *testing.T) {
	s := newScript(t)
	s.pair()
	s.cut()
	s.write(s.a, 3)
	s.heal()
	s.complete()
	s.demote(s.a)
	s.promote(s.b)
	s.complete()
	s.cut()
	s.write(s.b, 4)
	s.heal()
	s.verdict("behind by rule 8, from B")
	s.complete()
}

func TestScenario12DiskFailsOneWrite(t *testing.T) {
	s := newScript(t)
	s.pair()
	s.w.diskFault = true
	s.a.disk.failWrites = 1
	wr := s.write(s.a, 8)
	if !s.holds(s.b, wr) {
		t.Fatal("B lacks what was acknowledged")
	}
	s.write(s.a, 9)
	s.read(s.a, 8)
	s.flush(s.a)
	s.must(s.a, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Init})
	s.verdicts = [2][]string{}
	s.must(s.a, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Secondary})
	s.connected()
	s.promote(s.b)
	s.verdict("behind by rule 5, from B")
	s.complete()
	if !s.holds(s.a, wr) {
		t.Fatal("A lacks the write its disk had refused")
	}
}

func TestScenario13EqualCountersSwappedMidSync(t *testing.T) {
	s := newScript(t)
	s.pair()
	s.write(s.a, many(40)...)
	s.ask(s.a, replicate.ReqWrite, 100)
	s.until("the write to reach A's disk", func() bool { return s.a.busy >= 1 })
	s.kill(s.a)
	s.crawl()
	s.boot(s.a)
	s.crawl()
	s.connected()
	s.promote(s.a)
	s.midSync()
	s.counters(0, 0, 0, 0)
	s.demote(s.a)
	s.promote(s.b)
	s.flowing()
	s.cut()
	s.fast()
	s.heal()
	s.verdict("behind by rule 5, from A")
	s.complete()
}

func TestScenario14AsyncBothLosePower(t *testing.T) {
	s := newScript(t, async)
	s.pair()
	w1 := s.write(s.a, 5)
	s.flush(s.a)
	s.write(s.a, 6, 7)
	s.power(s.a)
	s.power(s.b)
	s.boot(s.a)
	s.boot(s.b)
	s.verdict("behind by rule 7, from A")
	s.connected()
	s.promote(s.b)
	s.read(s.b, 5)
	s.complete()
	if !s.holds(s.b, w1) {
		t.Fatal("B lacks what A acknowledged and flushed")
	}
}

func TestScenario15MountedWithoutWrites(t *testing.T) {
	s := newScript(t)
	row2(s)
	s.flush(s.b)
	s.power(s.b)
	s.boot(s.a)
	s.promote(s.a)
	s.read(s.a, 1)
	s.boot(s.b)
	s.split()
	if !strings.Contains(s.reasons[0], "role secondary on A") {
		t.Fatalf("A is not told to demote first: %s", s.reasons[0])
	}
	s.demote(s.a)
	s.verdicts = [2][]string{}
	s.verdict("behind by rule 9, from B")
	s.promote(s.b)
	s.complete()
}

func TestScenario16FlushAlone(t *testing.T) {
	s := newScript(t)
	s.pair()
	s.write(s.a, 5)
	s.cut()
	s.flush(s.a)
	s.counters(1, 0, 0, 0)
	s.power(s.b)
	s.kill(s.a)
	s.boot(s.b)
	s.force(s.b)
	s.write(s.b, 6)
	s.boot(s.a)
	s.heal()
	s.split()
}

// adopting: a full sync into B was cut after the adoption.
func adopting(s *script) {
	s.t.Helper()
	s.crawl()
	s.midSync()
	if !s.b.judge.sb.Marks.Has(metadata.Inconsistent) || s.b.judge.sb.Resuid == 0 {
		s.t.Fatalf("B has not adopted: marks %s", s.b.judge.sb.Marks)
	}
	s.cut()
	s.fast()
	s.heal()
	s.verdict("behind by rule 5, from A")
	s.complete()
}

func TestScenario17RecreatedAndCut(t *testing.T) {
	s := newScript(t)
	s.pair()
	s.write(s.a, many(60)...)
	s.kill(s.b)
	s.do(func() { s.w.wipe(s.b) })
	s.crawl()
	s.boot(s.b)
	adopting(s)
}

func TestScenario18NewPairCut(t *testing.T) {
	s := newScript(t)
	s.boot(s.a)
	s.force(s.a)
	s.write(s.a, many(60)...)
	s.crawl()
	s.boot(s.b)
	adopting(s)
}

func TestScenario19PromotedAndDemotedApart(t *testing.T) {
	s := newScript(t)
	s.pair()
	s.cut()
	e := s.a.judge.sb.Epoch
	s.promote(s.b)
	if got := s.b.judge.sb.Epoch; !e.Less(got) {
		t.Fatalf("B's epoch %v is not above %v", got, e)
	}
	s.demote(s.b)
	s.heal()
	s.verdict("equal by rule 7, from A")
	s.complete()
	if got := s.a.judge.sb.Epoch; got.Number != e.Number+2 {
		t.Fatalf("epoch is %v after %v and one promotion of the other", got, e)
	}
}

func TestScenario20RestoredFromSnapshot(t *testing.T) {
	s := newScript(t)
	s.pair()
	s.write(s.a, 1, 2, 3)
	s.flush(s.a)
	s.complete()
	var c replicaCopy
	s.b.keepCopy(&c)
	for range 2 {
		s.cut()
		s.heal()
		s.complete()
		s.write(s.a, 4, 5)
		s.flush(s.a)
	}
	s.complete()
	s.kill(s.b)
	s.do(func() { s.b.restore(&c) })
	s.until("A to notice", func() bool { return s.a.sess == nil })
	s.counters(0, 0, 0, 0)
	s.boot(s.b)
	s.until("a verdict", func() bool { return len(s.verdicts[0]) > 0 && len(s.verdicts[1]) > 0 })
	if v := s.verdicts[0][len(s.verdicts[0])-1]; !strings.Contains(v, "from A") || !strings.Contains(v, "full") {
		t.Fatalf("the verdict is %q: not everything is compared", v)
	}
	s.b.copied = false // so the two must be equal in the end
	s.complete()
}

func TestScenario21ManyFlapsDuringOneSync(t *testing.T) {
	s := newScript(t)
	s.pair()
	s.cut()
	s.write(s.a, many(100)...)
	s.crawl()
	for i := range 17 {
		s.heal()
		s.flowing()
		s.write(s.a, 10+i)
		s.cut()
		s.write(s.a, 40+i)
	}
	s.fast()
	s.heal()
	s.verdict("behind by rule 5, from A")
	s.complete()
	if s.splits > 0 {
		t.Fatal("split-brain was reported")
	}
}

func TestScenario22BothForcedNew(t *testing.T) {
	s := newScript(t)
	s.do(func() { s.w.link.setCut(0, true); s.w.link.setCut(1, true) })
	s.boot(s.a)
	s.boot(s.b)
	s.force(s.a)
	s.force(s.b)
	s.demote(s.b)
	s.heal()
	s.verdict("refused by rule 3")
	s.refused()
	for i, r := range s.reasons {
		for j := range s.w.nodes {
			if id := s.w.nodes[j].judge.sb.Resuid.String(); !strings.Contains(r, id) {
				t.Errorf("node %d is not told resuid %s: %s", i, id, r)
			}
		}
	}
}

func TestScenario23MailingList(t *testing.T) {
	s := newScript(t)
	s.pair()
	s.kill(s.a)
	s.kill(s.b)
	s.do(func() { s.w.link.setCut(0, true); s.w.link.setCut(1, true) })
	for _, n := range []*node{s.a, s.b} {
		s.boot(n)
		s.force(n)
		s.write(n, 20+n.id)
	}
	s.counters(1, 0, 1, 0)
	s.heal()
	s.until("both to report split-brain", func() bool { return s.reasons[0] != "" && s.reasons[1] != "" })
	s.split()
	for i, r := range s.reasons {
		if strings.Count(r, "localcnt 1 remotecnt 0") != 2 {
			t.Errorf("node %d is not told all four counters: %s", i, r)
		}
	}
}

func TestScenario24FlushBeforeCopied(t *testing.T) {
	s := newScript(t)
	s.pair()
	s.cut()
	s.write(s.a, many(90)...)
	b := s.write(s.a, 1999)
	s.flush(s.a)
	s.crawl()
	s.heal()
	s.flowing()
	s.flush(s.a)
	if s.holds(s.b, b) {
		t.Fatal("the block was copied before the flush")
	}
	s.power(s.a)
	s.boot(s.a)
	s.connected()
	s.promote(s.a)
	s.complete()
	if !s.holds(s.b, b) {
		t.Fatal("the block was not copied")
	}
}

func TestScenario25SecondaryLosesItsCache(t *testing.T) {
	s := newScript(t)
	s.pair()
	wr := s.write(s.a, 5)
	s.power(s.b)
	if s.holds(s.b, wr) {
		t.Fatal("the cache survived")
	}
	s.boot(s.b)
	s.flowing()
	s.flush(s.a)
	s.demote(s.a)
	s.cut()
	if r := s.order(s.b, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Primary}); r == nil {
		s.read(s.b, 5)
		if !s.holds(s.b, wr) {
			t.Fatal("the write is lost")
		}
		s.write(s.b, 6)
	}
	s.heal()
	s.connected()
	if s.b.status().Role != metadata.Primary {
		s.promote(s.b)
	}
	s.complete()
	if !s.holds(s.a, wr) || !s.holds(s.b, wr) {
		t.Fatal("the write is lost")
	}
}

func TestScenario26NothingAcknowledgedWhileAgreeing(t *testing.T) {
	s := newScript(t)
	s.pair()
	s.cut()
	s.heal()
	req, acked, flow := 0, false, false
	s.w.hooks.send = func(n *node, m *replicate.Msg) {
		switch {
		case n == s.a && m.Kind == replicate.MsgFacts && req == 0:
			s.a.app.issue(replicate.ReqWrite, 0, 5*sectorsPerBlock, sectorsPerBlock)
			req = len(s.w.ledger.reqs) - 1
		case n == s.a && m.Kind == replicate.MsgFlow:
			flow = true
			if acked {
				t.Error("acknowledged between the facts and the flow of data")
			}
		}
	}
	s.w.hooks.reply = func(n *node, r *request, _ replicate.Err) { acked = true }
	s.until("the write to be acknowledged", func() bool { return acked })
	if !flow {
		t.Error("acknowledged before data flowed")
	}
	s.counters(0, 0, 0, 0)
	s.complete()
}

func TestScenario27PrimaryDaemonRestarts(t *testing.T) {
	s := newScript(t)
	s.pair()
	wr := s.write(s.a, 5)
	s.kill(s.a)
	s.boot(s.a)
	s.connected()
	s.promote(s.a)
	s.flowing()
	s.flush(s.a)
	s.demote(s.a)
	s.promote(s.b)
	s.power(s.b)
	s.boot(s.b)
	if r := s.order(s.b, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Primary}); r == nil {
		s.complete()
	} else {
		s.connected()
		s.promote(s.a)
		s.complete()
	}
	if !s.holds(s.b, wr) || !s.holds(s.a, wr) {
		t.Fatal("the write is lost")
	}
}

func TestScenario28OutdatedPrimaryLosesItsPeer(t *testing.T) {
	s := newScript(t)
	crashWithWrites(s)
	s.boot(s.a)
	s.connected()
	if !s.b.judge.sb.Marks.Has(metadata.Outdated) {
		t.Fatalf("B is not outdated: %s", s.b.judge.sb.Marks)
	}
	s.crawl()
	s.promote(s.b)
	s.flowing()
	s.read(s.b, 1)
	s.do(s.cutNow)
	s.pass(10 * millisecond)
	if st := s.b.status(); !st.Suspended {
		t.Fatalf("B does not suspend: %s", s.w.describe(s.b))
	}
	req := s.ask(s.b, replicate.ReqRead, 90)
	s.pass(5 * second)
	if s.w.ledger.reqs[req].done {
		t.Fatal("B answers a read from an outdated replica")
	}
	s.fast()
	s.heal()
	s.complete()
}

func TestScenario29PairIDsHalfWritten(t *testing.T) {
	s := newScript(t)
	s.pair()
	for range 2 {
		s.cut()
		before := s.b.judge.sb.Pair
		hit := false
		s.w.hooks.commit = func(n *node) {
			if n == s.b && !hit && s.b.judge.sb.Pair != before {
				hit = true
				s.cutNow()
			}
		}
		s.heal()
		s.until("B to write the new pair id", func() bool { return hit })
		if s.a.judge.sb.Pair == s.b.judge.sb.Pair {
			t.Fatal("both have the new pair id already")
		}
		s.w.hooks.commit = nil
		s.pass(10 * millisecond)
	}
	s.heal()
	s.until("a verdict", func() bool { return len(s.verdicts[0]) > 0 && len(s.verdicts[1]) > 0 })
	for _, v := range s.verdicts {
		if strings.Contains(v[0], "full") || strings.Contains(v[0], "refused") {
			t.Fatalf("the ids do not match: %s", v[0])
		}
	}
	s.complete()
}

func TestScenario30WinnerWritesAlone(t *testing.T) {
	s := newScript(t)
	parted(s)
	s.recover(s.a)
	s.complete()
	n := s.splits
	s.cut()
	s.write(s.b, 5)
	s.heal()
	s.verdict("behind")
	s.complete()
	if s.splits != n {
		t.Fatal("split-brain was reported again")
	}
}

func TestScenario31ForcedWinnerRecoveryCut(t *testing.T) {
	s := newScript(t)
	behindMidSync(s)
	s.cut()
	s.demote(s.a)
	s.force(s.b)
	s.write(s.b, many(40)...)
	s.heal()
	s.split()
	s.recover(s.a)
	s.midSync()
	s.cut()
	n := s.splits
	s.heal()
	s.verdict("behind by rule 5, from B")
	s.fast()
	s.complete()
	if s.splits != n {
		t.Fatal("split-brain was reported again")
	}
}

func TestScenario32DiskAndItsMarkFail(t *testing.T) {
	s := newScript(t)
	s.pair()
	s.w.diskFault = true
	s.a.disk.failWrites, s.a.disk.failMeta = 1, 100
	s.write(s.a, 8)
	s.write(s.a, 9)
	s.kill(s.a)
	s.a.disk.heal()
	s.do(func() { s.w.link.setCut(0, true); s.w.link.setCut(1, true) })
	s.boot(s.a)
	if r := s.order(s.a, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Primary}); r == nil || r.Code != replicate.RefusedPolicy {
		t.Fatalf("A is promoted with stale data (%v)", r)
	}
	s.heal()
	s.connected()
	s.promote(s.b)
	s.complete()
}

func TestScenario33AsyncDiskFailsWithQueue(t *testing.T) {
	s := newScript(t, async)
	s.pair()
	s.w.link.slow = 200
	var ws []int32
	for _, b := range many(20) {
		ws = append(ws, s.write(s.a, b))
	}
	s.w.diskFault = true
	s.a.disk.failWrites = 1
	s.write(s.a, 400)
	s.w.link.slow = 1
	s.flush(s.a)
	s.power(s.a)
	for _, wr := range ws {
		if !s.holds(s.b, wr) {
			t.Fatalf("write %d is lost", wr)
		}
	}
	s.until("B to notice", func() bool { return s.b.sess == nil })
	s.promote(s.b)
	for _, b := range many(20) {
		s.read(s.b, b)
	}
	s.boot(s.a)
	s.complete()
}

func TestScenario34AsyncPrimaryIsTarget(t *testing.T) {
	s := newScript(t, async)
	behindMidSync(s)
	s.crawl()
	s.demote(s.a)
	s.promote(s.b)
	s.flowing()
	s.write(s.b, 450)
	s.flush(s.b)
	s.do(s.cutNow)
	s.pass(10 * millisecond)
	req := s.ask(s.b, replicate.ReqRead, 450)
	s.pass(2 * second)
	if !s.w.ledger.reqs[req].done && !s.b.status().Suspended {
		t.Fatal("the own write is neither readable nor is the resource suspended")
	}
	s.fast()
	s.heal()
	s.complete()
	s.read(s.b, 450)
}

func TestScenario35InconsistentPrimaryPeerWiped(t *testing.T) {
	s := newScript(t)
	behindMidSync(s)
	s.demote(s.a)
	s.crawl()
	s.promote(s.b)
	s.flowing()
	s.kill(s.a)
	s.do(func() { s.w.wipe(s.a) })
	s.until("B to notice", func() bool { return s.b.sess == nil })
	s.boot(s.a)
	s.verdict("refused by rule 2")
	s.refused()
	if s.a.judge.sb.Resuid != 0 {
		t.Fatal("A adopted from an inconsistent primary")
	}
}

// TestScenarioModes runs the plainest story in every mode and sector size.
func TestScenarioModes(t *testing.T) {
	for _, m := range []replicate.Mode{replicate.Fullsync, replicate.Memsync, replicate.Async} {
		for _, sector := range []uint32{512, 4096} {
			t.Run(fmt.Sprintf("%s-%d", m, sector), func(t *testing.T) {
				s := newScript(t, func(p *Profile) { p.Mode, p.Sector = m, sector })
				s.pair()
				s.write(s.a, 1, 2, 3)
				s.flush(s.a)
				s.cut()
				s.write(s.a, 4)
				s.heal()
				s.complete()
				s.demote(s.a)
				s.promote(s.b)
				s.read(s.b, 4)
				s.write(s.b, 5)
				s.complete()
			})
		}
	}
}
