package replicate

import (
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
// flush would declare it durable on both: promoted, this node raises first.
func TestFlushOfWhatWasWrittenAfterTheConnection(t *testing.T) {
	for _, after := range []bool{true, false} {
		s := newScript(t, scriptSuper())
		s.peer.Role = metadata.Primary
		s.secondary(true)
		s.silently(func() {
			s.says(Msg{Kind: MsgRead, Seq: 1, Off: 0, Len: block})
			if after {
				s.says(Msg{Kind: MsgWrite, Seq: 2, Off: 0, Len: block, Buf: 501}) // waits for the read
			}
			s.loses("the connection was reset")
			s.settle()
			s.order(Command{Kind: CmdRole, Role: metadata.Primary, Force: true})
			s.settle()
			s.tick(2 * Second)
			s.settle()
		})
		if s.m.role != metadata.Primary || s.m.marks().Has(metadata.Raised) {
			t.Fatalf("role %v, marks %v", s.m.role, s.m.marks())
		}
		s.silently(func() { s.request(ReqFlush, 7, 0, 0); s.settle() })
		if err, ok := s.replies[7]; !ok || err != OK {
			t.Fatalf("not flushed: %v", s.replies)
		}
		if raised := s.m.marks().Has(metadata.Raised); raised != after {
			t.Errorf("written after the connection %v: raised %v", after, raised)
		}
	}
}
