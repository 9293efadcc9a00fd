package replicate

import "hastd/metadata"

// because adds what the system said of the operation that failed.
func because(what, text string) string {
	if text == "" {
		return what
	}
	return what + ": " + text
}

// diskFailed: the component stopped working. A secondary leaves the pair. A
// primary goes on with the peer's replica, if that is good, in this order: what
// was acknowledged is written there; the peer durably keeps the record for both;
// this node marks its own replica as inconsistent; only then anything more is
// acknowledged.
func (m *Machine) diskFailed(text string) {
	if !m.disk.usable() {
		return
	}
	m.disk, m.diskText, m.waiters, m.commitOp = diskFailed, text, nil, 0
	if then := m.openThen; then != nil {
		m.openThen = nil
		then(&Refusal{RefusedIO, text, ""})
	}
	m.jobFailed(&Refusal{RefusedIO, "the disk failed: " + text, ""})
	if m.role == metadata.Primary {
		m.primaryDiskFailed()
	} else {
		m.secondaryDiskFailed()
	}
}

func (m *Machine) primaryDiskFailed() {
	good := m.peerSound()
	if m.st.Unflushed() {
		m.peerOnly = true // what was not flushed here may never have reached this disk
	}
	m.repeatRound()
	if !good {
		m.hangUp("the disk of " + m.cfg.Node + " failed") // nothing can be had from the peer as things are
	}
	m.stopSync("the disk of " + m.cfg.Node + " failed")
	m.journal = 0
	for _, r := range append([]*req(nil), m.active...) {
		waited := r.state == rJournal
		if r.local == asked || r.local == failed {
			r.local, r.op = none, 0
		}
		switch r.kind {
		case kRead:
			if r.peer == none {
				m.requeue(r)
			}
		case kWrite, kZero:
			r.state = max(r.state, rRunning)
			if waited && good {
				m.sendWrite(r)
			}
		case kRepair, kSync:
			r.op = 0
			m.endOp(r)
		}
	}
	m.badDisk = good
	if !good {
		m.failHeld()
		m.suspension()
		return
	}
	m.taking, m.unmarked = true, false
	sb := m.st.Super()
	m.send(Msg{Kind: MsgTakeOver, Control: &TakeOver{Localcnt: sb.Localcnt, Lineage: sb.Lineage}})
}

func (m *Machine) onTookOver(msg *Msg) {
	c, ok := msg.Control.(*TakeOver)
	if !ok || !m.taking {
		m.protocol(true, "a takeover that was not asked for")
		return
	}
	m.peer.Localcnt, m.peer.Lineage = c.Localcnt, c.Lineage
	m.markBad()
}

// markBad records that this replica must not be used again as it is: in its own
// metadata, and in the state directory, where a failing disk cannot lose it. One
// of the two is enough.
func (m *Machine) markBad() {
	m.taking, m.unmarked = true, false
	session, conn := m.session, m.conn
	tries, done := 1, false
	ended := func(ok bool) {
		tries--
		if done || m.session != session || m.conn != conn {
			return
		}
		switch {
		case ok:
			done, m.marked, m.taking = true, true, false
			m.suspension()
			m.thaw()
		case tries == 0:
			m.warn("neither the metadata nor the state directory could record that this replica is bad: requests fail rather than risk old data being used later")
			m.failing, m.unmarked = true, true
			m.failHeld()
		}
	}
	m.st.Update(func(sb *metadata.Superblock) { sb.Marks |= metadata.Inconsistent })
	if !m.st.Busy() && m.markOp == 0 {
		tries++
		m.markOp = m.nextOp(opCommit, 0)
		m.markThen = ended
		m.emit(Effect{Kind: EffCommit, Op: m.markOp, Writes: m.st.Prepare()})
	}
	m.marking++
	m.fly(Effect{Kind: EffStateMark, Set: true}, func(ev *Event) {
		m.marking--
		ended(ev.Err == OK)
	})
}
