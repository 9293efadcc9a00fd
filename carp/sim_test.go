package carp

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// field is some nodes in one election on a simulated network.
type field struct {
	t      *testing.T
	rng    *rand.Rand
	now    Instant
	queue  timeline
	seq    int
	nodes  []*player
	loss   float64
	delay  Duration
	cut    map[[2]int]bool // nothing from one arrives at the other
	log    []string
	packet int
}

type player struct {
	id      int
	m       *Machine
	self    netip.Addr
	skew    Instant // its clock
	frozen  Instant // until then it does nothing
	dead    bool
	timer   Instant // when the next timer stands in the queue
	changes int
	backlog []Advert
}

type happening struct {
	at  Instant
	seq int
	do  func()
}

type timeline []happening

func (q timeline) Len() int { return len(q) }
func (q timeline) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q timeline) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *timeline) Push(x any)   { *q = append(*q, x.(happening)) }
func (q *timeline) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

func (f *field) at(t Instant, do func()) {
	f.seq++
	heap.Push(&f.queue, happening{t, f.seq, do})
}

func (f *field) after(d Duration, do func()) { f.at(f.now.add(d), do) }

func newField(t *testing.T, seed uint64, n int, make func(self netip.Addr, i int) *Machine) *field {
	f := &field{t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: 1 << 40, delay: Millisecond, cut: map[[2]int]bool{}}
	for i := range n {
		self := netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})
		p := &player{id: i, m: make(self, i), self: self, skew: Instant(f.rng.Int64N(1 << 50))}
		f.nodes = append(f.nodes, p)
	}
	return f
}

func (f *field) step(p *player, ev Event) {
	if p.dead {
		return
	}
	if p.frozen > f.now {
		if ev.Kind == EvHeard && len(p.backlog) < 100 {
			p.backlog = append(p.backlog, ev.Advert)
		}
		return
	}
	for _, e := range p.m.Step(f.now+p.skew, ev, nil) {
		switch e.Kind {
		case EffState:
			p.changes++
			f.log = append(f.log, fmt.Sprintf("%8.3f %d: %v -> %v (%s)", float64(f.now-1<<40)/1e9, p.id, e.From, e.To, e.Reason))
		case EffSend:
			f.send(p, e.Advert)
		}
	}
	f.arm(p)
}

func (f *field) arm(p *player) {
	at, ok := p.m.Deadline()
	if !ok {
		return
	}
	at -= p.skew
	if p.timer != 0 && p.timer <= at {
		return
	}
	p.timer = max(at, f.now)
	f.at(p.timer, func() {
		p.timer = 0
		if d, ok := p.m.Deadline(); ok && d-p.skew > f.now {
			f.arm(p)
			return
		}
		f.step(p, Event{Kind: EvTick})
	})
}

func (f *field) send(from *player, a Advert) {
	for _, to := range f.nodes {
		if to == from || f.cut[[2]int{from.id, to.id}] || f.rng.Float64() < f.loss {
			continue
		}
		f.packet++
		f.after(1+Duration(f.rng.Int64N(int64(f.delay))), func() { f.step(to, Event{Kind: EvHeard, Advert: a}) })
	}
}

func (f *field) run(d Duration) {
	end := f.now.add(d)
	for len(f.queue) > 0 && f.queue[0].at <= end {
		h := heap.Pop(&f.queue).(happening)
		f.now = h.at
		h.do()
	}
	f.now = end
}

func (f *field) boot(p *player) {
	f.step(p, Event{Kind: EvStanding, Fit: true})
	f.step(p, Event{Kind: EvLink, Up: true})
	f.step(p, Event{Kind: EvStart})
}

func (f *field) freeze(p *player, d Duration) {
	p.frozen = f.now.add(d)
	f.at(p.frozen+1, func() {
		if p.frozen < f.now {
			late := p.backlog
			p.backlog = nil
			if f.rng.IntN(2) == 0 { // the timer may come first
				f.step(p, Event{Kind: EvTick})
			}
			for _, a := range late {
				f.step(p, Event{Kind: EvHeard, Advert: a})
			}
			f.step(p, Event{Kind: EvTick})
		}
	})
}

func (f *field) masters() (n int, who []int) {
	for _, p := range f.nodes {
		if !p.dead && p.frozen <= f.now && p.m.State() == Master {
			n++
			who = append(who, p.id)
		}
	}
	return n, who
}

func (f *field) fatal(format string, args ...any) {
	f.t.Helper()
	for _, l := range f.log[max(0, len(f.log)-40):] {
		f.t.Log(l)
	}
	f.t.Fatalf(format, args...)
}

// kinds are the two protocols with the longest time in which exactly one master
// must come out, once all is well.
func kinds(rng *rand.Rand) (name string, make func(self netip.Addr, i int) *Machine, bound Duration) {
	preempt, equal := rng.IntN(2) == 0, rng.IntN(6) == 0
	cfg := Config{DeadRatio: 2 + rng.IntN(3), Preempt: preempt, StartDelay: Duration(rng.Int64N(int64(2 * Second)))}
	if rng.IntN(2) == 0 {
		cfg.Advbase = uint8(1 + rng.IntN(2))
		return "CARP", func(self netip.Addr, i int) *Machine {
			c := cfg
			c.Self, c.Advskew = self, uint8(i*50)
			if equal {
				c.Advskew = 10
			}
			return NewCARP(c)
		}, Duration(cfg.DeadRatio+1)*Duration(cfg.Advbase)*Second + Second
	}
	cfg.Interval = []Duration{100 * Millisecond, 200 * Millisecond, Second}[rng.IntN(3)]
	return "VRRP", func(self netip.Addr, i int) *Machine {
		c := cfg
		c.Self, c.Priority = self, uint8(254-i*50)
		if equal {
			c.Priority = 100
		}
		return NewVRRP(c)
	}, Duration(cfg.DeadRatio+2) * cfg.Interval
}

