package replicate

import (
	"math/bits"

	"hastd/metadata"
)

// The primary drives every sync, whichever side is the source. A window of the
// dirty map is taken under the range lock, hashed here, compared there, and only
// what differs travels:
//
//	to the peer     SyncHash → SyncNeed → SyncData → Wrote
//	from the peer   SyncPull → SyncBlocks → local write
//
// A bit is cleared in memory when its block is equal on both. On the medium the
// bits stay until the end:
//
//	both flush; the source notes durably what the target has now (1); the target
//	notes durably that it has all (2); only then both clear their maps (3).

type direction uint8

const (
	noSync direction = iota
	toPeer
	fromPeer
)

var directionNames = [...]string{"", "to-peer", "from-peer"}

type syncPhase uint8

const (
	syncIdle     syncPhase = iota
	syncCopying            // windows are being compared and copied
	syncFlushing           // all is copied; a flush of both is under way
	syncSource             // step 1
	syncTarget             // step 2
	syncClearing           // step 3
)

// syncState is the sync's. On a secondary only phase and direction are used.
type syncState struct {
	phase     syncPhase
	direction direction
	ops       int
	cursor    int
	window    int // how many ops at a time now
	copied    []copiedWord
	needRound uint64
	pair      metadata.ID
	began     Instant
	total     int64 // blocks
	done      int64
	failed    bool
	rests     Instant // until then, after a failure
	steered   Instant
	budget    int64 // bytes that may be moved now under max-rate
	crumbs    int64 // thousandths of a byte beside them
	rate      int64 // bytes a second, smoothed
	rateAt    Instant
	rateDone  int64
}

// copiedWord is a stretch of the map copied since the last flush of both.
type copiedWord struct {
	word int
	mask uint64
}

func (s *syncState) running() bool { return s.phase != syncIdle }
func (s *syncState) ending() bool  { return s.phase >= syncSource }

// steerEvery is how often the number of windows at a time is adapted.
const steerEvery = 100 * Millisecond

// retrySync is how long a sync rests after a block could not be read.
const retrySync = 10 * Second

// beginSync starts a sync if the agreement left anything to copy or to settle.
func (m *Machine) beginSync() {
	m.sync = syncState{copied: m.sync.copied[:0], window: MaxSyncOps / 4, budget: m.cfg.MaxRate / 10}
	if m.disk != diskOpen || m.peer.Diskless {
		return
	}
	unsettled := metadata.Raised | metadata.Forced | metadata.Outdated | metadata.Inconsistent
	if m.verdict.Outcome == Equal && !m.begin.Dirty && m.st.Dirty.Count() == 0 && !(m.marks() | m.peer.Marks).Has(unsettled) {
		m.alone = false
		return
	}
	s := &m.sync
	s.phase, s.direction = syncCopying, toPeer
	if m.verdict.Source == m.cfg.Peer && m.verdict.Outcome != Equal || m.verdict.Outcome == Equal && m.role != metadata.Primary {
		s.direction = fromPeer
	}
	s.began, s.rateAt, s.steered = m.now, m.now, m.now
	s.total = m.st.Dirty.Count()
	if m.role != metadata.Primary { // whose own map is only a part of it
		s.total = max(s.total, m.begin.Bytes/metadata.BlockSize)
	}
	m.report(Report{Kind: ReportSyncStart, New: directionNames[s.direction], Bytes: s.total * metadata.BlockSize})
}

