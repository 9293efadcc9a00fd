package cluster

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"hastd/carp"
)

// Two nodes, each with an election and a group of four parts, over a storage that
// behaves as a replicated device does: one primary while both see each other.

type hall struct {
	t     *testing.T
	rng   *rand.Rand
	now   int64
	seq   int
	queue line
	loss  float64
	cut   bool // the nodes do not see each other at all
	nodes [2]*host
	log   []string
	fails float64 // how often an action fails
	slow  int64
}

type host struct {
	h     *hall
	id    int
	self  netip.Addr
	e     *carp.Machine
	g     *Group
	life  int
	alive bool
	// What is really so.
	parts [4]bool // primary, mounted, running, address
	timer int64
	ops   map[Op]int
	sent  int64 // when its last packet arrives
	kept  bool  // the group was found up, and this node listens whether it may stay
	heard bool  // another master

	tries   int      // the last start of the service was this try
	began   int64    // and was then
	console []string // what was written to it
	words   int64    // when the other node's report was heard last
}

// name is that of a node.
func (n *host) name() string { return [...]string{"rum", "coke"}[n.id] }

const (
	reportEvery = 500 * ms
	reportLost  = 3000 * ms
	restarts    = 2 // of the service
)

type entry struct {
	at  int64
	seq int
	do  func()
}

type line []entry

func (q line) Len() int { return len(q) }
func (q line) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q line) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *line) Push(x any)   { *q = append(*q, x.(entry)) }
func (q *line) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

const ms = int64(1e6)

func (h *hall) after(d int64, do func()) {
	h.seq++
	heap.Push(&h.queue, entry{h.now + d, h.seq, do})
}

func (h *hall) run(d int64) {
	end := h.now + d
	for len(h.queue) > 0 && h.queue[0].at <= end {
		x := heap.Pop(&h.queue).(entry)
		h.now = x.at
		x.do()
	}
	h.now = end
}

func (h *hall) say(n *host, format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf("%9.3f %d ", float64(h.now)/1e9, n.id)+fmt.Sprintf(format, args...))
}

func (h *hall) fatal(format string, args ...any) {
	h.t.Helper()
	for _, l := range h.log[max(0, len(h.log)-60):] {
		h.t.Log(l)
	}
	h.t.Fatalf(format, args...)
}

func newHall(t *testing.T, seed uint64, optional bool) *hall {
	h := &hall{t: t, rng: rand.New(rand.NewPCG(seed, 3)), now: 1 << 40, slow: 1}
	for i := range h.nodes {
		h.nodes[i] = &host{h: h, id: i, self: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})}
		h.nodes[i].boot(optional)
	}
	return h
}

func (n *host) boot(optional bool) {
	n.life++
	n.alive, n.timer, n.ops, n.e = true, 0, map[Op]int{}, nil
	n.kept, n.heard, n.tries = false, false, 0
	p := []Part{
		{Name: "g/resource/data", Kind: Resource, UpLimit: 10 * Second, DownLimit: 10 * Second},
		{Name: "g/mount/srv", Kind: Mount, UpLimit: 10 * Second, DownLimit: 10 * Second, Interval: 5 * Second, OffInterval: 2 * Second},
		{Name: "g/service/app", Kind: Service, UpLimit: 10 * Second, DownLimit: 10 * Second, Interval: 5 * Second, Optional: optional,
			RestartLimit: restarts, RestartReset: 20 * Second},
		{Name: "g/address/ip1", Kind: Address, UpLimit: 10 * Second, DownLimit: 10 * Second, OffInterval: 2 * Second, RestartLimit: 3, RestartReset: 20 * Second},
	}
	cfg := carp.Config{Self: n.self, Advbase: 1, Advskew: uint8(100 * n.id), StartDelay: 2 * carp.Second}
	n.g = NewGroup(Config{Name: "g", Parts: p, Node: n.name(), Nodes: []string{"rum", "coke"}, MasterHold: Duration(carp.NewCARP(cfg).MasterDown())})
	n.report()
	for i := range p {
		n.group(Event{Kind: EvProbed, Part: i, Up: n.parts[i]})
	}
	if n.kept = n.g.Held(); n.kept {
		cfg.StartDelay = 0
		n.inLife(1500*ms, n.keep)
	}
	n.e = carp.NewCARP(cfg)
	n.group(Event{Kind: EvStanding, Fit: true, Reason: "uptodate"})
	n.elect(carp.Event{Kind: carp.EvLink, Up: true})
	n.elect(carp.Event{Kind: carp.EvStart})
}

