package replicate

import (
	"testing"

	"hastd/metadata"
)

// slept is a linked primary that stood still for d with a write under way, and woke
// to find its connection lost.
func slept(t *testing.T, d Instant) *script {
	t.Helper()
	s := newScript(t, scriptSuper())
	s.primary()
	s.silently(func() {
		s.write(1, 0, 4096)
		for len(s.open) > 0 {
			s.done(s.open[0].label)
		}
		s.now += d
		s.loses("nothing heard for 20 s")
	})
	return s
}

// answered says whether a request was answered so.
func (s *script) answered(req ReqID, err Err) bool {
	got, ok := s.replies[req]
	return ok && got == err
}

// drain ends what is under way on this node, and says whether the request was answered.
func (s *script) drain(req ReqID) bool {
	s.t.Helper()
	for len(s.open) > 0 {
		s.done(s.open[0].label)
	}
	return s.answered(req, OK)
}

func TestSleeperAsksBeforeItGoesOnAlone(t *testing.T) {
	const long = 3 * Second
	raised := func(s *script) bool { return s.m.marks().Has(metadata.Raised) }
	s := slept(t, StoodStill/2)
	if !s.drain(1) || !raised(s) {
		t.Error("a primary that did not stand still waits for a peer that is gone")
	}
	s = slept(t, long)
	if s.drain(1) || raised(s) {
		t.Fatal("it went on alone without having asked")
	}
	s.request(ReqRead, 2, 0, 4096)
	if s.drain(2) {
		t.Error("it reads what the peer may have overwritten")
	}
	s.step(Event{Kind: EvUnreachable, Text: "refused by its policy", Refused: true})
	if s.drain(1) {
		t.Error("a peer that answers was not waited for")
	}
	s.step(Event{Kind: EvUnreachable, Text: "no route to host"})
	if !s.drain(1) || !raised(s) {
		t.Error("it waits for a peer that cannot be reached")
	}
	s = slept(t, long)
	at, ok := s.m.Deadline()
	if !ok || at != s.now+AskTime {
		t.Errorf("it would look again after %d ms, want %d", (at-s.now)/Millisecond, AskTime/Millisecond)
	}
	s.tick(AskTime)
	if !s.drain(1) || !raised(s) {
		t.Error("it asks for ever")
	}
}

// A slept primary whose peer is still there goes on as if nothing had happened.
func TestSleeperFindsItsPeer(t *testing.T) {
	s := slept(t, 3*Second)
	s.up()
	s.settle()
	if s.m.phase != linked || s.m.marks().Has(metadata.Raised) || s.m.asking() {
		t.Errorf("phase %d, marks %s", s.m.phase, s.m.marks())
	}
}

// The peer was promoted meanwhile and wrote: nothing is acknowledged here, nothing is
// read, until this node steps down or is told to go on.
func TestSleeperWasOvertaken(t *testing.T) {
	overtaken := func(t *testing.T) *script {
		s := slept(t, 3*Second)
		s.peer = side("B", 1, 0, metadata.Raised)
		s.peer.Role, s.peer.Epoch = metadata.Primary, epoch(s.m.st.Super().Epoch.Number+1, 2)
		s.peer.Pair, s.peer.Lineage = s.m.st.Super().Pair, s.m.st.Super().Lineage.Add(metadata.Generation{ID: 0x999, Node: 2})
		s.silently(s.up)
		return s
	}
	s := overtaken(t)
	if got := s.m.suspended; got != "peer-primary" {
		t.Fatalf("suspended %q, verdict %s: %s", got, s.m.verdict, s.m.verdict.Reason)
	}
	s.request(ReqRead, 2, 0, 4096)
	if s.drain(1) || s.drain(2) || s.m.marks().Has(metadata.Raised) {
		t.Error("it parted from a peer that it lacks nothing of but what is newer")
	}
	s.step(Event{Kind: EvUnreachable, Text: "no route to host"})
	s.tick(AskTime)
	if s.drain(1) {
		t.Error("a peer that has newer data and cannot be reached does not make this data good")
	}
	s.order(Command{Kind: CmdRole, Role: metadata.Secondary})
	s.drain(1)
	if failed := s.answered(1, ErrIO); !failed || s.m.role != metadata.Secondary || s.m.marks().Has(metadata.Raised) {
		t.Errorf("stepping down: failed %v, role %s, marks %s", failed, s.m.role, s.m.marks())
	}
	s = overtaken(t)
	s.order(Command{Kind: CmdResume})
	if !s.drain(1) || !s.m.marks().Has(metadata.Raised) {
		t.Error("told to go on, it does not")
	}
}

// One that stood still right after it was promoted.
func TestSleeperSinceItsPromotionAsksToo(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.secondary(true)
	s.silently(func() {
		s.role(metadata.Primary)
		for s.m.role != metadata.Primary {
			s.done(s.open[0].label)
		}
		s.now += 3 * Second
		s.loses("nothing heard for 20 s")
	})
	if !s.m.asking() {
		t.Error("it does not ask")
	}
}

// The same while an agreement is being reached: both were promoted at once.
func TestSleeperInAnAgreementAsksToo(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.silently(func() {
		s.says(Msg{Kind: MsgRenegotiate, Control: &Renegotiate{Conn: s.m.conn + 1, Reason: "promotion"}})
		s.write(1, 0, 4096)
		s.now += 3 * Second
		s.loses("nothing heard for 20 s")
	})
	if s.drain(1) || s.m.marks().Has(metadata.Raised) || !s.m.asking() {
		t.Error("it went on alone without having asked")
	}
}

// An order to step down that is refused because the device is in use: what was held
// for it, because the peer was lost meanwhile, is answered like any other write.
func TestRefusedDemotionLetsGoOfWhatItHeld(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.silently(func() {
		s.write(1, 0, 4096)
		for len(s.open) > 0 {
			s.done(s.open[0].label)
		}
		s.role(metadata.Secondary)
		stop := s.pending("provider stop")
		s.loses("connection reset")
		if s.drain(1) || s.m.marks().Has(metadata.Raised) {
			t.Error("it parts from its peer although it may be stepping down")
		}
		s.quietEvent(s.answer(stop, ErrBusy))
	})
	if !s.drain(1) {
		t.Error("a write hangs after the order was refused")
	}
}
