// Package lease is the time for which the members of a view let an owner serve.
//
// An owner asks every member in short intervals (a round of renewals). A member that
// confirms promises to accept no view that takes anything from this owner before the
// lease, and a margin for clocks that run differently, is over: it is guarded. Once a
// quorum confirmed a round, the owner may serve until the round's send time plus the
// lease. Any quorum that would elect a view without the owner has one of those who
// promised, so such a view is committed only after the owner stopped.
//
// Two rules carry that over a change of views. Who accepted a proposal confirms
// nothing by the view before it. And who learns a view, or starts with one, guards its
// owners for a whole lease: what they hold by an older view was confirmed before this
// one was committed. An owner that starts guards itself, for it was part of the quorum.
//
// The machine sends nothing, reads no clock and knows no storage: instants are those
// of this node's CLOCK_BOOTTIME, and no two nodes' clocks are compared. What a guard
// forbids is for the machine of the views to keep (cluster/view).
package lease

import (
	"hastd/cluster/view"
)

// Instant is a reading of CLOCK_BOOTTIME; Duration is a span of it. Both count
// nanoseconds.
type (
	Instant  = view.Instant
	Duration = view.Duration
)

// Promise is for how long a member that confirms accepts no view that takes something
// from the owner. With a watchdog it is no shorter than that takes: a machine that is
// reset because it lost its lease, or stands still while it has one that was renewed
// just before, is down before another one serves. One that was cut off first, and stands
// still when its lease is almost over, was fed later than it was renewed and is reset
// later: storage and addresses end with the lease all the same, but what a group runs
// besides (one without storage has nothing else) may go on for up to a lease more.
func Promise(lease, watchdog Duration) Duration {
	d := max(lease, watchdog)
	return d + Margin(d)
}

// Margin is how much longer a promise lasts than the lease that it backs: clocks may
// run 5 % apart, and an answer takes its time.
func Margin(lease Duration) Duration { return lease/20 + 500*view.Millisecond }

// rounds is how many rounds of renewals are remembered: an answer to an older one is
// worth nothing.
const rounds = 16

// Member is a node of a view as it was when the view was made.
type Member struct {
	ID  view.NodeID
	Inc view.Incarnation
}

// Term is what the machine must know of a committed view.
type Term struct {
	Number  uint64
	Members []Member
	Owners  view.Set                   // who owns something
	Quorum  func(voters view.Set) bool // whether these could elect the next one
}

// TermOf is what the lease must know of a view.
func TermOf(v *view.View) Term {
	t := Term{Number: v.Stamp.Number(), Quorum: v.Quorum}
	for _, x := range v.Members {
		t.Members = append(t.Members, Member{ID: x.ID, Inc: x.Inc})
	}
	for i := range v.Resources {
		if o := v.Resources[i].Owner; o != view.Nobody {
			t.Owners |= view.SetOf(o)
		}
	}
	return t
}

func (t *Term) names(id view.NodeID, inc view.Incarnation) bool {
	for _, m := range t.Members {
		if m.ID == id {
			return m.Inc == inc
		}
	}
	return false
}

// Event is what happens to a node.
type Event interface{ event() }

// Learned is a committed view. By the one that was Stored at the start this node serves
// nothing: it may be long over.
type Learned struct {
	Term   Term
	Stored bool
}

// Accepted says that this node stored a proposal for the next view.
type Accepted struct{}

// Renew is another node's renewal.
type Renew struct {
	From   view.NodeID
	Inc    view.Incarnation
	Number uint64 // of the view it owns by
	Round  uint64
}

// Confirm is another node's answer to a renewal of this one.
type Confirm struct {
	From   view.NodeID
	Inc    view.Incarnation
	Number uint64
	Round  uint64
}

// Yield says that the leases of these nodes are not to be renewed or confirmed here
// until Resume or a new view: they run out. A view that takes something from them waits
// for it, and it may be committed.
type Yield struct{ Nodes view.Set }

// Resume takes Yield back.
type Resume struct{}

// Tick is nothing but time.
type Tick struct{}

func (Learned) event()  {}
func (Accepted) event() {}
func (Renew) event()    {}
func (Confirm) event()  {}
func (Yield) event()    {}
func (Resume) event()   {}
func (Tick) event()     {}

// Effect is what the shell has to do.
type Effect interface{ effect() }

// SendRenew asks the other members.
type SendRenew struct{ Number, Round uint64 }

// SendConfirm answers one.
type SendConfirm struct {
	To            view.NodeID
	Number, Round uint64
}

// Until is the end of this node's lease; 0: it has none.
type Until struct{ At Instant }

// Guard forbids to accept a view that takes anything from a node before At.
type Guard struct {
	Node view.NodeID
	At   Instant
}

func (SendRenew) effect()   {}
func (SendConfirm) effect() {}
func (Until) effect()       {}
func (Guard) effect()       {}

// Config is a machine's.
type Config struct {
	Self  view.NodeID
	Inc   view.Incarnation
	Lease Duration
	// Watchdog is the time after which a machine is reset that lost its lease; 0: none is.
	Watchdog Duration
	Every    Duration // between two renewals
}

