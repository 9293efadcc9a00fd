package replicate

import (
	"strings"
	"testing"

	"hastd/metadata"
)

// A window of the sync waits behind a write that is held. A demotion fails the write; the
// window goes on, and the demotion ends.
func TestDemotionWithAWindowBehindAHeldWrite(t *testing.T) {
	for _, how := range []string{"operator", "no-lease"} {
		var s *script
		if how == "operator" {
			s = newScript(t, scriptSuper())
			s.primary()
		} else {
			s = leader(t)
		}
		m := s.m
		s.silently(func() {
			if how == "operator" {
				s.order(Command{Kind: CmdSuspend})
			} else {
				s.tick(lease)
			}
			s.write(1, 0, block)
			m.st.Dirty.Set(0, Window)
			m.sync = syncState{phase: syncCopying, direction: toPeer, window: MaxSyncOps, steered: s.now, began: s.now, rateAt: s.now}
			s.tick(Second)
			s.settle()
			if m.suspended != how || m.sync.ops != 1 {
				t.Fatalf("suspended %q, %d windows", m.suspended, m.sync.ops)
			}
			s.order(Command{Kind: CmdRole, Role: metadata.Secondary, Force: true})
			for range 10 {
				s.tick(Second)
				s.settle()
			}
		})
		if m.role == metadata.Primary || m.job != nil {
			t.Errorf("%s: role %v, order under way: %v", how, m.role, m.job != nil)
		}
	}
}

// A write that began alone ended in an error by a demotion, and is on this disk. Once the
// node is primary again it is read, and a flush after that is not answered as long as the
// peer alone could be promoted without a word.
func TestFlushOfWhatOnlyThisNodeShows(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.silently(func() {
		s.request(ReqFlush, 1, 0, 0)
		s.settle() // nothing is unflushed on either replica
		s.loses("cut")
		s.write(2, 0, block)
		s.done("commit") // journalled: the local disk writes it
		s.order(Command{Kind: CmdRole, Role: metadata.Secondary, Force: true})
		s.settle()
		s.order(Command{Kind: CmdRole, Role: metadata.Primary})
		s.tick(2 * Second)
		s.settle()
		s.request(ReqRead, 3, 0, block)
		s.settle()
		s.request(ReqFlush, 4, 0, 0)
		s.settle()
	})
	if s.replies[2] == OK || s.replies[3] != OK {
		t.Fatalf("replies %v", s.replies)
	}
	if err, ok := s.replies[4]; !ok || err != OK || !s.m.marks().Has(metadata.Raised) {
		t.Errorf("flush answered %v (%v), marks %v", ok, err, s.m.marks())
	}
}

// A first promotion that the view takes back leaves what it drew: the peer must hear of it,
// or draws an identity of its own.
func TestRefusedFirstPromotionIsToldToThePeer(t *testing.T) {
	s := newScript(t, scriptSuper(neu), func(c *Config) { c.NeedLease = true })
	s.peer = side("B", 0, 0, 0, fresh)
	s.peer.Generation, s.peer.Incarnation = 1, incB
	s.granted(s.owner(1))
	s.secondary(true)
	s.role(metadata.Primary)
	s.granted(Grant{Generation: 2, Incarnation: incA, Peer: incB, PeerOwner: true})
	s.settle()
	if s.m.role == metadata.Primary || s.m.st.Super().Resuid == 0 {
		t.Fatalf("role %v, resuid %v", s.m.role, s.m.st.Super().Resuid)
	}
	if s.m.phase == linked {
		t.Error("the session goes on by facts that are not so any more")
	}
}

// resume --error also ends what was being journalled or written here at that moment.
func TestResumeWithErrorEndsWhatIsUnderWay(t *testing.T) {
	s := newScript(t, scriptSuper(), func(c *Config) { c.Suspend = true })
	s.primary()
	s.silently(func() {
		s.write(1, 0, block)
		s.done("commit") // journalled
		s.write(2, 4*block, block)
		s.loses("cut")
		s.tick(2 * Second)
		s.order(Command{Kind: CmdResume, WithError: true})
		s.write(3, 8*block, block)
		s.settle()
	})
	for q := ReqID(1); q <= 3; q++ {
		if err, ok := s.replies[q]; !ok || err == OK {
			t.Errorf("request %d: answered %v with %v", q, ok, err)
		}
	}
}

