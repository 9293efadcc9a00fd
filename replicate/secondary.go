package replicate

import (
	"fmt"
	"math/bits"

	"hastd/metadata"
)

// recentWrites is how many of the newest writes a secondary remembers, to know
// what a flush of the primary left open. More than a primary has under way.
const recentWrites = 4096

type recentWrite struct {
	seq uint64
	off int64
	len int64
}

// toSecondary takes what the primary asks.
func (m *Machine) toSecondary(msg *Msg) {
	var r *req
	switch msg.Kind {
	case MsgWrite:
		r = m.newReq(kApplyWrite)
	case MsgZero:
		r = m.newReq(kApplyZero)
	case MsgSyncData:
		r = m.newReq(kApplySync)
	case MsgRead:
		r = m.newReq(kServeRead)
	case MsgSyncHash:
		r = m.newReq(kCompare)
	case MsgSyncPull:
		r = m.newReq(kPull)
	case MsgFlush:
		m.st.FlushBegin()
		r = m.newReq(kBarrier)
	case MsgTakeOver:
		r = m.newReq(kTakeOver)
	case MsgClean:
		m.onClean(msg)
		return
	case MsgSyncEnd:
		m.onSyncEnd(msg)
		return
	case MsgSyncClear:
		m.onSyncClear()
		return
	default:
		m.release(msg.Buf)
		m.protocol(true, "what only a secondary sends")
		return
	}
	r.seq, r.conn, r.flags, r.buf = msg.Seq, m.conn, msg.Flags, msg.Buf
	r.off, r.length, r.mask, r.zeroes = msg.Off, int64(msg.Len), msg.Mask, msg.Zeroes
	if r.mask != 0 {
		r.length = min(WindowSize, m.size()-r.off)
	}
	if r.off < 0 || r.length < 0 || r.off > m.size() || r.length > m.size()-r.off || r.mask != 0 && r.off%WindowSize != 0 {
		m.release(msg.Buf)
		m.free(r)
		m.protocol(true, fmt.Sprintf("a request of %d bytes at %d of %d", msg.Len, msg.Off, m.size()))
		return
	}
	if r.kind == kApplyWrite || r.kind == kApplyZero {
		m.recent[r.seq%recentWrites] = recentWrite{r.seq, r.off, r.length}
		if m.cfg.Mode == Memsync {
			m.received = append(m.received, r.seq)
		}
	}
	m.applying++
	m.enqueue(r)
}

func (m *Machine) issueApply(r *req) {
	switch r.kind {
	case kApplyWrite:
		m.onDisk(r, Effect{Disk: DiskWrite, Buf: r.buf})
	case kApplyZero:
		m.onDisk(r, Effect{Disk: DiskZero})
	case kApplySync:
		m.onDisk(r, Effect{Disk: DiskWriteMasked, Off: r.off, Len: r.length, Mask: r.mask, Zeroes: r.zeroes, Buf: r.buf})
	case kServeRead:
		m.onDisk(r, Effect{Disk: DiskRead})
	case kCompare, kPull:
		m.onDisk(r, Effect{Disk: DiskCompare, Off: r.off, Len: r.length, Mask: r.mask, Aux: r.buf})
	case kBarrier:
		m.onDisk(r, Effect{Disk: DiskFlush})
	case kTakeOver:
		m.takeOver(r)
	}
}

// applied answers the primary. What belongs to a connection that is gone is only
// put away.
func (m *Machine) applied(r *req, ev *Event) {
	ok := r.local == done
	stale := r.orphan || m.phase != linked || r.conn != m.conn
	switch r.kind {
	case kApplyWrite, kApplyZero, kApplySync, kBarrier:
		if !ok {
			op := 1
			if r.kind == kBarrier {
				op = 2
			}
			m.counters.ErrLocal[op]++
			m.endApply(r)
			m.diskFailed(because("a write or flush of the primary could not be carried out", ev.Text))
			return
		}
	}
	if !stale {
		if r.kind == kCompare || r.kind == kPull {
			m.sync.done += int64(bits.OnesCount64(r.mask))
		}
		switch r.kind {
		case kApplyWrite, kApplyZero, kApplySync:
			m.wrote = append(m.wrote, r.seq)
		case kBarrier:
			m.sendNow(Msg{Kind: MsgFlushed, Seq: r.seq})
		case kServeRead:
			if ok {
				m.send(Msg{Kind: MsgData, Seq: r.seq, Off: r.off, Len: uint32(r.length), Buf: ev.Buf})
			} else {
				m.send(Msg{Kind: MsgFailed, Seq: r.seq})
			}
		case kCompare:
			need := ev.Mask & r.mask
			if !ok {
				need = r.mask // unreadable here, and about to be overwritten
			}
			m.send(Msg{Kind: MsgSyncNeed, Seq: r.seq, Mask: need})
		case kPull:
			if need := ev.Mask & r.mask; ok {
				m.send(Msg{Kind: MsgSyncBlocks, Seq: r.seq, Off: r.off, Mask: need, Zeroes: ev.Zeroes & need, Buf: ev.Buf})
			} else {
				m.send(Msg{Kind: MsgFailed, Seq: r.seq})
			}
		}
	}
	if !ok {
		m.counters.ErrLocal[0]++
		switch r.kind {
		case kServeRead:
			m.warn(fmt.Sprintf("%d bytes at %d could not be read for %s", r.length, r.off, m.cfg.Peer))
		case kCompare:
			m.warn(unreadable(r.mask, r.off) + " here, and are to be written anew")
		default:
			m.warn(unreadable(r.mask, r.off) + " for " + m.cfg.Peer)
		}
	}
	m.release(ev.Buf)
	m.endApply(r)
}

