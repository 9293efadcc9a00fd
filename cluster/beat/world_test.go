package beat

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// world is nodes and links in virtual time. Packets travel sealed, and pass gates.
type world struct {
	t       *testing.T
	rnd     *rand.Rand
	now     Instant // of the world; each node's clock is set off
	nodes   []*host
	flights []flight
	// pass decides about a packet: how long it takes, or that it is lost.
	pass    func(from, to NodeID, l LinkID) (Duration, bool)
	log     []string
	arrived func(f flight)
	// wire sees every packet that is sent.
	wire func(from, to NodeID, l LinkID, data []byte)
}

type flight struct {
	at   Instant
	from NodeID
	real bool // sent by the node itself, not by somebody who recorded it
	to   NodeID
	link LinkID
	data []byte
}

// host is a machine with its gates.
type host struct {
	id      NodeID
	cfg     Config
	m       *Machine
	codec   *Codec
	gates   map[LinkID]*Gate
	boot    Duration // its clock is so much ahead of the world's
	wall    Duration // its wall clock is so much off
	paused  bool
	queue   []flight // came while it was paused
	effects []Effect
	refused [Faults]int
	sent    int
}

const ms = Millisecond

func newWorld(t *testing.T, seed uint64, nodes int, links ...LinkID) *world {
	w := &world{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), now: 1000 * Instant(Second)}
	w.pass = func(NodeID, NodeID, LinkID) (Duration, bool) { return Duration(w.rnd.Int64N(int64(ms))) + ms/10, true }
	for i := range nodes {
		cfg := Config{Self: NodeID(i), Interval: 500 * ms, Trouble: 1500 * ms, Timeout: 3 * Second, Shared: Shared{"cluster.lease": "3s"}}
		for j := range nodes {
			if j != i {
				cfg.Peers = append(cfg.Peers, Peer{NodeID(j), string(rune('a' + j)), links})
			}
		}
		h := &host{id: NodeID(i), cfg: cfg, codec: NewCodec("red", testKey), boot: Duration(i) * 777 * Second}
		w.nodes = append(w.nodes, h)
		w.start(h)
	}
	return w
}

// start starts a node anew.
func (w *world) start(h *host) {
	h.cfg.Incarnation = w.rnd.Uint64() | 1
	var err error
	if h.m, err = New(h.cfg); err != nil {
		w.t.Fatal(err)
	}
	h.gates, h.queue, h.paused = map[LinkID]*Gate{}, nil, false
	w.step(h, Event{Kind: EvTick})
}

func (h *host) clock(w *world) Instant { return w.now.add(h.boot) }

// step steps a node and carries out what it wants.
func (w *world) step(h *host, ev Event) {
	ev.Wall = int64(w.now.add(h.wall)) + 1e18
	for _, e := range h.m.Step(h.clock(w), ev, nil) {
		switch e.Kind {
		case EffSend:
			h.sent++
			data := h.codec.Seal(nil, &e.Packet)
			if len(data) > MaxPacket {
				w.t.Fatalf("a packet of %d bytes", len(data))
			}
			if w.wire != nil {
				w.wire(h.id, e.Node, e.Link, data)
			}
			if d, ok := w.pass(h.id, e.Node, e.Link); ok {
				w.flights = append(w.flights, flight{w.now.add(d), h.id, true, e.Node, e.Link, data})
			}
		case EffRefused:
			h.refused[e.Fault]++
		default:
			h.effects = append(h.effects, e)
			w.log = append(w.log, fmt.Sprintf("%8.3f %s", float64(w.now)/1e9-1000, h.text(e)))
		}
	}
}

