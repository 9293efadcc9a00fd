package replicate

import (
	"strings"
	"testing"

	"hastd/metadata"
)

func TestTranscriptSecondaryDiskFails(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.peer.Role = metadata.Primary
	s.secondary(true)
	s.silently(func() { s.says(Msg{Kind: MsgWrite, Seq: 1, Off: 0, Len: block, Buf: 501}); s.settle() })
	s.says(Msg{Kind: MsgWrite, Seq: 2, Off: 0, Len: block, Buf: 502})
	s.fails("disk write", "")
	s.compare("secondary-disk-fails")
}

func TestTranscriptTakeover(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.silently(func() { s.write(1, 0, block); s.settle(); s.peer.Instance = 77 })
	s.say("a local write fails: the peer takes over the record before anything is acknowledged")
	s.write(2, 0, block)
	s.says(Msg{Kind: MsgWrote, Seqs: []uint64{s.m.seq}})
	s.fails("disk write", "")
	s.write(3, 4*block, block)
	s.request(ReqRead, 4, 8*block, block)
	s.say("the peer raised durably; this replica is marked bad before anything goes on")
	s.says(Msg{Kind: MsgTookOver, Control: &TakeOver{Localcnt: 1}})
	s.done("state mark")
	s.say("from now on the peer's replica serves alone")
	s.says(Msg{Kind: MsgWrote, Seqs: []uint64{s.m.seq - 1, s.m.seq}})
	s.compare("takeover")
}

// unmarked is a linked primary whose disk failed, and nothing could record that its replica
// is bad.
func unmarked(t *testing.T) *script {
	t.Helper()
	s := newScript(t, scriptSuper())
	s.primary()
	s.silently(func() {
		s.write(1, 0, block)
		s.settle()
		s.write(2, 8*block, block)
		s.says(Msg{Kind: MsgWrote, Seqs: []uint64{s.m.seq}})
		s.fails("disk write", "no space left on device")
		s.sent = nil
		s.says(Msg{Kind: MsgTookOver, Control: &TakeOver{Localcnt: 1, Lineage: history(1, 2)}})
		for len(s.open) > 0 {
			s.fails(s.open[0].label, "I/O error")
		}
	})
	return s
}

// If nothing can record that this replica is bad its requests fail, and it can step down
// for the peer that has everything.
func TestStepDownAlthoughNothingRecordsTheBadReplica(t *testing.T) {
	s := unmarked(t)
	if err, ok := s.replies[2]; !ok || err == OK {
		t.Fatalf("replies %v", s.replies)
	}
	if text := s.m.diskText; !strings.HasSuffix(text, ": no space left on device") {
		t.Errorf("the disk failed because %q", text)
	}
	s.silently(func() {
		s.order(Command{Kind: CmdRole, Role: metadata.Secondary})
		for range 5 {
			s.tick(10 * Second)
			s.settle()
		}
	})
	if s.m.role == metadata.Primary || s.m.job != nil {
		t.Errorf("role %v, order under way: %v", s.m.role, s.m.job != nil)
	}
}

// Nor does a suspension that ends change that: requests go on failing, and nobody waits.
func TestSuspensionAfterNothingRecordedTheBadReplica(t *testing.T) {
	s := unmarked(t)
	s.silently(func() {
		s.order(Command{Kind: CmdSuspend})
		s.order(Command{Kind: CmdResume})
		s.write(3, 16*block, block)
		s.order(Command{Kind: CmdRole, Role: metadata.Secondary, Force: true})
		for range 5 {
			s.tick(10 * Second)
			s.settle()
		}
	})
	if err, ok := s.replies[3]; !ok || err == OK {
		t.Errorf("replies %v", s.replies)
	}
	if s.m.role == metadata.Primary || s.m.job != nil {
		t.Errorf("role %v, order under way: %v", s.m.role, s.m.job != nil)
	}
}

// That nothing could record a bad replica once says nothing of the next takeover: a
// demotion waits for that.
func TestNextTakeoverIsWaitedFor(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.m.unmarked = true // of an earlier disk
	s.silently(func() {
		s.write(1, 0, block)
		for s.m.disk == diskOpen {
			s.fails(s.open[0].label, "I/O error")
		}
	})
	if !s.m.taking || s.m.unmarked {
		t.Errorf("taking %v, unmarked %v", s.m.taking, s.m.unmarked)
	}
}

func TestTranscriptTakeoverWithoutPeer(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.silently(func() {
		s.write(1, 0, block)
		s.settle()
		s.loses("connection reset")
		s.write(2, 0, block)
		s.settle()
	})
	s.say("no peer: the request fails, and so does what comes after")
	s.write(3, 0, block)
	s.fails("disk write", "")
	s.write(4, 0, block)
	s.request(ReqRead, 5, 0, block)
	s.compare("disk-fails-alone")
}

func TestTranscriptRepair(t *testing.T) {
	s := newScript(t, scriptSuper())
	s.primary()
	s.say("a block that cannot be read comes from the peer and is written back")
	s.request(ReqRead, 1, 4*block, block)
	s.fails("disk read", "")
	s.says(Msg{Kind: MsgData, Seq: s.m.seq, Off: 4 * block, Len: block, Buf: 600})
	s.say("its extent is journalled like that of any write")
	s.done("commit")
	s.done("disk write")
	s.say("if the peer cannot read it either, it is an error")
	s.request(ReqRead, 2, 4*block, block)
	s.fails("disk read", "")
	s.says(Msg{Kind: MsgFailed, Seq: s.m.seq})
	s.compare("repair")
}
