package replicate

import "hastd/metadata"

// told is what people were told last.
type told struct {
	status, disk, peerDisk string
}

func (m *Machine) report(r Report) { m.emit(Effect{Kind: EffReport, Report: &r}) }

func (m *Machine) warn(text string) { m.report(Report{Kind: ReportWarning, Reason: text}) }

// observe tells what changed with this batch.
func (m *Machine) observe() {
	disk := m.diskWord()
	if disk != m.told.disk {
		m.report(Report{Kind: ReportDisk, Old: m.told.disk, New: disk, Reason: m.diskText})
		m.told.disk = disk
	}
	if m.peerDisk != m.told.peerDisk {
		m.report(Report{Kind: ReportPeerDisk, Old: m.told.peerDisk, New: m.peerDisk})
		m.told.peerDisk = m.peerDisk
	}
	if s := m.statusWord(); s != m.told.status {
		m.report(Report{Kind: ReportStatus, Old: m.told.status, New: s, Reason: m.reason(s)})
		m.told.status = s
	}
}

func (m *Machine) diskWord() string {
	switch {
	case m.disk == diskFailed:
		return "failed"
	case m.disk != diskOpen:
		return "diskless"
	case m.marks().Has(metadata.Inconsistent):
		return "inconsistent"
	case m.marks().Has(metadata.Outdated), m.toBeFilled():
		return "outdated"
	}
	return "uptodate"
}

// toBeFilled: this replica is new, and its peer has data that it gets once a node is primary.
func (m *Machine) toBeFilled() bool {
	return m.phase == linked && m.role == metadata.Secondary && m.st.Super().Resuid == 0 && m.peer.Resuid != 0
}

func (m *Machine) statusWord() string {
	switch {
	case m.disk == diskFailed && !(m.role == metadata.Primary && m.peerSound()):
		return "failed"
	case m.role == metadata.Init:
		return "init"
	case m.word == wordSplit:
		return "split-brain"
	case m.phase == linked && m.sync.running():
		return "syncing"
	case m.phase == linked && m.diskWord() == "uptodate" && m.peerDisk == "uptodate":
		return "complete"
	}
	return "degraded"
}

// reason says in a sentence why the status is not complete.
func (m *Machine) reason(status string) string {
	peer := m.cfg.Peer
	switch {
	case status == "complete" || status == "init":
		return ""
	case m.disk == diskFailed:
		return "the disk of this node failed: " + m.diskText
	case m.word == wordSplit || m.word == wordRefused:
		if m.wordHint != "" {
			return m.wordReason + "; " + m.wordHint
		}
		return m.wordReason
	case status == "syncing" && m.sync.failed:
		return "the sync rests: a block could not be read"
	case status == "syncing":
		return "what differs is being copied " + map[direction]string{toPeer: "to ", fromPeer: "from "}[m.syncSide()] + peer
	case m.phase == linked && m.peerDisk != "uptodate":
		return m.lacking("the replica of "+peer, m.peerDisk, m.cfg.Node, m.diskWord())
	case m.phase == linked && m.toBeFilled():
		return "this replica is new: it is filled once " + peer + " is primary"
	case m.phase == linked:
		return m.lacking("this replica", m.diskWord(), peer, m.peerDisk)
	case m.marks().Has(metadata.AdminDisconnected):
		return "disconnected by an administrator; hastctl connect ends it"
	case m.wordReason != "":
		return peer + " is not connected: " + m.wordReason
	}
	return peer + " is not connected"
}

// lacking tells of the replica that is not good, and what the other one could do: of two
// secondaries none copies.
func (m *Machine) lacking(what, disk, from, good string) string {
	what += " is " + disk
	if (disk == "inconsistent" || disk == "outdated") && good == "uptodate" && m.role == metadata.Secondary && m.peer.Role == metadata.Secondary {
		what += ": it is filled once " + from + " is primary"
	}
	return what
}

// syncSide is the direction of the data as this node sees it.
func (m *Machine) syncSide() direction { return m.sync.direction }

// Status tells the present state.
func (m *Machine) Status(now Instant) Status {
	s := Status{
		Role: m.role, Status: m.statusWord(), Connection: connWords[m.word], Disk: m.diskWord(),
		PeerRole: "unknown", PeerDisk: m.peerDisk,
		Suspended: m.suspended != "", SuspendReason: m.suspended,
		SyncState: "idle", Counters: m.counters,
		Inflight: len(m.active) + len(m.queue) + len(m.flushQueue) + len(m.round.askers),
	}
	s.Reason = m.reason(s.Status)
	if m.phase == linked {
		s.PeerRole = m.peer.Role.String()
	}
	if m.cfg.NeedLease {
		s.Grant, s.Synced = m.grant, m.syncedPeer
		if m.suspended == "" && !m.leased() {
			s.SuspendReason = "no-lease"
		}
	}
	if m.st == nil {
		return s
	}
	s.Reads = m.readsHere()
	sb := m.st.Super()
	s.Resuid, s.Localcnt, s.Remotecnt, s.Epoch, s.Marks = sb.Resuid, sb.Localcnt, sb.Remotecnt, sb.Epoch, sb.Marks
	s.Size = sb.Bytes()
	s.DirtyBytes = min(m.st.Dirty.Count()*metadata.BlockSize, s.Size)
	for _, r := range m.bySeq {
		if r.state == rAnswered && !r.broken && r.kind != kRead {
			s.LagBytes += r.length
			s.LagAge = max(s.LagAge, now-r.asked)
		}
	}
	m.syncStatus(&s)
	return s
}

func (m *Machine) syncStatus(s *Status) {
	y := &m.sync
	if !y.running() {
		return
	}
	s.SyncState, s.SyncDirection = "running", directionNames[m.syncSide()]
	if y.failed || m.steppingDown() {
		s.SyncState = "paused"
	}
	if m.role != metadata.Primary {
		s.SyncLeft, s.SyncETA = s.DirtyBytes, -1
		return
	}
	s.SyncDone, s.SyncLeft, s.SyncRate = y.done*metadata.BlockSize, s.DirtyBytes, y.rate
	s.SyncETA = -1
	if y.rate > 0 {
		s.SyncETA = s.SyncLeft / y.rate
	}
}
