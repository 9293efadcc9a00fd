package replicate

import (
	"testing"

	"hastd/metadata"
)

// A primary that is ordered to hold answers nothing, connected or not, until it is
// resumed or demoted.
func TestSuspendedByOrder(t *testing.T) {
	for _, connected := range []bool{true, false} {
		s := newScript(t, scriptSuper())
		s.primary()
		s.order(Command{Kind: CmdSuspend})
		if !connected {
			s.loses("connection reset")
		}
		s.write(1, 0, block)
		s.request(ReqRead, 2, 4*block, block)
		s.request(ReqFlush, 3, 0, 0)
		s.settle()
		if s.drain(1) || s.drain(2) || s.drain(3) {
			t.Fatalf("connected %v: answered", connected)
		}
		if st := s.m.Status(s.now); !st.Suspended || st.SuspendReason != "operator" || st.Role != metadata.Primary {
			t.Errorf("connected %v: %+v", connected, st)
		}
		s.order(Command{Kind: CmdResume})
		s.settle()
		if !s.drain(1) || !s.drain(2) || !s.drain(3) || s.m.suspended != "" {
			t.Errorf("connected %v: resumed, and suspended %q", connected, s.m.suspended)
		}
		// Its demotion ends it, too: what it held fails.
		s.order(Command{Kind: CmdSuspend})
		s.write(4, 0, block)
		s.role(metadata.Secondary)
		s.settle()
		if !s.answered(4, ErrIO) || s.m.role != metadata.Secondary || s.m.suspended != "" || s.m.halted {
			t.Errorf("connected %v: after its demotion: %s, suspended %q", connected, s.m.role, s.m.suspended)
		}
		s.order(Command{Kind: CmdSuspend})
		if s.m.suspended != "" {
			t.Error("a secondary was suspended")
		}
	}
}

// Status.Reads is true only while a read would be answered, from this replica.
func TestReadsAreToldOfOnlyWhileTheyAreAnswered(t *testing.T) {
	s := newScript(t, scriptSuper())
	want := func(what string, reads bool) {
		t.Helper()
		if got := s.m.Status(s.now).Reads; got != reads {
			t.Errorf("%s: reads %v", what, got)
		}
	}
	want("before it is opened", false)
	s.primary()
	want("connected", true)
	s.order(Command{Kind: CmdSuspend})
	want("ordered to hold", false)
	s.order(Command{Kind: CmdResume})
	want("resumed", true)
	s.loses("connection reset")
	want("nothing was read alone yet", false)
	s.request(ReqRead, 1, 0, block)
	s.settle()
	if !s.drain(1) {
		t.Fatal("a read waits")
	}
	want("it reads alone", true)
	s.m.overtaken = true
	s.tick(Second)
	want("the peer is primary and has newer data", false)
	s.order(Command{Kind: CmdResume, WithError: true})
	want("reads fail", false)
	s.role(metadata.Secondary)
	s.settle()
	want("a secondary", false)

	s = leader(t)
	want("with a lease", true)
	s.tick(lease)
	want("the lease ran out", false)

	s = newScript(t, scriptSuper())
	s.primary()
	s.tick(StoodStill + Second)
	s.loses("connection reset")
	if !s.m.asking() {
		t.Fatal("the peer is not asked")
	}
	want("the peer is asked first", false)
	s.step(Event{Kind: EvDiskFailed, Text: "it burns"})
	want("without a disk", false)
}
