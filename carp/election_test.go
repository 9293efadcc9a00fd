package carp

import (
	"net/netip"
	"strings"
	"testing"
)

var (
	self  = netip.MustParseAddr("10.0.0.1")
	other = netip.MustParseAddr("10.0.0.2")
)

// trial is one machine that a test drives.
type trial struct {
	t   *testing.T
	m   *Machine
	now Instant
	out []Effect
}

func (x *trial) do(d Duration, ev Event) *trial {
	x.now = x.now.add(d)
	x.out = x.m.Step(x.now, ev, nil)
	return x
}

// sleepless lets time pass with all its timers.
func (x *trial) sleepless(d Duration) {
	end := x.now.add(d)
	for {
		at, ok := x.m.Deadline()
		if !ok || at > end {
			break
		}
		x.do(Duration(max(at-x.now, 0)), Event{Kind: EvTick})
	}
	x.now = end
}

func (x *trial) is(s State) {
	x.t.Helper()
	if x.m.State() != s {
		x.t.Fatalf("the state is %v, want %v", x.m.State(), s)
	}
}

func (x *trial) sent() (adverts []Advert) {
	for _, e := range x.out {
		if e.Kind == EffSend {
			adverts = append(adverts, e.Advert)
		}
	}
	return adverts
}

func (x *trial) reason() string {
	for _, e := range x.out {
		if e.Kind == EffState {
			return e.From.String() + " -> " + e.To.String() + " (" + e.Reason + ")"
		}
	}
	return ""
}

func started(t *testing.T, m *Machine) *trial {
	x := &trial{t: t, m: m, now: 1e12}
	x.do(0, Event{Kind: EvStanding, Fit: true})
	x.do(0, Event{Kind: EvLink, Up: true})
	x.do(0, Event{Kind: EvStart})
	return x
}

func master(t *testing.T, m *Machine) *trial {
	x := started(t, m)
	x.sleepless(m.cfg.StartDelay + 2*m.MasterDown())
	x.is(Master)
	return x
}

func TestStartDelayCountsFromTheLink(t *testing.T) {
	x := started(t, NewCARP(Config{Self: self, Advbase: 1, StartDelay: 5 * Second}))
	x.do(4*Second, Event{Kind: EvLink})
	x.do(Second, Event{Kind: EvLink, Up: true})
	x.do(5*Second-1, Event{Kind: EvTick}).is(Init)
	x.do(1, Event{Kind: EvTick}).is(Backup)
	if r := x.reason(); r != "INIT -> BACKUP (started)" {
		t.Error(r)
	}
	x.do(3*Second-1, Event{Kind: EvTick}).is(Backup)
	x.do(1, Event{Kind: EvTick}).is(Master)
	if r := x.reason(); r != "BACKUP -> MASTER (master down)" {
		t.Error(r)
	}
	if a := x.sent(); len(a) != 1 || a[0].Every != Second {
		t.Errorf("sent %+v", a)
	}
}

// A master is judged by what it says itself, not by what another one said before it.
func TestMasterGoesByItsOwnPace(t *testing.T) {
	x := started(t, NewVRRP(Config{Self: self, Priority: 200, Interval: Second, DeadRatio: 3, Preempt: true}))
	x.do(0, Event{Kind: EvHeard, Advert: Advert{From: other, Every: 10 * Second, Priority: 250}})
	x.is(Backup)
	x.sleepless(60 * Second)
	x.is(Master)
	if d := Duration(x.m.Stands() - x.now); d > 4*Second {
		t.Errorf("it stands for %d ms without a step", d/Millisecond)
	}
	x.do(20*Second, Event{Kind: EvTick}).is(Backup)
	if a := x.sent(); len(a) != 0 {
		t.Errorf("it stood still for 20 s, and said %+v", a)
	}
}

// A backup leaves a master alone that is not worse (RFC 9568, 6.4.2; carp(4) of the BSDs).
// Of two that are masters at once the one with the lower address goes.
func TestEqualMasterIsNotPreempted(t *testing.T) {
	low := netip.MustParseAddr("10.0.0.0")
	for name, make := range map[string]func(Config) *Machine{"vrrp": NewVRRP, "carp": NewCARP} {
		cfg := Config{Self: self, Priority: 200, Interval: Second, Advbase: 1, Preempt: true}
		x := started(t, make(cfg))
		for range 8 {
			x.do(Second, Event{Kind: EvHeard, Advert: Advert{From: low, Every: Second, Priority: 200}})
			if r := x.reason(); r != "" && r != "INIT -> BACKUP (started)" {
				t.Fatalf("%s: %s", name, r)
			}
		}
		x = master(t, make(cfg))
		x.do(0, Event{Kind: EvHeard, Advert: Advert{From: low, Every: Second, Priority: 200}}).is(Master)
		x.do(0, Event{Kind: EvHeard, Advert: Advert{From: other, Every: Second, Priority: 200}}).is(Backup)
		x.do(0, Event{Kind: EvHeard, Advert: Advert{From: other, Every: 2 * Second, Priority: 199}})
		x.sleepless(5 * Second)
		x.is(Master)
	}
}