// pumpSync starts as many windows as may be under way, and ends the sync when
// nothing is left.
func (m *Machine) pumpSync() {
	s := &m.sync
	if m.role != metadata.Primary || m.phase != linked || s.phase != syncCopying && s.phase != syncFlushing {
		return
	}
	d := m.st.Dirty
	if d.Count() > 0 && !m.steppingDown() && m.now >= s.rests {
		s.phase = syncCopying
		for s.ops < s.window && len(s.copied) < MaxCopied {
			w := d.NextWord(s.cursor)
			if w < 0 {
				if s.cursor == 0 || s.ops > 0 {
					break // the next pass begins when this one is over
				}
				s.cursor = 0
				continue
			}
			if m.cfg.MaxRate > 0 && s.budget <= 0 {
				break
			}
			s.budget -= size(d.Word(w))
			s.cursor = w + 1
			s.ops++
			r := m.newReq(kSync)
			r.off = int64(w) * WindowSize
			r.length = min(WindowSize, m.size()-r.off)
			r.mask = d.Word(w)
			m.enqueue(r)
		}
		if len(s.copied) >= MaxCopied {
			m.round.wanted = true
		}
	}
	if d.Count() > 0 || s.ops > 0 {
		return
	}
	switch {
	case s.phase == syncCopying && !m.steppingDown():
		s.phase, s.needRound = syncFlushing, m.rounds+1
		m.round.wanted = true
	case s.phase == syncFlushing && !m.steppingDown() && m.roundsDone >= s.needRound:
		m.endSync()
	}
}

// size is what the blocks of a mask hold, in bytes.
func size(mask uint64) int64 { return int64(bits.OnesCount64(mask)) * metadata.BlockSize }

// moved counts what a window moved. All of it was taken from the budget of
// max-rate when it began; what is equal or zero costs nothing.
func (m *Machine) moved(r *req, blocks uint64) {
	m.counters.SyncSent += uint64(size(blocks))
	r.moved = size(blocks)
}

// steerSync adapts the sync to the application's latency and to max-rate.
func (m *Machine) steerSync() {
	s := &m.sync
	if s.phase != syncCopying || m.role != metadata.Primary {
		return
	}
	passed := m.now - s.steered
	if passed < steerEvery {
		return
	}
	s.steered = m.now
	// Never more than a second's worth: a node that stood still for minutes has no
	// more to give than another, and the product must not overflow.
	ms := int64(min(passed, Second) / Millisecond)
	s.crumbs += m.cfg.MaxRate % 1000 * ms
	s.budget = min(s.budget+m.cfg.MaxRate/1000*ms+s.crumbs/1000, m.cfg.MaxRate)
	s.crumbs %= 1000
	busy := m.now-m.lastReq < Second
	switch {
	case busy && m.cfg.LatencyTarget > 0 && m.latency > m.cfg.LatencyTarget:
		s.window = max(1, s.window/2)
	case s.window < MaxSyncOps:
		s.window++
	}
	if took := m.now - s.rateAt; took >= Second {
		now := (s.done - s.rateDone) * metadata.BlockSize * int64(Second) / int64(took)
		if s.rate == 0 {
			s.rate = now
		}
		s.rate += (now - s.rate) / 4
		s.rateAt, s.rateDone = m.now, s.done
	}
}

func (m *Machine) issueSync(r *req) {
	word := int(r.off / WindowSize)
	r.mask = m.st.Dirty.Word(word) // writes may have made some equal meanwhile
	if r.mask == 0 {
		m.sync.ops--
		m.free(r)
		m.retry = true
		return
	}
	m.onDisk(r, Effect{Disk: DiskReadHash, Mask: r.mask})
}

// syncRead goes on after a local part: the first reading, or the writing of what
// the peer sent.
func (m *Machine) syncRead(r *req, ev *Event) {
	if r.orphan {
		m.release(ev.Buf)
		m.endOp(r)
		return
	}
	if r.landed {
		if r.local == failed {
			m.counters.ErrLocal[1]++
			m.endOp(r)
			m.sync.ops--
			m.diskFailed(because("a copied block could not be written", ev.Text))
			return
		}
		m.synced(r, r.mask)
		return
	}
	r.data, r.zeroes = ev.Buf, ev.Mask&r.mask
	if r.local == failed {
		m.counters.ErrLocal[0]++
		m.release(r.data)
		r.data, r.zeroes = 0, 0
		if m.sync.direction == toPeer {
			m.syncFailed(r, "it could not be read")
			return
		}
		m.warn(unreadable(r.mask, r.off) + " here, and are to be written anew")
	}
	kind := MsgSyncHash
	if m.sync.direction == fromPeer {
		kind = MsgSyncPull
	}
	m.ask(r, Msg{Kind: kind, Off: r.off, Mask: r.mask, Buf: r.data})
}

