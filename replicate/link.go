package replicate

import (
	"cmp"
	"maps"
	"slices"

	"hastd/metadata"
)

// link: both sides agreed. If one is primary, data flows.
func (m *Machine) link() {
	m.phase, m.deadline, m.word = linked, 0, connected
	m.askUntil, m.sleptAt, m.awakeAt = 0, 0, m.now
	m.overtaken = false
	m.wordReason, m.wordHint = "", ""
	m.unclean = false
	m.peer.Localcnt = m.peerLocalcnt()
	m.peerDisk = m.judgePeerDisk()
	if m.linkedOn != 0 && m.linkedOn != m.session {
		m.counters.Reconnects++
	}
	m.linkedOn = m.session
	m.spilled = false
	m.keeper = m.role != metadata.Primary && m.peer.Role == metadata.Primary && m.peer.Diskless
	m.report(Report{Kind: ReportConnected, Reason: m.verdict.String()})
	if m.role == metadata.Primary {
		m.lead()
	}
	if m.role == metadata.Primary || m.peer.Role == metadata.Primary {
		m.beginSync()
	}
	m.retry = true
}

// peerLocalcnt is the peer's localcnt after an adoption gave it one.
func (m *Machine) peerLocalcnt() uint64 {
	if m.verdict.Outcome == Adopt && m.verdict.Target == m.cfg.Peer && m.role == metadata.Primary {
		return m.begin.Localcnt
	}
	return m.peer.Localcnt
}

// judgePeerDisk is the peer's replica as the agreement leaves it.
func (m *Machine) judgePeerDisk() string {
	primary := m.role == metadata.Primary || m.peer.Role == metadata.Primary
	behind := m.verdict.Target == m.cfg.Peer && m.verdict.Outcome != Equal
	switch {
	case m.peer.Diskless:
		return "failed"
	case primary && m.verdict.Source == m.cfg.Peer:
		return "uptodate" // or it would not be copied from
	case m.peer.Marks.Has(metadata.Inconsistent), behind && primary,
		primary && m.verdict.Target == m.cfg.Peer && m.st.Dirty.Count() > 0:
		return "inconsistent"
	case behind, m.peer.Marks.Has(metadata.Outdated):
		return "outdated"
	}
	return "uptodate"
}

// peerSound says whether the peer's replica may be read.
func (m *Machine) peerSound() bool { return m.phase == linked && m.peerDisk == "uptodate" }

// lead is what a primary does when data begins to flow.
func (m *Machine) lead() {
	m.agreed = m.begin.Epoch
	m.resumed = false
	m.failing = m.failing && m.suspended != "" // what was ordered for a suspension lasts as long
	m.seq = 0
	if m.sound() {
		m.peerOnly, m.peerOnlyOld = false, false
	}
	if (m.peerOnly || m.peerOnlyOld) && m.peer.Instance != m.peerInstance {
		m.peerOnly, m.peerOnlyOld, m.lossy = false, false, true
		m.report(Report{Kind: ReportDataLoss, Reason: m.cfg.Peer + " lost writes that it had not flushed, and this node has no copy of them: the next flush fails"})
	}
	m.peerInstance = m.peer.Instance
	m.repeatRound()
	m.flushQueue = slices.DeleteFunc(m.flushQueue, func(r *req) bool { return r.length > 0 })
	// What was begun alone and not answered is sent like any other write.
	for _, r := range m.active {
		if r.kind != kWrite && r.kind != kZero {
			continue
		}
		if r.state == rFlushing {
			r.state = rRunning
		}
		if r.store != nil && r.store == m.st && m.disk == diskOpen {
			m.st.Mark(r.off, r.length)
		}
		if r.state == rRunning {
			m.sendWrite(r)
		}
	}
	if m.disk != diskOpen && !m.marked {
		m.markBad()
		return
	}
	m.thaw()
}

// thaw looks again at everything that an agreement or suspension held up.
func (m *Machine) thaw() {
	m.retry = true
	m.scratch = append(m.scratch[:0], m.active...)
	for _, r := range m.scratch {
		if (r.kind == kWrite || r.kind == kZero) && r.at >= 0 {
			m.tryAnswer(r)
		}
	}
	m.advanceRound()
}

// hangUp ends the session from this side.
func (m *Machine) hangUp(reason string) {
	if m.session == 0 {
		return
	}
	m.emit(Effect{Kind: EffDisconnect, Session: m.session, Text: reason})
	m.linkLost(reason)
}

// protocol hangs up if the peer said what it must not.
func (m *Machine) protocol(wrong bool, what string) {
	if wrong {
		m.warn("the peer sent " + what)
		m.hangUp("protocol error: " + what)
	}
}