func TestUnfitNodeNeverBecomesMaster(t *testing.T) {
	x := started(t, NewVRRP(Config{Self: self, Priority: 255, Interval: Second}))
	x.do(0, Event{Kind: EvTick}).is(Master) // whose address it is
	x.do(0, Event{Kind: EvStanding, Reason: "the replica is behind"}).is(Backup)
	if a := x.sent(); len(a) != 1 || !a[0].Leaving || a[0].Priority != 0 {
		t.Errorf("said %+v when it left", a)
	}
	x.do(Second, Event{Kind: EvTake}).is(Backup)
	x.sleepless(1000 * Second)
	x.is(Backup)
	x.do(0, Event{Kind: EvStanding, Fit: true}).is(Backup)
	x.sleepless(2 * x.m.MasterDown())
	x.is(Master)
}

func TestGracefulStopHandsOverAtOnce(t *testing.T) {
	for _, make := range []func(Config) *Machine{NewCARP, NewVRRP} {
		a := master(t, make(Config{Self: self, Advbase: 1, Priority: 254, Interval: Second}))
		b := started(t, make(Config{Self: other, Advbase: 1, Advskew: 100, Priority: 154, Interval: Second}))
		b.sleepless(Second)
		b.is(Backup)
		a.do(Second/2, Event{Kind: EvStop}).is(Init)
		last := a.sent()
		if len(last) != 1 || !last[0].Leaving {
			t.Fatalf("said %+v when it stopped", last)
		}
		b.do(0, Event{Kind: EvHeard, Advert: last[0]})
		b.sleepless(400 * Millisecond)
		b.is(Master)
	}
}

func TestPreemption(t *testing.T) {
	slow := Advert{From: other, Every: CARPEvery(1, 100)}
	x := started(t, NewCARP(Config{Self: self, Advbase: 1, Preempt: true, PreemptDelay: 10 * Second}))
	for range 9 {
		x.do(Second, Event{Kind: EvHeard, Advert: slow}).is(Backup)
	}
	x.do(Second, Event{Kind: EvHeard, Advert: slow}).is(Master)
	if r := x.reason(); !strings.Contains(r, "preempting a slower master: 10.0.0.2") {
		t.Error(r)
	}
	// Demoted it is the slower one itself.
	x.do(0, Event{Kind: EvStanding, Fit: true, Demotion: 240})
	x.do(0, Event{Kind: EvHeard, Advert: slow}).is(Backup)
}

// Who gave up being master by order, or because it could not, does not take it back
// by preemption: the switch would be undone at once.
func TestWhoResignedDoesNotPreempt(t *testing.T) {
	slow := Advert{From: other, Every: CARPEvery(1, 100)}
	x := master(t, NewCARP(Config{Self: self, Advbase: 1, Preempt: true}))
	x.do(0, Event{Kind: EvResign, Reason: "switched by hand"}).is(Backup)
	x.do(4*Second, Event{Kind: EvTick}).is(Backup) // the other is to be first
	for range 100 {
		x.do(Second, Event{Kind: EvHeard, Advert: slow}).is(Backup)
	}
	x.sleepless(4 * Second) // the other died
	x.is(Master)
}

// A master that stood still steps down without a word: it has been replaced. A
// backup that did first listens.
func TestSleepersBelieveNothing(t *testing.T) {
	x := master(t, NewCARP(Config{Self: self, Advbase: 1}))
	x.do(30*Second, Event{Kind: EvTick}).is(Backup)
	if len(x.sent()) != 0 {
		t.Error("it advertised as master after it had stood still")
	}
	if r := x.reason(); !strings.Contains(r, "stood still") {
		t.Error(r)
	}
	// The others have waited since its last packet, not since the next was due.
	x = master(t, NewCARP(Config{Self: self, Advbase: 1}))
	x.sleepless(0)
	at, _ := x.m.Deadline()
	x.do(Duration(at-x.now)+2*Second, Event{Kind: EvTick}).is(Backup)
	x = master(t, NewCARP(Config{Self: self, Advbase: 1}))
	x.do(30*Second, Event{Kind: EvHeard, Advert: Advert{From: other, Every: CARPEvery(1, 100)}}).is(Backup)
	x = started(t, NewCARP(Config{Self: self, Advbase: 1}))
	x.sleepless(Second)
	x.do(30*Second, Event{Kind: EvTick}).is(Backup)
	x.do(Millisecond, Event{Kind: EvHeard, Advert: Advert{From: other, Every: CARPEvery(1, 100)}}).is(Backup)
	x.do(2999*Millisecond, Event{Kind: EvTick}).is(Backup)
	x.do(Millisecond, Event{Kind: EvTick}).is(Master)
}

