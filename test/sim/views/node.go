package views

import (
	"fmt"

	"hastd/cluster/lease"
	"hastd/cluster/view"
)

// node is a host: the machine with its stored state, and the storage daemon.
type node struct {
	w       *World
	id      view.NodeID
	durable []byte // the stored state; nil: none
	stored  view.Incarnation
	copies  [][]byte // older ones, for restoring
	m       *view.Machine
	leases  leases
	on      bool         // the host is
	life    int          // of the machine
	barred  view.Instant // it does not start before
	fuse    int          // effects until it crashes; 0: none
	asleep  bool
	inbox   []func()
	heardAt [view.MaxNodes]view.Instant // 0: never in this life
	tickAt  view.Instant
	store   *storage
	ordered view.Instant // when the last order to the storage daemon arrives
}

// inboxMost is how much a sleeping node's sockets keep.
const inboxMost = 200

func newNode(w *World, id view.NodeID) *node {
	n := &node{w: w, id: id}
	n.store = newStorage(n)
	return n
}

// whenAwake does something at once, or when the node wakes. Only what comes from the
// network is lost when there is too much of it.
func (n *node) whenAwake(fromNet bool, do func()) {
	switch {
	case !n.asleep:
		do()
	case !fromNet || len(n.inbox) < inboxMost:
		n.inbox = append(n.inbox, do)
	}
}

// start starts the machine on what is stored.
func (n *node) start() {
	w := n.w
	var stored *view.State
	if n.durable != nil {
		s, err := view.ReadState(n.durable)
		if err != nil {
			w.violate("stored", "node %d cannot read what it stored: %v", n.id, err)
			return
		}
		stored = s
	}
	cfg := w.cfg
	cfg.Self, cfg.Seed = n.id, w.rng.Uint64()
	m, err := view.New(cfg)
	if err != nil {
		panic(err)
	}
	n.m, n.on = m, true
	n.life++
	n.tickAt = 0
	n.heardAt = [view.MaxNodes]view.Instant{}
	w.tracef("node %d starts (stored: %v)", n.id, stored != nil)
	life := n.life
	n.leases = leases{}
	n.step(view.Start{Stored: stored, Floor: n.store.floor()})
	w.after(w.span(0, beatEvery), func() { n.beat(life) })
}

// stopMachine ends vipd; the storage daemon goes on by what it was told.
func (n *node) stopMachine() {
	n.m, n.fuse = nil, 0
	n.leases = leases{}
	n.life++
}

// crash ends everything on the host.
func (n *node) crash() {
	n.w.tracef("node %d crashes", n.id)
	n.w.digest(uint64(n.id) + 77)
	n.stopMachine()
	n.store.stop()
	n.on = false
	n.asleep, n.inbox = false, nil
}

// wipe loses what was stored, replicas included.
func (n *node) wipe() {
	n.w.tracef("node %d is wiped", n.id)
	n.durable, n.stored, n.copies = nil, 0, nil
	n.store.wipe()
	n.w.wiped()
}

func (n *node) beat(life int) {
	if life != n.life {
		return
	}
	n.w.after(beatEvery, func() { n.beat(life) })
	if n.asleep {
		return
	}
	var heard view.Set
	for _, o := range n.w.nodes {
		if at := n.heardAt[o.id]; at != 0 && n.w.now-at < view.Instant(deafAfter) {
			heard |= view.SetOf(o.id)
		}
	}
	n.step(view.Heard{Nodes: heard})
	if life == n.life {
		n.carryOut(n.m.Greet())
		if at := n.leases.released; at != 0 && n.w.now > at+view.Instant(regret) {
			n.leases.released = 0
			n.leaseStep(lease.Resume{})
		}
		n.leaseStep(lease.Tick{})
	}
}

func (n *node) tick(life int, at view.Instant) {
	if life == n.life && n.tickAt == at {
		n.tickAt = 0
		if !n.asleep {
			n.step(view.Tick{})
		}
	}
}

// step feeds the machine.
func (n *node) step(ev view.Event) {
	if n.m == nil {
		return
	}
	life := n.life
	_, starts := ev.(view.Start)
	n.carryOut(n.m.Step(n.w.now, ev))
	if life != n.life {
		return
	}
	if st := n.durable; starts && st != nil {
		if s, err := view.ReadState(st); err == nil && s.View != nil {
			n.leases.learned = append(n.leases.learned, lease.Learned{Term: lease.TermOf(s.View), Stored: true})
			if s.Acc != nil {
				n.leases.learned = append(n.leases.learned, lease.Accepted{})
			}
		}
	}
	n.lease()
	if life != n.life {
		return
	}
	if at, ok := n.m.Deadline(); ok {
		at = max(at, n.w.now+1)
		if n.tickAt == 0 || at < n.tickAt {
			n.tickAt = at
			n.w.after(view.Duration(at-n.w.now), func() { n.tick(life, at) })
		}
	}
}