// linkLost takes the end of a session.
func (m *Machine) linkLost(reason string) {
	if m.session == 0 {
		return
	}
	was := m.phase
	m.part(reason)
	m.session, m.phase, m.deadline = 0, unlinked, 0
	m.downSince = m.now
	m.peerDisk = "unknown"
	m.peerKnown = false
	if was == linked {
		m.report(Report{Kind: ReportDisconnected, Reason: reason})
	}
	if m.word == connected || m.word == standalone || m.word == connecting && (was == greeting || was == agreeing) {
		m.word = connecting
		m.wordReason = reason
	}
	if !m.wanted {
		m.word = standalone
	}
	m.awakeAt = 0
	m.askFirst()
	if m.role == metadata.Primary {
		m.suspension()
		m.thaw()
	}
}

// part ends what was agreed, on this side: what the peer may not have becomes
// dirty, what waited for it is looked at anew.
func (m *Machine) part(reason string) {
	was := m.phase
	m.phase, m.step = unlinked, forQuiet
	m.taking = false
	if was != linked {
		return
	}
	m.stopSync(reason)
	m.clearAcks()
	if m.st != nil && m.disk.usable() {
		if m.st.Unflushed() {
			m.unbacked = true
		}
		m.st.Lose()
		for _, c := range m.sync.copied {
			m.st.Dirty.OrWord(c.word, c.mask)
		}
	}
	m.sync.copied = m.sync.copied[:0]
	m.keeper = false
	if m.role == metadata.Primary {
		m.partPrimary()
	} else {
		m.partSecondary()
	}
}

func (m *Machine) partPrimary() {
	unconfirmed, shown := false, false // acknowledged; failed, and read perhaps
	m.owed = false
	for _, r := range m.unanswered() {
		received := r.peer == inMemory
		r.peer = none
		switch {
		case r.kind == kRead:
			m.requeue(r)
		case r.state == rAnswered:
			// A peer that counts as in sync by the view writes what it received: until a
			// view without it there is nothing that only this replica has.
			owed := received && m.cfg.NeedLease && m.grant.Hold
			m.owed = m.owed || owed && !r.broken
			unconfirmed = unconfirmed || !owed && !r.broken
			shown = shown || !owed && r.broken && r.at < 0
			m.settleWrite(r)
		}
	}
	for _, r := range m.active {
		if r.kind == kWrite || r.kind == kZero {
			r.peer = none
		}
	}
	switch {
	case !unconfirmed && !shown:
	case unconfirmed && m.badDisk && !m.marked:
		// The peer never got what async had acknowledged: this disk, failed as it
		// is, has the only copy, and the peer must not go on in its place.
		m.badDisk = false
		m.warn("writes that were acknowledged had not reached " + m.cfg.Peer + " when the disk failed: only this disk has them")
	case !m.sound():
		m.lossy = true
		what := "writes that were acknowledged"
		if !unconfirmed {
			what = "writes that failed, and could be read all the same,"
		}
		m.report(Report{Kind: ReportDataLoss, Reason: what + " had not reached " + m.cfg.Peer + ", and this node has no good copy of them: the next flush fails"})
	case unconfirmed && !m.marks().Has(metadata.Raised):
		m.raise()
	}
	m.repeatRound()
}

// unanswered takes all requests that the peer has not answered, oldest first.
func (m *Machine) unanswered() []*req {
	rs := slices.SortedFunc(maps.Values(m.bySeq), func(a, b *req) int { return cmp.Compare(a.seq, b.seq) })
	clear(m.bySeq)
	return rs
}

// requeue lets a request that nobody serves any more wait for its turn again.
func (m *Machine) requeue(r *req) {
	m.unlock(r)
	r.state, r.local, r.peer, r.op = rQueued, none, none, 0
	m.queue = append([]*req{r}, m.queue...)
	m.retry = true
}

// raise makes durable that this replica is about to have what the peer lacks.
func (m *Machine) raise() {
	m.raiseAt = m.st.Update(func(sb *metadata.Superblock) {
		sb.Localcnt++
		sb.Marks |= metadata.Raised
		sb.Lineage = sb.Lineage.Add(m.generation())
	})
	m.after(m.raiseAt, m.thaw)
}

// mayAnswerAlone says whether something may be acknowledged that the peer does not
// back, and starts the raise that it needs.
func (m *Machine) mayAnswerAlone() bool {
	if m.suspended != "" || m.phase == agreeing || m.phase == linked || m.renewing() || m.asking() || !m.sound() || m.tooLateAlone() {
		return false
	}
	if !m.marks().Has(metadata.Raised) {
		m.raise()
	}
	if !m.st.Durable(m.raiseAt) {
		return false
	}
	m.alone = true
	return true
}

// renewing: the roles changed on a session that is up, and its next agreement begins in a
// moment. As in one, nothing goes on alone: the pair has not parted.
func (m *Machine) renewing() bool { return m.phase == greeting && m.conn > 1 }