// onSyncNeed: these blocks differ on the target.
func (m *Machine) onSyncNeed(msg *Msg) {
	r := m.asker(msg.Seq, kSync)
	if r == nil || msg.Mask&^r.mask != 0 {
		m.protocol(r != nil || !m.given(msg.Seq), "an answer to a comparison that was not asked")
		return
	}
	if msg.Mask == 0 {
		m.synced(r, r.mask)
		return
	}
	m.moved(r, msg.Mask&^r.zeroes)
	m.ask(r, Msg{Kind: MsgSyncData, Off: r.off, Mask: msg.Mask, Zeroes: r.zeroes & msg.Mask, Buf: r.data})
}

// onSyncBlocks: what differs here comes from the source.
func (m *Machine) onSyncBlocks(msg *Msg) {
	r := m.asker(msg.Seq, kSync)
	if r == nil || msg.Mask&^r.mask != 0 {
		m.release(msg.Buf)
		m.protocol(r != nil || !m.given(msg.Seq), "blocks that were not asked for")
		return
	}
	if msg.Mask == 0 {
		m.release(msg.Buf)
		m.synced(r, r.mask)
		return
	}
	m.moved(r, msg.Mask&^msg.Zeroes)
	r.buf, r.landed = msg.Buf, true // no memory if all of them are zeroes
	m.onDisk(r, Effect{Disk: DiskWriteMasked, Off: r.off, Len: r.length, Mask: msg.Mask, Zeroes: msg.Zeroes, Buf: r.buf})
}

// synced: the window is equal on both now.
func (m *Machine) synced(r *req, mask uint64) {
	s := &m.sync
	word := int(r.off / WindowSize)
	m.st.Dirty.ClearWord(word, mask)
	s.copied = append(s.copied, copiedWord{word, mask})
	s.done += int64(bits.OnesCount64(mask))
	s.budget += size(mask) - r.moved
	s.ops--
	s.failed = false
	m.endOp(r)
}

// syncFailed leaves a window dirty and lets the sync rest.
func (m *Machine) syncFailed(r *req, why string) {
	if !m.sync.failed {
		m.warn("sync: a block stays different: " + why)
	}
	m.sync.failed = true
	m.sync.rests = m.now + retrySync
	m.sync.ops--
	m.endOp(r)
}

func (m *Machine) endOp(r *req) {
	m.release(r.data)
	m.release(r.buf)
	m.free(r)
}

// stopSync forgets the sync; what it had cleared in memory since the last flush is
// for the caller to set again.
func (m *Machine) stopSync(reason string) {
	s := &m.sync
	if s.phase == syncIdle {
		return
	}
	kept := m.queue[:0]
	for _, r := range m.queue {
		if r.kind == kSync {
			m.free(r)
			continue
		}
		kept = append(kept, r)
	}
	m.queue = kept
	for _, r := range append([]*req(nil), m.active...) {
		if r.kind != kSync {
			continue
		}
		if m.bySeq[r.seq] == r { // the number of an orphan is another's by now
			delete(m.bySeq, r.seq)
		}
		if r.op != 0 {
			r.orphan = true
		} else {
			m.endOp(r)
		}
	}
	*s = syncState{copied: s.copied}
	m.report(Report{Kind: ReportSyncStopped, Reason: reason})
}

// endSync begins the end: everything is copied and flushed on both.
func (m *Machine) endSync() {
	s := &m.sync
	s.phase, s.pair = syncSource, metadata.ID(m.cfg.Random())
	if s.direction == fromPeer {
		m.send(Msg{Kind: MsgSyncEnd, Control: &SyncEnd{Localcnt: m.st.Super().Localcnt, Pair: s.pair}})
		return
	}
	commit := m.st.Update(func(sb *metadata.Superblock) { m.settleSource(sb, m.peer.Localcnt) })
	m.afterLinked(commit, func() {
		sb := m.st.Super()
		s.phase = syncTarget
		m.send(Msg{Kind: MsgSyncEnd, Control: &SyncEnd{Localcnt: sb.Localcnt, Lineage: sb.Lineage, Pair: s.pair}})
	})
}

