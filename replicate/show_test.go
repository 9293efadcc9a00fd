package replicate

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"

	"hastd/metadata"
)

// How transcripts show events and effects.

var msgNames = map[MsgKind]string{
	MsgWrite: "write", MsgZero: "zero", MsgFlush: "flush", MsgRead: "read", MsgClean: "clean", MsgReceived: "received", MsgWrote: "wrote",
	MsgFlushed: "flushed", MsgData: "data", MsgFailed: "failed", MsgSyncHash: "sync-hash", MsgSyncNeed: "sync-need", MsgSyncData: "sync-data",
	MsgSyncPull: "sync-pull", MsgSyncBlocks: "sync-blocks", MsgFacts: "facts", MsgBegin: "begin", MsgMap: "map", MsgReady: "ready", MsgFlow: "flow",
	MsgSyncEnd: "sync-end", MsgSyncEnded: "sync-ended", MsgSyncClear: "sync-clear", MsgTakeOver: "take-over", MsgTookOver: "took-over",
	MsgRole: "role", MsgRenegotiate: "renegotiate", MsgDiskFailed: "disk-failed",
	MsgProbe: "probe", MsgAlive: "alive",
}

var reportNames = map[ReportKind]string{
	ReportRole: "role", ReportConnected: "connected", ReportDisconnected: "disconnected", ReportRefused: "refused", ReportSplitBrain: "split-brain",
	ReportSyncStart: "sync start", ReportSyncDone: "sync done", ReportSyncStopped: "sync stopped", ReportStatus: "status", ReportDisk: "disk",
	ReportPeerDisk: "peer disk", ReportSuspended: "suspended", ReportResumed: "resumed", ReportRepaired: "repaired", ReportDataLoss: "data loss",
	ReportForced: "forced", ReportWarning: "warning", ReportVerdict: "verdict",
}

func showMsg(m *Msg) string {
	var b strings.Builder
	b.WriteString(msgNames[m.Kind])
	if m.Seq != 0 {
		fmt.Fprintf(&b, " %d", m.Seq)
	}
	if m.Len != 0 {
		fmt.Fprintf(&b, " %d+%d", m.Off, m.Len)
	} else if m.Off != 0 {
		fmt.Fprintf(&b, " at %d", m.Off)
	}
	if m.Mask != 0 {
		fmt.Fprintf(&b, " mask %x", m.Mask)
	}
	if m.Flags&FUA != 0 {
		b.WriteString(" fua")
	}
	if m.Kind == MsgWrote || m.Kind == MsgReceived || len(m.Seqs) > 0 {
		fmt.Fprintf(&b, " %v", m.Seqs)
	}
	if m.Buf != 0 {
		fmt.Fprintf(&b, " buffer %d", m.Buf)
	}
	switch c := m.Control.(type) {
	case *Facts:
		fmt.Fprintf(&b, " %s %s %d/%d %s epoch %d.%d", c.Node, c.Role, c.Localcnt, c.Remotecnt, c.Marks, c.Epoch.Number, c.Epoch.Node)
		if c.Resuid == 0 {
			b.WriteString(" new")
		}
	case *Begin:
		fmt.Fprintf(&b, " %q epoch %d.%d", c.Verdict, c.Epoch.Number, c.Epoch.Node)
	case *MapPart:
		fmt.Fprintf(&b, " of %d words from %d", len(c.Bits)/8, c.First)
	case *SyncEnd:
		fmt.Fprintf(&b, " localcnt %d", c.Localcnt)
	case *TakeOver:
		fmt.Fprintf(&b, " localcnt %d", c.Localcnt)
	case *RoleChange:
		fmt.Fprintf(&b, " %s", c.Role)
	case *Renegotiate:
		fmt.Fprintf(&b, " %d: %s", c.Conn, c.Reason)
	}
	return b.String()
}