// suspension decides whether application requests are held, and why.
func (m *Machine) suspension() {
	why := ""
	switch {
	case m.role == metadata.Primary && m.withheld() != "":
		why = m.withheld()
	case m.role == metadata.Primary && m.halted:
		why = "operator"
	case m.role != metadata.Primary || m.phase == linked && (m.sound() || m.peerSound()):
	case m.disk != diskOpen:
		why = "both-failed"
	case m.phase != linked && !m.sound():
		why = "peer-lost"
	case m.phase != linked && m.overtaken && !m.resumed:
		why = "peer-primary"
	case m.phase != linked && m.cfg.Suspend && !m.resumed:
		why = "peer-lost"
	}
	if why == m.suspended {
		return
	}
	old := m.suspended
	m.suspended = why
	if why != "" {
		m.report(Report{Kind: ReportSuspended, Old: old, New: why})
		return
	}
	m.report(Report{Kind: ReportResumed, Old: old})
	m.failing = m.taking && m.unmarked // that is not over
	m.thaw()
}

// onUnreachable: an attempt to reach the peer failed. A peer that answers, if only
// to refuse, is worth waiting for; one that does not needs no further probing.
func (m *Machine) onUnreachable(ev *Event) {
	m.peerAnswers = ev.Refused
	if m.phase != unlinked || m.word != connecting {
		return
	}
	m.wordReason = ev.Text
	if !ev.Refused {
		m.downSince = min(m.downSince, m.now-ProbeTime)
		m.endAsking()
	}
}

func (m *Machine) clearAcks() { m.received, m.wrote = m.received[:0], m.wrote[:0] }

// flushAcks sends what was received and written in this batch, many in a message.
// The slices are reused from the next Step on.
func (m *Machine) flushAcks() {
	if len(m.received) > 0 {
		m.send(Msg{Kind: MsgReceived, Seqs: m.received})
	}
	if len(m.wrote) > 0 {
		m.send(Msg{Kind: MsgWrote, Seqs: m.wrote})
	}
}

// onMessage gives a message to whom it concerns. What belongs to an earlier
// agreement is dropped.
func (m *Machine) onMessage(ev *Event) {
	msg := &ev.Msg
	if ev.Session != m.session || m.session == 0 {
		m.release(msg.Buf)
		return
	}
	m.heard = true
	if msg.Kind == MsgRenegotiate {
		m.onRenegotiate(msg)
		return
	}
	if msg.Conn != m.conn || m.phase == lingering {
		m.release(msg.Buf)
		return
	}
	if m.phase != linked {
		m.onAgreement(msg)
		return
	}
	switch {
	case msg.Kind == MsgDiskFailed:
		m.peerDiskFailed()
	case msg.Kind == MsgRole:
		m.onRole(msg)
	case msg.Kind == MsgProbe:
		m.send(Msg{Kind: MsgAlive})
	case msg.Kind == MsgAlive:
	case m.role == metadata.Primary:
		m.toPrimary(msg)
	case m.peer.Role == metadata.Primary:
		m.toSecondary(msg)
	default:
		// A secondary may still answer what a primary asked before it stepped down.
		m.release(msg.Buf)
		m.protocol(!msg.Kind.answers(), "data although no node is primary")
	}
}

func (m *Machine) onAgreement(msg *Msg) {
	m.release(msg.Buf)
	switch msg.Kind {
	case MsgFacts:
		m.onFacts(msg)
	case MsgBegin:
		m.onBegin(msg)
	case MsgMap:
		m.onMap(msg)
	case MsgReady:
		m.onReady()
	case MsgFlow:
		m.onFlow()
	case MsgDiskFailed:
		m.peerDiskFailed()
	default:
		m.protocol(true, "data before the agreement was reached")
	}
}

func (m *Machine) toPrimary(msg *Msg) {
	switch msg.Kind {
	case MsgWrote:
		m.onWrote(msg.Seqs)
	case MsgReceived:
		m.onReceived(msg.Seqs)
	case MsgFlushed:
		m.onFlushed(msg)
	case MsgData:
		m.onData(msg)
	case MsgFailed:
		m.onFailed(msg)
	case MsgSyncNeed:
		m.onSyncNeed(msg)
	case MsgSyncBlocks:
		m.onSyncBlocks(msg)
	case MsgSyncEnded:
		m.onSyncEnded(msg)
	case MsgTookOver:
		m.onTookOver(msg)
	default:
		m.release(msg.Buf)
		m.protocol(true, "what only a primary sends")
	}
}

// onRole: the peer's role changed; it finished what it had begun.
func (m *Machine) onRole(msg *Msg) {
	c, ok := msg.Control.(*RoleChange)
	if !ok {
		m.protocol(true, "a role change without a role")
		return
	}
	if m.peer.Role == metadata.Primary {
		m.stopSync("the primary stepped down")
	}
	m.peer.Role = c.Role
	m.keeper = false
}