// keep ends listening: without another master the group stays where it was found.
func (n *host) keep() {
	if !n.kept {
		return
	}
	n.kept = false
	if n.heard {
		n.group(Event{Kind: EvElected})
	} else {
		n.elect(carp.Event{Kind: carp.EvTake})
	}
}

// kill ends the controller: what it started stays, but the kernel takes the address.
func (n *host) kill() {
	n.life++
	n.alive = false
	life := n.life
	n.h.after(4000*ms, func() {
		if n.life == life {
			n.parts[3] = false
		}
	})
}

func (n *host) elect(ev carp.Event) {
	if !n.alive || n.e == nil {
		return
	}
	if n.heard = n.heard || ev.Kind == carp.EvHeard; ev.Kind == carp.EvHeard {
		// As the shell does: before the election knows.
		n.group(Event{Kind: EvMaster, Node: n.h.nodes[1-n.id].name(), Up: !ev.Advert.Leaving})
	}
	for _, x := range n.e.Step(carp.Instant(n.h.now), ev, nil) {
		switch x.Kind {
		case carp.EffState:
			n.h.say(n, "%v -> %v (%s)", x.From, x.To, x.Reason)
			if n.kept && x.To == carp.Backup {
				continue
			}
			n.kept = false
			n.group(Event{Kind: EvElected, Master: x.To == carp.Master, Reason: x.Reason})
		case carp.EffSend:
			o := n.h.nodes[1-n.id]
			if n.h.cut || n.h.rng.Float64() < n.h.loss {
				continue
			}
			n.sent = max(n.sent, n.h.now+1+n.h.rng.Int64N(2*ms)) // one link keeps the order
			n.h.after(n.sent-n.h.now, func() { o.elect(carp.Event{Kind: carp.EvHeard, Advert: x.Advert}) })
		}
	}
	n.arm()
}

func (n *host) group(ev Event) {
	if !n.alive {
		return
	}
	for _, x := range n.g.Step(Instant(n.h.now), ev, nil) {
		switch x.Kind {
		case EffUp, EffDown:
			n.act(x)
		case EffLook, EffSeek:
			look := LookOffline
			if n.parts[x.Part] {
				look = LookOnline
			}
			n.later(5*ms, Event{Kind: EvLooked, Op: x.Op, Look: look})
		case EffBreak:
			delete(n.ops, x.Op)
			n.later(ms, Event{Kind: EvDone, Op: x.Op, Err: "killed"})
		case EffStanding:
			n.elect(carp.Event{Kind: carp.EvStanding, Fit: x.Fit, Demotion: x.Demotion, Reason: x.Reason})
		case EffTake:
			n.elect(carp.Event{Kind: carp.EvTake})
		case EffResign:
			n.elect(carp.Event{Kind: carp.EvResign, Reason: x.Reason})
		case EffState:
			n.h.say(n, "group %v -> %v %s", x.From, x.To, x.Reason)
		case EffReport:
			n.h.say(n, "part %d: %s", x.Part, x.Reason)
		case EffRestart:
			n.h.say(n, "part %d is put up again, %d: %s", x.Part, x.Try, x.Reason)
		case EffViolation:
			n.h.say(n, "violation (%d): %q", x.Part, x.Lines)
			n.console = append(n.console, x.Lines...)
		}
	}
	if n.e != nil && n.e.State() == carp.Master && n.g.Fault() != "" {
		n.h.fatal("node %d is master, and faulted: %s", n.id, n.g.Fault())
	}
	n.arm()
}

