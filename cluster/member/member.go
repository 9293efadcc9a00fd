// Package member is a node of a cluster with votes: it joins the machines of the views
// and of the lease with what hastd is told and says.
//
// Each node's vipd has one Machine. What it learns about views becomes grants, one for
// each resource: generation, incarnations, owner, hold, end of the lease. What hastd
// says of its replicas becomes wishes for other views. The rules are those of
// cluster/view and cluster/lease; this package decides nothing but which of two words
// to hastd is the newer one. It opens nothing, reads no clock, logs nothing, and starts
// no service.
package member

import (
	"hastd/cluster/lease"
	"hastd/cluster/view"
)

// Config is a machine's.
type Config struct {
	View  view.Config
	Lease view.Duration
	// Watchdog is the time after which the machine of an owner that lost its lease is
	// reset; 0: it is not.
	Watchdog view.Duration
	Every    view.Duration // between two renewals: the heartbeats' interval
}

const (
	// retryEvery is how soon hastd is told again what it did not take.
	retryEvery = 200 * view.Millisecond
	// dropAfter is how long writes wait before a view without the peer is asked for: a
	// connection that is lost is often there again by another path, and who is out of the
	// view must be copied to.
	dropAfter = 300 * view.Millisecond
	// patience is how many leases a node lets run out a lease before it renews and
	// confirms again: views are proposed in the meantime.
	patience = 3
)

// resource is what this node knows of one.
type resource struct {
	name    string
	nodes   view.Set // as configured
	good    view.Set // as told last
	want    Grant    // what hastd is to be told
	told    Grant    // what it took
	under   Grant    // the order under way
	busy    bool
	retryAt view.Instant // 0: at once

	holds  bool   // by the view, as it was learned
	hold   uint64 // a question of the views' machine waits for an answer: its number
	synced view.Incarnation
	drop   bool         // asked for, by this view
	waits  view.Instant // since when writes wait; 0: they do not
	own    bool         // as told last

	giving bool        // it is given up by this view: hastd is told so first
	to     view.NodeID // who shall have it
}

// Machine is one node's part.
type Machine struct {
	cfg    Config
	v      *view.Machine
	l      *lease.Machine
	now    view.Instant
	out    []Effect
	list   []*resource
	byName map[string]*resource
	floor  uint64       // the generation that was stored at the start
	resume view.Instant // when leases are renewed and confirmed again; 0: they are
	todo   []view.Event // for the views' machine: one step ends before the next begins
	leaves bool         // this node leaves, once hastd gave up everything
	left   bool         // the views know
}

// New makes a machine; Start begins it.
func New(cfg Config) (*Machine, error) {
	v, err := view.New(cfg.View)
	if err != nil {
		return nil, err
	}
	m := &Machine{cfg: cfg, v: v, byName: map[string]*resource{}}
	for _, r := range cfg.View.Resources {
		if view.SetOf(r.Nodes...).Has(cfg.View.Self) {
			x := &resource{name: r.Name, nodes: view.SetOf(r.Nodes...)}
			m.list, m.byName[r.Name] = append(m.list, x), x
		}
	}
	return m, nil
}

// View is the newest committed view, nil if none is known.
func (m *Machine) View() *view.View { return m.v.View() }

// Inc is this life of the node; Up says whether a view that names it was learned since
// the start; Waits says what for, if there is a reason for another view and no quorum.
func (m *Machine) Inc() view.Incarnation { return m.v.Inc() }
func (m *Machine) Up() bool              { return m.v.Up() }
func (m *Machine) Waits() string         { return m.v.Waits() }

// Agreed are the other nodes that said last that they know this view, too.
func (m *Machine) Agreed() view.Set { return m.v.Agreed() }

// Lease is the end of this node's lease; 0: it has none.
func (m *Machine) Lease() view.Instant {
	if m.l == nil {
		return 0
	}
	return m.l.Until()
}

// Greet gives the heartbeats of this moment, one for each other node.
func (m *Machine) Greet() []Effect {
	m.out = nil
	m.pass(m.v.Greet())
	return m.out
}

// Step handles one event and returns what to do, in order.
func (m *Machine) Step(now view.Instant, ev Event) []Effect {
	m.now, m.out = max(m.now, now), nil
	switch ev := ev.(type) {
	case Start:
		m.start(ev)
	case view.Received, view.Heard, view.SetGroup, view.Force, view.Good, view.Move:
		m.views(ev.(view.Event))
	case Renew:
		m.leases(ev)
	case Confirm:
		m.leases(ev)
	case Storage:
		m.storage(ev)
	case Answered:
		m.answered(ev)
	case Stopped:
		for _, name := range ev.Resources {
			if r := m.byName[name]; r != nil && r.want.Owner {
				m.give(r, ev.To)
			}
		}
	case Leaving:
		m.views(view.Leave{On: true})
	case Leave:
		m.leaves = true
		for _, r := range m.list {
			if r.want.Owner {
				m.give(r, view.Nobody)
			}
		}
	case Stay:
		m.leaves, m.left = false, false
		m.views(view.Leave{})
	case Tick:
		m.views(view.Tick{})
		m.leases(lease.Tick{})
	}
	if m.resume != 0 && m.now >= m.resume {
		m.resume = 0
		m.leases(lease.Resume{})
	}
	m.impatient()
	m.drain()
	m.gone()
	m.drain()
	m.keep()
	m.settle()
	return m.out
}

