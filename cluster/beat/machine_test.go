package beat

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
)

func TestNodesFindEachOther(t *testing.T) {
	w := newWorld(t, 1, 3, 0, 1, Serial)
	w.run(50 * ms)
	w.expect(w.allUp(), "not all hear each other after a round trip")
	w.run(10 * Second)
	for i := range NodeID(3) {
		for j := range NodeID(3) {
			if i != j {
				for _, l := range []LinkID{0, 1, Serial} {
					w.expect(w.link(i, j, l) == LinkUp, "%v from %d to %d is %v", l, i, j, w.link(i, j, l))
				}
			}
		}
	}
	w.expect(w.said("trouble") == 0 && w.said("jeopardy=true") == 0 && w.said("stood still") == 0, "something was said that is not so")
	for _, h := range w.nodes {
		w.expect(h.refused[FaultReplay] == 0 && h.refused[FaultStale] <= 12, "refused %v", h.refused)
		// 3 links to 2 nodes, 2 a second, and a few when they met.
		w.expect(h.sent >= 6*20 && h.sent < 6*20+50, "%d packets in 10 s", h.sent)
	}
}

func TestLinkLost(t *testing.T) {
	w := newWorld(t, 2, 2, 0, 1)
	w.run(5100 * ms)
	w.cut(func(_, _ NodeID, l LinkID) bool { return l == 0 })
	w.run(1000 * ms)
	w.expect(w.link(0, 1, 0) == LinkUp, "in trouble too soon")
	w.run(1000 * ms)
	w.expect(w.link(0, 1, 0) == LinkTrouble && w.link(1, 0, 0) == LinkTrouble, "not in trouble")
	w.expect(w.status(0, 1).Jeopardy == false, "in jeopardy before the link is down")
	w.run(1500 * ms)
	w.expect(w.link(0, 1, 0) == LinkDown && w.link(1, 0, 0) == LinkDown, "not down")
	w.expect(w.status(0, 1).Jeopardy && w.status(1, 0).Jeopardy, "no jeopardy")
	w.expect(w.status(0, 1).Up, "the node is gone")
	w.cut(nil)
	w.run(1200 * ms)
	w.expect(w.link(0, 1, 0) == LinkUp && !w.status(0, 1).Jeopardy, "not healed")
	w.expect(w.said("a: link 0 to b trouble (nothing heard for 1.5 s)") == 1, "the words are others")
	w.expect(w.said("node b up=") == 1, "the node's state changed")
}

// A node whose last link of several is lost was in jeopardy; one that is lost on all
// at once was not.
func TestNodeLost(t *testing.T) {
	for _, first := range []bool{false, true} {
		w := newWorld(t, 3, 2, 0, 1)
		w.run(5100 * ms)
		if first {
			w.cut(func(_, _ NodeID, l LinkID) bool { return l == 1 })
			w.run(5 * Second)
		}
		w.cut(func(_, _ NodeID, l LinkID) bool { return true })
		w.run(2800 * ms)
		w.expect(w.status(0, 1).Up, "down before its time")
		w.run(700 * ms)
		w.expect(!w.status(0, 1).Up && !w.status(1, 0).Up, "still up")
		w.expect(len(w.nodes[0].m.Pairs()) == 0, "still a pair")
		w.expect(w.said("a: node b up=false", fmt.Sprintf("jeopardy=%v", first)) == 1, "jeopardy is not %v", first)
	}
}

