package lease

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"

	"hastd/cluster/view"
)

// The simulation: three or four nodes whose clocks run up to 5 % apart, a network that
// delays and loses, nodes that restart; views that keep the owner and views that drop it. A view that drops it may be
// committed, by whoever is not guarded; never while the owner's lease lasts.

const (
	simLease = 3 * view.Second
	simEvery = view.Second / 2
)

type simNode struct {
	id   view.NodeID
	m    *Machine
	rate float64 // of its clock
	skew Instant
	term Term
	acc  *Term // the proposal it stored
}

type simEvent struct {
	at Instant // true time
	no int
	do func()
}

type simQueue []simEvent

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].no < q[j].no
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(x any)   { *q = append(*q, x.(simEvent)) }
func (q *simQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

type sim struct {
	rng       *rand.Rand
	now       Instant
	q         simQueue
	no        int
	nodes     []*simNode
	newest    *Term
	cutOff    view.Set // whom the owner does not reach, nor they it
	served    int      // moments looked at while the lease lasted
	dropped   int      // views committed without the owner
	kept      int      // … and with it
	violation string
}

const owner view.NodeID = 0

func (s *sim) after(d Duration, do func()) {
	s.no++
	heap.Push(&s.q, simEvent{s.now + Instant(d), s.no, do})
}

func (s *sim) span(from, to Duration) Duration {
	return from + Duration(s.rng.Int64N(int64(to-from)+1))
}

func (n *simNode) clock(now Instant) Instant { return n.skew + Instant(float64(now)*n.rate) }

// term makes a view of these nodes.
func (s *sim) term(number uint64, members view.Set, owned bool) Term {
	t := Term{Number: number}
	for _, id := range members.IDs() {
		t.Members = append(t.Members, Member{id, 1})
	}
	if owned {
		t.Owners = view.SetOf(owner)
	}
	t.Quorum = func(v view.Set) bool {
		v &= members
		return 2*v.Len() > members.Len() || 2*v.Len() == members.Len() && v.Has(members.IDs()[0])
	}
	return t
}

func (s *sim) step(n *simNode, ev Event) {
	for _, e := range n.m.Step(n.clock(s.now), ev) {
		s.carryOut(n, e)
	}
}

// send delivers to one node, late, or never.
func (s *sim) send(from, to *simNode, ev Event) {
	cut := from.id == owner && s.cutOff.Has(to.id) || to.id == owner && s.cutOff.Has(from.id)
	if s.rng.IntN(8) == 0 || cut {
		return
	}
	d := s.span(view.Millisecond, 20*view.Millisecond)
	if s.rng.IntN(10) == 0 {
		d = s.span(0, 5*view.Second)
	}
	s.after(d, func() { s.step(to, ev) })
}

func (s *sim) carryOut(n *simNode, e Effect) {
	others := func(ev Event) {
		for _, o := range s.nodes {
			if o != n {
				s.send(n, o, ev)
			}
		}
	}
	switch e := e.(type) {
	case SendRenew:
		others(Renew{n.id, 1, e.Number, e.Round})
	case SendConfirm:
		s.send(n, s.nodes[e.To], Confirm{n.id, 1, e.Number, e.Round})
	}
}

func (s *sim) leased() bool {
	n := s.nodes[owner]
	u := n.m.Until()
	return u != 0 && n.clock(s.now) < u
}

// propose tries to commit a view: each node that knows the newest one stores it unless
// that is forbidden to it.
func (s *sim) propose(w Term, drops bool) {
	base := s.newest
	voters := view.Set(0)
	for _, n := range s.nodes {
		switch {
		case n.term.Number != base.Number || s.rng.IntN(4) == 0:
			continue // it does not know, or was not reached
		case drops && n.id == owner && s.leased():
			continue
		case drops && n.clock(s.now) < n.m.Guarded(owner):
			continue
		case !base.names(n.id, 1):
			continue
		}
		n.acc = &w
		s.step(n, Accepted{})
		voters |= view.SetOf(n.id)
	}
	if !base.Quorum(voters) {
		return // what they stored stays stored: they confirm nothing until they learn a view
	}
	if drops {
		s.dropped++
		if s.leased() {
			n := s.nodes[owner]
			s.violation = fmt.Sprintf("view %d without the owner is committed %d ms before its lease ends", w.Number, (n.m.Until()-n.clock(s.now))/Instant(view.Millisecond))
		}
	} else {
		s.kept++
	}
	s.newest = &w
	for _, n := range s.nodes {
		s.after(s.span(0, 3*view.Second), func() { s.learn(n, w) })
	}
}

func (s *sim) learn(n *simNode, w Term) {
	if w.Number > n.term.Number {
		n.term, n.acc = w, nil
		s.step(n, Learned{Term: w})
	}
}

// restart forgets everything but what is stored.
func (s *sim) restart(n *simNode) {
	n.m = New(Config{Self: n.id, Inc: 1, Lease: simLease, Every: simEvery})
	s.step(n, Learned{Term: n.term, Stored: s.now > 1})
	if n.acc != nil {
		s.step(n, Accepted{})
	}
}

func runSim(seed uint64) *sim {
	s := &sim{rng: rand.New(rand.NewPCG(seed, 7)), now: 1}
	members := view.Set(1)<<(2+s.rng.IntN(3)) - 1
	first := s.term(1, members, true)
	s.newest = &first
	for _, id := range members.IDs() {
		n := &simNode{id: id, rate: 0.975 + 0.05*s.rng.Float64(), skew: Instant(s.rng.Int64N(1e15)) + 1, term: first}
		s.nodes = append(s.nodes, n)
		s.restart(n)
	}
	for _, n := range s.nodes {
		var tick func()
		tick = func() { s.step(n, Tick{}); s.after(s.span(50*view.Millisecond, 300*view.Millisecond), tick) }
		tick()
	}
	var act func()
	act = func() {
		own := s.newest.Owners != 0
		some := view.SetOf(owner) | view.Set(s.rng.Uint64())&members
		switch k := s.rng.IntN(20); {
		case k < 9 && own:
			s.propose(s.term(s.newest.Number+1, members&^view.SetOf(owner), false), true)
		case k < 12:
			s.propose(s.term(s.newest.Number+1, some, true), false)
		case k < 14:
			s.restart(s.nodes[s.rng.IntN(len(s.nodes))])
		case k < 15:
			s.step(s.nodes[s.rng.IntN(len(s.nodes))], Yield{view.SetOf(owner)})
		case k < 17:
			s.cutOff = view.Set(s.rng.Uint64()) &^ view.SetOf(owner)
			if s.rng.IntN(3) == 0 {
				s.cutOff = 0
			}
		default:
			s.step(s.nodes[s.rng.IntN(len(s.nodes))], Resume{})
		}
		if s.leased() {
			s.served++
		}
		s.after(s.span(20*view.Millisecond, 600*view.Millisecond), act)
	}
	act()
	for s.now < Instant(60*view.Second) && s.violation == "" {
		e := heap.Pop(&s.q).(simEvent)
		s.now = e.at
		e.do()
	}
	return s
}

func TestNoViewWithoutAnOwnerThatServes(t *testing.T) {
	served, dropped, kept := 0, 0, 0
	for seed := uint64(1); seed <= 3000; seed++ {
		s := runSim(seed)
		if s.violation != "" {
			t.Fatalf("seed %d: %s", seed, s.violation)
		}
		served, dropped, kept = served+s.served, dropped+s.dropped, kept+s.kept
	}
	if served < 10000 || dropped < 1000 || kept < 1000 {
		t.Errorf("the lease lasted in %d moments, %d views dropped the owner, %d kept it: too few to mean anything", served, dropped, kept)
	}
	t.Logf("the lease lasted in %d moments, %d views dropped the owner, %d kept it", served, dropped, kept)
}
