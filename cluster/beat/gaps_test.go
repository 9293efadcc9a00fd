package beat

import (
	"bytes"
	"strings"
	"testing"
)

// told hands a packet past the gates to a machine, and gives what it refused it for.
func told(h *host, w *world, on LinkID, p Packet) Fault {
	for _, e := range h.m.Step(h.clock(w), Event{Kind: EvPacket, Link: on, Packet: &p}, nil) {
		if e.Kind == EffRefused {
			return e.Fault
		}
	}
	return FaultNone
}

// The machine needs no gate to refuse what it must not believe.
func TestMachineWithoutAGate(t *testing.T) {
	w := newWorld(t, 30, 3, 0, 1)
	w.run(3 * Second)
	a, b := w.nodes[0], w.nodes[1]
	next := func() Packet {
		return Packet{From: 1, To: 0, Kind: KindBeat, Incarnation: b.cfg.Incarnation, Sequence: 1000, Sent: b.clock(w),
			Echo: Echo{a.cfg.Incarnation, 1, a.clock(w), 0}, Payload: (&Beat{}).Append(nil)}
	}
	for _, x := range []struct {
		name   string
		change func(p *Packet)
		on     LinkID
		want   Fault
	}{
		{"for another node", func(p *Packet) { p.To = 2 }, 0, FaultNode},
		{"from itself", func(p *Packet) { p.From = 0 }, 0, FaultNode},
		{"from nobody", func(p *Packet) { p.From = 7 }, 0, FaultNode},
		{"of another link", func(p *Packet) { p.Link = 1 }, 0, FaultNode},
		{"of a link that is none", func(p *Packet) { p.Link = Serial }, Serial, FaultNode},
		{"good", func(*Packet) {}, 0, FaultNone},
		{"again", func(*Packet) {}, 0, FaultReplay},
		{"gives back another start's", func(p *Packet) { p.Sequence, p.Echo.Incarnation = 1001, 5 }, 0, FaultStale},
		{"gives back what is old", func(p *Packet) { p.Sequence, p.Echo.Sent = 1002, a.clock(w).add(-3*Second-1) }, 0, FaultStale},
		{"gives back what is nearly old", func(p *Packet) { p.Sequence, p.Echo.Sent = 1003, a.clock(w).add(-3*Second) }, 0, FaultNone},
		{"has no payload", func(p *Packet) { p.Sequence, p.Payload = 1004, nil }, 0, FaultContent},
	} {
		p := next()
		x.change(&p)
		if got := told(a, w, x.on, p); got != x.want {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
	}
}

// A recording is worth nothing to a receiver that starts anew, from the first moment.
func TestRecordingsAtTheStart(t *testing.T) {
	w := newWorld(t, 31, 2, 0)
	w.run(3 * Second)
	var recorded []flight
	w.wire = func(_, to NodeID, l LinkID, data []byte) {
		if to == 0 {
			recorded = append(recorded, flight{to: to, link: l, data: bytes.Clone(data)})
		}
	}
	w.run(2 * Second)
	w.nodes[1].m = nil
	w.start(w.nodes[0])
	w.log = nil
	sent := w.nodes[0].sent
	for range 50 {
		for _, f := range recorded {
			w.arrive(f)
			w.run(ms)
		}
	}
	w.expect(len(w.log) == 0, "a recording is believed")
	w.expect(w.nodes[0].sent-sent <= 2, "it was answered %d times in %d ms", w.nodes[0].sent-sent, 50*len(recorded))
}

// Recordings of a node's earlier start are no second host, and do not end this one.
func TestRecordingsOfAnEarlierStart(t *testing.T) {
	w := newWorld(t, 32, 2, 0, 1)
	var recorded []flight
	w.wire = func(from, to NodeID, l LinkID, data []byte) {
		if from == 1 {
			recorded = append(recorded, flight{to: to, link: l, data: bytes.Clone(data)})
		}
	}
	w.run(3 * Second)
	w.wire = nil
	w.start(w.nodes[1])
	for range 30 {
		for _, f := range recorded {
			w.arrive(f)
			w.run(10 * ms)
		}
	}
	w.expect(w.said("a: node b up=false") == 1 && w.said("two of") == 0 && w.allUp(), "recordings count as a host")
	w.expect(w.said("trouble") == 0, "recordings cost a link")
}

// A short recording of a start that this node does not know is no second host, played
// fast or slowly.
func TestShortRecordingIsNoHost(t *testing.T) {
	for _, x := range []struct {
		take int
		gap  Duration
	}{{100, 10 * ms}, {5, 2 * Second}} {
		w := newWorld(t, 40, 2, 0)
		var recorded []flight
		w.wire = func(from, to NodeID, l LinkID, data []byte) {
			if from == 1 {
				recorded = append(recorded, flight{to: to, link: l, data: bytes.Clone(data)})
			}
		}
		w.run(60 * Second)
		w.wire = nil
		w.start(w.nodes[1])
		w.start(w.nodes[0])
		w.run(3 * Second)
		for _, f := range recorded[:x.take] {
			w.arrive(f)
			w.run(x.gap)
		}
		w.expect(w.said("two of") == 0 && w.allUp(), "%d packets every %s are a host", x.take, seconds(x.gap))
		w.expect(w.nodes[0].refused[FaultStale] >= x.take, "refused %v", w.nodes[0].refused)
	}
}

// Small delays of a node's own timer do not count as the others' silence.
func TestSmallDelays(t *testing.T) {
	w := newWorld(t, 33, 2, 0)
	w.run(5100 * ms)
	w.cut(func(_, _ NodeID, _ LinkID) bool { return true })
	w.run(899 * ms)
	a := w.nodes[0]
	a.paused = true
	w.run(400 * ms)
	w.resume(a)
	w.run(400 * ms)
	w.expect(w.link(0, 1, 0) == LinkUp, "its own delay is taken for silence")
	w.run(200 * ms)
	w.expect(w.link(0, 1, 0) == LinkTrouble, "never in trouble")
	w.expect(w.said("stood still") == 0, "a small delay counts as a stop")
}

// A link that was down before this node stood still stays so until it is heard.
func TestStandingStillHealsNothing(t *testing.T) {
	w := newWorld(t, 34, 2, 0)
	w.run(5 * Second)
	w.nodes[1].m = nil
	w.run(5 * Second)
	w.expect(!w.status(0, 1).Up, "not noticed")
	w.nodes[0].paused = true
	w.run(10 * Second)
	w.resume(w.nodes[0])
	w.run(Second)
	w.expect(!w.status(0, 1).Up && w.said("a: node b up=true") == 1, "a dead node is up after a pause")
}

// Nor does a link that was in trouble get better by it.
func TestStandingStillEndsNoTrouble(t *testing.T) {
	w := newWorld(t, 39, 2, 0)
	w.run(5100 * ms)
	w.nodes[1].m = nil
	w.run(2 * Second)
	w.expect(w.link(0, 1, 0) == LinkTrouble, "not in trouble")
	w.nodes[0].paused = true
	w.run(2500 * ms)
	w.resume(w.nodes[0])
	w.run(Second)
	w.expect(w.link(0, 1, 0) == LinkTrouble && w.said("a: link 0 to b up") == 1, "it is up after a pause")
	w.run(2500 * ms)
	w.expect(w.link(0, 1, 0) == LinkDown, "never down")
}

// Of two others, both must say it.
func TestPairsNeedBoth(t *testing.T) {
	w := newWorld(t, 35, 3, 0)
	w.run(3 * Second)
	a := w.nodes[0]
	a.m.peer(1).last.Hears = nil // as if b did not hear anybody
	if got := a.m.Pairs(); len(got) != 1 || got[0] != (Pair{0, 2}) {
		t.Errorf("%v", got)
	}
}

// Messages and views of a node's new start count from their beginning.
func TestRestartBeginsAnew(t *testing.T) {
	w := newWorld(t, 36, 2, 0)
	w.run(Second)
	say := func() {
		for range 3 {
			w.step(w.nodes[1], Event{Kind: EvSend, Body: Body{1, []byte("x")}})
		}
		w.step(w.nodes[1], Event{Kind: EvView, Era: 1, Index: 1})
		w.run(600 * ms)
	}
	say()
	w.nodes[1].boot = -900 * Second // the host starts anew: its clock does too
	w.start(w.nodes[1])
	w.run(600 * ms)
	say()
	w.expect(w.said(`a: from b over link 0: 1 "x"`) == 6, "messages after a restart are lost")
	w.expect(w.said("a: node b has view 1.1") == 2, "a view after a restart is not told")
}

// A message on its way does not bring a node back that said goodbye.
func TestMessageAfterGoodbye(t *testing.T) {
	w := newWorld(t, 37, 2, 0)
	w.run(3 * Second)
	plain := w.pass
	w.pass = func(NodeID, NodeID, LinkID) (Duration, bool) { return 100 * ms, true }
	w.step(w.nodes[1], Event{Kind: EvSend, Body: Body{1, []byte("late")}})
	w.pass = plain
	w.step(w.nodes[1], Event{Kind: EvLeave})
	w.nodes[1].m = nil
	w.run(Second)
	w.expect(w.said("a: node b up=true") == 1 && !w.status(0, 1).Up && w.said("late") == 0, "it is back")
}

// Nodes whose configurations differ do not keep the network busy with it.
func TestComparingIsRare(t *testing.T) {
	w := newWorld(t, 38, 2, 0)
	w.run(3 * Second)
	big := Shared{}
	for i := range 3000 {
		big["cluster."+strings.Repeat("k", 20)+string(rune('a'+i%26))+strings.Repeat("j", i/26)] = "value"
	}
	w.step(w.nodes[0], Event{Kind: EvShared, Shared: big})
	sent := w.nodes[0].sent + w.nodes[1].sent
	w.run(60 * Second)
	beats := 2 * 120
	if n := w.nodes[0].sent + w.nodes[1].sent - sent - beats; n > 7*2*MaxPieces || n < 7 {
		t.Errorf("%d packets about the configuration in a minute", n)
	}
	if got := w.status(1, 0).Differences; len(got) != maxDiffs {
		t.Errorf("%d differences", len(got))
	}
	// A difference that no message has room for is one all the same.
	huge := Shared{"resource.x." + strings.Repeat("k", maxKeyLength): "1"}
	w.step(w.nodes[1], Event{Kind: EvShared, Shared: Shared{}})
	w.step(w.nodes[0], Event{Kind: EvShared, Shared: huge})
	w.run(2 * Second)
	if got := w.status(1, 0).Differences; len(got) != 1 || got[0] != tooMuch {
		t.Errorf("%v", got)
	}
}

// The key is bound to the cluster's name: another cluster's packets with the same key
// are refused even if their clear text is changed.
func TestKeyIsBoundToTheCluster(t *testing.T) {
	p := example()
	b := NewCodec("blue", testKey).Seal(nil, &p)
	tag := NewCodec("red", nil).tag
	copy(b[4:], tag[:])
	if _, fault := codec.Open(b); fault != FaultKey {
		t.Error(fault)
	}
}
