package beat

import (
	"testing"
)

// A flood of forgeries that name a node costs the strangers' budget; the node's own
// packets all pass. It allocates nothing.
func TestGateUnderAFlood(t *testing.T) {
	g := NewGate(NewCodec("red", testKey))
	bad := NewCodec("red", append([]byte{'x'}, testKey...))
	now := Instant(1000)
	seal := func(c *Codec, inc, seq uint64) []byte {
		return c.Seal(nil, &Packet{From: 1, To: 0, Kind: KindBeat, Incarnation: inc, Sequence: seq, Payload: (&Beat{}).Append(nil)})
	}
	if _, f := g.Admit(now, 1, 0, seal(codec, 7, 1)); f != FaultNone {
		t.Fatal(f)
	}
	var counts [Faults]int
	forged := seal(bad, 99, 5)
	const rate, secs = 10000, 10
	good := 0
	for i := range rate * secs {
		now = now.add(Second / rate)
		_, f := g.Admit(now, 1, 0, forged)
		counts[f]++
		if i%(rate/2) == 0 {
			if _, f := g.Admit(now, 1, 0, seal(codec, 7, uint64(2+i))); f == FaultNone {
				good++
			}
		}
	}
	if good != 2*secs {
		t.Errorf("%d of %d heartbeats pass", good, 2*secs)
	}
	// The budget of a second at once, and then its rate.
	if n := counts[FaultKey]; n > perStrangers*(secs+1) || n < perStrangers*secs || counts[FaultNone] > 0 {
		t.Errorf("codes of %d forgeries were computed: %v", n, counts)
	}
	if n := testing.AllocsPerRun(1000, func() {
		now = now.add(Millisecond)
		g.Admit(now, 1, 0, forged)
	}); n != 0 {
		t.Errorf("%v allocations for each forged packet", n)
	}
	// One who listens can name the right incarnation: its budget holds 10,000 a second.
	mimic := seal(bad, 7, 1<<40)
	good = 0
	for i := range rate * secs {
		now = now.add(Second / rate)
		g.Admit(now, 1, 0, mimic)
		if i%(rate/2) == 0 {
			if _, f := g.Admit(now, 1, 0, seal(codec, 7, uint64(1<<20+i))); f == FaultNone {
				good++
			}
		}
	}
	if good != 2*secs {
		t.Errorf("%d of %d heartbeats pass one who listens", good, 2*secs)
	}
}

func TestGateRefusesCheaply(t *testing.T) {
	g := NewGate(NewCodec("red", testKey))
	p := Packet{From: 1, To: 0, Kind: KindBeat, Incarnation: 7, Sequence: 1}
	b := codec.Seal(nil, &p)
	for i, x := range []struct {
		from, self NodeID
		want       Fault
	}{
		{2, 0, FaultNode}, {1, 2, FaultNode}, {1, 1, FaultNode}, {Anybody, 1, FaultNode}, {Anybody, 0, FaultNone}, {1, 0, FaultReplay},
	} {
		if _, f := g.Admit(0, x.from, x.self, b); f != x.want {
			t.Errorf("%d: %v, want %v", i, f, x.want)
		}
	}
	b[len(b)-1] ^= 1
	if _, f := g.Admit(0, 1, 0, b); f != FaultReplay {
		t.Errorf("the code of a replay is computed: %v", f)
	}
}