// Packets that pass one way only do not make a link, and whoever still hears says so.
func TestOneWay(t *testing.T) {
	w := newWorld(t, 4, 2, 0, 1)
	w.run(5 * Second)
	w.cut(func(from, _ NodeID, l LinkID) bool { return l == 0 && from == 0 })
	w.run(3800 * ms)
	w.expect(w.link(0, 1, 0) == LinkDown && w.link(1, 0, 0) == LinkDown, "a link that passes one way is %v and %v", w.link(0, 1, 0), w.link(1, 0, 0))
	w.expect(w.said("a: link 0 to b trouble (one way: b is heard and did not hear this node for") == 1, "nobody says that it is one way")
	w.expect(w.said("b: link 0 to a trouble (nothing heard for") == 1, "the deaf side says something else")
	w.run(10 * Second)
	w.expect(w.link(0, 1, 0) == LinkDown && w.nodes[0].refused[FaultStale] > 10, "it is believed later")
	oneWay := func(at, to NodeID) bool { return w.status(at, to).Links[0].OneWay }
	w.expect(oneWay(0, 1) && !oneWay(1, 0), "the status says %v and %v of the way", oneWay(0, 1), oneWay(1, 0))

	// From the start it is never up.
	w = newWorld(t, 5, 2, 0)
	w.cut(func(from, _ NodeID, _ LinkID) bool { return from == 0 })
	w.start(w.nodes[0])
	w.start(w.nodes[1])
	w.flights = nil
	w.log = nil
	w.run(20 * Second)
	w.expect(len(w.log) == 0, "a one-way link is believed")
	w.expect(oneWay(0, 1) && !oneWay(1, 0), "from the start the status says %v and %v of the way", oneWay(0, 1), oneWay(1, 0))
}

// A carrier that is gone is noticed at once, by the serial line on the other side
// too, and costs nothing before the time-out.
func TestCarrier(t *testing.T) {
	w := newWorld(t, 6, 2, 0, Serial)
	w.run(5 * Second)
	lost := func(_, _ NodeID, l LinkID) bool { return l == 0 }
	w.cut(lost)
	w.step(w.nodes[0], Event{Kind: EvCarrier, Link: 0})
	w.run(20 * ms)
	w.expect(w.link(0, 1, 0) == LinkTrouble && w.said("a: link 0 to b trouble (no carrier here)") == 1, "not noticed here")
	w.expect(w.link(1, 0, 0) == LinkTrouble && w.said("b: link 0 to a trouble (a has no carrier)") == 1, "not noticed there")
	w.cut(nil)
	w.step(w.nodes[0], Event{Kind: EvCarrier, Link: 0, Up: true})
	w.run(20 * ms)
	w.expect(w.link(0, 1, 0) == LinkUp && w.link(1, 0, 0) == LinkUp, "not healed at once")
	w.cut(lost)
	w.step(w.nodes[0], Event{Kind: EvCarrier, Link: 0})
	w.run(4 * Second)
	w.expect(w.link(0, 1, 0) == LinkDown && w.link(1, 0, 0) == LinkDown && w.status(0, 1).Up && w.status(0, 1).Jeopardy, "not down by the time-out")
}

// Who stood still accuses nobody: it listens again for the whole time-out.
func TestLateNodeAccusesNobody(t *testing.T) {
	for _, pause := range []Duration{600 * ms, 1400 * ms, 2500 * ms, 10 * Second, 100 * Second} {
		w := newWorld(t, uint64(7+pause), 3, 0, 1)
		w.run(5 * Second)
		a := w.nodes[0]
		a.paused = true
		w.run(pause)
		w.resume(a)
		w.run(5 * Second)
		w.expect(w.said("a: link") == 4, "after %s it accuses", seconds(pause)) // of the start
		long := pause > 2*Second
		w.expect(w.said("a: stood still") == 1 == long, "it says so %d times", w.said("a: stood still"))
		w.expect(w.allUp(), "not all hear each other again")
		if pause > 4*Second {
			w.expect(w.said("b: node a up=false") == 1, "nobody missed it")
		}

		// While it slept, a node died: that is found out all the same, later.
		a.paused = true
		w.run(pause)
		w.nodes[1].m = nil
		w.resume(a)
		if long {
			w.run(2900 * ms)
			w.expect(w.status(0, 1).Up, "called dead before the time-out was over again")
		}
		w.run(4000 * ms)
		w.expect(!w.status(0, 1).Up && w.status(0, 2).Up, "the dead one is up")
	}
}

