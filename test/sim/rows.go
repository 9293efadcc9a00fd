package sim

import (
	"strings"

	"hastd/metadata"
	"hastd/replicate"
)

// The scenarios of the replication rules, section 11, row by row. Tests play them as
// they stand, directed runs with random times around them (directed.go).

// row is a row of the replication rules, section 11, as a script.
type row struct {
	n     int
	name  string
	modes []replicate.Mode
	play  func(*script)
}

var (
	every  = []replicate.Mode{replicate.Fullsync, replicate.Memsync, replicate.Async}
	inStep = every[:2] // in async a loss raises at once what is not confirmed
	async  = []replicate.Mode{replicate.Async}
)

var rows = []row{
	{1, "write alone", every, row01WriteAlone},
	{2, "primary crashes other writes", every, row02PrimaryCrashesOtherWrites},
	{3, "both wrote in turn", every, row03BothWroteInTurn},
	{4, "swap without writes", every, row04SwapWithoutWrites},
	{5, "cut mid sync", every, row05CutMidSync},
	{6, "swap mid sync then flap", every, row06SwapMidSyncThenFlap},
	{7, "sync end cut both write", every, row07SyncEndCutBothWrite},
	{8, "sync end cut", every, row08SyncEndCut},
	{9, "recovery cut mid sync", every, row09RecoveryCutMidSync},
	{10, "recovery cut between steps", every, row10RecoveryCutBetweenSteps},
	{11, "swap after sync then alone", every, row11SwapAfterSyncThenAlone},
	{12, "disk fails one write", every, row12DiskFailsOneWrite},
	{13, "equal counters swapped mid sync", every, row13EqualCountersSwappedMidSync},
	{14, "async both lose power", async, row14AsyncBothLosePower},
	{15, "mounted without writes", every, row15MountedWithoutWrites},
	{16, "flush alone", every, row16FlushAlone},
	{17, "recreated and cut", every, row17RecreatedAndCut},
	{18, "new pair cut", every, row18NewPairCut},
	{19, "promoted and demoted apart", every, row19PromotedAndDemotedApart},
	{20, "restored from snapshot", inStep, row20RestoredFromSnapshot},
	{21, "many flaps during one sync", every, row21ManyFlapsDuringOneSync},
	{22, "both forced new", every, row22BothForcedNew},
	{23, "mailing list", every, row23MailingList},
	{24, "flush before copied", every, row24FlushBeforeCopied},
	{25, "secondary loses its cache", every, row25SecondaryLosesItsCache},
	{26, "nothing acknowledged while agreeing", every, row26NothingAcknowledgedWhileAgreeing},
	{27, "primary daemon restarts", every, row27PrimaryDaemonRestarts},
	{28, "outdated primary loses its peer", every, row28OutdatedPrimaryLosesItsPeer},
	{29, "pair ids half written", every, row29PairIDsHalfWritten},
	{30, "winner writes alone", every, row30WinnerWritesAlone},
	{31, "forced winner recovery cut", every, row31ForcedWinnerRecoveryCut},
	{32, "disk and its mark fail", every, row32DiskAndItsMarkFail},
	{33, "async disk fails with queue", async, row33AsyncDiskFailsWithQueue},
	{34, "async primary is target", async, row34AsyncPrimaryIsTarget},
	{35, "inconsistent primary peer wiped", every, row35InconsistentPrimaryPeerWiped},
}

func row01WriteAlone(s *script) {
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
	s.stage.Helper()
	s.pair()
	s.write(s.a, 1, 2)
	for _, b := range []int{7, 90, 300} {
		s.ask(s.a, replicate.ReqWrite, b)
	}
	s.until("the writes to reach A's disk", func() bool { return s.a.busy >= 1 })
	s.power(s.a)
}

// row2 ends with A down and B having written alone.
func row2(s *script) {
	s.stage.Helper()
	crashWithWrites(s)
	s.until("B to notice", func() bool { return s.b.sess == nil })
	s.promote(s.b)
	s.write(s.b, 50, 7)
}

func row02PrimaryCrashesOtherWrites(s *script) {
	row2(s)
	s.counters(0, 0, 1, 0)
	s.boot(s.a)
	s.verdict("behind by rule 8, from B")
	s.complete()
}

func row03BothWroteInTurn(s *script) {
	row2(s)
	s.power(s.b)
	s.boot(s.a)
	s.promote(s.a)
	s.write(s.a, 60)
	s.counters(1, 0, 1, 0)
	s.boot(s.b)
	s.split()
}

func row04SwapWithoutWrites(s *script) {
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
		s.stage.Fatal("split-brain was reported")
	}
}

// behindMidSync: A wrote much alone, and a slow sync to B is half done.
func behindMidSync(s *script) {
	s.stage.Helper()
	s.pair()
	s.cut()
	s.write(s.a, many(90)...)
	s.crawl()
	s.heal()
	s.midSync()
}

func row05CutMidSync(s *script) {
	behindMidSync(s)
	s.cut()
	s.halfDone(s.b)
	s.write(s.a, 3, 200)
	s.heal()
	s.verdict("behind by rule 5, from A")
	s.complete()
}

