package sim

import (
	"strings"

	"hastd/metadata"
)

// Rows in which both nodes are primary apart, and what becomes of them.

// parted: both wrote much apart, 1/0 each; B is primary, A secondary; they met.
func parted(s *script) {
	s.stage.Helper()
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

func row09RecoveryCutMidSync(s *script) {
	parted(s)
	s.crawl()
	s.recover(s.a)
	s.midSync()
	s.cut()
	s.halfDone(s.a)
	s.heal()
	s.verdict("behind by rule 5, from B")
	s.complete()
}

func row10RecoveryCutBetweenSteps(s *script) {
	parted(s)
	s.recover(s.a)
	s.do(s.cutNow)
	if !s.b.judge.sb.Marks.Has(metadata.Raised) {
		s.stage.Missed("the winner was faster than the cut")
	}
	s.pass(10 * millisecond)
	s.write(s.b, 77)
	s.heal()
	s.verdict("behind by rule 5, from B")
	s.complete()
}

func row15MountedWithoutWrites(s *script) {
	row2(s)
	s.flush(s.b)
	s.power(s.b)
	s.boot(s.a)
	s.promote(s.a)
	s.read(s.a, 1)
	s.boot(s.b)
	s.split()
	if !strings.Contains(s.reasons[0], "role secondary "+resourceName+" on A") {
		s.stage.Fatalf("A is not told to demote first: %s", s.reasons[0])
	}
	s.demote(s.a)
	s.verdicts = [2][]string{}
	s.verdict("behind by rule 9, from B")
	s.promote(s.b)
	s.complete()
}

func row19PromotedAndDemotedApart(s *script) {
	s.pair()
	s.cut()
	e := s.a.judge.sb.Epoch
	s.promote(s.b)
	if got := s.b.judge.sb.Epoch; !e.Less(got) {
		s.stage.Fatalf("B's epoch %v is not above %v", got, e)
	}
	s.demote(s.b)
	s.heal()
	s.verdict("equal by rule 7, from A")
	s.complete()
	if got := s.a.judge.sb.Epoch; got.Number != e.Number+2 {
		s.stage.Fatalf("epoch is %v after %v and one promotion of the other", got, e)
	}
}

func row22BothForcedNew(s *script) {
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
				s.stage.Errorf("node %d is not told resuid %s: %s", i, id, r)
			}
		}
	}
}

func row23MailingList(s *script) {
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
			s.stage.Errorf("node %d is not told all four counters: %s", i, r)
		}
	}
}

func row30WinnerWritesAlone(s *script) {
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
		s.stage.Fatal("split-brain was reported again")
	}
}

func row31ForcedWinnerRecoveryCut(s *script) {
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
	s.halfDone(s.a)
	n := s.splits
	s.heal()
	s.verdict("behind by rule 5, from B")
	s.fast()
	s.complete()
	if s.splits != n {
		s.stage.Fatal("split-brain was reported again")
	}
}
