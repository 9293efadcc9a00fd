package sim

import (
	"fmt"

	"hastd/replicate"
)

// Words for the trace.

func (w *World) msgString(m *replicate.Msg) string {
	s := msgNames[m.Kind]
	if m.Conn != 0 {
		s += fmt.Sprintf(" conn %d", m.Conn)
	}
	if m.Seq != 0 {
		s += fmt.Sprintf(" seq %d", m.Seq)
	}
	if m.Len != 0 {
		s += fmt.Sprintf(" sector %d +%d", m.Off/sectorSize, m.Len/sectorSize)
	} else if m.Mask != 0 {
		s += fmt.Sprintf(" window %d mask %#x zeroes %#x", m.Off/replicate.WindowSize, m.Mask, m.Zeroes)
	}
	if len(m.Seqs) > 0 {
		s += fmt.Sprintf(" seqs %d", m.Seqs)
	}
	if m.Control != nil {
		s += " " + controlString(m.Control)
	}
	return s
}

func controlString(c any) string {
	switch x := c.(type) {
	case *replicate.Facts:
		return fmt.Sprintf("{%s %s %d/%d epoch %d.%d marks %s pair %s prev %s gens %d}", x.Node, x.Role, x.Localcnt, x.Remotecnt, x.Epoch.Number, x.Epoch.Node, x.Marks, x.Pair, x.PairPrev, len(x.Lineage))
	case *replicate.Begin:
		return fmt.Sprintf("{%s; epoch %d.%d full %v}", x.Verdict, x.Epoch.Number, x.Epoch.Node, x.Full)
	case *replicate.MapPart:
		return fmt.Sprintf("{first %d, %d bytes}", x.First, len(x.Bits))
	}
	return fmt.Sprintf("%T%+v", c, c)
}

func (w *World) effectString(e *replicate.Effect) string {
	s := effectNames[e.Kind]
	if e.Op != 0 {
		s += fmt.Sprintf(" op %d", e.Op)
	}
	switch e.Kind {
	case replicate.EffDisk:
		s += " " + diskNames[e.Disk]
		if e.Mask != 0 {
			s += fmt.Sprintf(" window %d mask %#x zeroes %#x", e.Off/replicate.WindowSize, e.Mask, e.Zeroes)
		} else if e.Len != 0 {
			s += fmt.Sprintf(" sector %d +%d", e.Off/sectorSize, e.Len/sectorSize)
		}
	case replicate.EffCommit:
		s += fmt.Sprintf(" %d writes", len(e.Writes))
	case replicate.EffSend:
		s += " " + w.msgString(&e.Msg)
	case replicate.EffReply:
		s += fmt.Sprintf(" request %d err %d", e.Req, e.Err)
	case replicate.EffRelease:
		s += fmt.Sprintf(" %#x", e.Buf)
	case replicate.EffStateMark:
		s += fmt.Sprintf(" set %v", e.Set)
	case replicate.EffConnect:
		s += fmt.Sprintf(" now %v", e.Now)
	case replicate.EffDisconnect:
		s += fmt.Sprintf(" session %d stop %v %s", e.Session, e.Stop, e.Text)
	case replicate.EffProviderStart, replicate.EffProviderStop:
		s += fmt.Sprintf(" size %d force %v", e.Size, e.Force)
	case replicate.EffAnswer:
		s += fmt.Sprintf(" to %d", e.Command)
		if e.Refusal != nil {
			s += fmt.Sprintf(" refused %d: %s (%s)", e.Refusal.Code, e.Refusal.Text, e.Refusal.Hint)
		}
	case replicate.EffReport:
		s += fmt.Sprintf(" %s %s>%s %s", reportNames[e.Report.Kind], e.Report.Old, e.Report.New, e.Report.Reason)
	}
	return s
}

func commandString(c *replicate.Command) string {
	if c.Kind == replicate.CmdGrant { // of a pair whose owner is decided by views
		return fmt.Sprintf("%d grant %+v", c.ID, *c.Grant)
	}
	s := fmt.Sprintf("%d %s", c.ID, commandNames[c.Kind])
	if c.Kind == replicate.CmdRole {
		s += " " + c.Role.String()
	}
	if c.Force {
		s += " force"
	}
	if c.WithError {
		s += " with error"
	}
	return s
}
