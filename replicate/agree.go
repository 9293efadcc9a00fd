package replicate

import (
	"encoding/binary"

	"hastd/metadata"
)

// The agreement at the start of a connection:
//
//	both       finish what earlier connections left; send Facts; judge
//	primary    if everything is to be copied: mark all blocks dirty, durably
//	           Begin →
//	secondary  epoch, pair id, identity if adopted, "inconsistent" if it is copied to:
//	           one durable write; flush its data; → its map, Ready
//	primary    the union of both maps durably; then epoch, pair id, the merged lineage
//	           of a recovery, "inconsistent" if it is copied to: one durable write
//	           Flow →
//
// From sending its Facts until Flow or the end of the attempt the primary neither
// raises nor acknowledges; when the roles changed on a session that is up, from the
// beginning. Without a primary nothing is copied; the one behind
// notes durably that it is outdated.

// phase is how far a session is.
type phase uint8

const (
	unlinked  phase = iota
	greeting        // connected; the own facts are not sent
	agreeing        // facts are sent, or about to be: nothing changes here that they do not tell
	linked          // agreed; data flows if one side is primary
	lingering       // no agreement; the peer is given time to read why
)

// step is what an agreement waits for.
type step uint8

const (
	forQuiet step = iota // the end of what earlier connections left
	forFacts             // the peer's facts
	forDisk              // something of ours to be durable
	forBegin             // the primary's conclusion
	forReady             // the secondary's answer
	forFlow              // the primary's last word
)

// linger is how long a refused session stays, so that the peer reads the facts.
const linger = 1 * Second

func (m *Machine) onSessionUp(ev *Event) {
	if !m.wanted || m.session != 0 {
		m.emit(Effect{Kind: EffDisconnect, Session: ev.Session, Text: "resource " + m.cfg.Resource + " is not ready for a connection"})
		return
	}
	m.session, m.conn, m.helloRole = ev.Session, 0, ev.PeerRole
	m.greet(1)
}

// greet begins an agreement.
func (m *Machine) greet(conn uint32) {
	m.conn, m.phase, m.step = conn, greeting, forQuiet
	m.peerKnown = false
	m.deadline = m.now + AgreementTimeout
	m.awakeAt = m.now
	m.clearAcks()
}

// renegotiate begins an agreement anew on a session that is up: a node that was
// secondary leads from now on.
func (m *Machine) renegotiate(reason string) {
	conn := m.conn + 1
	m.send(Msg{Kind: MsgRenegotiate, Control: &Renegotiate{Conn: conn, Reason: reason}})
	m.helloRole = m.peer.Role
	m.part("the roles change")
	m.greet(conn)
}

func (m *Machine) onRenegotiate(msg *Msg) {
	c, ok := msg.Control.(*Renegotiate)
	if !ok {
		m.protocol(true, "a renegotiation without a number")
		return
	}
	m.helloRole = metadata.Primary
	if c.Conn <= m.conn {
		return // both were promoted at once and began the same agreement
	}
	m.part("the roles change")
	m.greet(c.Conn)
}

// advanceAgreement goes on when what it waits for may have happened.
func (m *Machine) advanceAgreement() {
	switch {
	case m.phase == greeting && m.step == forQuiet:
		primary := m.role == metadata.Primary
		if primary && !m.peerKnown && m.helloRole != metadata.Primary {
			return // the secondary speaks first, so that a primary waits only once
		}
		if m.taking || m.job.changing() {
			return
		}
		m.phase = agreeing
		fallthrough
	case m.phase == agreeing && m.step == forQuiet:
		if m.applying > 0 || m.disk.usable() && (m.st.Busy() || m.st.Pending()) {
			return
		}
		m.mine = m.facts()
		m.send(Msg{Kind: MsgFacts, Control: &m.mine})
		m.step = forFacts
	}
	if m.phase == agreeing && m.step == forFacts && m.peerKnown {
		m.decide()
	}
}