// unreadable tells of a window of which something could not be read.
func unreadable(mask uint64, off int64) string {
	return fmt.Sprintf("some of %d blocks in the window at %d could not be read", bits.OnesCount64(mask), off)
}

// sendNow sends behind the confirmations that came before.
func (m *Machine) sendNow(msg Msg) {
	m.flushAcks()
	m.received, m.wrote = nil, nil
	m.send(msg)
}

func (m *Machine) endApply(r *req) {
	m.release(r.buf)
	m.applying--
	m.free(r)
}

// onClean: a flush is durable on both replicas, but for the writes it lists.
func (m *Machine) onClean(msg *Msg) {
	for _, seq := range msg.Seqs {
		if m.recent[seq%recentWrites].seq != seq {
			return // too old to know where it went: keep everything marked
		}
	}
	open := make([]recentWrite, 0, len(msg.Seqs))
	for _, seq := range msg.Seqs {
		open = append(open, m.recent[seq%recentWrites])
	}
	m.st.FlushEnd()
	for _, w := range open {
		m.st.MarkPresent(w.off, w.len)
	}
}

// partSecondary puts away what the lost primary had asked, but for its writes: what was
// received is written, in order, before anything else is agreed to. In memsync it may be
// acknowledged.
func (m *Machine) partSecondary() {
	owed := func(r *req) bool {
		return (r.kind == kApplyWrite || r.kind == kApplyZero) && m.disk == diskOpen
	}
	kept := m.queue[:0]
	for _, r := range m.queue {
		if r.kind.ofPrimary() {
			kept = append(kept, r)
			continue
		}
		if owed(r) {
			r.orphan = true
			kept = append(kept, r)
			continue
		}
		m.endApply(r)
	}
	clear(m.queue[len(kept):])
	m.queue, m.retry = kept, true
	for _, r := range append([]*req(nil), m.active...) {
		if r.kind.ofPrimary() {
			continue
		}
		if r.state == rJournal && !owed(r) {
			m.journal--
			m.endApply(r)
			continue
		}
		r.orphan = true
	}
	m.recent = [recentWrites]recentWrite{}
}

// peerDiskFailed: the other side has no disk any more and leaves.
func (m *Machine) peerDiskFailed() {
	m.warn("the disk of " + m.cfg.Peer + " failed")
	m.hangUp("the peer's disk failed")
	m.peerDisk = "failed"
}

// secondaryDiskFailed leaves the pair: the primary goes on without this node.
func (m *Machine) secondaryDiskFailed() {
	if m.session != 0 {
		m.send(Msg{Kind: MsgDiskFailed})
		m.hangUp("the disk of " + m.cfg.Node + " failed")
	}
	m.wanted, m.word = false, standalone
	m.emit(Effect{Kind: EffDisconnect, Stop: true, Text: "the disk of " + m.cfg.Node + " failed"})
	for _, r := range append([]*req(nil), m.active...) {
		if r.kind.ofPrimary() {
			continue
		}
		r.op = 0
		m.endApply(r)
	}
	kept := m.queue[:0]
	for _, r := range m.queue { // those of a connection that was lost before
		if r.kind.ofPrimary() {
			kept = append(kept, r)
		} else {
			m.endApply(r)
		}
	}
	clear(m.queue[len(kept):])
	m.queue, m.journal = kept, 0
}

// takeOver is the secondary's durable step when the primary's disk failed: from
// now on it keeps the record for both.
func (m *Machine) takeOver(r *req) {
	conn := r.conn
	m.endApply(r)
	if m.phase != linked || conn != m.conn {
		return
	}
	m.keeper = true
	m.peer.Diskless = true
	m.peerDisk = "failed"
	m.stopSync("the disk of " + m.cfg.Peer + " failed")
	m.st.Lose() // what the primary may not have written
	commit := m.st.Update(func(sb *metadata.Superblock) {
		sb.Localcnt++
		sb.Marks |= metadata.Raised
		sb.Lineage = sb.Lineage.Add(m.generation())
	})
	m.afterLinked(commit, func() {
		sb := m.st.Super()
		m.send(Msg{Kind: MsgTookOver, Control: &TakeOver{Localcnt: sb.Localcnt, Lineage: sb.Lineage}})
	})
}