// A timer that is late by a little each time delays what it finds in proportion only.
func TestSlowNodeFindsTheDead(t *testing.T) {
	w := newWorld(t, 8, 2, 0)
	w.run(5 * Second)
	w.nodes[1].m = nil
	a := w.nodes[0]
	for range 60 {
		due, _ := a.m.Deadline()
		a.paused = true
		w.run(max(due.add(-a.boot).since(w.now), 0) + 100*ms)
		w.resume(a)
		if !w.status(0, 1).Up {
			break
		}
	}
	w.expect(!w.status(0, 1).Up, "never found")
	w.expect(w.said("stood still") == 0, "a small delay counts as a stop")
}

func TestRestart(t *testing.T) {
	w := newWorld(t, 9, 2, 0, 1)
	w.run(5 * Second)
	w.start(w.nodes[1])
	was := w.status(0, 1).Incarnation
	w.run(100 * ms)
	w.expect(w.status(0, 1).Incarnation == w.nodes[1].cfg.Incarnation && was != w.status(0, 1).Incarnation, "the new start is not believed")
	w.expect(w.said("a: node b up=false", "it started anew") == 1 && w.allUp(), "not told")
	w.run(5 * Second)
	w.expect(w.said("two of") == 0, "a restart is taken for a second host")
	for range 20 {
		w.start(w.nodes[1])
		w.run(Duration(w.rnd.Int64N(int64(2 * Second))))
	}
	w.run(Second)
	w.expect(w.said("two of") == 0 && w.allUp(), "restarts are taken for a second host")
}

// A node that stops says so, and nobody waits for it.
func TestLeaving(t *testing.T) {
	w := newWorld(t, 10, 2, 0, 1, Serial)
	w.run(5 * Second)
	w.step(w.nodes[1], Event{Kind: EvLeave})
	w.nodes[1].m = nil
	w.run(20 * ms)
	w.expect(!w.status(0, 1).Up && w.said("a: node b up=false jeopardy=false (it stopped)") == 1, "not told")
	w.run(5 * Second)
	w.expect(!w.status(0, 1).Up, "it came back")
	w.start(w.nodes[1])
	w.run(50 * ms)
	w.expect(w.allUp(), "it cannot come back")
	// Nor is that a riddle where one link was left.
	w.run(5 * Second)
	w.cut(func(_, _ NodeID, l LinkID) bool { return l != 0 })
	w.run(5 * Second)
	w.step(w.nodes[1], Event{Kind: EvLeave})
	w.nodes[1].m = nil
	w.run(20 * ms)
	w.expect(w.said("a: node b up=false jeopardy=false (it stopped)") == 2 && w.said("a: node b in jeopardy=true") == 1, "taken for lost")
}

// What was recorded is worth nothing: not against the same start of the receiver, not
// against the next, not in any order, not a whole conversation.
func TestRecordings(t *testing.T) {
	w := newWorld(t, 11, 2, 0)
	var recorded []flight
	w.wire = func(_, to NodeID, l LinkID, data []byte) {
		recorded = append(recorded, flight{to: to, link: l, data: bytes.Clone(data)})
	}
	w.run(5 * Second)
	a := w.nodes[0]
	sentBefore := a.sent
	again := func() {
		for _, f := range recorded {
			if f.to == 0 {
				w.arrive(f)
			}
		}
	}
	again()
	w.expect(a.refused[FaultReplay] >= 10, "refused %v", a.refused)
	w.expect(a.sent == sentBefore, "it answered a recording")
	w.nodes[1].m = nil
	for range 100 {
		again()
		w.run(100 * ms)
	}
	w.expect(!w.status(0, 1).Up, "a recording keeps a dead node up")
	// The receiver starts anew: it remembers nothing.
	w.start(a)
	w.log = nil
	for range 100 {
		again()
		slices.Reverse(recorded)
		w.run(100 * ms)
	}
	w.expect(len(w.log) == 0, "a recording is believed after a restart")
	w.expect(a.refused[FaultStale] > 0, "refused %v", a.refused)
	w.expect(a.sent < 200, "a recording makes it send %d packets", a.sent)
}

