package replicate

import (
	"strings"
	"testing"

	"hastd/metadata"
)

// What a secondary received it writes, although the connection is lost, and in order; a
// primary with memsync may have acknowledged it. Before that it agrees to nothing new.
func TestReceivedIsWrittenAfterTheConnection(t *testing.T) {
	s := newScript(t, scriptSuper(), func(c *Config) { c.Mode = Memsync })
	s.peer.Role = metadata.Primary
	s.secondary(true)
	s.silently(func() {
		s.says(Msg{Kind: MsgWrite, Seq: 1, Off: 0, Len: block, Buf: 501})
		s.done("commit")                                                  // of the activity log
		s.says(Msg{Kind: MsgWrite, Seq: 2, Off: 0, Len: block, Buf: 502}) // waits for the first
		s.says(Msg{Kind: MsgRead, Seq: 3, Off: 0, Len: block})            // waits, and nobody wants it any more
		s.loses("the connection was reset")
	})
	if s.m.applying != 2 {
		t.Fatalf("%d requests are owed, want both writes and no read", s.m.applying)
	}
	var wrote []Handle
	for range 10 {
		for _, o := range s.open {
			if o.effect.Disk == DiskWrite {
				wrote = append(wrote, o.effect.Buf)
			}
		}
		if len(s.open) == 0 {
			break
		}
		if len(s.open) > 1 {
			t.Fatalf("two at one place at a time: %v", s.open)
		}
		s.silently(func() { s.done(s.open[0].label) })
	}
	if len(wrote) != 2 || wrote[0] != 501 || wrote[1] != 502 || s.m.applying != 0 {
		t.Errorf("wrote %v, %d owed", wrote, s.m.applying)
	}
}

// What was written after the connection the lost primary may never have written itself. A
// flush would declare it durable on both: promoted, this node raises first. The same for
// what went past this node's log because the primary's is larger.
func TestFlushOfWhatWasWrittenAfterTheConnection(t *testing.T) {
	pushed := []Msg{} // one more extent than the log has, and a flush while the first write is open there
	for i := range 17 {
		pushed = append(pushed, Msg{Kind: MsgWrite, Seq: uint64(i + 1), Off: int64(i) << 20, Len: block, Buf: Handle(500 + i)})
	}
	pushed = append(pushed, Msg{Kind: MsgFlush, Seq: 18}, Msg{Kind: MsgClean, Seq: 18, Seqs: []uint64{1}})
	for _, c := range []struct {
		name    string
		says    []Msg
		settles bool // after each, before the connection is lost
		raise   bool
	}{
		{"nothing was written", []Msg{{Kind: MsgRead, Seq: 1, Len: block}}, false, false},
		{"a write waited for a read", []Msg{{Kind: MsgRead, Seq: 1, Len: block}, {Kind: MsgWrite, Seq: 2, Len: block, Buf: 501}}, false, true},
		{"a write went past the log", []Msg{{Kind: MsgZero, Seq: 1, Len: 9 << 20}}, true, true},
		{"a write was pushed out of the log", pushed, true, true},
		{"a write went past the log as a sync ended", []Msg{{Kind: MsgZero, Seq: 1, Len: 9 << 20}}, true, true},
	} {
		s := newScript(t, scriptSuper())
		s.peer.Role = metadata.Primary
		s.secondary(true)
		s.silently(func() {
			for _, msg := range c.says {
				s.says(msg)
				if c.settles {
					s.settle()
				}
			}
			if strings.HasSuffix(c.name, "as a sync ended") {
				s.m.syncDone()
			}
			s.loses("the connection was reset")
			s.settle()
			s.order(Command{Kind: CmdRole, Role: metadata.Primary, Force: true})
			s.settle()
			s.tick(2 * Second)
			s.settle()
		})
		if s.m.role != metadata.Primary || s.m.marks().Has(metadata.Raised) {
			t.Fatalf("%s: role %v, marks %v", c.name, s.m.role, s.m.marks())
		}
		s.silently(func() { s.request(ReqFlush, 7, 0, 0); s.settle() })
		if err, ok := s.replies[7]; !ok || err != OK {
			t.Fatalf("%s: not flushed: %v", c.name, s.replies)
		}
		if raised := s.m.marks().Has(metadata.Raised); raised != c.raise {
			t.Errorf("%s: raised %v", c.name, raised)
		}
	}
}
