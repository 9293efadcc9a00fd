package carp

import (
	"cmp"
	"fmt"
	"net/netip"
)

// Instant is a reading of a monotonic clock; Duration is a span of it. Both count
// nanoseconds.
type (
	Instant  int64
	Duration int64
)

// Spans of time.
const (
	Millisecond Duration = 1e6
	Second               = 1000 * Millisecond
)

func (i Instant) add(d Duration) Instant { return i + Instant(d) }

// State is what a node is in an election.
type State uint8

const (
	Init   State = iota // takes no part: not started, no link, or waiting after the start
	Backup              // listens
	Master              // advertises
)

func (s State) String() string { return [...]string{"INIT", "BACKUP", "MASTER"}[s] }

// Config is an election's. Which of the two halves counts, New decides.
type Config struct {
	// Self is where own packets come from. It decides between equals, in its own
	// family only: who also advertises in the other has another order there.
	Self netip.Addr

	// CARP.
	Advbase uint8 // seconds; at least 1
	Advskew uint8 // 256ths of a second
	// VRRP.
	Priority uint8
	Interval Duration // between two adverts: whole hundredths of a second

	DeadRatio    int // how many silent intervals make a master dead
	Preempt      bool
	PreemptDelay Duration
	StartDelay   Duration // from the link's coming up to taking part

	// Appointed: who is master is decided elsewhere, and told by EvAppoint. Ranks,
	// Preempt and both delays lead to nothing then.
	Appointed bool
}

// EventKind says what happened.
type EventKind uint8

const (
	EvTick     EventKind = iota + 1 // nothing but time
	EvStart                         // take part
	EvStop                          // no longer; a master says so on the wire
	EvLink                          // Up, Self: the interface has a link, and packets come from Self
	EvStanding                      // Fit, Demotion, Reason: how this node may take part
	EvHeard                         // Advert: a good packet of another node
	EvTake                          // be master now, whatever the ranks say
	EvResign                        // Reason: give up being master, to anybody else
	EvAppoint                       // Up, Until, Reason: with Config.Appointed, be master from now on, or no longer
)

// Event is what a machine is told.
type Event struct {
	Kind     EventKind
	Up       bool
	Fit      bool   // may become master
	Demotion uint8  // by how much it is worse than its rank
	Reason   string // for people
	Advert   Advert
	Self     netip.Addr // if valid
	Until    Instant    // when the appointment is over by itself; 0: never
}

// Advert is a packet in the terms of an election.
type Advert struct {
	From     netip.Addr
	Every    Duration // when the next one is due
	Priority uint8    // VRRP
	Leaving  bool     // it is the sender's last
}

// EffectKind says what is wanted.
type EffectKind uint8

const (
	EffSend     EffectKind = iota + 1 // Advert: send it
	EffState                          // From, To, Reason: the state changed
	EffAnnounce                       // tell the network again where the addresses are
)

// Effect is what a machine wants.
type Effect struct {
	Kind     EffectKind
	Advert   Advert
	From, To State
	Reason   string
}

// Machine is the election of one group on one node.
type Machine struct {
	cfg   Config
	rules rules

	state    State
	now      Instant
	started  bool
	link     bool
	fit      bool
	unfit    string // why not
	demotion uint8
	resigned bool // it gave up being master: it does not preempt, and lets others be first

	joinAt     Instant // INIT: when to take part
	downAt     Instant // BACKUP: when the master counts as dead
	sendAt     Instant // MASTER: when the next packet is due
	preemptAt  Instant // not before this
	announceAt Instant // not again before this
	heard      Advert  // the last packet of a master
	everHeard  bool
	// leftUntil is until when a master's last packet is remembered, for a node that
	// could not become master when it heard it and may be able to in a moment: what
	// downAt says since then holds.
	leftUntil Instant

	// With Config.Appointed only.
	appointed bool
	until     Instant // when that is over by itself; 0: never
	why       string
}

