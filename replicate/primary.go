package replicate

import (
	"fmt"

	"hastd/metadata"
)

// onRequest takes what an application asks.
func (m *Machine) onRequest(ev *Event) {
	if m.provider == providerDown {
		panic("replicate: a request although no provider is running")
	}
	m.opened = true
	m.lastReq = m.now
	if ev.Request != ReqFlush && (ev.Off < 0 || ev.Len <= 0 || ev.Off+ev.Len > m.size()) {
		panic(fmt.Sprintf("replicate: request of %d bytes at %d of %d", ev.Len, ev.Off, m.size()))
	}
	var r *req
	switch ev.Request {
	case ReqRead:
		r = m.newReq(kRead)
	case ReqWrite:
		r = m.newReq(kWrite)
	case ReqZero:
		r = m.newReq(kZero)
	case ReqFlush:
		r = m.newReq(kWrite) // a write of nothing: it only waits for a flush
	default:
		panic("replicate: unknown request")
	}
	r.id, r.flags, r.off, r.length, r.buf = ev.Req, ev.Flags, ev.Off, ev.Len, ev.Buf
	if m.failing {
		m.reply(r, ErrIO)
		m.free(r)
		return
	}
	if ev.Request == ReqFlush {
		r.state = rFlushing
		m.flushQueue = append(m.flushQueue, r)
		return
	}
	m.enqueue(r)
}

func (m *Machine) size() int64 {
	if m.st == nil {
		return 0
	}
	return m.st.Super().Bytes()
}

// mayWrite: a write starts only when it is known whether the peer takes part.
func (m *Machine) mayWrite() bool {
	return m.phase != agreeing && !m.asking() && !m.taking && m.suspended == ""
}

// readable tells where a read would be served: done (here), asked (by the peer),
// none (it has to wait).
func (m *Machine) readable(r *req) part {
	first, n := metadata.Touched(r.off, r.length)
	switch {
	case m.phase == agreeing && !m.alone:
		return none // the facts say that nothing was read from this replica alone
	case m.asking() || m.halted || m.suspended == "peer-primary" || m.suspended == "no-lease":
		return none // the peer may have, or has, what is newer
	case m.sound():
		return done
	case m.phase == linked && !m.taking && m.peerSound():
		if m.disk == diskOpen && m.sync.direction == fromPeer && !m.st.Dirty.Any(first, n) {
			return done
		}
		return asked
	}
	return none
}

// readsHere says whether any block would be read from this replica, so that its holes
// may be told without a read. What would be the first read alone must be one: the
// facts say that there was none.
func (m *Machine) readsHere() bool {
	return m.role == metadata.Primary && m.sound() && !m.failing && (m.phase == linked || m.alone) &&
		m.readable(&req{length: metadata.BlockSize}) == done
}

func (m *Machine) issueRead(r *req) {
	if m.readable(r) == asked {
		m.ask(r, Msg{Kind: MsgRead, Off: r.off, Len: uint32(r.length)})
		return
	}
	if m.phase != linked {
		m.alone = true
	}
	m.onDisk(r, Effect{Disk: DiskRead, Buf: r.buf})
}

func (m *Machine) readDone(r *req) {
	if r.local == done {
		m.answer(r, OK)
		return
	}
	m.counters.ErrLocal[0]++
	if m.phase == linked && !m.taking && m.peerSound() {
		m.ask(r, Msg{Kind: MsgRead, Off: r.off, Len: uint32(r.length)})
		return
	}
	m.warn(fmt.Sprintf("%d bytes at %d could not be read, and no peer is there to read them from", r.length, r.off))
	m.answer(r, ErrIO)
}

// onData takes what the peer read for us.
func (m *Machine) onData(msg *Msg) {
	r := m.asker(msg.Seq, kRead)
	if r == nil || int64(msg.Len) != r.length {
		m.release(msg.Buf)
		if r != nil {
			m.bySeq[msg.Seq] = r // to be asked again
		}
		m.protocol(r != nil || !m.given(msg.Seq), "an answer to a read that was not asked")
		return
	}
	r.peer = done
	repair := r.local == failed && m.disk == diskOpen
	m.emit(Effect{Kind: EffReply, Req: r.id, Buf: msg.Buf, Len: r.length})
	m.measure(r)
	if !repair {
		m.release(msg.Buf)
		m.free(r)
		return
	}
	// The lock is kept until the local disk has the block again, or the write that
	// came meanwhile would be undone.
	m.unlock(r)
	r.kind, r.buf, r.local, r.peer = kRepair, msg.Buf, none, none
	m.queue = append([]*req{r}, m.queue...)
	m.retry = true
}

func (m *Machine) repaired(r *req) {
	m.release(r.buf)
	if r.local == failed {
		m.free(r)
		m.diskFailed(because("a block that could not be read could not be written back either", m.ioText))
		return
	}
	m.counters.Repairs++
	m.report(Report{Kind: ReportRepaired, Off: r.off, Bytes: r.length})
	m.free(r)
}

// onFailed: the peer could not read what we asked for.
func (m *Machine) onFailed(msg *Msg) {
	r := m.bySeq[msg.Seq]
	if r == nil {
		return
	}
	delete(m.bySeq, msg.Seq)
	m.counters.ErrPeer[0]++
	r.peer = failed
	switch r.kind {
	case kRead:
		m.answer(r, ErrIO)
	case kSync:
		m.syncFailed(r, "the peer could not read it")
	}
}