// give begins to give a resource up. The views hear of it once hastd knows: whatever
// asks it to serve from then on is refused.
func (m *Machine) give(r *resource, to view.NodeID) {
	r.giving, r.to, r.want.Owner, r.retryAt = true, to, false, 0
}

// gone tells the views what hastd has given up.
func (m *Machine) gone() {
	all := true
	for _, r := range m.list {
		given := !r.busy && !r.told.Owner && r.told.Generation == r.want.Generation
		if r.giving && given && r.to != view.Nobody {
			m.views(view.Move{Resource: r.name, To: r.to})
			r.to = view.Nobody
		}
		all = all && !r.want.Owner && (given || !r.giving)
	}
	if m.leaves && all && !m.left {
		m.left = true
		m.views(view.Leave{On: true, Gave: true})
	}
}

// keep takes back what the views did not hear of, or refused: no other view comes of it,
// and this node stays the owner.
func (m *Machine) keep() {
	for _, r := range m.list {
		if r.giving && r.to == view.Nobody && !m.leaves && !m.v.Gave(r.name) {
			r.giving, r.want.Owner = false, true
		}
	}
}

// Deadline is when the machine wants a Tick.
func (m *Machine) Deadline() (view.Instant, bool) {
	at, ok := m.v.Deadline()
	sooner := func(t view.Instant) {
		if t != 0 && (!ok || t < at) {
			at, ok = t, true
		}
	}
	if m.l != nil {
		if t, ok := m.l.Deadline(); ok {
			sooner(t)
		}
	}
	sooner(m.resume)
	for _, r := range m.list {
		if !r.busy {
			sooner(r.retryAt)
		}
		if r.waits != 0 && !r.drop && r.hold == 0 {
			sooner(r.waits + view.Instant(dropAfter))
		}
	}
	return at, ok
}

func (m *Machine) emit(e Effect) { m.out = append(m.out, e) }

// start begins both machines on what is stored.
func (m *Machine) start(ev Start) {
	m.views(ev)
	m.drain()
	m.renew()
	if v := m.v.View(); v != nil {
		m.leases(lease.Learned{Term: lease.TermOf(v), Stored: true})
	}
	if ev.Stored != nil && ev.Stored.Acc != nil {
		m.leases(lease.Accepted{})
	}
}

// renew makes the lease's machine anew for another life of this node.
func (m *Machine) renew() {
	m.l = lease.New(lease.Config{Self: m.cfg.View.Self, Inc: m.v.Inc(), Lease: m.cfg.Lease, Watchdog: m.cfg.Watchdog, Every: m.cfg.Every})
}

// views feeds the views' machine, once what it said before is dealt with.
func (m *Machine) views(ev view.Event) { m.todo = append(m.todo, ev) }

func (m *Machine) drain() {
	for len(m.todo) > 0 {
		ev := m.todo[0]
		m.todo = m.todo[1:]
		m.pass(m.v.Step(m.now, ev))
	}
}

func (m *Machine) pass(effects []view.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case view.Persist:
			m.emit(e)
			if e.State.Acc != nil && m.l != nil {
				m.leases(lease.Accepted{})
			}
		case view.Known:
			m.floor = e.Number
		case view.Learned:
			m.learned(e)
		case view.Hold:
			m.hold(e)
		case view.Yield:
			m.resume = m.now + view.Instant(patience*lease.Promise(m.cfg.Lease, m.cfg.Watchdog))
			m.leases(lease.Yield{Nodes: e.Nodes})
		default:
			m.emit(e)
		}
	}
}

// leases feeds the lease's machine and takes what it says. What it promised others binds
// the views at once: no step of theirs comes between.
func (m *Machine) leases(ev lease.Event) {
	if m.l == nil {
		return
	}
	guarded := false
	for _, e := range m.l.Step(m.now, ev) {
		switch e := e.(type) {
		case lease.Until:
			m.v.Guard(m.cfg.View.Self, e.At)
			guarded = true
		case lease.Guard:
			m.v.Guard(e.Node, e.At)
			guarded = true
		default:
			m.emit(e)
		}
	}
	if guarded {
		m.views(view.Tick{})
	}
}