func TestMasterDefendsItself(t *testing.T) {
	x := master(t, NewCARP(Config{Self: self, Advbase: 1}))
	x.sleepless(5 * Second)
	announced := 0
	for range 1000 {
		x.do(Millisecond, Event{Kind: EvHeard, Advert: Advert{From: other, Every: CARPEvery(1, 100)}}).is(Master)
		for _, e := range x.out {
			if e.Kind == EffAnnounce {
				announced++
			}
		}
	}
	if announced < 1 || announced > 2 {
		t.Errorf("it announced itself %d times in a second", announced)
	}
	x.do(0, Event{Kind: EvHeard, Advert: Advert{From: other, Every: Second}}).is(Backup) // equal, and the higher address
}

// A backup of VRRP goes by the pace that the master says (RFC 9568, 6.1).
func TestVRRPBackupTakesTheMastersPace(t *testing.T) {
	x := started(t, NewVRRP(Config{Self: self, Priority: 128, Interval: 100 * Millisecond}))
	x.do(0, Event{Kind: EvHeard, Advert: Advert{From: other, Every: 2 * Second, Priority: 200}})
	if d := x.m.MasterDown(); d != 7*Second {
		t.Errorf("master down is %d ms, want 3 intervals of 2 s and 128/256 of one", d/Millisecond)
	}
	x.do(7*Second-1, Event{Kind: EvTick}).is(Backup)
	x.do(1, Event{Kind: EvTick}).is(Master)
}

// A group with addresses of both families advertises in both, and the order of two
// nodes' addresses may differ between them. Equals go by the family of Self alone.
func TestEqualsDecideInOneFamily(t *testing.T) {
	for _, make := range []func(Config) *Machine{NewCARP, NewVRRP} {
		equal := Advert{From: netip.MustParseAddr("fe80::9"), Every: Second, Priority: 100}
		x := master(t, make(Config{Self: other, Advbase: 1, Priority: 100, Interval: Second, Preempt: true}))
		x.do(Millisecond, Event{Kind: EvHeard, Advert: equal}).is(Master)
		lower := equal
		lower.From = self
		x.do(Millisecond, Event{Kind: EvHeard, Advert: lower}).is(Master)
		y := started(t, make(Config{Self: self, Advbase: 1, Priority: 100, Interval: Second, Preempt: true}))
		for range 20 {
			y.do(Second, Event{Kind: EvHeard, Advert: equal}).is(Backup)
		}
	}
}

// A master's last packet that is heard while this node is unfit counts when it
// becomes fit a moment later; not after the time in which a silent master is dead
// anyway, and not once another master was heard.
func TestWhoBecomesFitSoonRemembersWhoLeft(t *testing.T) {
	for _, make := range []func(Config) *Machine{NewCARP, NewVRRP} {
		backup := func() *trial {
			x := started(t, make(Config{Self: self, Advbase: 1, Priority: 200, Interval: Second}))
			x.do(0, Event{Kind: EvStanding, Reason: "the peer is not connected"})
			x.do(Second, Event{Kind: EvHeard, Advert: Advert{From: other, Every: Second, Priority: 254}}).is(Backup)
			x.do(Second/2, Event{Kind: EvHeard, Advert: Advert{From: other, Every: Second, Leaving: true}}).is(Backup)
			return x
		}
		x := backup()
		x.do(Second, Event{Kind: EvStanding, Fit: true}).is(Master)
		if r := x.reason(); r != "BACKUP -> MASTER (master down)" {
			t.Error(r)
		}
		x = backup()
		x.do(x.m.MasterDown(), Event{Kind: EvStanding, Fit: true}).is(Backup)
		x.do(x.m.MasterDown()-1, Event{Kind: EvTick}).is(Backup)
		x.do(1, Event{Kind: EvTick}).is(Master)
		x = backup()
		x.do(Second/2, Event{Kind: EvHeard, Advert: Advert{From: other, Every: Second, Priority: 254}}).is(Backup)
		x.do(Second/2, Event{Kind: EvStanding, Fit: true}).is(Backup)
	}
}