// facts are what this side tells.
func (m *Machine) facts() Facts {
	sb := m.st.Super()
	marks := sb.Marks
	if m.disk != diskOpen && m.badDisk {
		marks = marks&^metadata.Raised | metadata.Inconsistent
	}
	return Facts{
		Node: m.cfg.Node, NodeID: m.cfg.NodeID, Role: m.role, Resource: m.cfg.Resource,
		Resuid: sb.Resuid, DataSize: sb.DataSize, Size: sb.Size, SectorSize: sb.SectorSize,
		Localcnt: sb.Localcnt, Remotecnt: sb.Remotecnt, Epoch: sb.Epoch, Marks: marks,
		Lineage: append(metadata.Lineage(nil), sb.Lineage...), Pair: sb.Pair, PairPrev: sb.PairPrev,
		Instance: m.instance, Mode: m.cfg.Mode.String(),
		Opened: m.opened, Alone: m.alone, AgreedEpoch: m.agreed,
		Diskless: m.disk != diskOpen, DirtyBytes: m.st.Dirty.Count() * metadata.BlockSize,
		Generation: m.grant.Generation, Incarnation: m.grant.Incarnation,
	}
}

func (m *Machine) onFacts(msg *Msg) {
	f, ok := msg.Control.(*Facts)
	if !ok || m.peerKnown || m.phase != greeting && m.phase != agreeing {
		m.protocol(true, "facts out of turn")
		return
	}
	m.peer, m.peerKnown = *f, true
	if m.phase == agreeing && m.step == forFacts {
		m.decide() // at once: what follows from it may be in the same batch
	}
}

// decide judges both sides' facts and takes the next step.
func (m *Machine) decide() {
	v := Judge(&m.mine, &m.peer)
	if v.Outcome >= Adopt && v.Source != m.cfg.Peer && v.Source != "" && m.mine.Diskless || m.peer.Diskless && v.Source == m.cfg.Peer {
		v = Verdict{Outcome: Refused, Rule: 1, Reason: "the replica to copy from has no disk"}
	}
	if why := m.stranger(); why != "" {
		v = Verdict{Outcome: Refused, Rule: 15, Reason: why, Hint: "vipd passes on what the cluster decided: hastctl cluster status tells more"}
	}
	m.verdict = v
	m.report(Report{Kind: ReportVerdict, New: v.String(), Reason: v.Reason})
	if v.Outcome <= SplitBrain {
		m.refuse(v)
		return
	}
	m.word, m.wordReason, m.wordHint = connecting, "", ""
	switch {
	case m.role != metadata.Primary && m.peer.Role != metadata.Primary:
		m.agreeWithoutPrimary()
	case m.role == metadata.Primary:
		m.prepare()
	default:
		m.step = forBegin
	}
}

// refuse ends an agreement that the verdict forbids.
func (m *Machine) refuse(v Verdict) {
	word := wordRefused
	if v.Outcome == SplitBrain {
		word = wordSplit
	}
	if m.word != word || m.wordReason != v.Reason {
		kind := ReportRefused
		if word == wordSplit {
			kind = ReportSplitBrain
			if m.word != word {
				m.counters.SplitBrains++
			}
		}
		m.report(Report{Kind: kind, Reason: v.Reason, New: v.Hint})
	}
	m.word, m.wordReason, m.wordHint = word, v.Reason, v.Hint
	m.phase, m.deadline = lingering, m.now+linger
	m.overtakenBy(&v)
	m.suspension()
	m.endAsking()
	m.thaw()
}

// agreeWithoutPrimary: two secondaries only tell each other who is behind.
func (m *Machine) agreeWithoutPrimary() {
	v := m.verdict
	m.step = forDisk
	var commit uint64
	if v.Outcome == Behind && v.Target == m.cfg.Node && !m.marks().Has(metadata.Inconsistent|metadata.Outdated) {
		commit = m.st.Update(func(sb *metadata.Superblock) { sb.Marks |= metadata.Outdated })
	}
	m.afterLinked(commit, m.link)
}

