package sim

import (
	"testing"

	"hastd/metadata"
	"hastd/replicate"
)

// Rules that two mistakes at once would have to break in a random run, each alone.

// A recovery takes the winner's mark "raised" away, so what it acknowledges alone
// afterwards raises again: the other side, promoted in its place, is not its past.
func TestScenarioWinnerRaisesAgain(t *testing.T) {
	s := newScript(t)
	parted(s)
	s.recover(s.a)
	s.complete()
	was := s.b.judge.sb.Localcnt
	s.cut()
	s.write(s.b, 5)
	if now := s.b.judge.sb.Localcnt; now != was+1 {
		t.Fatalf("localcnt of the winner, alone again, is %d; it was %d", now, was)
	}
	s.kill(s.b)
	s.promote(s.a)
	s.write(s.a, 6)
	s.heal()
	s.boot(s.b)
	s.split()
}

// Cut right after the winner noted the recovery, it must raise for what it
// acknowledges alone although it had raised before the recovery.
func TestScenarioWinnerRaisesMidRecovery(t *testing.T) {
	s := newScript(t)
	parted(s)
	s.crawl()
	s.recover(s.a)
	s.midSync()
	was := s.b.judge.sb.Localcnt
	s.cut()
	s.write(s.b, 5)
	if now := s.b.judge.sb.Localcnt; now != was+1 {
		t.Fatalf("localcnt of the winner, alone again, is %d; it was %d", now, was)
	}
	s.fast()
	s.heal()
	s.complete()
}

// What the secondary had been asked on an earlier connection ends before it tells
// where it stands, however slow its disk is.
func TestScenarioSlowDiskAcrossConnections(t *testing.T) {
	s := newScript(t)
	s.pair()
	s.b.disk.slow = 20_000
	late := s.ask(s.a, replicate.ReqWrite, 3)
	s.until("the peer to begin the write", func() bool { return s.b.busy > 0 })
	s.b.disk.slow = 1
	s.do(func() { s.w.link.down(s.a, "reset") })
	s.until("both ends notice", func() bool { return s.a.sess == nil && s.b.sess == nil })
	s.await(late) // alone
	s.write(s.a, 1, 2)
	if s.b.busy == 0 {
		t.Fatal("the write of the first connection ended too early to show anything")
	}
	s.flowing()
	s.write(s.a, 4)
	s.complete()
}

// A message of an agreement or a session that is over says nothing any more.
func TestScenarioWordOfAnOlderAgreement(t *testing.T) {
	s := newScript(t)
	s.pair()
	sess := s.a.sess
	const now = 2 // the promotion began the second agreement
	for _, ev := range []replicate.Event{
		{Session: sess.id, Msg: replicate.Msg{Kind: replicate.MsgWrote, Conn: now - 1, Seqs: []uint64{1 << 40}}},
		{Session: sess.id, Msg: replicate.Msg{Kind: replicate.MsgFlushed, Conn: now - 1, Seq: 1 << 40}},
		{Session: sess.id, Msg: replicate.Msg{Kind: replicate.MsgDiskFailed, Conn: now - 1}},
		{Session: sess.id + 1, Msg: replicate.Msg{Kind: replicate.MsgDiskFailed, Conn: now}},
	} {
		ev.Kind = replicate.EvMessage
		s.do(func() { s.a.push(ev) })
		s.pass(10 * millisecond)
		if s.a.sess != sess {
			t.Fatalf("message %d of session %d, agreement %d ended the session", ev.Msg.Kind, ev.Session, ev.Msg.Conn)
		}
	}
	s.write(s.a, 1)
	s.complete()
}

// A primary that is put down by force while its peer is silent does not go on alone
// for the writes under way: the peer, promoted in its place, is not parted from it.
func TestScenarioCutOffThenDemoted(t *testing.T) {
	s := newScript(t)
	s.pair()
	s.write(s.a, 1)
	s.do(func() { s.w.link.setCut(0, true); s.w.link.setCut(1, true) })
	late := s.ask(s.a, replicate.ReqWrite, 3)
	s.must(s.a, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Secondary, Force: true})
	if r := &s.w.ledger.reqs[late]; !r.done || s.w.ledger.writes[r.write].acked {
		t.Error("a write that nobody waits for was acknowledged alone")
	}
	if n := s.a.judge.sb.Localcnt; n != 0 {
		t.Fatalf("localcnt of the node that stepped down is %d", n)
	}
	s.promote(s.b)
	s.write(s.b, 5)
	s.heal()
	s.complete()
}

// The same while the provider is still being closed: it waits for the requests under
// way, and the peer's silence is noticed meanwhile. With the link whole again at once,
// the greeting is no reason either.
func TestScenarioCutOffWhileTheProviderCloses(t *testing.T) {
	for _, healed := range []bool{false, true} {
		s := newScript(t)
		s.pair()
		s.write(s.a, 1)
		s.a.stopTime = 10 * second
		s.do(func() { s.w.link.setCut(0, true); s.w.link.setCut(1, true) })
		late := s.ask(s.a, replicate.ReqWrite, 3)
		s.do(func() { s.a.command(replicate.Command{Kind: replicate.CmdRole, Role: metadata.Secondary, Force: true}) })
		s.until("both notice the cut", func() bool { return s.a.sess == nil && s.b.sess == nil })
		s.promote(s.b)
		s.write(s.b, 5)
		if healed {
			s.heal()
		}
		s.until("the order is carried out", func() bool { return s.a.prov == provNone })
		s.pass(second)
		if r := &s.w.ledger.reqs[late]; !r.done || s.w.ledger.writes[r.write].acked {
			t.Errorf("healed %v: a write that nobody waits for was acknowledged alone", healed)
		}
		if n := s.a.judge.sb.Localcnt; n != 0 {
			t.Fatalf("healed %v: localcnt of the node that stepped down is %d", healed, n)
		}
		s.heal()
		s.complete()
	}
}