func showEvent(e *Event) string {
	switch e.Kind {
	case EvRequest:
		s := fmt.Sprintf("request %d: %s", e.Req, [...]string{"", "read", "write", "zero", "flush"}[e.Request])
		if e.Len > 0 {
			s += fmt.Sprintf(" %d+%d", e.Off, e.Len)
		}
		if e.Flags&FUA != 0 {
			s += " fua"
		}
		return s
	case EvMessage:
		return "peer: " + showMsg(&e.Msg)
	case EvSessionUp:
		return "session up, the peer is " + e.PeerRole.String()
	case EvSessionDown:
		return "session down: " + e.Text
	case EvUnreachable:
		return "unreachable: " + e.Text
	case EvDiskFailed:
		return "disk failed: " + e.Text
	case EvCommand:
		c := e.Command
		switch c.Kind {
		case CmdRole:
			s := "order: role " + c.Role.String()
			if c.Force {
				s += " --force"
			}
			return s
		case CmdResume:
			if c.WithError {
				return "order: resume --error"
			}
			return "order: resume"
		case CmdRecover:
			return "order: recover"
		case CmdConnect:
			return "order: connect"
		case CmdDisconnect:
			return "order: disconnect"
		}
	}
	return fmt.Sprintf("event %d", e.Kind)
}

func (s *script) showEffect(e *Effect) string {
	switch e.Kind {
	case EffDisk:
		op := [...]string{"", "read", "write", "zero", "flush", "read-hash", "compare", "write-masked"}[e.Disk]
		if e.Disk == DiskFlush {
			return "disk flush"
		}
		out := fmt.Sprintf("disk %s %d+%d", op, e.Off, e.Len)
		if e.Mask != 0 {
			out += fmt.Sprintf(" mask %x", e.Mask)
		}
		return out
	case EffCommit:
		return "commit" + s.showWrites(e.Writes)
	case EffSend:
		return "send " + showMsg(&e.Msg)
	case EffReply:
		out := fmt.Sprintf("reply %d", e.Req)
		if e.Err != OK {
			out += " EIO"
		}
		if e.Buf != 0 {
			out += fmt.Sprintf(" from buffer %d", e.Buf)
		}
		return out
	case EffRelease:
		return fmt.Sprintf("release buffer %d", e.Buf)
	case EffOpen:
		return "open"
	case EffClose:
		return "close"
	case EffStateMark:
		if e.Set {
			return "state mark: inconsistent"
		}
		return "state mark: none"
	case EffConnect:
		if e.Now {
			return "connect now"
		}
		return "connect"
	case EffDisconnect:
		out := "disconnect"
		if e.Stop {
			out += ", stop"
		}
		return out + ": " + e.Text
	case EffProviderStart:
		return fmt.Sprintf("provider start, %d bytes", e.Size)
	case EffProviderStop:
		if e.Force {
			return "provider stop by force"
		}
		return "provider stop"
	case EffAnswer:
		if r := e.Refusal; r != nil {
			return fmt.Sprintf("answer: refused (%d): %s / %s", r.Code, r.Text, r.Hint)
		}
		return "answer: done"
	case EffReport:
		r := e.Report
		out := "report " + reportNames[r.Kind]
		if r.Old != "" {
			out += " " + r.Old + " →"
		}
		if r.New != "" {
			out += " " + r.New
		}
		if r.Reason != "" {
			out += ": " + r.Reason
		}
		if r.Bytes != 0 {
			out += fmt.Sprintf(" (%d bytes)", r.Bytes)
		}
		return out
	}
	return fmt.Sprintf("effect %d", e.Kind)
}

// showWrites reads a commit.
func (s *script) showWrites(ws []metadata.Write) string {
	var b strings.Builder
	for _, w := range ws {
		switch w.Offset {
		case s.layout.Super[0], s.layout.Super[1]:
			sb, err := metadata.DecodeSuperblock(w.Data)
			if err != nil {
				s.t.Fatal(err)
			}
			fmt.Fprintf(&b, " super(%s %d/%d %s, epoch %d.%d, %d generations", sb.PrevRole, sb.Localcnt, sb.Remotecnt, sb.Marks, sb.Epoch.Number, sb.Epoch.Node, len(sb.Lineage))
			if sb.Resuid == 0 {
				b.WriteString(", new")
			}
			b.WriteString(")")
		case s.layout.Log[0], s.layout.Log[1]:
			_, extents, err := metadata.DecodeLog(w.Data, scriptData>>20)
			if err != nil {
				s.t.Fatal(err)
			}
			fmt.Fprintf(&b, " log%v", extents)
		default:
			n := 0
			for i := 32; i < len(w.Data); i += 8 {
				n += bits.OnesCount64(binary.LittleEndian.Uint64(w.Data[i:]))
			}
			fmt.Fprintf(&b, " map(%d blocks)", n)
		}
	}
	return b.String()
}