// text is an effect as a transcript shows it.
func (h *host) text(e Effect) string {
	me, it := string(rune('a'+h.id)), string(rune('a'+e.Node))
	switch e.Kind {
	case EffLink:
		return fmt.Sprintf("%s: %v to %s %v (%s)", me, e.Link, it, e.State, e.Reason)
	case EffNode:
		return fmt.Sprintf("%s: node %s up=%v jeopardy=%v (%s)", me, it, e.Up, e.Jeopardy, e.Reason)
	case EffJeopardy:
		return fmt.Sprintf("%s: node %s in jeopardy=%v (%s)", me, it, e.Up, e.Reason)
	case EffPairs:
		return fmt.Sprintf("%s: pairs %v", me, h.m.Pairs())
	case EffView:
		return fmt.Sprintf("%s: node %s has view %d.%d", me, it, e.Era, e.Index)
	case EffDeliver:
		return fmt.Sprintf("%s: from %s over %v: %d %q", me, it, e.Link, e.Body.Kind, e.Body.Data)
	case EffClock:
		return fmt.Sprintf("%s: clock of %s off by %s", me, it, seconds(e.Differs))
	case EffDuplicate:
		return fmt.Sprintf("%s: two of %s (%s)", me, it, e.Reason)
	case EffShared:
		return fmt.Sprintf("%s: configuration of %s: %v", me, it, e.Differences)
	case EffLate:
		return fmt.Sprintf("%s: stood still for %s", me, seconds(e.Late))
	}
	return fmt.Sprintf("%s: effect %d", me, e.Kind)
}

// arrive hands a packet to a node.
func (w *world) arrive(f flight) {
	h := w.nodes[f.to]
	if h.m == nil {
		return
	}
	if h.paused {
		h.queue = append(h.queue, f)
		return
	}
	if w.arrived != nil {
		w.arrived(f)
	}
	g := h.gates[f.link]
	if g == nil {
		g = NewGate(NewCodec("red", testKey))
		h.gates[f.link] = g
	}
	p, fault := g.Admit(h.clock(w), Anybody, h.id, f.data)
	if fault != FaultNone {
		h.refused[fault]++
		return
	}
	w.step(h, Event{Kind: EvPacket, Link: f.link, Packet: &p})
}

// pause stops a node; resume hands it what came meanwhile, and the tick.
func (w *world) resume(h *host) {
	h.paused = false
	queue := h.queue
	h.queue = nil
	for _, f := range queue {
		w.arrive(f)
	}
	w.step(h, Event{Kind: EvTick})
}

// run lets time pass.
func (w *world) run(d Duration) {
	end := w.now.add(d)
	for {
		at, what := end, func() {}
		for i := range w.flights {
			if f := w.flights[i]; f.at < at {
				at, what = f.at, func() {
					w.flights = slices.Delete(w.flights, i, i+1)
					w.arrive(f)
				}
			}
		}
		for _, h := range w.nodes {
			if h.m == nil || h.paused {
				continue
			}
			if due, ok := h.m.Deadline(); ok && due.add(-h.boot) < at {
				at, what = max(due.add(-h.boot), w.now), func() { w.step(h, Event{Kind: EvTick}) }
			}
		}
		w.now = at
		what()
		if at == end {
			return
		}
	}
}

// cut loses all that a matcher names; nil heals.
func (w *world) cut(lost func(from, to NodeID, l LinkID) bool) {
	w.pass = func(from, to NodeID, l LinkID) (Duration, bool) {
		return Duration(w.rnd.Int64N(int64(ms))) + ms/10, lost == nil || !lost(from, to, l)
	}
}

// link is what a node takes a link for.
func (w *world) link(at, to NodeID, id LinkID) LinkState {
	for _, s := range w.nodes[at].m.Status(w.nodes[at].clock(w)) {
		if s.ID == to {
			for _, l := range s.Links {
				if l.Link == id {
					return l.State
				}
			}
		}
	}
	w.t.Fatalf("no %v from %d to %d", id, at, to)
	return 0
}

func (w *world) status(at, to NodeID) NodeStatus {
	for _, s := range w.nodes[at].m.Status(w.nodes[at].clock(w)) {
		if s.ID == to {
			return s
		}
	}
	w.t.Fatalf("no node %d", to)
	return NodeStatus{}
}

// said counts lines of the transcript that have all the words.
func (w *world) said(words ...string) (n int) {
	for _, line := range w.log {
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
			n++
		}
	}
	return n
}

// expect fails with the transcript.
func (w *world) expect(ok bool, format string, args ...any) {
	w.t.Helper()
	if !ok {
		w.t.Fatalf(format+"\n%s", append(args, strings.Join(w.log, "\n"))...)
	}
}

// allUp says whether everybody hears everybody.
func (w *world) allUp() bool {
	n := 0
	for _, h := range w.nodes {
		if h.m != nil {
			n++
		}
	}
	for _, h := range w.nodes {
		if h.m != nil && len(h.m.Pairs()) != n*(n-1)/2 {
			return false
		}
	}
	return true
}
