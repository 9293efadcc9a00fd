package replicate

import (
	"slices"

	"hastd/metadata"
)

// round is one flush of both replicas. There is never more than one; who asks
// while it runs waits for the next, which covers them all at once. When the
// connection or the disk it ran on changes, it is begun again.
type round struct {
	wanted  bool // the log or the sync wants one
	running bool
	local   bool // the local flush is under way
	peer    bool // the peer's is
	backed  bool // begun while linked
	op      OpID
	seq     uint64
	number  uint64
	began   Instant
	copied  int      // how many of sync.copied it covers
	open    []uint64 // writes sent before it that it does not cover here
	askers  []*req
}

// startRound begins a flush if somebody waits for one and none is under way.
func (m *Machine) startRound() {
	r := &m.round
	if r.running || !r.wanted && len(m.flushQueue) == 0 || m.role != metadata.Primary {
		return
	}
	if m.phase == agreeing || m.taking || m.suspended != "" || m.job.changing() {
		return
	}
	if m.disk != diskOpen && m.phase != linked {
		return
	}
	if m.lossy && len(m.flushQueue) > 0 {
		m.lossy = false // told to the application, not to a flush of our own
		m.failFlushes()
		return
	}
	m.rounds++
	*r = round{running: true, number: m.rounds, began: m.now, askers: r.askers[:0], backed: m.phase == linked}
	r.askers = append(r.askers, m.flushQueue...)
	m.flushQueue = m.flushQueue[:0]
	if m.disk == diskOpen {
		if r.backed {
			m.st.FlushBegin()
			r.copied = len(m.sync.copied)
			for _, w := range m.active {
				// Not yet written here: the next flush covers it.
				if w.store == m.st && w.kind.logged() && (w.state == rJournal || w.local == asked) {
					m.st.Mark(w.off, w.length)
					if w.peer != none {
						r.open = append(r.open, w.seq)
					}
				}
			}
		}
		r.local = true
		r.op = m.nextOp(opRound, 0)
		m.emit(Effect{Kind: EffDisk, Disk: DiskFlush, Op: r.op})
	}
	if r.backed {
		m.peerOnly, m.peerOnlyOld = false, m.peerOnly || m.peerOnlyOld
		r.peer = true
		m.seq++
		r.seq = m.seq
		m.send(Msg{Kind: MsgFlush, Seq: r.seq})
	}
}

func (m *Machine) roundFlushed(ev *Event) {
	r := &m.round
	if !r.running || ev.Op != r.op {
		return
	}
	if ev.Err != OK {
		m.counters.ErrLocal[2]++
		m.diskFailed(because("a flush failed", ev.Text)) // which begins the round again without the disk
		return
	}
	r.local = false
	m.advanceRound()
}

func (m *Machine) onFlushed(msg *Msg) {
	r := &m.round
	if !r.running || !r.peer || msg.Seq != r.seq {
		m.protocol(!m.given(msg.Seq), "a flush that was not asked for")
		return // else of a round that was begun again since
	}
	r.peer = false
	m.advanceRound()
}

// advanceRound answers who waits for the flush as soon as that is true.
func (m *Machine) advanceRound() {
	r := &m.round
	if !r.running || r.local || m.taking || m.phase == agreeing || len(r.askers) > 0 && m.withheld() == "no-lease" {
		return
	}
	if r.peer {
		if m.cfg.Mode == Async && m.sound() {
			m.answerFlushes(OK)
		}
		return
	}
	if !r.backed && m.unbacked && len(r.askers) > 0 && !m.mayAnswerAlone() {
		return
	}
	if r.backed && m.disk == diskOpen {
		m.st.FlushEnd()
		m.sync.copied = slices.Delete(m.sync.copied, 0, min(r.copied, len(m.sync.copied)))
		m.send(Msg{Kind: MsgClean, Seq: r.seq, Seqs: r.open})
		if m.st.Dirty.Count() == 0 {
			m.unbacked = false
		}
	}
	if r.backed {
		m.peerOnlyOld = false
		m.roundsDone = r.number
	}
	m.answerFlushes(OK)
	r.running = false
	m.retry = true
}

func (m *Machine) answerFlushes(err Err) {
	for _, a := range m.round.askers {
		m.answer(a, err)
	}
	clear(m.round.askers)
	m.round.askers = m.round.askers[:0]
}

// failFlushes ends every flush that waits.
func (m *Machine) failFlushes() {
	for _, a := range m.flushQueue {
		m.answer(a, ErrIO)
	}
	clear(m.flushQueue)
	m.flushQueue = m.flushQueue[:0]
	if m.round.running {
		m.answerFlushes(ErrIO)
		m.advanceRound() // it may have waited only for leave to answer
	}
}

// repeatRound starts a flush again from its beginning: the connection or the disk
// it ran on is another now.
func (m *Machine) repeatRound() {
	r := &m.round
	if !r.running {
		return
	}
	m.flushQueue = append(slices.Clone(r.askers), m.flushQueue...)
	*r = round{wanted: true, askers: r.askers[:0]}
}
