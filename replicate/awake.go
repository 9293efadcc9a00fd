package replicate

import "hastd/metadata"

// A daemon that stood still (SIGSTOP, a paused machine, memory that had to be read
// back) knows of its peer what was true before. If the connection is lost then, the
// peer may have been promoted meanwhile: going on alone at once would split what one
// question keeps together. So it asks first, for a bounded time.
//
// And of two primaries, the one that lacks what the other wrote has acknowledged
// nothing that the other lacks. It holds what it is asked, rather than part from it,
// until it steps down or a person wants it to go on.

// Named limits of a primary that stood still.
const (
	// StoodStill is a pause in which the peer may have been promoted.
	StoodStill = ProbeTime * 3 / 4
	// awakeEvery is how often a primary looks whether it stood still.
	awakeEvery = ProbeTime / 2
	// AskTime is how long the peer is asked for before this node goes on alone: the
	// one that dials may have been refused for a while, and tries again within 2 s.
	AskTime = 4 * Second
)

// awake notices that this primary stood still.
func (m *Machine) awake() {
	if m.role != metadata.Primary || m.session == 0 {
		m.awakeAt = 0
		return
	}
	if m.awakeAt != 0 && m.now-m.awakeAt > StoodStill {
		m.sleptAt = m.now
	}
	m.awakeAt = m.now
}

// askFirst: the session was lost; if this primary stood still before, the peer is
// asked before anything is done alone. One that had gone on alone goes on.
func (m *Machine) askFirst() {
	if m.role != metadata.Primary || m.sleptAt == 0 || m.now-m.sleptAt > m.cfg.Timeout || !m.wanted || m.marks().Has(metadata.Raised) {
		return
	}
	m.askUntil = m.now + AskTime
	m.emit(Effect{Kind: EffConnect, Now: true})
}

// asking says whether this primary waits for word of its peer before it goes on alone.
func (m *Machine) asking() bool { return m.askUntil != 0 }

// endAsking: the peer said something, cannot be reached, or gives no answer.
func (m *Machine) endAsking() {
	if m.askUntil != 0 {
		m.askUntil, m.sleptAt = 0, 0
		m.thaw()
	}
}

// overtakenBy takes the verdict that a connection ended with.
func (m *Machine) overtakenBy(v *Verdict) {
	m.overtaken = m.role == metadata.Primary && v.Ahead == m.cfg.Peer && !m.marks().Has(metadata.Raised)
}