func row06SwapMidSyncThenFlap(s *script) {
	behindMidSync(s)
	s.demote(s.a)
	s.promote(s.b)
	s.flowing()
	s.read(s.b, 5)
	s.halfDone(s.b)
	s.do(func() { s.w.link.down(s.a, "flap") })
	s.verdicts = [2][]string{}
	s.until("the flap to be noticed", func() bool { return s.b.sess == nil })
	s.verdict("behind by rule 5, from A")
	s.fast()
	s.complete()
	if s.splits > 0 {
		s.stage.Fatal("split-brain was reported")
	}
}

// cutAtSyncEnd: A wrote alone; the sync is cut between its end's two durable
// writes.
func cutAtSyncEnd(s *script) {
	s.stage.Helper()
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
		s.stage.Missed("not between the two: A %s, B %s", s.a.judge.sb.Marks, s.b.judge.sb.Marks)
	}
	s.pass(10 * millisecond)
	s.write(s.a, 9)
}

func row07SyncEndCutBothWrite(s *script) {
	cutAtSyncEnd(s)
	s.force(s.b)
	s.write(s.b, 11)
	s.demote(s.a)
	s.heal()
	s.split()
}

func row08SyncEndCut(s *script) {
	cutAtSyncEnd(s)
	s.heal()
	s.verdict("behind by rule 5, from A")
	s.complete()
}

func row11SwapAfterSyncThenAlone(s *script) {
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

func row13EqualCountersSwappedMidSync(s *script) {
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
	s.halfDone(s.b)
	s.fast()
	s.heal()
	s.verdict("behind by rule 5, from A")
	s.complete()
}

func row14AsyncBothLosePower(s *script) {
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
		s.stage.Fatal("B lacks what A acknowledged and flushed")
	}
}

func row21ManyFlapsDuringOneSync(s *script) {
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
		s.stage.Fatal("split-brain was reported")
	}
}

func row26NothingAcknowledgedWhileAgreeing(s *script) {
	s.pair()
	s.cut()
	s.heal()
	req, acked, flow := 0, false, false
	s.w.hooks.send = func(n *node, m *replicate.Msg) {
		switch {
		case n == s.a && m.Kind == replicate.MsgFacts && req == 0 && n.prov == provUp:
			s.a.app.issue(replicate.ReqWrite, 0, 5*sectorsPerBlock, sectorsPerBlock)
			req = len(s.w.ledger.reqs) - 1
		case n == s.a && m.Kind == replicate.MsgFlow && !flow:
			flow = true
			if acked {
				s.stage.Fatal("acknowledged between the facts and the flow of data")
			}
		}
	}
	s.w.hooks.reply = func(n *node, r *request, _ replicate.Err) {
		acked = acked || req != 0 && r == &s.w.ledger.reqs[req]
	}
	s.until("the write to be acknowledged", func() bool { return acked })
	if !flow {
		s.stage.Fatal("acknowledged before data flowed")
	}
	s.counters(0, 0, 0, 0)
	s.complete()
}

func row27PrimaryDaemonRestarts(s *script) {
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
		s.stage.Fatal("the write is lost")
	}
}

func row28OutdatedPrimaryLosesItsPeer(s *script) {
	crashWithWrites(s)
	s.boot(s.a)
	s.connected()
	if !s.b.judge.sb.Marks.Has(metadata.Outdated) {
		s.stage.Fatalf("B is not outdated: %s", s.b.judge.sb.Marks)
	}
	s.crawl()
	s.promote(s.b)
	s.flowing()
	s.read(s.b, 1)
	s.do(s.cutNow)
	s.pass(10 * millisecond)
	if s.b.state != running || !s.b.status().Suspended {
		s.stage.Fatalf("B does not suspend: %s", s.w.describe(s.b))
	}
	req := s.ask(s.b, replicate.ReqRead, 90)
	s.pass(5 * second)
	if s.w.ledger.reqs[req].done {
		s.stage.Fatal("B answers a read from an outdated replica")
	}
	s.fast()
	s.heal()
	s.complete()
}

func row29PairIDsHalfWritten(s *script) {
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
			s.stage.Missed("both have the new pair id already")
		}
		s.w.hooks.commit = nil
		s.pass(10 * millisecond)
	}
	s.heal()
	s.until("a verdict", func() bool { return len(s.verdicts[0]) > 0 && len(s.verdicts[1]) > 0 })
	for _, v := range s.verdicts {
		if strings.Contains(v[0], "full") || strings.Contains(v[0], "refused") {
			s.stage.Fatalf("the ids do not match: %s", v[0])
		}
	}
	s.complete()
}

func row34AsyncPrimaryIsTarget(s *script) {
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
	if !s.w.ledger.reqs[req].done && (s.b.state != running || !s.b.status().Suspended) {
		s.stage.Fatal("the own write is neither readable nor is the resource suspended")
	}
	s.fast()
	s.heal()
	s.complete()
	s.read(s.b, 450)
}