// Packets that somebody holds back and sends later say nothing about later.
func TestHeldBack(t *testing.T) {
	w := newWorld(t, 12, 2, 0)
	w.run(5 * Second)
	var held []flight
	holding := false
	plain := w.pass
	w.pass = func(from, to NodeID, l LinkID) (Duration, bool) {
		if holding && from == 1 {
			return 0, false
		}
		return plain(from, to, l)
	}
	w.wire = func(from, to NodeID, l LinkID, data []byte) {
		if holding && from == 1 {
			held = append(held, flight{to: to, link: l, data: bytes.Clone(data)})
		}
	}
	holding = true
	w.run(4 * Second)
	w.nodes[1].m = nil
	w.expect(len(held) >= 6, "%d packets are held", len(held))
	w.run(2100 * ms)
	for _, f := range held {
		w.arrive(f)
		w.run(100 * ms)
	}
	w.expect(!w.status(0, 1).Up && w.said("a: node b up=true") == 1, "packets that were held back bring a dead node up")
}

// Two hosts with one node's name are told on every node, themselves included; a
// recording of an earlier start is no second host.
func TestDuplicate(t *testing.T) {
	w := newWorld(t, 13, 2, 0)
	w.run(3 * Second)
	// A third host is b as well; the switch gives a's packets to both.
	twin := &host{id: 1, cfg: w.nodes[1].cfg, codec: NewCodec("red", testKey), boot: 5 * Second}
	w.start(twin)
	w.nodes = append(w.nodes, twin)
	w.wire = func(from, to NodeID, l LinkID, data []byte) {
		if to == 1 && w.rnd.IntN(4) > 0 {
			w.flights = append(w.flights, flight{at: w.now.add(ms), to: 2, link: l, data: data})
		}
	}
	w.run(20 * Second)
	w.expect(w.said("a: two of b (two hosts send heartbeats as node b") == 1, "a does not say so, or more than once")
	w.expect(w.said("b: two of b (a hears two hosts") >= 1, "b is not told")
	w.expect(w.status(0, 1).Duplicate, "not in the status")
	w.nodes = w.nodes[:2]
	w.wire = nil
	w.run(40 * Second)
	w.expect(!w.status(0, 1).Duplicate && w.status(0, 1).Up && w.allUp(), "the one that is left is not taken")
}

// A second host that has the node's name but not its address hears nothing; it is told
// all the same, whichever of both started first.
func TestDeafDuplicate(t *testing.T) {
	w := newWorld(t, 19, 2, 0)
	w.run(3 * Second)
	twin := &host{id: 1, cfg: w.nodes[1].cfg, codec: NewCodec("red", testKey), boot: 5 * Second}
	w.start(twin)
	w.nodes = append(w.nodes, twin)
	w.run(20 * Second)
	w.expect(w.said("a: two of b (heartbeats of a second start of node b go on coming") == 1, "not told once")
	w.expect(w.said("a: node b up=") == 1 && w.status(0, 1).Up, "it costs something")
}

// A packet that gives back what was never sent, and clocks that are off.
func TestFromTheFuture(t *testing.T) {
	w := newWorld(t, 14, 2, 0)
	w.run(3 * Second)
	a, b := w.nodes[0], w.nodes[1]
	p := Packet{From: 1, To: 0, Kind: KindBeat, Incarnation: 99, Sequence: 1 << 40, Sent: 1 << 60,
		Echo: Echo{a.cfg.Incarnation, 3, a.clock(w).add(Second), 0}, Payload: (&Beat{}).Append(nil)}
	forged := codec.Seal(nil, &p)
	w.arrive(flight{to: 0, data: forged})
	w.expect(a.refused[FaultFuture] == 1, "refused %v", a.refused)
	p.Echo, p.Sequence = Echo{a.cfg.Incarnation, 1 << 50, a.clock(w), 0}, 1<<41
	w.arrive(flight{to: 0, data: codec.Seal(nil, &p)})
	w.expect(a.refused[FaultFuture] == 2, "refused %v", a.refused)

	b.wall = 3600 * Second
	w.run(2 * Second)
	w.expect(w.said("a: clock of b off by 3600.0 s") == 1 && w.said("b: clock of a off by -3600.0 s") == 1, "an hour is not told")
	w.run(20 * Second)
	w.expect(w.said("clock of") == 2 && w.allUp() && w.said("trouble") == 0, "an hour costs something, or is said again")
	b.wall = 3602 * Second
	w.run(2 * Second)
	w.expect(w.said("clock of") == 4, "a change is not told")
	b.wall = 100 * ms
	w.run(2 * Second)
	w.expect(w.said("a: clock of b off by 0.0 s") == 1, "that it is over is not told")
	b.wall = 900 * ms
	w.run(5 * Second)
	w.expect(w.said("clock of") == 6, "less than a second is told")
	w.pass = func(NodeID, NodeID, LinkID) (Duration, bool) { return 2 * Second, true }
	w.run(20 * Second)
	w.expect(w.said("clock of") == 6, "a slow network is taken for a clock")
}

