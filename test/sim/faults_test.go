package sim

import (
	"strings"
	"testing"

	"hastd/metadata"
	"hastd/replicate"
)

// The faults of a run, one at a time.

// TestWallClockIsForPeople: what a node takes for the date changes nothing.
func TestWallClockIsForPeople(t *testing.T) {
	w := NewWorld()
	for seed := uint64(1); seed <= 40; seed++ {
		a, b := w.Run(Options{Seed: seed}), w.Run(Options{Seed: seed, noWall: true})
		if a.Digest != b.Digest || a.Events != b.Events {
			t.Errorf("seed %d goes another way when all dates are 1970", seed)
		}
	}
}

// TestScenarioDuplicateConnection: a connection comes while both still use the one
// before; what is under way ends well, and data flows on the new one.
func TestScenarioDuplicateConnection(t *testing.T) {
	s := newScript(t)
	s.pair()
	for i, n := range []*node{s.a, s.b, s.b, s.a} {
		old := n.sess
		r := s.ask(s.a, replicate.ReqWrite, 10+i)
		s.do(func() { s.w.link.duplicate(n) })
		if n.next == nil || n.next == old {
			t.Fatal("no connection waits behind the one that stands")
		}
		s.until("the new connection", func() bool { return s.a.sess == s.b.sess && s.a.sess != old && s.a.inFlow() && s.b.inFlow() })
		if err := s.await(r); err != replicate.OK {
			t.Fatalf("the write that was under way ended in error %d", err)
		}
		s.complete()
	}
	s.flush(s.a)
	if s.splits > 0 {
		t.Fatal("split-brain was reported")
	}
}

// TestScenarioLateIO: a secondary's write is slow and its connection is lost; on the
// next one nothing flows before it ended.
func TestScenarioLateIO(t *testing.T) {
	s := newScript(t)
	s.w.cover = NewCoverage()
	s.pair()
	s.b.disk.slow = 20000
	s.ask(s.a, replicate.ReqWrite, 5)
	s.until("B to write", func() bool { return s.b.busy > 0 })
	s.do(func() { s.w.link.down(s.b, "connection reset") })
	s.b.disk.slow = 1
	s.flowing()
	if s.b.busy > 0 || s.w.cover.Other["fault late-io"] == 0 {
		t.Fatalf("data flows with %d operations of the old connection under way (%d ended late)", s.b.busy, s.w.cover.Other["fault late-io"])
	}
	s.complete()
}

// TestScenarioShortRead: a read that ends for good after a part is a read error: the
// block comes from the peer and is written again.
func TestScenarioShortRead(t *testing.T) {
	s := newScript(t)
	s.w.cover = NewCoverage()
	s.pair()
	s.write(s.a, 8)
	s.w.diskFault = true
	for range 20 {
		s.a.disk.shortReads = 1
		s.read(s.a, 8)
	}
	s.complete()
	c := s.w.cover
	if ends, on := c.Other["fault short-read-ends"], c.Other["fault short-read-goes-on"]; ends == 0 || on == 0 || c.Table()["report repaired"] != ends {
		t.Fatalf("%d reads ended short, %d went on, %d were repaired", ends, on, c.Table()["report repaired"])
	}
}

// TestScenarioClockLeaps: a machine slept for minutes and its clock says so at once.
func TestScenarioClockLeaps(t *testing.T) {
	s := newScript(t)
	s.pair()
	for i, n := range []*node{s.a, s.b} {
		r := s.ask(s.a, replicate.ReqWrite, 20+i)
		s.until("it to be under way", func() bool { return s.a.busy > 0 })
		s.do(func() { n.leap(300 * second) })
		if err := s.await(r); err != replicate.OK {
			t.Fatalf("a write under way ended in error %d", err)
		}
		s.connected()
		s.complete()
	}
	s.demote(s.a)
	s.a.leap(second)
	s.promote(s.b)
	s.complete()
	if s.splits > 0 {
		t.Fatal("split-brain was reported")
	}
}

// TestScenarioLateWay: what B says is on its way for minutes: A gives the connection
// up, and once the way is as it was all comes to order.
func TestScenarioLateWay(t *testing.T) {
	s := newScript(t)
	s.pair()
	s.w.link.late[1] = 180 * second
	r := s.ask(s.a, replicate.ReqWrite, 30)
	old := s.a.sess
	s.until("A to give the connection up", func() bool { return s.a.sess != old })
	s.w.link.hurry()
	if err := s.await(r); err != replicate.OK {
		t.Fatalf("the write ended in error %d", err)
	}
	s.complete()
	if st := s.a.status(); st.Role != metadata.Primary || !strings.Contains(s.log.String(), "a request was not answered in time") {
		t.Fatalf("A is %s, %s", st.Role, st.Status)
	}
}