// prepare is the primary's first durable step, then Begin.
func (m *Machine) prepare() {
	v, sb := m.verdict, m.st.Super()
	m.step = forDisk
	m.begin = Begin{
		Verdict: v.String(), Full: v.Full,
		Epoch: metadata.Epoch{Number: max(sb.Epoch.Number, m.peer.Epoch.Number) + 1, Node: m.cfg.NodeID},
		Pair:  metadata.ID(m.cfg.Random()), PairOld: sb.Pair,
		Size: sb.Bytes(), Sector: sb.SectorSize, HashSeed: m.cfg.Random(),
	}
	if v.Outcome == Adopt {
		m.begin.Resuid, m.begin.Localcnt, m.begin.Lineage = sb.Resuid, sb.Remotecnt, sb.Lineage
	}
	var commit uint64
	if v.Full && m.disk == diskOpen {
		m.st.Dirty.Fill()
		commit = m.st.PersistChanged() // what an attempt before made durable stays so
	}
	m.begin.Dirty, m.begin.Bytes = m.st.Dirty.Count() > 0, m.st.Dirty.Count()*metadata.BlockSize
	m.afterCommit(commit, func() {
		b := m.begin
		m.send(Msg{Kind: MsgBegin, Control: &b})
		m.step = forReady
	})
}

// afterCommit is afterLinked for a primary that may have no disk to wait for.
func (m *Machine) afterCommit(commit uint64, then func()) {
	if m.disk != diskOpen {
		then()
		return
	}
	m.afterLinked(commit, then)
}

// onBegin is the secondary's durable step.
func (m *Machine) onBegin(msg *Msg) {
	b, ok := msg.Control.(*Begin)
	switch {
	case !ok || m.phase != agreeing || m.step != forBegin:
		m.protocol(true, "a conclusion out of turn")
		return
	case b.Verdict != m.verdict.String():
		m.protocol(true, "the primary concludes "+b.Verdict+", this node "+m.verdict.String())
		return
	case b.Size <= 0 || b.Size > m.mine.DataSize || b.Size%metadata.BlockSize != 0 || b.Sector != 512 && b.Sector != 4096:
		m.protocol(true, "a conclusion about a device that cannot be")
		return
	case b.Epoch.Less(m.mine.Epoch) || b.Pair == 0:
		m.protocol(true, "a conclusion that goes back")
		return
	}
	m.begin = *b
	m.step = forDisk
	v := m.verdict
	copying := b.Dirty || b.Full || v.Outcome != Equal || m.st.Dirty.Count() > 0
	commit := m.st.Update(func(sb *metadata.Superblock) {
		m.notePeer(sb)
		sb.Epoch = b.Epoch
		common := metadata.ID(0)
		if samePair(&m.mine, &m.peer) {
			common = b.PairOld
			if common != sb.Pair && common != sb.PairPrev {
				common = m.peer.PairPrev
			}
		}
		sb.Pair, sb.PairPrev = b.Pair, common
		if v.Outcome == Adopt {
			sb.Resuid, sb.Localcnt, sb.Remotecnt, sb.Lineage = b.Resuid, b.Localcnt, 0, b.Lineage
			sb.Marks &= metadata.AssumeClean
		}
		sb.Size, sb.SectorSize = b.Size, b.Sector
		switch {
		case v.Source == m.cfg.Node:
			m.becomeSource(sb)
			if m.peer.Diskless && !sb.Marks.Has(metadata.Raised) {
				sb.Localcnt++ // this node keeps the record for both now
				sb.Marks |= metadata.Raised
				sb.Lineage = sb.Lineage.Add(m.generation())
			}
		case copying:
			sb.Marks |= metadata.Inconsistent
		}
	})
	session, conn := m.session, m.conn
	m.fly(Effect{Kind: EffDisk, Disk: DiskFlush}, func(ev *Event) {
		if !m.disk.usable() {
			return
		}
		if ev.Err != OK {
			m.counters.ErrLocal[2]++
			m.diskFailed(because("a flush failed", ev.Text))
			return
		}
		if m.session != session || m.conn != conn {
			return
		}
		m.afterLinked(commit, func() {
			m.sendMap()
			m.send(Msg{Kind: MsgReady})
			m.step = forFlow
		})
	})
}