// report tells the other node, again and again, and forgets it when it is silent.
func (n *host) report() {
	h := n.h
	n.inLife(reportEvery, func() {
		o := h.nodes[1-n.id]
		if n.words != 0 && h.now-n.words > reportLost {
			n.words = 0
			n.group(Event{Kind: EvPeer, Node: o.name()})
		}
		if !h.cut && h.rng.Float64() >= h.loss {
			b := (&Report{Groups: []GroupReport{n.g.Report()}}).Append(nil)
			h.after(1+h.rng.Int64N(5*ms), func() {
				r, err := ParseReport(b)
				if err != nil {
					h.fatal("a report cannot be read: %v", err)
				}
				if o.alive {
					o.words = h.now
					o.group(Event{Kind: EvPeer, Node: n.name(), Peer: &r.Groups[0]})
				}
			})
		}
		n.report()
	})
}

// byHand puts a part up that is down here, outside the controller.
func (n *host) byHand(i int) bool {
	if !n.alive || n.g.op != 0 || n.g.wanted() || n.g.parts[i].is != down || n.parts[i] {
		return false
	}
	n.h.say(n, "part %d is put up by hand", i)
	n.parts[i] = true
	return true
}

// takenAway takes a part that is up away: the address's keeper puts it back, a service
// that died is found by its monitor, and of the others one hears.
func (n *host) takenAway(i int) {
	if !n.parts[i] {
		return
	}
	n.h.say(n, "part %d is taken away", i)
	switch n.parts[i] = false; i {
	case 2:
	case 3:
		if n.alive && n.g.parts[i].is == up {
			n.parts[i] = true
			n.group(Event{Kind: EvMended, Part: i, Err: "taken away by hand"})
		}
	default:
		n.group(Event{Kind: EvLost, Part: i, Err: "taken away by hand"})
	}
}

func (n *host) later(d int64, ev Event) { n.inLife(d, func() { n.group(ev) }) }

func (n *host) inLife(d int64, do func()) {
	life := n.life
	n.h.after(d, func() {
		if n.life == life {
			do()
		}
	})
}

// act does what a part's start or stop does, after a while.
func (n *host) act(x Effect) {
	life, h := n.life, n.h
	began := h.now
	switch {
	case x.Kind == EffDown && x.Part < 2 && n.parts[x.Part+1] && n.g.parts[x.Part+1].is != down:
		h.fatal("node %d takes part %d down under the one above", n.id, x.Part)
	case x.Kind == EffUp && x.Part > 0 && n.g.parts[x.Part-1].is != up && !n.g.parts[x.Part-1].Optional:
		h.fatal("node %d starts part %d over one that is down", n.id, x.Part)
	}
	if x.Kind == EffUp && x.Part == 2 {
		// One after the other, and from the start after it was stable.
		stable := h.now-n.began >= 20_000*ms
		if x.Try > restarts || x.Try != 0 && x.Try != n.tries+1 && !(x.Try == 1 && stable) {
			h.fatal("node %d starts the service as try %d after try %d", n.id, x.Try, n.tries)
		}
		n.tries, n.began = x.Try, h.now
	}
	n.ops[x.Op] = x.Part
	var try func()
	try = func() {
		if _, on := n.ops[x.Op]; n.life != life || !on {
			return
		}
		err := ""
		o := h.nodes[1-n.id]
		switch {
		case h.rng.Float64() < h.fails:
			err = "it failed"
		case x.Kind == EffUp && x.Part == 0 && !h.cut && o.parts[0]:
			if h.now-began < 3000*ms { // as the shell does: the peer may be stepping down
				h.after(100*ms, try)
				return
			}
			err = "the peer is primary"
		}
		if err == "" {
			n.parts[x.Part] = x.Kind == EffUp
		}
		n.group(Event{Kind: EvDone, Op: x.Op, Err: err})
	}
	h.after(1+h.rng.Int64N(100*ms)*h.slow, try)
}

func (n *host) arm() {
	at := int64(1 << 62)
	if n.e != nil {
		if t, ok := n.e.Deadline(); ok {
			at = min(at, int64(t))
		}
	}
	if t, ok := n.g.Deadline(); ok {
		at = min(at, int64(t))
	}
	if at == 1<<62 || n.timer != 0 && n.timer <= at {
		return
	}
	at = max(at, n.h.now+1)
	n.timer = at
	life := n.life
	n.h.after(at-n.h.now, func() {
		if n.life != life {
			return
		}
		n.timer = 0
		n.elect(carp.Event{Kind: carp.EvTick})
		n.group(Event{Kind: EvTick})
	})
}

