// Package seat decides about a group of a cluster with votes: its node is master while it
// owns all that the group needs and has a lease. What the group does not use here any
// more, and must not or cannot, is handed to the other node, if that can have it.
//
// A group on a node has one Machine. The rules of who may own are those of cluster/view;
// this package only says what a node does with what it owns. It opens nothing, reads no
// clock, logs nothing, and takes nothing up or down.
package seat

import (
	"fmt"

	"hastd/cluster/view"
)

const (
	// unfitFor is how long a node may be unfit before it gives away what it could have: a
	// hastd that starts, or a replica that meets its peer, takes a moment.
	unfitFor = 2 * view.Second
	// noLinkFor is how long a group without a link waits for another node that can have it.
	noLinkFor = 3 * view.Second
	// ResignFor is how long a group that was resigned waits for another node to take it;
	// then it comes back.
	ResignFor = 10 * view.Second
	// giveAgain is the time between two attempts to hand over.
	giveAgain = 2 * view.Second
	// linkWait is how long the election takes at most to know of a link that is there.
	linkWait = 1 * view.Second
)

const noLinkHere = "no interface of the group has a link here"

// Config is a machine's.
type Config struct {
	Self  view.NodeID
	Nodes []view.NodeID // of the group, in order of preference
	Needs []string      // what a node must own to serve it, the group's first thing first
	Names map[view.NodeID]string
	// Reset is how long a group that lost its lease may take to go down before the
	// machine does.
	Reset view.Duration
}

// Event is what happens to a seat.
type Event interface{}

// Join begins to decide. A group that was found up is left as it is until it is clear
// whether this node may still serve it; the group's machine bounds that.
type Join struct{}

// Stand says whether this node can have the group, and why not.
type Stand struct {
	Fit bool
	Why string
}

// Resign gives the group to the other node, once it is down here.
type Resign struct{ Reason string }

// Facts are what is so now. They are told at every change, and now and then.
type Facts struct {
	View  *view.View // nil: none is known
	Up    bool       // a view that names this node was learned since the start
	Lease view.Instant
	Owns  map[string]bool // what this node owns with a lease
	Waits string          // what for, if this node has no lease for that

	Linked  bool     // an interface of the group has a link
	Down    bool     // nothing of the group is up here or on its way
	Faulted bool     // it is down after a failure
	Able    view.Set // the other nodes that say they can have it
}

// Effect is what the shell has to do.
type Effect interface{}

// Tell tells the group's machine whether this node is master.
type Tell struct {
	Master bool
	Reason string
}

// Appoint says until when addresses and adverts speak for this node; 0: they do not.
type Appoint struct{ Until view.Instant }

// Hand gives what this node owns to another one.
type Hand struct {
	What   []string
	To     view.NodeID
	Reason string
}

// Reset has the machine go down, if that is configured: the lease is over, others may
// serve, and the group is not down.
type Reset struct{}

// word is what the group was told.
type word uint8

const (
	nothing word = iota
	backup
	master
)

// Machine is one node's part for one group.
type Machine struct {
	cfg Config
	now view.Instant
	out []Effect

	joined   view.Instant // 0: not yet
	fit      bool
	why      string
	unfit    view.Instant // since when it is not
	resigned view.Instant // when it gave up being master by order; 0: it did not
	reason   string       // of that

	told      word
	lame      bool         // it was told backup because this node became unfit as master
	gaveAt    view.Instant // when it was handed over last; 0: never
	ableAt    view.Instant // when another node could have the group, or there was a link, last
	appointed view.Instant
	had       bool         // this node was master, and the group was not down since
	leased    view.Instant // the end of the last lease that was known
	lost      view.Instant // when the lease was, with the group up; 0: it was not
}

// New makes a machine. Until somebody says otherwise its node is not fit.
func New(cfg Config, now view.Instant) *Machine { return &Machine{cfg: cfg, unfit: now} }

// Step handles one event and returns what to do, in order.
func (m *Machine) Step(now view.Instant, ev Event) []Effect {
	m.now, m.out = max(m.now, now), nil
	switch ev := ev.(type) {
	case Join:
		m.joined = m.now
	case Stand:
		if m.fit && !ev.Fit {
			m.unfit = m.now
		}
		m.fit, m.why = ev.Fit, ev.Why
	case Resign:
		m.resigned, m.reason = m.now, ev.Reason
	case Facts:
		// Who renews the lease may hang, and still say that there is one.
		if ev.Lease <= m.now {
			ev.Owns, ev.Lease = nil, 0
		}
		m.look(&ev)
	}
	return m.out
}

func (m *Machine) emit(e Effect)                       { m.out = append(m.out, e) }
func (m *Machine) since(at view.Instant) view.Duration { return view.Duration(m.now - at) }

