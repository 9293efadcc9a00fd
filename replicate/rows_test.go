package replicate

import (
	"testing"

	"hastd/metadata"
)

// TestRow26: between its facts and the first data a primary neither starts a write,
// nor raises, nor acknowledges, nor reads what it has not read alone before.
func TestRow26(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.peer = side("B", 0, 0, 0)
	s.primary()
	s.loses("cut")
	s.write(1, 0, 4096)
	s.done("commit") // the extent, and that a primary may crash
	s.step(Event{Kind: EvSessionUp, Session: s.session, PeerRole: metadata.Secondary})
	s.peer.Epoch = s.m.st.Super().Epoch
	s.tell()
	if s.m.phase != agreeing {
		t.Fatalf("phase %d after the peer's facts", s.m.phase)
	}
	localcnt := s.m.st.Super().Localcnt
	quiet := func(what string) {
		t.Helper()
		for _, e := range s.out {
			if e.Kind == EffReply || e.Kind == EffDisk {
				t.Errorf("%s: effect %d during an agreement", what, e.Kind)
			}
		}
		if s.m.st.Super().Localcnt != localcnt {
			t.Errorf("%s: raised during an agreement", what)
		}
	}
	s.write(2, 8192, 4096)
	quiet("a new write")
	s.request(ReqRead, 3, 0, 4096)
	quiet("a read")
	s.request(ReqFlush, 4, 0, 0)
	quiet("a flush")
	s.done("disk write") // the local part of the write begun before
	quiet("the end of a write begun before")
	s.settle()
	if s.m.phase != linked || len(s.m.queue)+len(s.m.active)+len(s.m.flushQueue) != 0 {
		t.Errorf("phase %d, %d queued, %d active after the agreement", s.m.phase, len(s.m.queue), len(s.m.active))
	}
}
