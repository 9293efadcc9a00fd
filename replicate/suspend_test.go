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