// A configuration that was changed on one node only is told by key, on both, once.
func TestSharedConfiguration(t *testing.T) {
	w := newWorld(t, 15, 2, 0, Serial)
	w.run(3 * Second)
	w.expect(w.said("configuration") == 0, "equal ones are told")
	big := Shared{"cluster.lease": "5s", "node.alpha.id": "0", `group."a.b".vhid`: "1"}
	for i := range 600 {
		big[fmt.Sprintf("resource.r%d.replication", i)] = "fullsync"
		big[fmt.Sprintf("resource.r%d.extent-size", i)] = "2MiB"
	}
	there := Shared{}
	for k, v := range big {
		there[k] = v
	}
	there["cluster.lease"], there["resource.r17.replication"], there["group.new.vhid"] = "3s", "async", "\x1b[2J9"
	delete(there, `group."a.b".vhid`)
	w.step(w.nodes[0], Event{Kind: EvShared, Shared: big})
	w.step(w.nodes[1], Event{Kind: EvShared, Shared: there})
	serial := 0
	w.wire = func(_, _ NodeID, l LinkID, data []byte) {
		if l == Serial && Kind(data[15]) == KindMessage {
			serial++
		}
	}
	w.run(30 * Second)
	want := []Difference{
		{"cluster.lease", "5s", "3s"},
		{`group."a.b".vhid`, "1", Missing},
		{"group.new.vhid", Missing, "?[2J9"},
		{"resource.r17.replication", "fullsync", "async"},
	}
	w.expect(slices.Equal(w.status(0, 1).Differences, want), "told: %v", w.status(0, 1).Differences)
	w.expect(w.said("a: configuration of b") == 1 && w.said("b: configuration of a") == 1, "not told once")
	w.expect(serial == 0, "it went over the serial line")
	w.step(w.nodes[1], Event{Kind: EvShared, Shared: big})
	w.run(3 * Second)
	w.expect(w.said("a: configuration of b: []") == 1 && w.status(0, 1).Differences == nil, "that it is over is not told")
}