// round is one round of renewals.
type round struct {
	number    uint64
	sent      Instant
	confirmed view.Set
}

// Machine is one node's part.
type Machine struct {
	cfg      Config
	now      Instant
	out      []Effect
	term     Term
	known    bool
	accepted bool     // a proposal for the view after term
	stored   bool     // the view is from before the start
	yields   view.Set // whose leases are to run out

	last   uint64 // round
	ring   [rounds]round
	next   Instant // when to renew
	until  Instant
	guards [view.MaxNodeID + 1]Instant
}

// New makes a machine that knows no view.
func New(cfg Config) *Machine { return &Machine{cfg: cfg} }

// Until is the end of the lease; 0: there is none.
func (m *Machine) Until() Instant { return m.until }

// Guarded is until when nothing may be taken from a node.
func (m *Machine) Guarded(id view.NodeID) Instant { return m.guards[id] }

// Deadline is when the machine wants a Tick.
func (m *Machine) Deadline() (Instant, bool) {
	at := m.until
	if m.serving() && (at == 0 || m.next < at) {
		at = m.next
	}
	return at, at != 0
}

// Step handles one event and returns what to do.
func (m *Machine) Step(now Instant, ev Event) []Effect {
	m.now, m.out = max(m.now, now), nil
	if m.until != 0 && m.now >= m.until {
		m.end()
	}
	switch ev := ev.(type) {
	case Learned:
		m.learned(ev)
	case Accepted:
		m.accepted = true
	case Renew:
		m.renew(ev)
	case Confirm:
		m.confirm(ev)
	case Yield:
		m.yields |= ev.Nodes
	case Resume:
		m.yields = 0
	}
	if m.serving() && m.now >= m.next {
		m.ask()
	}
	return m.out
}

func (m *Machine) emit(e Effect) { m.out = append(m.out, e) }

// promise is how long this node lets others serve from now on.
func (m *Machine) promise() Instant {
	return m.now + Instant(Promise(m.cfg.Lease, m.cfg.Watchdog))
}

// learned ends what was held by an older view. Whoever owns something by the new one
// may still hold a lease by the old, or have one by the time this node hears of it. At
// the start that is this node, too: what it owned is served by the lease that the life
// before had, and it was one of those who gave it.
func (m *Machine) learned(ev Learned) {
	t := ev.Term
	if m.known && t.Number <= m.term.Number {
		return
	}
	m.term, m.known, m.stored = t, true, ev.Stored
	m.accepted, m.yields = false, 0
	m.ring, m.next = [rounds]round{}, m.now
	if m.stored || !t.Owners.Has(m.cfg.Self) || !t.names(m.cfg.Self, m.cfg.Inc) {
		m.end() // an owner that stays one goes on by the lease that it has: all who learn this view guard it
	}
	for id := range view.NodeID(view.MaxNodeID + 1) {
		if t.Owners.Has(id) && (id != m.cfg.Self || ev.Stored) {
			m.guard(id, m.promise())
		}
	}
}

// serving says whether this node needs a lease, and may have one.
func (m *Machine) serving() bool {
	return m.known && !m.stored && !m.accepted && !m.yields.Has(m.cfg.Self) && m.term.Owners.Has(m.cfg.Self) && m.term.names(m.cfg.Self, m.cfg.Inc)
}

// ask begins a round.
func (m *Machine) ask() {
	m.next = m.now + Instant(m.cfg.Every)
	m.last++
	m.ring[m.last%rounds] = round{number: m.last, sent: m.now}
	m.emit(SendRenew{m.term.Number, m.last})
	m.count(&m.ring[m.last%rounds]) // a node that is alone needs nobody
}

// renew answers the renewal of another node.
func (m *Machine) renew(ev Renew) {
	if !m.known || m.accepted || ev.Number != m.term.Number || !m.term.names(ev.From, ev.Inc) || !m.term.Owners.Has(ev.From) || ev.From == m.cfg.Self || m.yields.Has(ev.From) {
		return
	}
	m.guard(ev.From, m.promise())
	m.emit(SendConfirm{ev.From, ev.Number, ev.Round})
}

func (m *Machine) confirm(ev Confirm) {
	r := &m.ring[ev.Round%rounds]
	if !m.serving() || ev.Number != m.term.Number || r.number != ev.Round || ev.Round == 0 || !m.term.names(ev.From, ev.Inc) {
		return
	}
	r.confirmed |= view.SetOf(ev.From)
	m.count(r)
}

// count extends the lease once a quorum confirmed a round.
func (m *Machine) count(r *round) {
	at := r.sent + Instant(m.cfg.Lease)
	if at <= m.until || at <= m.now || !m.term.Quorum(r.confirmed|view.SetOf(m.cfg.Self)) {
		return
	}
	m.until = at
	m.emit(Until{at})
}

func (m *Machine) end() {
	if m.until != 0 {
		m.until = 0
		m.emit(Until{})
	}
}

func (m *Machine) guard(id view.NodeID, at Instant) {
	if at > m.guards[id] {
		m.guards[id] = at
		m.emit(Guard{id, at})
	}
}
