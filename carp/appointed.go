package carp

import (
	"cmp"
	"fmt"
)

// An appointed node does not elect: who is master is decided elsewhere and told to it
// (EvAppoint). It is master exactly while it is appointed, takes part and has a link,
// from the moment it is told. Silence, ranks, preemption and EvTake make it none, and a
// better master takes nothing from it: a master that hears another one says again that
// it is there, as it does with a lesser one.
//
// Whether an appointment still holds after this node stood still, the machine cannot
// know, nor what became of the others: it forgets the appointment without a word, since
// a goodbye would be heard as that of the master that there may be by now, and sends
// nothing until it is appointed again. An appointment with an end is forgotten in the
// same way then, so that one that was told before a pause and arrives after it leads
// to nothing.

// stepAppointed is Step.
func (m *Machine) stepAppointed(ev *Event, out []Effect) []Effect {
	out = m.lapse(out)
	switch ev.Kind {
	case EvStart:
		m.started = true
	case EvStop:
		m.started, m.appointed = false, false
		out = m.leave(Init, "stopped", out)
	case EvLink:
		if ev.Self.IsValid() {
			m.cfg.Self = ev.Self
		}
		if m.link = ev.Up; !m.link {
			out = m.become(Init, "link down", out)
		}
	case EvStanding:
		m.demotion = ev.Demotion
	case EvHeard:
		if m.state == Master {
			out = m.defend(&ev.Advert, out)
		}
	case EvAppoint:
		out = m.onAppoint(ev, out)
	}
	if m.started && m.link {
		switch {
		case m.appointed:
			out = m.become(Master, m.why, out)
		case m.state == Init:
			out = m.become(Backup, "started", out)
		}
	}
	if m.appointed && m.now >= m.sendAt {
		if m.state == Master {
			return m.send(out)
		}
		m.sendAt = m.now.add(m.rules.every(m))
	}
	return out
}

func (m *Machine) onAppoint(ev *Event, out []Effect) []Effect {
	if !ev.Up {
		m.appointed = false
		if m.state == Master {
			out = m.leave(Backup, cmp.Or(ev.Reason, "dismissed"), out)
		}
		return out
	}
	if !m.appointed {
		m.sendAt = m.now.add(m.rules.every(m))
	}
	m.appointed, m.until, m.why = true, ev.Until, cmp.Or(ev.Reason, "appointed")
	return m.lapse(out)
}

// lapse forgets an appointment that is over, or of which nobody knows. A node without a
// link keeps time as a master does, lest it miss that it stood still.
func (m *Machine) lapse(out []Effect) []Effect {
	if !m.appointed {
		return out
	}
	why := ""
	switch still := Duration(m.now-m.sendAt) + m.rules.every(m); {
	case still >= m.rules.down(m):
		why = fmt.Sprintf("this node stood still for %d ms: it is to be appointed again", still/Millisecond)
	case m.until != 0 && m.now >= m.until:
		why = "its appointment ended"
	default:
		return out
	}
	m.appointed = false
	if m.state == Master {
		out = m.become(Backup, why, out)
	}
	return out
}

// appointedDeadline is Deadline.
func (m *Machine) appointedDeadline() (Instant, bool) {
	at := m.sendAt
	if m.until != 0 {
		at = min(at, m.until)
	}
	return at, m.appointed
}