// settleSource is step 1 on the source: the target has everything.
func (m *Machine) settleSource(sb *metadata.Superblock, target uint64) {
	sb.Remotecnt = target
	sb.Marks &^= metadata.Raised | metadata.Outdated | metadata.Forced | metadata.AssumeClean
	if m.role != metadata.Primary {
		sb.Marks &^= metadata.CrashedPrimary
	}
}

// settleTarget is step 2 on the target: it is what the source is.
func (m *Machine) settleTarget(sb *metadata.Superblock, source *SyncEnd) {
	sb.Remotecnt, sb.Lineage = source.Localcnt, source.Lineage
	sb.Marks &^= metadata.Inconsistent | metadata.Outdated | metadata.Raised | metadata.Forced | metadata.AssumeClean
	if m.role != metadata.Primary {
		sb.Marks &^= metadata.CrashedPrimary
	}
}

// onSyncEnd is the secondary's step: 1 if it is the source, else 2.
func (m *Machine) onSyncEnd(msg *Msg) {
	c, ok := msg.Control.(*SyncEnd)
	s := &m.sync
	if !ok || s.phase != syncCopying || c.Pair == 0 {
		m.protocol(true, "the end of a sync that is not running")
		return
	}
	s.phase = syncTarget
	commit := m.st.Update(func(sb *metadata.Superblock) {
		if s.direction == fromPeer {
			m.settleTarget(sb, c)
		} else {
			m.settleSource(sb, c.Localcnt)
		}
		sb.PairPrev, sb.Pair = sb.Pair, c.Pair
	})
	m.afterLinked(commit, func() {
		sb := m.st.Super()
		m.send(Msg{Kind: MsgSyncEnded, Control: &SyncEnd{Localcnt: sb.Localcnt, Lineage: sb.Lineage, Pair: sb.Pair}})
	})
}

func (m *Machine) onSyncEnded(msg *Msg) {
	c, ok := msg.Control.(*SyncEnd)
	s := &m.sync
	if ok && s.phase == syncIdle {
		return // stopped since
	}
	if !ok || !(s.direction == fromPeer && s.phase == syncSource || s.direction == toPeer && s.phase == syncTarget) {
		m.protocol(true, "the end of a sync that is not ending")
		return
	}
	s.phase = syncClearing
	commit := m.st.Update(func(sb *metadata.Superblock) {
		if s.direction == fromPeer {
			m.settleTarget(sb, c)
		}
		sb.Pair, sb.PairPrev = s.pair, 0
	})
	if s.direction == fromPeer {
		m.soundAt = commit
	}
	m.afterLinked(commit, func() {
		m.afterLinked(m.st.ClearMap(), func() {
			m.send(Msg{Kind: MsgSyncClear})
			m.syncDone()
		})
	})
}

// onSyncClear is step 3 on the secondary.
func (m *Machine) onSyncClear() {
	if m.sync.phase != syncTarget {
		m.protocol(true, "the end of a sync that is not ending")
		return
	}
	if !m.spilled {
		m.st.Dirty.Reset()
	}
	m.st.Update(func(sb *metadata.Superblock) { sb.PairPrev = 0 })
	m.st.ClearMap()
	m.syncDone()
}

func (m *Machine) syncDone() {
	s := &m.sync
	if s.direction == toPeer {
		m.peerDisk = "uptodate"
	} else {
		m.peerOnly, m.peerOnlyOld = false, false // this node has a copy of everything now
	}
	m.peer.Marks &^= metadata.Inconsistent | metadata.Outdated | metadata.Raised | metadata.Forced
	m.unbacked, m.alone = m.st.Dirty.Count() > 0, false // of what a secondary wrote past its log
	m.report(Report{Kind: ReportSyncDone, New: directionNames[s.direction], Bytes: s.done * metadata.BlockSize, Duration: m.now - s.began})
	*s = syncState{copied: s.copied}
	m.thaw()
}