func (m *Machine) issueWrite(r *req) {
	if m.disk == diskOpen && r.store == m.st {
		if r.kind == kZero {
			m.onDisk(r, Effect{Disk: DiskZero})
		} else {
			m.onDisk(r, Effect{Disk: DiskWrite, Buf: r.buf})
		}
	}
	if m.phase == linked {
		m.sendWrite(r)
	}
	if r.local == none && r.peer == none {
		m.tryAnswer(r)
	}
}

func (m *Machine) sendWrite(r *req) {
	if r.kind == kZero {
		m.ask(r, Msg{Kind: MsgZero, Off: r.off, Len: uint32(r.length), Flags: r.flags})
	} else {
		m.ask(r, Msg{Kind: MsgWrite, Off: r.off, Len: uint32(r.length), Buf: r.buf})
	}
}

func (m *Machine) wroteLocally(r *req) {
	if r.local == failed {
		m.counters.ErrLocal[1]++
		m.diskFailed(because(fmt.Sprintf("%d bytes at %d could not be written", r.length, r.off), m.ioText))
		return // which looks at every request
	}
	if r.state == rAnswered {
		m.settleWrite(r)
		return
	}
	m.tryAnswer(r)
}

// onWrote: the peer's device completed these.
func (m *Machine) onWrote(seqs []uint64) {
	for _, seq := range seqs {
		r := m.bySeq[seq]
		if r == nil {
			if m.given(seq) {
				continue
			}
			m.protocol(true, "a confirmation of a write that was not sent")
			return
		}
		delete(m.bySeq, seq)
		r.peer = done
		switch {
		case r.kind == kSync:
			m.synced(r, r.mask)
		case r.state == rAnswered:
			m.settleWrite(r)
		default:
			m.tryAnswer(r)
		}
	}
}

// onReceived: the peer has these in memory.
func (m *Machine) onReceived(seqs []uint64) {
	for _, seq := range seqs {
		if r := m.bySeq[seq]; r != nil && r.peer == asked && (r.kind == kWrite || r.kind == kZero) {
			r.peer = inMemory
			m.tryAnswer(r)
		}
	}
}

// tryAnswer acknowledges a write as soon as the mode allows it: the one place
// where a write becomes the application's.
func (m *Machine) tryAnswer(r *req) {
	if r.state != rRunning || r.local == asked || m.taking || m.phase == agreeing || m.withheld() == "no-lease" {
		return
	}
	if m.phase == linked {
		if r.peer < m.demanded() {
			return
		}
		if r.local != done && r.peer != done {
			return
		}
	} else if r.local != done || !m.mayAnswerAlone() {
		return
	}
	if !m.sound() {
		m.peerOnly = true
	}
	if r.flags&FUA != 0 {
		r.state = rFlushing
		m.flushQueue = append(m.flushQueue, r)
		return
	}
	m.answer(r, OK)
}

// demanded is how far the peer must be with a write before it is acknowledged.
func (m *Machine) demanded() part {
	switch {
	case m.cfg.Mode == Fullsync || !m.sound():
		return done
	case m.cfg.Mode == Memsync:
		return inMemory
	}
	return asked
}

// answer replies to the application and lets go of the range. Where the peer's replica is
// the one that counts, a write that failed keeps it until the peer has that too, or the
// connection is gone and the block with it: nobody reads here what may not last.
func (m *Machine) answer(r *req, err Err) {
	m.reply(r, err)
	r.state, r.broken = rAnswered, err != OK
	if !r.broken || m.sound() {
		m.unlock(r)
	}
	m.settleWrite(r)
}

func (m *Machine) reply(r *req, err Err) {
	m.emit(Effect{Kind: EffReply, Req: r.id, Err: err})
	m.measure(r)
}

// settleWrite forgets an answered request once no replica is at it any more.
func (m *Machine) settleWrite(r *req) {
	if r.local == asked && m.disk == diskOpen || r.peer == asked || r.peer == inMemory {
		return
	}
	if r.kind != kRead && r.local == done && r.peer == done && m.phase == linked && r.conn == m.conn && r.store == m.st && m.disk == diskOpen {
		// Both have the whole block now, whatever they had before.
		if first, n := metadata.Covered(r.off, r.length); n > 0 && m.st.Dirty.Any(first, n) {
			m.st.Dirty.Clear(first, n)
		}
	}
	if r.broken && r.peer == done && !m.sound() {
		m.peerOnly = true // it may be read from now on, as if it had been acknowledged
	}
	m.free(r)
}

// given says whether a number was drawn under this agreement: an answer to it that
// nobody waits for belongs to what was given up since.
func (m *Machine) given(seq uint64) bool { return seq != 0 && seq <= m.seq }

// asker finds the request that a message answers.
func (m *Machine) asker(seq uint64, kind reqKind) *req {
	r := m.bySeq[seq]
	if r == nil || r.kind != kind {
		return nil
	}
	delete(m.bySeq, seq)
	return r
}

// measure smooths the time that application requests take.
func (m *Machine) measure(r *req) {
	took := m.now - r.began
	m.latency += (took - m.latency) / 8
}

// failHeld ends everything that waits for a peer or for the operator.
func (m *Machine) failHeld() {
	kept := m.queue[:0]
	for _, r := range m.queue {
		if r.kind == kRead || r.kind == kWrite || r.kind == kZero {
			m.reply(r, ErrIO)
			m.free(r)
			continue
		}
		kept = append(kept, r)
	}
	m.queue, m.retry = kept, true // a window may have waited for one of them
	for _, r := range append([]*req(nil), m.active...) {
		if (r.kind == kWrite || r.kind == kZero) && r.state == rRunning && r.local != asked {
			m.answer(r, ErrIO)
		}
	}
	m.failFlushes()
}