// What resume --error says of a suspension holds until that ends, also over a new link.
func TestResumeWithErrorOutlastsTheLink(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.silently(func() {
		s.order(Command{Kind: CmdSuspend})
		s.order(Command{Kind: CmdResume, WithError: true})
		s.loses("cut")
		s.tick(Second)
		s.up()
		s.settle()
		s.request(ReqRead, 1, 0, block)
		s.write(2, 0, block)
		s.settle()
	})
	if s.m.suspended != "operator" || s.m.phase != linked {
		t.Fatalf("suspended %q, phase %v", s.m.suspended, s.m.phase)
	}
	for q := ReqID(1); q <= 2; q++ {
		if err, ok := s.replies[q]; !ok || err == OK {
			t.Errorf("request %d: answered %v with %v", q, ok, err)
		}
	}
}

// Both nodes are told to give up their data after a split-brain, one while it agrees with
// the other, which did: it keeps its own.
func TestRecoverIsJudgedAfterTheAgreement(t *testing.T) {
	s := newScript(t, scriptSuper(func(sb *metadata.Superblock) {
		sb.Localcnt, sb.Marks, sb.Lineage = 1, metadata.Raised, history(5, 1)
	}))
	s.peer = side("B", 1, 0, raised, past(6, 1), pair(0x70, 0))
	s.secondary(false)
	s.silently(func() {
		s.up()
		s.settle()
		if s.m.phase == lingering {
			s.tell()
		}
		s.tick(linger)
		if s.m.word != wordSplit {
			t.Fatalf("the connection is %s", connWords[s.m.word])
		}
		s.session++
		s.peer = side("B", 1, 0, metadata.Inconsistent, past(6, 1), pair(0x70, 0)) // it gave up its data
		s.step(Event{Kind: EvSessionUp, Session: s.session, PeerRole: s.peer.Role})
		s.order(Command{Kind: CmdRecover})
		s.tell()
		for len(s.open) > 0 {
			s.done(s.open[0].label)
		}
	})
	if s.m.marks().Has(metadata.Inconsistent) || s.m.phase != linked || s.m.job != nil {
		t.Errorf("marks %v, phase %v (%s), order under way: %v", s.m.marks(), s.m.phase, s.m.wordReason, s.m.job != nil)
	}
}

// A component that fails while its mark in the state directory is being taken away was not
// opened, whatever is said of the mark then.
func TestDiskThatFailsWhileItsMarkIsTakenAway(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.silently(func() {
		s.role(metadata.Secondary)
		ev := s.answer(s.pending("open"), OK)
		ev.Image.StateInconsistent = true
		s.quietEvent(ev)
		s.done("commit")
		s.step(Event{Kind: EvDiskFailed, Text: "vanished"})
		s.role(metadata.Secondary) // closes it first
		for i, o := range s.open {
			if o.effect.Kind == EffStateMark {
				s.open = append(s.open[:i:i], s.open[i+1:]...)
				s.step(s.answer(o, OK))
				break
			}
		}
	})
	if s.m.disk == diskOpen || s.m.role == metadata.Secondary {
		t.Errorf("disk %v, role %v", s.m.disk, s.m.role)
	}
}

// A replica that is closed in order, flushed like its peer's, has nothing to compare when it
// is opened again. One that has still something to flush keeps that in its log.
func TestCloseInOrderLeavesNothingToCompare(t *testing.T) {
	for _, flushed := range []bool{true, false} {
		s := newScript(t, scriptSuper())
		s.primary()
		s.silently(func() {
			s.write(1, 0, block)
			s.settle()
			if flushed {
				s.order(Command{Kind: CmdRole, Role: metadata.Secondary})
			} else {
				s.loses("cut")
				s.order(Command{Kind: CmdRole, Role: metadata.Secondary, Force: true})
			}
			s.settle()
			st := s.m.st
			if s.m.role != metadata.Secondary || st.Log.Used() == 0 {
				t.Fatalf("role %v, %d extents", s.m.role, st.Log.Used())
			}
			s.order(Command{Kind: CmdRole, Role: metadata.Init})
			s.settle()
			if s.m.role != metadata.Init || st.Log.Used() == 0 != flushed {
				t.Errorf("flushed %v: role %v, %d extents stay in the log", flushed, s.m.role, st.Log.Used())
			}
		})
	}
}

