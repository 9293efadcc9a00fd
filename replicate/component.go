package replicate

import (
	"fmt"

	"hastd/metadata"
)

// diskState is the component's.
type diskState uint8

const (
	diskClosed diskState = iota
	diskOpening
	diskLoading // open; the log of the last use is being written to the map
	diskOpen
	diskFailed
	diskClosing
)

func (d diskState) usable() bool { return d == diskLoading || d == diskOpen }

// waiter is called once a commit is durable.
type waiter struct {
	commit uint64
	then   func()
}

// after calls then once commit is durable; at once if it is. It is forgotten if
// the disk fails or is closed first.
func (m *Machine) after(commit uint64, then func()) {
	if m.st.Durable(commit) {
		then()
		return
	}
	m.waiters = append(m.waiters, waiter{commit, then})
}

// afterLinked is after, forgotten too if the agreement it belongs to ended.
func (m *Machine) afterLinked(commit uint64, then func()) {
	session, conn := m.session, m.conn
	m.after(commit, func() {
		if m.session == session && m.conn == conn {
			then()
		}
	})
}

func (m *Machine) onCommitted(ev *Event) {
	if m.markOp != 0 && ev.Op == m.markOp {
		m.markOp = 0
		m.markThen(ev.Err == OK)
		return
	}
	if ev.Op != m.commitOp {
		return // of a component given up since
	}
	m.commitOp = 0
	if !m.disk.usable() {
		return
	}
	if ev.Err != OK {
		m.diskFailed("metadata could not be written: " + ev.Text)
		return
	}
	m.st.Committed()
	ws := m.waiters
	m.waiters = nil
	for _, w := range ws {
		if !m.disk.usable() {
			return
		}
		if m.st.Durable(w.commit) {
			w.then()
		} else {
			m.waiters = append(m.waiters, w)
		}
	}
	m.issueJournalled()
	m.retry = true
}

// open opens the component; then is told nil or why it cannot be used.
func (m *Machine) open(then func(*Refusal)) {
	m.disk, m.diskText = diskOpening, ""
	m.openThen = then
	m.fly(Effect{Kind: EffOpen}, func(ev *Event) {
		refuse := func(r *Refusal) {
			m.disk, m.diskText, m.openThen = diskFailed, r.Text, nil
			then(r)
		}
		fail := func(text string) { refuse(&Refusal{RefusedIO, text, ""}) }
		switch ev.Err {
		case OK:
		case ErrBusy: // perhaps by this daemon itself, in an operation that hangs
			refuse(&Refusal{RefusedBusy, ev.Text, "end what uses it, and order it again"})
			return
		default:
			fail(ev.Text)
			return
		}
		m.inShell = true
		st, problems, err := metadata.Load(ev.Image)
		if err == nil && st.Super().Resource != m.cfg.Resource {
			err = fmt.Errorf("the component holds resource %q, not %q", st.Super().Resource, m.cfg.Resource)
		}
		if err != nil {
			m.fly(Effect{Kind: EffClose}, func(*Event) {
				m.inShell = false
				fail(err.Error())
			})
			return
		}
		m.st, m.disk = st, diskLoading
		m.instance = metadata.ID(m.cfg.Random())
		m.warnOf(problems)
		sb := st.Super()
		m.unclean = sb.PrevRole == metadata.Secondary
		m.unbacked = st.Dirty.Count() > 0
		m.raiseAt, m.markAt, m.soundAt = 0, 0, 0
		bad := ev.Image.StateInconsistent
		commit := st.Update(func(sb *metadata.Superblock) {
			sb.PrevRole = metadata.Secondary
			if bad && sb.Resuid != 0 {
				sb.Marks |= metadata.Inconsistent
			}
		})
		m.after(commit, func() {
			loaded := func() {
				if m.st != st || m.disk != diskLoading {
					return // it failed meanwhile
				}
				m.disk, m.openThen = diskOpen, nil
				then(nil)
			}
			if bad {
				m.fly(Effect{Kind: EffStateMark}, func(ev *Event) {
					if ev.Err != OK {
						m.warn("the mark that this replica is inconsistent, now in its metadata, stays in the state directory: " + ev.Text)
					}
					loaded()
				})
				return
			}
			loaded()
		})
	})
}

func (m *Machine) warnOf(p metadata.Problems) {
	if p.SuperCopyLost {
		m.warn("one of the two copies of the superblock is damaged: the other one counts, and the damaged one is written anew")
	}
	if p.LogLost {
		m.warn("the activity log is damaged or cannot be read: every block counts as different")
	}
	if p.PagesDamaged > 0 {
		m.warn(fmt.Sprintf("%d pages of the dirty map are damaged: their blocks count as different", p.PagesDamaged))
	}
}

// closeDisk gives the component back; nothing is under way on it.
func (m *Machine) closeDisk(then func()) {
	m.waiters, m.diskText = nil, ""
	closed := func() {
		m.disk, m.st, m.instance, m.inShell = diskClosed, nil, 0, false
		m.commitOp = 0
		then()
	}
	if !m.inShell {
		closed()
		return
	}
	m.disk = diskClosing
	m.fly(Effect{Kind: EffClose}, func(*Event) { closed() })
}

// sound says whether the local replica may be read and promoted: open, and
// neither half-copied nor known to be old, on stable storage too.
func (m *Machine) sound() bool {
	return m.disk == diskOpen && !m.marks().Has(metadata.Inconsistent|metadata.Outdated) && m.st.Durable(m.soundAt)
}

func (m *Machine) marks() metadata.Marks {
	if m.st == nil {
		return 0
	}
	return m.st.Super().Marks
}