func (m *Machine) look(f *Facts) {
	if m.joined == 0 {
		return
	}
	mine, all := m.mine(f)
	if m.since(m.resigned) > ResignFor || len(mine) == 0 {
		m.resigned = 0 // nobody took it, or somebody has
	}
	to, able := m.cfg.Successor(f.View, f.Able)
	sick := !m.fit && m.since(m.unfit) > unfitFor
	m.lame = m.lame && sick
	if able || f.Linked {
		m.ableAt = m.now
	}
	switch {
	case m.told == nothing && m.undecided(f, mine, all):
	// Without a link the group goes to where there is one. If it cannot, it runs here all
	// the same after a while: only a primary brings the other replica in sync.
	case all && !f.Linked && (able || m.told != master && m.since(m.ableAt) < noLinkFor):
		m.tell(backup, noLinkHere)
	case all && sick && (m.lame || m.told == master && able):
		m.lame = true
		m.tell(backup, m.why)
	case all && m.resigned == 0:
		m.tell(master, fmt.Sprintf("view %s names this node owner", f.View.Stamp))
	case !all && (m.told == master || f.Up || m.told == nothing && len(mine) == 0):
		m.tell(backup, m.because(f))
	case m.resigned != 0:
		m.told = backup // it knows: it said so
	}
	m.appoint(f)
	m.reset(f, all)
	if reason := m.away(f, mine, sick); reason != "" && f.Down && able && (m.gaveAt == 0 || m.since(m.gaveAt) >= giveAgain) {
		m.gaveAt = m.now
		m.emit(Hand{mine, to, reason})
	}
}

// undecided says whether it is not clear yet, after the start, if this node serves the
// group: the view gives it the group, and there is no lease yet; or the election has not
// found its link. A group that was found up is kept meanwhile, and its machine bounds
// for how long.
func (m *Machine) undecided(f *Facts, mine []string, all bool) bool {
	switch {
	case f.View == nil:
		return true
	case all:
		return !f.Linked && m.since(m.joined) < linkWait
	}
	return len(mine) == len(m.cfg.Needs)
}

// mine is what the view gives to this node of what the group needs; all says whether that
// is everything, with a lease.
func (m *Machine) mine(f *Facts) (list []string, all bool) {
	all = f.Up
	for _, name := range m.cfg.Needs {
		if r := f.View.Resource(name); r != nil && r.Owner == m.cfg.Self {
			list = append(list, name)
		}
		all = all && f.Owns[name]
	}
	return list, all
}

func (m *Machine) tell(w word, reason string) {
	if w != m.told {
		m.told = w
		m.emit(Tell{w == master, reason})
	}
}

// appoint has adverts and addresses speak for this node as long as it is master, and its
// lease lasts.
func (m *Machine) appoint(f *Facts) {
	var until view.Instant
	if m.told == master {
		until = f.Lease
	}
	if until != m.appointed {
		m.appointed = until
		m.emit(Appoint{until})
	}
}

// reset wants this machine to go down if its lease was lost and the group is not down in
// time. That counts from the end of the lease, as the others count: this node may have
// stood still since.
func (m *Machine) reset(f *Facts, leased bool) {
	switch {
	case leased:
		m.had, m.lost, m.leased = m.had || m.told == master, 0, f.Lease
	case !m.had || f.Down:
		m.had, m.lost = false, 0
	case m.lost == 0:
		m.lost = min(m.now, m.leased)
	case m.since(m.lost) >= m.cfg.Reset:
		m.had, m.lost = false, 0
		m.emit(Reset{})
	}
}

// away says why what this node owns should go to the other one, "" if it should not.
func (m *Machine) away(f *Facts, mine []string, sick bool) string {
	switch {
	case len(mine) == 0 || !f.Up:
	case m.resigned != 0:
		return m.reason
	case !f.Linked:
		return noLinkHere
	case !m.fit && f.Faulted || sick:
		return m.why
	case m.elsewhere(f):
		return "the group's first resource is owned there"
	}
	return ""
}

// elsewhere says whether another node has what comes first of the group.
func (m *Machine) elsewhere(f *Facts) bool {
	r := f.View.Resource(m.cfg.Needs[0])
	return r != nil && r.Owner != m.cfg.Self
}

// because says why this node is not master.
func (m *Machine) because(f *Facts) string {
	for _, name := range m.cfg.Needs {
		switch r := f.View.Resource(name); {
		case f.View == nil:
			return "no view of the cluster is known"
		case r == nil:
			return fmt.Sprintf("%s is in no view yet", name)
		case r.Owner == view.Nobody:
			return fmt.Sprintf("view %s gives %s to nobody", f.View.Stamp, name)
		case r.Owner != m.cfg.Self:
			return fmt.Sprintf("view %s gives %s to node %s", f.View.Stamp, name, m.cfg.Names[r.Owner])
		}
	}
	if f.Waits != "" {
		return "there is no lease: " + f.Waits
	}
	return "there is no lease"
}