// Bodies of other machines arrive whole, from whom is believed, once for each sending,
// over the serial line if they may.
func TestBodies(t *testing.T) {
	w := newWorld(t, 16, 2, 0, 1, Serial)
	w.run(3 * Second)
	long := bytes.Repeat([]byte("x"), MaxBody)
	a := w.nodes[0]
	b := w.nodes[1]
	w.step(a, Event{Kind: EvSend, Body: Body{1, []byte("hello")}})
	w.step(a, Event{Kind: EvSend, To: SetOf(1), Body: Body{2, long}})
	w.step(a, Event{Kind: EvSend, Body: Body{3, append(long, 'x')}})
	w.run(100 * ms)
	got := func() (list []Body) {
		for _, e := range b.effects {
			if e.Kind == EffDeliver && e.Incarnation == a.cfg.Incarnation {
				list = append(list, e.Body)
			}
		}
		return list
	}
	w.expect(len(got()) == 2 && string(got()[0].Data) == "hello" && bytes.Equal(got()[1].Data, long), "%d bodies", len(got()))

	// The serial line alone: only what may.
	w.cut(func(_, _ NodeID, l LinkID) bool { return l != Serial })
	w.run(5 * Second)
	w.expect(w.status(0, 1).Jeopardy, "not alone")
	w.step(a, Event{Kind: EvSend, Body: Body{4, []byte("no")}})
	w.step(a, Event{Kind: EvSend, Body: Body{5, bytes.Repeat([]byte("y"), 600)}, OnSerial: true})
	w.run(100 * ms)
	w.expect(len(got()) == 3 && got()[2].Kind == 5 && len(got()[2].Data) == 600, "%d bodies", len(got()))

	// What is attached travels with each heartbeat, until it is taken off.
	w.cut(nil)
	w.run(3 * Second)
	b.effects = nil
	w.step(a, Event{Kind: EvAttach, Body: Body{6, []byte("view")}, OnSerial: true})
	w.step(a, Event{Kind: EvAttach, Body: Body{7, bytes.Repeat([]byte("z"), 3000)}})
	w.step(a, Event{Kind: EvAttach, Body: Body{8, []byte("old")}})
	w.step(a, Event{Kind: EvAttach, Body: Body{8, []byte("new")}})
	w.run(990 * ms)
	count := map[byte]int{}
	for _, x := range got() {
		count[x.Kind]++
		w.expect(string(x.Data) != "old", "what was replaced travels")
	}
	w.expect(count[6] == 6 && count[7] == 4 && count[8] == 4, "in 2 intervals: %v", count)
	for _, k := range []byte{6, 7, 8} {
		w.step(a, Event{Kind: EvAttach, Body: Body{Kind: k}})
	}
	w.run(50 * ms)
	b.effects = nil
	w.run(3 * Second)
	w.expect(len(got()) == 0, "what was taken off travels")
}

func TestViews(t *testing.T) {
	w := newWorld(t, 17, 2, 0, 1)
	w.step(w.nodes[0], Event{Kind: EvView, Era: 2, Index: 7})
	w.run(3 * Second)
	w.expect(w.said("b: node a has view 2.7") == 1, "not told once")
	w.step(w.nodes[0], Event{Kind: EvView, Era: 2, Index: 8})
	w.run(Second)
	w.expect(w.said("b: node a has view 2.8") == 1 && w.status(1, 0).Index == 8, "not told once")
}

// Who hears whom: two nodes that do not hear each other are no pair, for the third
// one neither.
func TestPairs(t *testing.T) {
	w := newWorld(t, 18, 3, 0)
	w.run(3 * Second)
	w.expect(w.allUp(), "not all")
	w.cut(func(from, to NodeID, _ LinkID) bool { return from+to == 1 })
	w.run(5 * Second)
	want := []Pair{{0, 2}, {1, 2}}
	w.expect(slices.Equal(w.nodes[2].m.Pairs(), want), "%v", w.nodes[2].m.Pairs())
	w.expect(slices.Equal(w.nodes[0].m.Pairs(), want[:1]), "%v", w.nodes[0].m.Pairs())
}

func TestConfigThatCannotBe(t *testing.T) {
	good := Config{Self: 1, Incarnation: 1, Interval: 1, Trouble: 2, Timeout: 3, Peers: []Peer{{0, "a", []LinkID{0}}}}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(c *Config){
		"no incarnation": func(c *Config) { c.Incarnation = 0 },
		"order":          func(c *Config) { c.Trouble = c.Timeout },
		"twice":          func(c *Config) { c.Peers = append(c.Peers, c.Peers[0]) },
		"itself":         func(c *Config) { c.Self = 0 },
		"id":             func(c *Config) { c.Peers = []Peer{{64, "x", nil}} },
		"links":          func(c *Config) { c.Peers = []Peer{{0, "x", []LinkID{LinkID(MaxLinks)}}} },
		"nodes":          func(c *Config) { c.Peers = make([]Peer, MaxNodes) },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
