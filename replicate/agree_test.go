package replicate

import (
	"encoding/binary"
	"testing"

	"hastd/metadata"
)

// A primary whose whole map is to be written may need longer than an agreement may take.
// What an attempt made durable the next one does not write again.
func TestWholeMapIsWrittenOnce(t *testing.T) {
	s := newScript(t, scriptSuper(neu))
	s.peer = side("B", 0, 0, 0, fresh)
	pages := func() (n int) {
		for _, o := range s.open {
			for _, w := range o.writes {
				if w.Offset >= s.layout.Map && w.Offset < s.layout.Map+s.layout.MapPages*metadata.PageSize {
					n++
				}
			}
		}
		return n
	}
	s.silently(func() {
		s.secondary(true)
		s.role(metadata.Primary)
		s.done("commit")
		s.done("provider start")
		s.tell()
	})
	if n := pages(); n == 0 {
		t.Fatal("no page of the map is written: nothing is shown")
	}
	s.silently(func() { s.tick(AgreementTimeout) })
	if s.m.session != 0 || s.m.wordReason != "no agreement was reached in time" {
		t.Errorf("session %d, reason %q", s.m.session, s.m.wordReason)
	}
	s.silently(func() {
		for len(s.open) > 0 {
			s.done(s.open[0].label)
		}
		s.session++
		s.sent = nil
		s.up()
	})
	if n := pages(); n != 0 {
		t.Errorf("%d pages are written again", n)
	}
	s.silently(s.settle)
	if s.m.phase != linked {
		t.Errorf("phase %d", s.m.phase)
	}
}

// A map with a bit here and there goes in few messages, and says the same.
func TestScatteredMapGoesInFewMessages(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.secondary(true)
	m := s.m
	words := m.st.Dirty.Words()
	for _, c := range []struct {
		name     string
		dirty    func(word int) bool
		messages int
	}{
		{"nothing", func(w int) bool { return false }, 0},
		{"every other word", func(w int) bool { return w%2 == 1 }, 1},
		{"two far from each other", func(w int) bool { return w == 3 || w == words-1 }, 2},
		{"everything", func(w int) bool { return true }, 1},
	} {
		m.st.Dirty.Reset()
		want := make([]uint64, words)
		for w := range words {
			if c.dirty(w) {
				want[w] = uint64(w) | 1
				m.st.Dirty.OrWord(w, want[w])
			}
		}
		m.out = m.out[:0]
		m.sendMap()
		got, n := make([]uint64, words), 0
		for i := range m.out {
			if e := &m.out[i]; e.Kind == EffSend {
				p := e.Msg.Control.(*MapPart)
				if len(p.Bits) > 8*MaxMapPart {
					t.Errorf("%s: %d bytes in a message", c.name, len(p.Bits))
				}
				for i := 0; i < len(p.Bits); i += 8 {
					got[p.First+i/8] |= binary.LittleEndian.Uint64(p.Bits[i:])
				}
				n++
			}
		}
		if n != c.messages {
			t.Errorf("%s: %d messages, want %d", c.name, n, c.messages)
		}
		for w := range words {
			if got[w] != want[w] {
				t.Fatalf("%s: word %d is %x, want %x", c.name, w, got[w], want[w])
			}
		}
	}
}

// What is written between a promotion and the agreement that follows goes to both: the
// pair has not parted. If the peer says no more it goes on alone, as ever.
func TestWriteRightAfterAPromotion(t *testing.T) {
	for _, lost := range []bool{false, true} {
		s := newScript(t, scriptSuper())
		s.secondary(true)
		s.silently(func() {
			s.role(metadata.Primary)
			for s.m.provider != providerUp {
				s.done(s.open[0].label)
			}
			if s.m.phase != greeting {
				t.Fatalf("phase %d", s.m.phase)
			}
			s.write(1, 0, block)
			for len(s.open) > 0 {
				s.done(s.open[0].label)
			}
		})
		if _, ok := s.replies[1]; ok || s.m.marks().Has(metadata.Raised) {
			t.Fatalf("before the agreement: replies %v, marks %v", s.replies, s.m.marks())
		}
		s.silently(func() {
			if lost {
				for end := s.now + AgreementTimeout; s.now < end; {
					s.tick(100 * Millisecond)
				}
				s.sent = nil
			}
			s.settle()
		})
		if err, ok := s.replies[1]; !ok || err != OK || s.m.marks().Has(metadata.Raised) != lost || s.m.phase == linked == lost {
			t.Errorf("lost %v: replies %v, marks %v, phase %d", lost, s.replies, s.m.marks(), s.m.phase)
		}
	}
}

// A new replica beside one with data is no copy of it before somebody is primary.
func TestNewReplicaIsNotUpToDate(t *testing.T) {
	for _, c := range []struct {
		resuid       metadata.ID
		status, disk string
	}{{0xd0, "degraded", "outdated"}, {0, "complete", "uptodate"}} {
		s := newScript(t, scriptSuper(neu))
		s.peer = side("B", 0, 0, 0, fresh, resuid(c.resuid))
		s.secondary(true)
		if st := s.m.Status(s.now); s.m.phase != linked || st.Status != c.status || st.Disk != c.disk || (st.Reason == "") != (c.status == "complete") {
			t.Errorf("peer's resuid %v: phase %d, %s %s: %s", c.resuid, s.m.phase, st.Status, st.Disk, st.Reason)
		}
	}
}