// Whatever happened, once nothing goes wrong any more exactly one node has the
// whole group, the other nothing of it, and it stays so.
// GROUP_SEEDS=20000 tries more seeds.
func TestGroupEndsOnOneNode(t *testing.T) {
	seeds := 600
	if testing.Short() {
		seeds = 100
	}
	if n, err := strconv.Atoi(os.Getenv("GROUP_SEEDS")); err == nil {
		seeds = n
	}
	for seed := range uint64(seeds) {
		rng := rand.New(rand.NewPCG(seed, 4))
		optional := rng.IntN(3) == 0
		h := newHall(t, seed, optional)
		for range 3 + rng.IntN(15) {
			n := h.nodes[rng.IntN(2)]
			switch rng.IntN(11) {
			case 0:
				h.loss = rng.Float64()
			case 1:
				h.cut = !h.cut
			case 2:
				h.fails = rng.Float64() * 0.5
			case 3:
				h.slow = 1 + rng.Int64N(200)
			case 4:
				if n.alive {
					n.kill()
				} else {
					n.boot(optional)
				}
			case 5:
				h.after(1, func() {
					n.group(Event{Kind: EvOrder, Order: Order(1 + rng.IntN(int(OrderClear))), ID: 1})
				})
			case 6:
				n.takenAway(rng.IntN(4))
			case 7:
				n.group(Event{Kind: EvStanding, Fit: rng.IntN(2) == 0, Reason: fmt.Sprint("state ", rng.IntN(3))})
			case 8:
				n.elect(carp.Event{Kind: carp.EvLink, Up: rng.IntN(2) == 0})
			case 9:
				n.byHand([]int{1, 3}[rng.IntN(2)])
			case 10:
				for range 1 + rng.IntN(4) {
					h.after(rng.Int64N(20_000*ms), func() { n.takenAway(2 + rng.IntN(2)) })
				}
			}
			h.run(rng.Int64N(8000 * ms))
		}
		h.loss, h.cut, h.fails, h.slow = 0, false, 0, 1
		h.run(30_000 * ms)
		for _, n := range h.nodes {
			if !n.alive {
				n.boot(optional)
			}
			n.elect(carp.Event{Kind: carp.EvLink, Up: true})
			n.group(Event{Kind: EvStanding, Fit: true, Reason: "well"})
			for _, o := range []Order{OrderUnfreeze, OrderClear, OrderOnline} {
				n.group(Event{Kind: EvOrder, Order: o, ID: 2})
			}
		}
		// What was put up by hand may have to go first, and be cleared.
		h.run(30_000 * ms)
		for _, n := range h.nodes {
			n.group(Event{Kind: EvOrder, Order: OrderClear, ID: 2})
		}
		h.run(60_000 * ms)
		check := func() {
			on := 0
			for _, n := range h.nodes {
				switch n.parts {
				case [4]bool{true, true, true, true}:
					on++
				case [4]bool{}:
				default:
					h.fatal("seed %d: node %d has %v", seed, n.id, n.parts)
				}
			}
			if on != 1 {
				h.fatal("seed %d: the group is online on %d nodes", seed, on)
			}
		}
		check()
		lines := len(h.log)
		h.run(60_000 * ms)
		check()
		if len(h.log) != lines {
			h.fatal("seed %d: it does not come to rest", seed)
		}
		// By hand to the other node: within half a second, and no violation.
		lines = len(h.log)
		for _, n := range h.nodes {
			if n.parts[0] {
				n.group(Event{Kind: EvOrder, Order: OrderSwitch, ID: 3})
				h.run(1000 * ms)
				if o := h.nodes[1-n.id]; o.parts != [4]bool{true, true, true, true} || n.parts != [4]bool{} {
					h.fatal("seed %d: a second after the switch they have %v and %v", seed, h.nodes[0].parts, h.nodes[1].parts)
				}
				break
			}
		}
		h.run(10_000 * ms)
		for _, l := range h.log[lines:] {
			if strings.Contains(l, "violation") {
				h.fatal("seed %d: a switch by hand is called a violation: %s", seed, l)
			}
		}
	}
}