// With a network that works there is exactly one master within the bound, however
// it was before; and from then on nothing changes.
func TestElectionEndsWithOneMaster(t *testing.T) {
	seeds := 3000
	if testing.Short() {
		seeds = 300
	}
	for seed := range uint64(seeds) {
		rng := rand.New(rand.NewPCG(seed, 2))
		name, machine, bound := kinds(rng)
		f := newField(t, seed, 2+rng.IntN(3), machine)
		for _, p := range f.nodes {
			f.after(Duration(rng.Int64N(int64(3*Second))), func() { f.boot(p) })
		}
		for range 3 + rng.IntN(20) {
			p := f.nodes[rng.IntN(len(f.nodes))]
			q := f.nodes[rng.IntN(len(f.nodes))]
			switch rng.IntN(8) {
			case 0:
				f.loss = rng.Float64()
			case 1:
				f.delay = Duration(1 + rng.Int64N(int64(2*Second)))
			case 2: // one way
				f.cut[[2]int{p.id, q.id}] = !f.cut[[2]int{p.id, q.id}]
			case 3:
				f.step(p, Event{Kind: EvLink, Up: rng.IntN(2) == 0})
			case 4:
				f.freeze(p, Duration(rng.Int64N(int64(20*Second))))
			case 5:
				p.skew += Instant(rng.Int64N(int64(30 * Second))) // its clock leaps
			case 6:
				f.step(p, Event{Kind: EvStanding, Fit: rng.IntN(3) > 0, Demotion: uint8(rng.IntN(255)), Reason: "stale"})
			case 7:
				f.step(p, Event{Kind: []EventKind{EvTake, EvResign, EvStop, EvStart}[rng.IntN(4)], Reason: "order"})
			}
			f.run(Duration(rng.Int64N(int64(4 * Second))))
		}
		f.loss, f.delay = 0, Millisecond
		clear(f.cut)
		f.run(21 * Second) // who is frozen wakes up, late packets arrive
		for _, p := range f.nodes {
			f.boot(p)
		}
		// Whose clock is ahead of a long sleep waits one time more; who resigned, twice.
		f.run(3*bound + f.nodes[0].m.cfg.StartDelay + 2*Second)
		n, who := f.masters()
		if n != 1 {
			f.fatal("seed %d, %s of %d: masters are %v", seed, name, len(f.nodes), who)
		}
		changes := 0
		for _, p := range f.nodes {
			p.changes = 0
		}
		f.run(60 * Second)
		for _, p := range f.nodes {
			changes += p.changes
		}
		if changes != 0 {
			f.fatal("seed %d, %s of %d: %d changes of state although nothing happened", seed, name, len(f.nodes), changes)
		}
		// The master dies: one of the others takes over within the bound.
		f.nodes[who[0]].dead = true
		f.run(bound)
		if n, next := f.masters(); n != 1 {
			f.fatal("seed %d, %s of %d: %d died, %v after it: masters are %v", seed, name, len(f.nodes), who[0], bound, next)
		}
	}
}

// The master stops while no other node is fit; they become it at different times
// soon after. The first one that is fit is master at once (with VRRP after its skew
// time), and the second leaves it in peace.
func TestFirstFitNodeFollowsWhoLeft(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 3))
		name, machine, bound := kinds(rng)
		f := newField(t, seed, 3, machine)
		f.boot(f.nodes[0])
		for _, p := range f.nodes[1:] {
			f.boot(p)
			f.step(p, Event{Kind: EvStanding, Reason: "behind"})
		}
		f.run(3*bound + 3*Second)
		if _, who := f.masters(); len(who) != 1 || who[0] != 0 {
			f.fatal("seed %d, %s: masters are %v before the first one stops", seed, name, who)
		}
		f.step(f.nodes[0], Event{Kind: EvStop})
		// The time in which a silent master counts as dead is the shortest for the best.
		down := f.nodes[1].m.MasterDown()
		first := 5*Millisecond + Duration(rng.Int64N(int64(down-10*Millisecond)))
		soon := f.nodes[1].m.rules.left(f.nodes[1].m) + 5*Millisecond
		f.after(first, func() { f.step(f.nodes[1], Event{Kind: EvStanding, Fit: true}) })
		f.after(first+soon+Duration(rng.Int64N(int64(down))), func() { f.step(f.nodes[2], Event{Kind: EvStanding, Fit: true}) })
		f.run(max(first, soon) + 5*Millisecond)
		if _, who := f.masters(); len(who) != 1 || who[0] != 1 {
			f.fatal("seed %d, %s: masters are %v, %v after the first node became fit", seed, name, who, 5*Millisecond)
		}
		changes := f.nodes[1].changes
		f.run(5*down + 2*Second)
		// Among equals the higher address is better, and may preempt.
		second := Advert{From: f.nodes[2].self, Every: f.nodes[2].m.Every(), Priority: f.nodes[2].m.cfg.Priority}
		better := f.nodes[1].m.rules.rank(f.nodes[1].m, &second) > 0
		if _, who := f.masters(); len(who) != 1 || f.nodes[1].changes != changes && !better {
			f.fatal("seed %d, %s: masters are %v, and who was fit first changed", seed, name, who)
		}
	}
}