// learned makes new grants of a view.
func (m *Machine) learned(e view.Learned) {
	v, self := e.View, m.cfg.View.Self
	if m.l == nil || v.Stamp.Index == 0 {
		m.renew()
	}
	if v.Stamp.Index != 0 {
		m.leases(lease.Learned{Term: lease.TermOf(v)})
	}
	for _, r := range m.list {
		g := Grant{Generation: v.Stamp.Number(), Incarnation: m.v.Inc()}
		// Of a resource that is in no view yet nobody is owner: the replicas compare.
		x, nodes := v.Resource(r.name), r.nodes
		if x != nil {
			nodes = x.Nodes
		}
		if peer := (nodes &^ view.SetOf(self)).IDs(); len(peer) == 1 {
			if p := v.Member(peer[0]); p != nil {
				g.Peer = p.Inc
			}
			g.PeerOwner = x != nil && x.Owner == peer[0]
		}
		for _, mine := range e.Mine {
			if mine.Resource == r.name {
				g.Owner, g.Hold = true, mine.Hold
			}
		}
		r.want, r.holds, r.synced, r.drop, r.hold, r.retryAt, r.giving = g, g.Hold, 0, false, 0, 0, false
		r.waits = 0
		if m.leaves && g.Owner {
			m.give(r, view.Nobody)
		}
	}
}

// hold passes the views' question on: it is answered by the order that asks it.
func (m *Machine) hold(e view.Hold) {
	r := m.byName[e.Resource]
	if r == nil {
		m.views(view.Held{Resource: e.Resource, Number: e.Number})
		return
	}
	r.hold, r.want.Hold, r.want.Adding, r.retryAt = e.Number, true, e.Inc, 0
}

// storage makes wishes of what hastd says. What it says of an older view is old.
func (m *Machine) storage(ev Storage) {
	r := m.byName[ev.Resource]
	if r == nil {
		return
	}
	if ev.Told == 0 && r.told.Generation != 0 && !r.busy {
		// It was started again, and knows nothing; what it said of its peer is gone.
		for _, x := range m.list {
			x.told = Grant{}
		}
		m.views(view.Storage{})
		return
	}
	if ev.Told == 0 || ev.Told != r.want.Generation {
		return
	}
	if ev.Good != r.good {
		r.good = ev.Good
		m.views(view.Good{Resource: r.name, Nodes: ev.Good})
	}
	if !r.want.Owner {
		return
	}
	if ev.Synced != r.synced {
		r.synced = ev.Synced
		if ev.Synced != 0 {
			m.views(view.Synced{Resource: r.name, Inc: ev.Synced})
		} else {
			m.views(view.Alone{Resource: r.name})
		}
	}
	if ev.Holds && !r.want.Hold && !r.busy && r.told.Generation == ev.Told {
		m.views(view.Holds{Resource: r.name})
	}
	if !ev.Waits {
		r.waits = 0
	} else if r.waits == 0 {
		r.waits = max(m.now, 1)
	}
}

// impatient asks for views without the peers that writes have waited for long enough.
func (m *Machine) impatient() {
	for _, r := range m.list {
		if r.waits != 0 && m.now >= r.waits+view.Instant(dropAfter) && !r.drop && r.hold == 0 {
			r.drop = true
			m.views(view.Drop{Resource: r.name})
		}
	}
}

// answered ends an order. One that was not taken is given again, unless it asked. A
// question without an answer is asked again: hastd may hold, and only whoever knows that
// ends it with another view.
func (m *Machine) answered(ev Answered) {
	r := m.byName[ev.Resource]
	if r == nil || !r.busy {
		return
	}
	r.busy = false
	if ev.Gone && !r.under.Owner && r.under.Adding == 0 {
		ev.OK = true // who is gone serves nothing, and the next one nothing before it is told
	}
	asked := r.hold != 0 && r.under.Adding != 0 && r.under.Generation == r.want.Generation
	if ev.OK {
		r.told = r.under
	} else {
		r.retryAt = m.now + view.Instant(retryEvery)
	}
	if asked && !ev.Lost {
		n := r.hold
		r.hold, r.want.Adding = 0, 0
		r.told.Adding = 0
		if !ev.OK {
			// hastd would take a hold on trust that it was not asked for, and the peer for
			// one in sync at the next question.
			r.want.Hold = r.holds
			r.synced = 0 // the views' machine takes it so, until hastd says it once more
		}
		m.views(view.Held{Resource: r.name, Number: n, OK: ev.OK})
	}
}

// settle tells hastd and the groups what changed.
func (m *Machine) settle() {
	until := m.Lease()
	for _, r := range m.list {
		r.want.Until = 0
		if r.want.Owner {
			r.want.Until = until
		}
		on := r.want.Owner && !r.giving && until > m.now
		if !on && r.own { // first to the groups: what hastd takes away they must not use
			r.own = false
			m.emit(Own{r.name, false})
		}
		if r.want == r.told {
			r.retryAt = 0
		}
		if r.want.Generation != 0 && !r.busy && r.want != r.told && m.now >= r.retryAt {
			r.busy, r.under, r.retryAt = true, r.want, 0
			m.emit(Order{r.name, r.want})
		}
		if on && !r.own && r.told.Owner && r.told.Generation == r.want.Generation && r.told.Until > m.now {
			r.own = true
			m.emit(Own{r.name, true})
		}
	}
}