// rules are what the two protocols differ in.
type rules interface {
	// every is the time between two own packets.
	every(m *Machine) Duration
	// down is the silence after which a master counts as dead.
	down(m *Machine) Duration
	// rank is above 0 if a packet's sender ranks above this node, below 0 if it ranks
	// below, and 0 if they are equal.
	rank(m *Machine, a *Advert) int
	// advert is the packet to send.
	advert(m *Machine, leaving bool) Advert
	// left is how long a backup waits after a master's last packet.
	left(m *Machine) Duration
	// atOnce says whether a backup that may preempt does so when it hears a worse
	// master, rather than when its time is over.
	atOnce() bool
	// owns says whether this node is master from the start.
	owns(m *Machine) bool
}

// announceGap bounds how often lesser masters make this node announce itself.
const announceGap = Second

// NewCARP makes an election by CARP's rules.
func NewCARP(cfg Config) *Machine { return newMachine(cfg, carpRules{}) }

// NewVRRP makes an election by RFC 9568.
func NewVRRP(cfg Config) *Machine { return newMachine(cfg, vrrpRules{}) }

func newMachine(cfg Config, r rules) *Machine {
	if cfg.DeadRatio < 1 {
		cfg.DeadRatio = 3
	}
	return &Machine{cfg: cfg, rules: r}
}

// State is what this node is now.
func (m *Machine) State() State { return m.state }

// MasterDown is the silence after which this node takes a master for dead.
func (m *Machine) MasterDown() Duration { return m.rules.down(m) }

// Every is the time between two of this node's packets as master.
func (m *Machine) Every() Duration { return m.rules.every(m) }

// Stands is until when a master may be believed to be one while nobody steps the
// machine: until the others stop waiting for it, or its appointment ends. It is 0 for
// who is none.
func (m *Machine) Stands() Instant {
	if m.state != Master {
		return 0
	}
	at := m.sendAt.add(m.rules.down(m) - m.rules.every(m))
	if m.appointed && m.until != 0 {
		at = min(at, m.until)
	}
	return at
}

// Deadline is when to step the machine although nothing happened.
func (m *Machine) Deadline() (Instant, bool) {
	if m.cfg.Appointed {
		return m.appointedDeadline()
	}
	switch m.state {
	case Master:
		return m.sendAt, true
	case Backup:
		return m.downAt, m.fit
	}
	return m.joinAt, m.started && m.link
}

// Step takes an event and says what is to be done.
func (m *Machine) Step(now Instant, ev Event, out []Effect) []Effect {
	if m.cfg.Appointed {
		m.now = max(m.now, now)
		return m.stepAppointed(&ev, out)
	}
	slept := m.slept(now)
	m.now = max(m.now, now)
	if slept != "" {
		out = m.afterSleep(slept, out)
	}
	switch ev.Kind {
	case EvStart:
		if !m.started {
			m.started, m.resigned = true, false
			m.joinAt = m.now.add(m.cfg.StartDelay)
		}
	case EvStop:
		m.started = false
		out = m.leave(Init, "stopped", out)
	case EvLink:
		if ev.Self.IsValid() {
			m.cfg.Self = ev.Self
		}
		out = m.onLink(ev.Up, out)
	case EvStanding:
		out = m.onStanding(&ev, out)
	case EvHeard:
		out = m.onHeard(&ev.Advert, out)
	case EvTake:
		if m.state == Backup && m.fit {
			out = m.become(Master, cmp.Or(ev.Reason, "taken over by hand"), out)
		}
	case EvResign:
		if m.state == Master {
			m.resigned = true
			out = m.leave(Backup, ev.Reason, out)
		}
	}
	return m.onTime(out)
}

// slept says whether this machine stood still for so long that what it believes of
// the others is no longer worth anything: a paused host, a stopped process.
func (m *Machine) slept(now Instant) string {
	at, ok := m.Deadline()
	if !ok || m.state == Init {
		return ""
	}
	late := Duration(now - at)
	if m.state == Master {
		late += m.rules.every(m) // the others have been waiting since the last packet
	}
	if late < m.rules.down(m) {
		return ""
	}
	return fmt.Sprintf("this node stood still for %d ms", late/Millisecond)
}

// afterSleep: a master has been replaced by now, and says nothing more as one. A
// backup first listens to what has come meanwhile.
func (m *Machine) afterSleep(reason string, out []Effect) []Effect {
	switch m.state {
	case Master:
		return m.become(Backup, reason, out)
	case Backup:
		m.downAt = m.now.add(m.rules.down(m))
	}
	return out
}