// Somebody puts up by hand on the standby what the other node has: both say so in the
// same words, it goes within ten seconds, the rightful node does nothing, and once it is
// cleared all is as before.
func TestViolationEnds(t *testing.T) {
	for seed := range uint64(200) {
		h := newHall(t, seed, false)
		h.run(15_000*ms + h.rng.Int64N(5000*ms))
		on, standby := h.nodes[0], h.nodes[1]
		if seed%2 == 1 {
			on.group(Event{Kind: EvOrder, Order: OrderSwitch, ID: 1})
			h.run(10_000 * ms)
			on, standby = standby, on
		}
		h.loss = h.rng.Float64() * 0.3 * float64(seed%4/2)
		for round := range 2 {
			part := []int{1, 3}[h.rng.IntN(2)]
			lines := len(h.log)
			if on.g.State() != Online || !standby.byHand(part) {
				h.fatal("seed %d: %v, and %v on the standby", seed, on.g.State(), standby.g.State())
			}
			end := h.now + 10_000*ms
			for h.now < end && standby.parts[part] {
				h.run(50 * ms)
			}
			h.run(3000 * ms)
			if standby.parts != [4]bool{} || standby.g.State() != Faulted || on.parts != [4]bool{true, true, true, true} {
				h.fatal("seed %d: %v with %v, and %v with %v", seed, standby.g.State(), standby.parts, on.g.State(), on.parts)
			}
			want := []string{
				"Resource " + standby.g.parts[part].short() + " is online on " + standby.name(),
				"CurrentCount increased above 1 for failover group",
				fmt.Sprintf("WARNING: Concurrency violation!!! group=%q hosts=(%s %s)", "g", standby.name(), on.name()),
			}
			if !slices.Equal(standby.console, want) {
				h.fatal("seed %d: the console of the violator: %q", seed, standby.console)
			}
			if !slices.Equal(on.console, want) {
				h.fatal("seed %d: the console of the rightful node: %q", seed, on.console)
			}
			for _, l := range h.log[lines:] {
				if strings.Contains(l, fmt.Sprintf(" %d group", on.id)) {
					h.fatal("seed %d: the rightful node: %s", seed, l)
				}
			}
			on.console, standby.console = nil, nil
			if round == 1 {
				h.loss = 0 // or it may take the other one for dead
				standby.group(Event{Kind: EvOrder, Order: OrderClear, ID: 1})
				h.run(3000 * ms)
			}
		}
		if standby.g.State() != Offline {
			h.fatal("seed %d: cleared, it is %v", seed, standby.g.State())
		}
	}
}

// A controller that is started again soon finds its group, listens, and keeps it:
// nothing of it goes down, on the other node nothing goes up.
func TestGroupIsKeptOverARestart(t *testing.T) {
	for seed := range uint64(50) {
		h := newHall(t, seed, false)
		h.run(10_000 * ms)
		n := h.nodes[0]
		if n.parts != [4]bool{true, true, true, true} {
			h.fatal("seed %d: node 0 has %v", seed, n.parts)
		}
		n.kill()
		h.run(300 * ms)
		lines := len(h.log)
		n.boot(false)
		h.run(20_000 * ms)
		for _, l := range h.log[lines:] {
			if strings.Contains(l, "STOPPING") || strings.Contains(l, "STARTING") || strings.Contains(l, " 1 ") {
				h.fatal("seed %d: %s", seed, l)
			}
		}
		if n.parts != [4]bool{true, true, true, true} || h.nodes[1].parts != [4]bool{} {
			h.fatal("seed %d: they have %v and %v", seed, n.parts, h.nodes[1].parts)
		}
	}
}

// Started again while another node is master, it takes everything down.
func TestGroupIsGivenUpAfterARestartToAnother(t *testing.T) {
	h := newHall(t, 1, false)
	h.run(10_000 * ms)
	n, o := h.nodes[0], h.nodes[1]
	n.kill()
	n.parts[0] = false // its storage died, too, and comes back as it was: nobody was asked
	h.run(8_000 * ms)
	if o.parts != [4]bool{true, true, true, true} {
		h.fatal("node 1 has %v", o.parts)
	}
	n.parts[0] = true
	n.boot(false)
	h.run(10_000 * ms)
	if n.parts != [4]bool{} || o.parts != [4]bool{true, true, true, true} {
		h.fatal("they have %v and %v", n.parts, o.parts)
	}
}