// notePeer keeps the peer's counters as last seen.
func (m *Machine) notePeer(sb *metadata.Superblock) {
	sb.PeerLocalcnt, sb.PeerRemotecnt = m.peer.Localcnt, m.peer.Remotecnt
}

// becomeSource is the source's step. It is the best replica there is from now on:
// were it still marked outdated, what it acknowledges meanwhile would lose against
// a target that is promoted by force. Winning a recovery, it takes the victim's
// history into its own, so that the victim is behind and nothing else.
func (m *Machine) becomeSource(sb *metadata.Superblock) {
	if m.verdict.Outcome != Equal {
		sb.Marks &^= metadata.Outdated
	}
	if !m.verdict.Recover {
		return
	}
	sb.Remotecnt = m.peer.Localcnt
	sb.Marks &^= metadata.Raised
	sb.Lineage = metadata.Merge(sb.Lineage, m.peer.Lineage, m.generation())
}

func (m *Machine) generation() metadata.Generation {
	return metadata.Generation{ID: metadata.ID(m.cfg.Random()), Time: m.cfg.Wall(m.now), Node: m.cfg.NodeID}
}

// mapGap is how many empty words of the map cost less than a message of their own.
const mapGap = 64

// sendMap tells the primary which blocks may differ, in stretches that have any.
func (m *Machine) sendMap() {
	d := m.st.Dirty
	for i := d.NextWord(0); i >= 0; {
		part := &MapPart{First: i}
		for end := i; i >= 0 && i-end <= mapGap && i < part.First+MaxMapPart; i = d.NextWord(i + 1) {
			for ; end <= i; end++ {
				part.Bits = binary.LittleEndian.AppendUint64(part.Bits, d.Word(end))
			}
		}
		m.send(Msg{Kind: MsgMap, Control: part})
	}
}

func (m *Machine) onMap(msg *Msg) {
	p, ok := msg.Control.(*MapPart)
	if !ok || m.phase != agreeing || m.step != forReady {
		m.protocol(true, "a map out of turn")
		return
	}
	d := m.st.Dirty
	if p.First < 0 || p.First > d.Words() {
		return // about blocks beyond the agreed size
	}
	for i := 0; 8*i+8 <= len(p.Bits); i++ {
		if p.First+i < d.Words() {
			d.OrWord(p.First+i, binary.LittleEndian.Uint64(p.Bits[8*i:]))
		}
	}
}

// onReady is the primary's durable step.
func (m *Machine) onReady() {
	if m.phase != agreeing || m.step != forReady {
		m.protocol(true, "ready out of turn")
		return
	}
	m.step = forDisk
	if m.disk != diskOpen {
		m.flow()
		return
	}
	v := m.verdict
	m.afterLinked(m.st.PersistChanged(), func() {
		copying := v.Outcome != Equal || m.st.Dirty.Count() > 0
		outdated := m.marks().Has(metadata.Outdated)
		commit := m.st.Update(func(sb *metadata.Superblock) {
			m.notePeer(sb)
			sb.Epoch, sb.Size = m.begin.Epoch, m.begin.Size
			sb.Pair, sb.PairPrev = m.begin.Pair, 0
			switch {
			case v.Target == m.cfg.Node:
				if copying {
					sb.Marks |= metadata.Inconsistent
				}
			default:
				m.becomeSource(sb)
			}
		})
		if outdated {
			m.soundAt = commit
		}
		m.afterLinked(commit, m.flow)
	})
}

func (m *Machine) flow() {
	m.send(Msg{Kind: MsgFlow})
	m.link()
}

func (m *Machine) onFlow() {
	if m.phase != agreeing || m.step != forFlow {
		m.protocol(true, "flow out of turn")
		return
	}
	if !m.peer.Diskless { // or the peer could not keep the new id
		m.st.Update(func(sb *metadata.Superblock) { sb.PairPrev = 0 })
	}
	m.link()
}