func (m *Machine) onLink(up bool, out []Effect) []Effect {
	if up == m.link {
		return out
	}
	m.link = up
	if up {
		m.joinAt = m.now.add(m.cfg.StartDelay)
		return out
	}
	return m.become(Init, "link down", out)
}

func (m *Machine) onStanding(ev *Event, out []Effect) []Effect {
	was := m.fit
	m.fit, m.unfit, m.demotion = ev.Fit, ev.Reason, ev.Demotion
	switch {
	case m.state == Master && !m.fit:
		return m.leave(Backup, ev.Reason, out)
	case m.state == Backup && m.fit && !was && m.now >= m.leftUntil:
		m.wait(m.rules.down(m))
	}
	return out
}

// onTime does what is due.
func (m *Machine) onTime(out []Effect) []Effect {
	switch {
	case m.state == Init && m.started && m.link && m.now >= m.joinAt:
		out = m.become(Backup, "started", out)
		if m.fit && m.rules.owns(m) {
			out = m.become(Master, "owner of the address", out)
		}
	case m.state == Backup && m.fit && m.now >= m.downAt:
		out = m.become(Master, "master down", out)
	case m.state == Master && m.now >= m.sendAt:
		out = m.send(out)
	}
	return out
}

func (m *Machine) onHeard(a *Advert, out []Effect) []Effect {
	if m.state == Init {
		return out
	}
	rank := m.rules.rank(m, a)
	if m.state == Master {
		if cmp.Or(rank, m.tie(a)) > 0 && !a.Leaving {
			m.note(a)
			return m.become(Backup, "a better master advertises: "+a.From.String(), out)
		}
		return m.defend(a, out)
	}
	if a.Leaving {
		m.wait(m.rules.left(m))
		m.leftUntil = m.now.add(m.rules.down(m))
		return out
	}
	if rank < 0 && m.cfg.Preempt && m.fit && !m.resigned && m.now >= m.preemptAt {
		if m.rules.atOnce() {
			return m.become(Master, "preempting a slower master: "+a.From.String(), out)
		}
		return out // it is not listened to
	}
	m.note(a)
	m.wait(m.rules.down(m))
	return out
}

// defend has a master say that it is there, now and then.
func (m *Machine) defend(a *Advert, out []Effect) []Effect {
	if m.now < m.announceAt {
		return out
	}
	m.announceAt = m.now.add(announceGap)
	out = append(out, Effect{Kind: EffAnnounce, Reason: "another master advertised: " + a.From.String()})
	return m.send(out)
}

// tie ranks an equal master by its address; 0: that does not tell.
func (m *Machine) tie(a *Advert) int {
	if m.cfg.Self.Is4() != a.From.Is4() {
		return 0
	}
	return a.From.Compare(m.cfg.Self)
}

func (m *Machine) note(a *Advert) { m.heard, m.everHeard = *a, true }

// wait sets when the master counts as dead.
func (m *Machine) wait(d Duration) { m.downAt = m.now.add(d) }

func (m *Machine) send(out []Effect) []Effect {
	m.sendAt = m.now.add(m.rules.every(m))
	return append(out, Effect{Kind: EffSend, Advert: m.rules.advert(m, false)})
}

// leave is become for a master that may still speak: it says that it goes.
func (m *Machine) leave(to State, reason string, out []Effect) []Effect {
	if m.state == Master && m.link {
		out = append(out, Effect{Kind: EffSend, Advert: m.rules.advert(m, true)})
	}
	return m.become(to, reason, out)
}

func (m *Machine) become(to State, reason string, out []Effect) []Effect {
	if to == m.state {
		return out
	}
	from := m.state
	m.state = to
	out = append(out, Effect{Kind: EffState, From: from, To: to, Reason: reason})
	switch to {
	case Master:
		m.resigned = false
		m.announceAt = m.now.add(announceGap)
		out = m.send(out)
	case Backup:
		d := m.rules.down(m)
		if m.resigned {
			d *= 2 // let the other be first
		}
		m.wait(d)
		m.preemptAt = m.now.add(m.cfg.PreemptDelay)
	case Init:
		m.everHeard = false
	}
	return out
}