// At a few bytes a second the machine does not ask to be stepped all the time.
func TestLowRateDoesNotSpin(t *testing.T) {
	s := syncing(t, func(c *Config) { c.MaxRate = 5 })
	steps := 0
	for end := s.now + Second; s.now < end; steps++ {
		at, ok := s.m.Deadline()
		if !ok || at <= s.now {
			at = s.now + Millisecond
		}
		s.now = at
		s.out = s.m.Step(s.now, []Event{{Kind: EvTick}}, s.out[:0])
	}
	if steps > 30 {
		t.Errorf("%d steps in a second", steps)
	}
}

// Of two secondaries none copies: the status says what has to happen.
func TestStatusOfTwoSecondariesSaysWhoIsToBePrimary(t *testing.T) {
	for _, c := range []struct {
		mine, peers metadata.Marks
		want        string
	}{
		{0, metadata.Inconsistent, "the replica of B is inconsistent: it is filled once A is primary"},
		{metadata.Inconsistent, 0, "this replica is inconsistent: it is filled once B is primary"},
	} {
		s := newScript(t, scriptSuper(func(sb *metadata.Superblock) { sb.Marks = c.mine }))
		s.peer = side("B", 0, 0, c.peers)
		s.secondary(true)
		if got := s.m.Status(s.now).Reason; got != c.want {
			t.Errorf("%v here, %v there: %q, want %q", c.mine, c.peers, got, c.want)
		}
	}
}

// endedInAnError is a write to the first block that this disk has, and that resume --error
// ended while it was on its way to the peer.
func (s *script) endedInAnError(req ReqID) {
	s.t.Helper()
	s.write(req, 0, block)
	for s.m.journal > 0 {
		s.done("commit")
	}
	s.done("disk write")
	s.order(Command{Kind: CmdSuspend})
	s.order(Command{Kind: CmdResume, WithError: true})
	s.order(Command{Kind: CmdResume})
}

// A write that resume --error ended is on this disk, and may never come to the peer whose
// data a primary with a bad replica shows: nobody reads it before the peer has it too.
func TestWriteThatEndedInAnErrorIsNotReadHereAlone(t *testing.T) {
	s := newScript(t, scriptSuper(func(sb *metadata.Superblock) { sb.Marks = metadata.Inconsistent }))
	s.dirty = make([]byte, 64)
	s.dirty[8] = 1 // a window that the peer never sends
	s.silently(func() {
		s.primary()
		if s.m.phase != linked || s.m.sync.direction != fromPeer {
			t.Fatalf("phase %v, sync %v", s.m.phase, s.m.sync.direction)
		}
		s.endedInAnError(1)
		s.request(ReqRead, 2, 0, block)
		s.none("disk read")
		if err, ok := s.replies[1]; !ok || err == OK {
			t.Fatalf("the write: answered %v with %v", ok, err)
		}
		s.settle() // the peer has it now
	})
	if err, ok := s.replies[2]; !ok || err != OK {
		t.Errorf("the read: answered %v with %v", ok, err)
	}
	if !s.m.peerOnly {
		t.Error("the peer could lose it, and nobody would be told")
	}
}

// A write that resume --error ended is on this disk and is read. Then the disk fails, and
// the connection goes before the peer got the write: the peer goes on without it, and the
// next flush says so.
func TestWriteThatFailedAndWasReadIsLostWithTheDisk(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.silently(func() {
		s.primary()
		s.endedInAnError(1)
		s.request(ReqRead, 2, 0, block)
		s.done("disk read")
		s.write(3, 1<<19, block)
		for s.m.journal > 0 {
			s.done("commit")
		}
		s.fails("disk write", "I/O error")
		s.loses("cut")
		s.up()
		s.settle()
		s.request(ReqFlush, 4, 0, 0)
		s.settle()
		s.request(ReqFlush, 5, 0, 0)
		s.settle()
	})
	if s.replies[1] == OK || s.replies[2] != OK {
		t.Fatalf("replies %v", s.replies)
	}
	if err, ok := s.replies[4]; !ok || err == OK {
		t.Errorf("the first flush: answered %v with %v", ok, err)
	}
	if err, ok := s.replies[5]; !ok || err != OK {
		t.Errorf("the second flush: answered %v with %v", ok, err)
	}
}

// An order to resume that is the first thing after a standstill is about the lease that
// ended meanwhile.
func TestResumeAfterAStandstillIsAboutTheLease(t *testing.T) {
	s := leader(t)
	s.silently(func() {
		s.now += lease
		s.order(Command{Kind: CmdResume})
	})
	if s.m.suspended != "no-lease" || !strings.Contains(s.refusal(), "no-lease") {
		t.Errorf("suspended %q, answered %q", s.m.suspended, s.refusal())
	}
}
