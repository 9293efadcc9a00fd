package sim

import (
	"strings"

	"hastd/metadata"
	"hastd/replicate"
)

// Rows in which a disk fails, forgets what was not flushed, is new or restored.

func row12DiskFailsOneWrite(s *script) {
	s.pair()
	s.w.diskFault = true
	s.a.disk.failWrites = 1
	wr := s.write(s.a, 8)
	if !s.holds(s.b, wr) {
		s.stage.Fatal("B lacks what was acknowledged")
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
		s.stage.Fatal("A lacks the write its disk had refused")
	}
}

func row16FlushAlone(s *script) {
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
	s.stage.Helper()
	s.crawl()
	s.midSync()
	if !s.b.judge.sb.Marks.Has(metadata.Inconsistent) || s.b.judge.sb.Resuid == 0 {
		s.stage.Missed("B has not adopted: marks %s", s.b.judge.sb.Marks)
	}
	s.cut()
	s.halfDone(s.b)
	s.fast()
	s.heal()
	s.verdict("behind by rule 5, from A")
	s.complete()
}

func row17RecreatedAndCut(s *script) {
	s.pair()
	s.write(s.a, many(60)...)
	s.kill(s.b)
	s.do(func() { s.w.wipe(s.b) })
	s.crawl()
	s.boot(s.b)
	adopting(s)
}

func row18NewPairCut(s *script) {
	s.boot(s.a)
	s.force(s.a)
	s.write(s.a, many(60)...)
	s.crawl()
	s.boot(s.b)
	adopting(s)
}

func row20RestoredFromSnapshot(s *script) {
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
		s.stage.Fatalf("the verdict is %q: not everything is compared", v)
	}
	s.b.copied = false // so the two must be equal in the end
	s.complete()
}

func row24FlushBeforeCopied(s *script) {
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
		s.stage.Missed("the block was copied before the flush")
	}
	s.power(s.a)
	s.boot(s.a)
	s.connected()
	s.promote(s.a)
	s.complete()
	if !s.holds(s.b, b) {
		s.stage.Fatal("the block was not copied")
	}
}

func row25SecondaryLosesItsCache(s *script) {
	s.pair()
	wr := s.write(s.a, 5)
	s.power(s.b)
	if s.holds(s.b, wr) {
		s.stage.Missed("the cache survived")
	}
	s.boot(s.b)
	s.flowing()
	s.flush(s.a)
	s.demote(s.a)
	s.cut()
	if r := s.order(s.b, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Primary}); r == nil {
		s.read(s.b, 5)
		if !s.holds(s.b, wr) {
			s.stage.Fatal("the write is lost")
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
		s.stage.Fatal("the write is lost")
	}
}

func row32DiskAndItsMarkFail(s *script) {
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
		s.stage.Fatalf("A is promoted with stale data (%v)", r)
	}
	s.heal()
	s.connected()
	s.promote(s.b)
	s.complete()
}

func row33AsyncDiskFailsWithQueue(s *script) {
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
			s.stage.Fatalf("write %d is lost", wr)
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

func row35InconsistentPrimaryPeerWiped(s *script) {
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
		s.stage.Fatal("A adopted from an inconsistent primary")
	}
}