// carryOut does the effects in order. A crash may come between any two.
func (n *node) carryOut(effects []view.Effect) {
	w := n.w
	for _, e := range effects {
		if w.bad != nil {
			return
		}
		if n.fuse > 0 {
			if n.fuse--; n.fuse == 0 {
				w.count("fault crash between effects")
				n.crash()
				return
			}
		}
		switch e := e.(type) {
		case view.Persist:
			n.persist(e.State)
			if e.State.Acc != nil {
				n.leases.learned = append(n.leases.learned, lease.Accepted{})
			}
		case view.Send:
			n.send(e.Msg)
		case view.Hold:
			w.tracef("node %d holds %s for %d/%04x", n.id, e.Resource, e.Peer, uint16(e.Inc))
			n.orderStorage(func() { n.store.holdFor(e) })
		case view.Known:
			n.orderStorage(func() { n.store.known(e.Number) })
		case view.Learned:
			w.tracef("node %d learned %v", n.id, e.View)
			n.leases.learned = append(n.leases.learned, lease.Learned{Term: lease.TermOf(e.View)})
			n.orderStorage(func() { n.store.learned(e) })
		case view.Yield:
			w.count("yield")
			n.leases.released = w.now
			n.leases.learned = append(n.leases.learned, lease.Yield{Nodes: e.Nodes})
		case view.Report:
			w.count("report " + e.Kind.String())
			w.tracef("node %d reports %s: %s", n.id, e.Kind, e.Text)
		}
	}
}

// orderStorage brings an order to the storage daemon, after all earlier ones.
func (n *node) orderStorage(do func()) {
	w := n.w
	d := view.Duration(0)
	if w.prof.slowOrders && w.chance(0.3) {
		d = w.span(0, 400*millisecond)
	}
	at := max(w.now+view.Instant(d), n.ordered)
	if at == w.now {
		do()
		return
	}
	n.ordered = at
	life := n.store.life
	w.after(view.Duration(at-w.now), func() {
		if life == n.store.life {
			n.whenAwake(false, do)
		}
	})
}

// tell brings an event of the storage daemon to the machine, later in this instant.
func (n *node) tell(ev view.Event) {
	life, store := n.life, n.store.life
	n.w.after(0, func() {
		n.whenAwake(false, func() {
			if life == n.life && store == n.store.life {
				n.step(ev)
			}
		})
	})
}

func (n *node) persist(s view.State) {
	b := view.AppendState(nil, &s)
	if wrong := Stored(n.id, n.durable, &s); wrong != "" {
		n.w.violate("stored", "%s", wrong)
	}
	if n.durable != nil && len(n.copies) < 20 {
		n.copies = append(n.copies, n.durable)
	}
	fresh := n.stored != s.Inc
	n.durable, n.stored = b, s.Inc
	if s.View != nil {
		n.w.learned(n, s.View)
	} else if fresh {
		n.w.wiped()
	}
}

func (n *node) send(msg *view.Message) {
	w := n.w
	if msg.Kind != view.Hello {
		w.tracef("  %v", msg)
	}
	w.count("message " + msg.Kind.String())
	if msg.Kind == view.Store {
		w.books.proposed++
	}
	b := view.AppendMessage(nil, msg)
	w.deliver(msg.From, msg.To, false, func(to *node) {
		got, err := view.ReadMessage(b)
		if err != nil {
			w.violate("codec", "%v cannot be read: %v", msg, err)
			return
		}
		if to.m == nil {
			return
		}
		if got.Kind == view.Hello {
			to.heardAt[got.From] = w.now
		}
		to.step(view.Received{Msg: got})
	})
}

// inc is the incarnation that is stored, 0 for none.
func (n *node) inc() view.Incarnation { return n.stored }

func (n *node) describe() string {
	if n.m == nil {
		return "down"
	}
	s := ""
	if n.asleep {
		s = "asleep, "
	}
	s += fmt.Sprintf("inc %04x, up %v, view %v", uint16(n.m.Inc()), n.m.Up(), n.m.View())
	if t := n.m.Waits(); t != "" {
		s += "; waits: " + t
	}
	return s + n.store.describe()
}
