package fence

import (
	"fmt"
	"strings"
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

// Mode is what happens to the machine: toc in the configuration.
type Mode string

const (
	Off   Mode = "off"   // nothing: no watchdog, and orders are only reported
	Reset Mode = "reset" // it starts anew, without writing anything more
	Crash Mode = "crash" // its kernel panics, so that a dump can be taken
)

const (
	// feedShare is how many times the watchdog is fed within its time: three feeds may
	// come late before it bites.
	feedShare = 4
	// lateSlack is how late this machine may be called without the parts being excused.
	lateSlack = 500 * Millisecond
)

// Part is something that has to answer.
type Part struct {
	Name  string
	Limit Duration // of silence
}

// Config of a Machine.
type Config struct {
	Mode    Mode
	Program string // for the words
	Node    string
	Timeout Duration // after which the unfed watchdog resets the machine
	Parts   []Part
}

// EventKind says what happened.
type EventKind uint8

const (
	EvTick       EventKind = iota + 1 // nothing but time
	EvAnswered                        // Part: it answered
	EvOrder                           // Group, Reason: this machine shall go down at once
	EvLeaseEnded                      // Group: its lease is over, and it is not known to be down
	EvStopped                         // the daemon ends, and nothing is left to protect
	EvAbandoned                       // the daemon ends, and not everything is down
)

// Event is what a Machine is told.
type Event struct {
	Kind   EventKind
	Part   int
	Group  string // "" if it is none's
	Reason string
}

// EffectKind says what is wanted.
type EffectKind uint8

const (
	EffFeed   EffectKind = iota + 1 // feed the watchdog
	EffWarn                         // Text: for the log and the kernel's: it is not fed any more
	EffTell                         // Text: for the log
	EffFence                        // Text: into the kernel's log; then go down, as Mode says
	EffDisarm                       // end the watchdog's countdown
)

// Effect is what a Machine wants.
type Effect struct {
	Kind EffectKind
	Text string
}

// State is what the watchdog is to this machine.
type State uint8

const (
	Idle     State = iota // there is none
	Fed                   // all is well
	Withheld              // a part does not answer: it is not fed
	Fenced                // the machine is to go down: it is never fed again
	Disarmed              // the daemon ended cleanly
)

func (s State) String() string {
	return [...]string{"off", "fed", "withheld", "fencing", "disarmed"}[s]
}

// Machine decides. Its first step begins the watchdog's time and the parts' limits.
type Machine struct {
	cfg   Config
	state State
	began bool
	heard []Instant // of each part
	feed  Instant   // when it is due
	due   Instant   // what Deadline said after the last step

	now Instant
	out []Effect
}

// New makes a machine.
func New(c Config) *Machine {
	m := &Machine{cfg: c, heard: make([]Instant, len(c.Parts))}
	if c.Mode != Off {
		m.state = Fed
	}
	return m
}

// State is what it has come to.
func (m *Machine) State() State { return m.state }

// Deadline is when the machine wants to be called although nothing happened.
func (m *Machine) Deadline() (Instant, bool) {
	switch m.state {
	case Fed:
		at := m.feed
		for i, p := range m.cfg.Parts {
			at = min(at, m.heard[i]+Instant(p.Limit))
		}
		return at, true
	case Withheld:
		return m.now + Instant(m.cfg.Timeout/feedShare), true
	default:
		return 0, false
	}
}

// Step takes an event and appends what is wanted to out.
func (m *Machine) Step(now Instant, ev Event, out []Effect) []Effect {
	m.begin(now)
	m.out = out
	switch ev.Kind {
	case EvAnswered:
		m.heard[ev.Part] = now
	case EvOrder:
		m.fence(ev.Group, ev.Reason)
	case EvLeaseEnded:
		m.fence(ev.Group, "the lease is over, and it is not known to be down")
	case EvStopped:
		m.disarm()
	case EvAbandoned:
		m.abandon()
	}
	m.judge()
	m.due, _ = m.Deadline()
	out, m.out = m.out, nil
	return out
}

// begin excuses the parts for the time in which this machine itself was not called:
// they could not answer then, or were not heard. Standing still for long is what the
// watchdog itself notices.
func (m *Machine) begin(now Instant) {
	if !m.began {
		m.began, m.feed = true, now
		for i := range m.heard {
			m.heard[i] = now
		}
	} else if late := Duration(now - m.due); m.state == Fed && late > lateSlack {
		for i := range m.heard {
			m.heard[i] += Instant(late)
		}
	}
	m.now = now
}

// judge feeds the watchdog or does not.
func (m *Machine) judge() {
	if m.state != Fed && m.state != Withheld {
		return
	}
	silent := -1
	for i, p := range m.cfg.Parts {
		if m.now >= m.heard[i]+Instant(p.Limit) {
			silent = i
			break
		}
	}
	switch {
	case silent >= 0 && m.state == Fed:
		m.state = Withheld
		p := m.cfg.Parts[silent]
		m.emit(EffWarn, fmt.Sprintf("%s: node %s: %s has not answered for %s, and the watchdog is not fed any more: unless it answers, TOC within %s to ensure data integrity",
			m.cfg.Program, m.cfg.Node, p.Name, seconds(p.Limit), seconds(m.cfg.Timeout)))
	case silent < 0 && m.state == Withheld:
		m.state, m.feed = Fed, m.now
		m.emit(EffTell, "everything answers again: the watchdog is fed")
	}
	if m.state == Fed && m.now >= m.feed {
		m.feed = m.now + Instant(m.cfg.Timeout/feedShare)
		m.emit(EffFeed, "")
	}
}

// fence is final, and told once.
func (m *Machine) fence(group, reason string) {
	switch m.state {
	case Fenced:
		return
	case Idle:
		m.emit(EffTell, "this machine would go down now, but nothing can make it (toc is off): "+reason)
		return
	}
	m.state = Fenced
	m.emit(EffFence, Words(m.cfg.Program, m.cfg.Node, group, reason))
}

func (m *Machine) disarm() {
	if m.state == Fed || m.state == Withheld {
		m.state = Disarmed
		m.emit(EffDisarm, "")
	}
}

// abandon leaves the watchdog to the next daemon, or to its end.
func (m *Machine) abandon() {
	if m.state == Fed || m.state == Withheld {
		m.state = Fenced
		m.emit(EffWarn, fmt.Sprintf("%s: node %s: it ends, and not everything is down: unless another one begins to feed the watchdog, TOC within %s to ensure data integrity",
			m.cfg.Program, m.cfg.Node, seconds(m.cfg.Timeout)))
	}
}

func (m *Machine) emit(kind EffectKind, text string) {
	m.out = append(m.out, Effect{kind, text})
}

func seconds(d Duration) string { return fmt.Sprintf("%.3gs", float64(d)/float64(Second)) }

// maxReason bounds what a reason adds to a line of the kernel's log, in bytes: longer
// lines are cut by the kernel, at their end.
const maxReason = 400

// Words are the line that the machine's console has as its last one.
func Words(program, node, group, reason string) string {
	reason = strings.ToValidUTF8(strings.Join(strings.Fields(reason), " "), "?")
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + " ..."
	}
	where := "node " + node
	if group != "" {
		where += ", group " + group
	}
	return fmt.Sprintf("%s: %s: %s: performing TOC to ensure data integrity", program, where, reason)
}
