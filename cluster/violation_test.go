package cluster

import (
	"slices"
	"strings"
	"testing"
)

// told gives the lines of the violation that was told since the last call.
func (d *desk) told() string {
	d.t.Helper()
	var all []string
	for _, e := range d.take(EffViolation) {
		all = append(all, e.Lines...)
	}
	return strings.Join(all, "\n")
}

func (d *desk) count() int { return len(d.g.Hosts()) }

func (d *desk) says(node string, s State, parts ...PartReport) {
	d.tell(Event{Kind: EvPeer, Node: node, Peer: &GroupReport{Name: "group1", State: s, Probed: true, Parts: parts}})
}

const theThreeLines = `Resource ip1 is online on rum
CurrentCount increased above 1 for failover group
WARNING: Concurrency violation!!! group="group1" hosts=(rum coke)`

// Somebody sets the address on the standby by hand.
func TestAddressAddedByHandOnTheStandby(t *testing.T) {
	for name, peer := range map[string]func(*desk){
		"by report":  func(d *desk) { d.says("coke", Online, PartReport{Name: "ip1", Kind: Address, Up: true}) },
		"by adverts": func(d *desk) { d.tell(Event{Kind: EvMaster, Node: "coke", Up: true}) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, standard(service("app"), address("ip1")))
			d.tell(Event{Kind: EvElected})
			d.pass(2 * Second)
			d.look(LookOffline)
			peer(d)
			d.pass(2 * Second)
			peer(d)
			d.is(Offline)
			d.take(EffState)
			d.look(LookOnline)
			if got := d.told(); got != theThreeLines {
				t.Errorf("told:\n%s", got)
			}
			d.did("-ip1")
			d.is(Faulted)
			if f := d.g.Fault(); f != "group1/address/ip1: it came up on rum outside the controller while the group was online on coke" {
				t.Errorf("fault %q", f)
			}
			if s := d.take(EffStanding); len(s) == 0 || s[len(s)-1].Fit {
				t.Error("it could still become master")
			}
			// Again, while it is faulted.
			peer(d)
			d.pass(2 * Second)
			d.look(LookOnline)
			d.did("-ip1")
			if got := d.told(); got != theThreeLines {
				t.Errorf("told the second time:\n%s", got)
			}
			d.tell(Event{Kind: EvOrder, Order: OrderClear})
			d.is(Offline)
			if s := d.take(EffStanding); len(s) == 0 || !s[len(s)-1].Fit {
				t.Error("cleared, it takes no part")
			}
		})
	}
}

// The node that is rightful says the same, and does nothing.
func TestRightfulNodeHearsOfAViolation(t *testing.T) {
	c := standard(service("app"), address("ip1"))
	c.Node = "coke"
	d := newDesk(t, c)
	d.online()
	// What it found before it was heard here is none of today's.
	says := func(s State, n uint8, p PartReport) {
		p.Name, p.Kind = "ip1", Address
		d.tell(Event{Kind: EvPeer, Node: "rum", Peer: &GroupReport{Name: "group1", State: s, Violations: n, Parts: []PartReport{p}}})
	}
	says(Offline, 255, PartReport{Found: true})
	if got := d.told(); got != "" {
		t.Errorf("told:\n%s", got)
	}
	says(Partial, 1, PartReport{Stray: true, Found: true})
	if got := d.told(); got != theThreeLines {
		t.Errorf("told:\n%s", got)
	}
	if d.count() != 2 {
		t.Errorf("CurrentCount is %d", d.count())
	}
	says(Partial, 1, PartReport{Stray: true, Found: true})
	d.pass(peerDoubt)
	says(Faulted, 1, PartReport{Fault: true, Found: true})
	says(Offline, 1, PartReport{Found: true})
	says(Offline, 0, PartReport{}) // it was started again
	d.pass(30 * Second)
	if got := d.told(); got != "" || d.count() != 1 {
		t.Errorf("told again, count %d:\n%s", d.count(), got)
	}
	d.did("")
	d.is(Online)
	// Once more is told once more, although it is over when it is heard.
	says(Faulted, 1, PartReport{Found: true})
	if got := d.told(); got != theThreeLines {
		t.Errorf("told the second time:\n%s", got)
	}
	// It does not hear us, and does not know that it is in the wrong.
	says(Partial, 1, PartReport{Stray: true})
	d.pass(peerDoubt)
	if got := d.told(); got != theThreeLines {
		t.Errorf("told the third time:\n%s", got)
	}
}

// Without another node that has it there is no violation: it is shown, and left.
func TestAddressAddedByHandWhereTheGroupIsNowhere(t *testing.T) {
	d := newDesk(t, standard(service("app"), address("ip1")))
	d.tell(Event{Kind: EvElected})
	d.pass(2 * Second)
	d.look(LookOnline)
	d.is(Partial)
	d.did("")
	if d.count() != 1 || d.told() != "" || d.g.Fault() != "" {
		t.Errorf("count %d, fault %q", d.count(), d.g.Fault())
	}
	// Elected, it goes up as ever.
	d.tell(Event{Kind: EvElected, Master: true})
	d.did("+app0 +ip10")
	d.is(Online)
	d.tell(Event{Kind: EvElected})
	d.did("-ip1 -app")
	// It stands there when the group goes up on the other node: this one came up
	// outside the controller, so it is in the wrong although it came first.
	d.pass(2 * Second)
	d.look(LookOnline)
	d.tell(Event{Kind: EvMaster, Node: "coke", Up: true})
	d.did("-ip1")
	d.is(Faulted)
	if got := d.told(); got != theThreeLines {
		t.Errorf("told:\n%s", got)
	}
	// It goes away by itself: nothing is left of it.
	d.tell(Event{Kind: EvOrder, Order: OrderClear})
	d.pass(10 * Second)
	d.look(LookOnline)
	d.is(Partial)
	d.pass(2 * Second)
	d.look(LookOffline)
	d.is(Offline)
}

// Both came up outside the controller: the second one goes.
func TestOfTwoViolatorsTheSecondGoes(t *testing.T) {
	stray := PartReport{Name: "ip1", Kind: Address, Stray: true}
	d := newDesk(t, standard(address("ip1")))
	d.tell(Event{Kind: EvElected})
	d.pass(2 * Second)
	d.look(LookOnline)
	d.pass(Second)
	d.says("coke", Partial, stray)
	d.pass(peerDoubt)
	d.did("")
	if got := d.told(); !strings.HasPrefix(got, "Resource ip1 is online on coke\n") || !strings.HasSuffix(got, "hosts=(coke rum)") {
		t.Errorf("told:\n%s", got)
	}
	d = newDesk(t, standard(address("ip1")))
	d.tell(Event{Kind: EvElected})
	d.says("coke", Partial, stray)
	d.pass(2 * Second)
	d.look(LookOnline)
	d.did("-ip1")
	d.is(Faulted)
}

func TestFrozenGroupOnlyTellsOfAViolation(t *testing.T) {
	d := newDesk(t, standard(address("ip1")))
	d.tell(Event{Kind: EvElected})
	d.tell(Event{Kind: EvOrder, Order: OrderFreeze})
	d.says("coke", Online)
	d.pass(2 * Second)
	d.look(LookOnline)
	if d.told() != theThreeLines {
		t.Error("nothing was told")
	}
	d.did("")
	d.is(Partial)
	d.says("coke", Online)
	d.tell(Event{Kind: EvOrder, Order: OrderUnfreeze})
	d.did("-ip1")
	d.is(Faulted)
}

// Where nothing is up nothing is in violation, although the group is called PARTIAL.
func TestFrozenGroupOfWhichNothingIsUp(t *testing.T) {
	app := service("app")
	app.Optional = true
	d := newDesk(t, standard(app, address("ip1")))
	d.fails["+app"] = "no"
	d.tell(Event{Kind: EvElected, Master: true})
	d.tell(Event{Kind: EvOrder, Order: OrderFreeze})
	d.tell(Event{Kind: EvElected})
	d.g.parts[1].is = down
	d.says("coke", Online)
	d.pass(peerDoubt)
	d.is(Partial)
	if got := d.told(); got != "" {
		t.Errorf("told:\n%s", got)
	}
}

// Storage that is primary by hand is told of, never demoted.
func TestStorageInViolationIsNotDemoted(t *testing.T) {
	c := standard(Part{Name: "group1/resource/data", Kind: Resource, UpLimit: Second, DownLimit: Second, OffInterval: 2 * Second}, address("ip1"))
	d := newDesk(t, c)
	d.tell(Event{Kind: EvElected})
	d.says("coke", Online)
	d.pass(2 * Second)
	for _, e := range d.take(EffSeek) {
		d.tell(Event{Kind: EvLooked, Op: e.Op, Look: []Look{LookOnline, LookOffline}[e.Part]})
	}
	d.did("")
	if s := d.take(EffSuspend); len(s) != 1 || s[0].Part != 0 {
		t.Errorf("its I/O is not to be held: %+v", s)
	}
	if got := d.told(); !strings.HasPrefix(got, "Resource data is online on rum\n") {
		t.Errorf("told:\n%s", got)
	}
	d.is(Partial)
	// It is a fault that waits for a person, whatever becomes of the replica.
	d.pass(2 * Second)
	d.look(LookOffline)
	d.tell(Event{Kind: EvStanding, Fit: true, Reason: "better"})
	d.pass(90 * Second)
	d.is(Faulted)
}

// What the other said before a switch is no violation; two that go on saying so are.
func TestReportFromBeforeASwitch(t *testing.T) {
	d := newDesk(t, standard(service("app"), address("ip1")))
	d.tell(Event{Kind: EvElected})
	d.says("coke", Online)
	d.tell(Event{Kind: EvMaster, Node: "coke", Up: true})
	d.tell(Event{Kind: EvElected, Master: true})
	d.is(Online)
	d.pass(Second)
	d.says("coke", Stopping)
	d.pass(30 * Second)
	if got := d.told(); got != "" {
		t.Errorf("told:\n%s", got)
	}
	d.says("coke", Online, PartReport{Name: "app", Kind: Service, Up: true})
	d.pass(peerDoubt)
	if got := d.told(); !strings.HasPrefix(got, "Resource app is online on coke\n") {
		t.Errorf("told:\n%s", got)
	}
	d.is(Online) // the election ends it
}

// Who was heard as master before this node was elected is none any more.
func TestAdvertFromBeforeASwitch(t *testing.T) {
	d := newDesk(t, standard(service("app"), address("ip1")))
	d.tell(Event{Kind: EvElected})
	d.tell(Event{Kind: EvMaster, Node: "coke", Up: true})
	d.online()
	if got := d.told(); got != "" || d.count() != 1 {
		t.Errorf("count %d, told:\n%s", d.count(), got)
	}
}

// An address that was set by hand is no violation on the node that is elected next,
// although the last report of the one before says otherwise.
func TestStrayOfTheNextMaster(t *testing.T) {
	d := newDesk(t, standard(service("app"), address("ip1")))
	d.tell(Event{Kind: EvElected})
	d.pass(2 * Second)
	d.look(LookOnline)
	d.g.master = true // elected at the instant of the report
	d.says("coke", Online)
	d.did("+app0 +ip10")
	if got := d.told(); got != "" || d.g.Fault() != "" {
		t.Errorf("fault %q, told:\n%s", d.g.Fault(), got)
	}
}

// Another master is heard while this node has the group: adverts do not lie in wait.
func TestAnotherMasterIsAViolation(t *testing.T) {
	d := newDesk(t, standard(service("app"), address("ip1")))
	d.online()
	d.tell(Event{Kind: EvMaster, Node: "coke", Up: true})
	if got := d.told(); got != strings.ReplaceAll(strings.ReplaceAll(theThreeLines, "on rum", "on coke"), "(rum coke)", "(coke rum)") {
		t.Errorf("told:\n%s", got)
	}
	d.tell(Event{Kind: EvMaster, Node: "coke"}) // goodbye
	if d.count() != 1 {
		t.Errorf("count %d", d.count())
	}
	// Strangers are told of once, whatever they call themselves, and leave no trace.
	for i := range 100 {
		d.tell(Event{Kind: EvMaster, Node: "192.0.2." + string(rune('a'+i%26)), Up: true})
	}
	if got := d.told(); !strings.HasSuffix(got, "hosts=(192.0.2.a rum)") || strings.Count(got, "WARNING") != 1 || len(d.g.peers) != 2 {
		t.Errorf("%d peers; told:\n%s", len(d.g.peers), got)
	}
	d.is(Online)
}

// A parallel group may be up everywhere.
func TestParallelGroupIsNoViolation(t *testing.T) {
	c := standard(service("app"))
	c.Parallel = true
	d := newDesk(t, c)
	d.online()
	d.says("coke", Online)
	d.pass(5 * Second)
	if got := d.told(); got != "" || d.count() != 2 {
		t.Errorf("count %d, told:\n%s", d.count(), got)
	}
}

func TestFaultedEverywhere(t *testing.T) {
	app := service("app")
	app.RestartLimit = 0
	d := newDesk(t, standard(app))
	d.online()
	d.pass(5 * Second)
	d.look(LookOffline)
	d.is(Faulted)
	if len(d.take(EffCritical)) != 0 {
		t.Error("the other node may have it")
	}
	d.says("coke", Faulted)
	d.says("coke", Faulted)
	if c := d.take(EffCritical); len(c) != 1 || !strings.Contains(c[0].Reason, "group1/service/app") {
		t.Errorf("%+v", c)
	}
	d.tell(Event{Kind: EvElected, Master: true}) // nothing helps but a person
	d.did("-app")
	d.tell(Event{Kind: EvOrder, Order: OrderClear})
	d.did("+app0")
	d.is(Online)
}

func TestAutoDisabled(t *testing.T) {
	d := &desk{t: t, g: NewGroup(standard(service("app"))), now: 1}
	if !d.g.AutoDisabled() || d.g.Probed() {
		t.Error("nothing was looked at yet")
	}
	d.tell(Event{Kind: EvProbed})
	d.tell(Event{Kind: EvStanding, Fit: true, Reason: "well"})
	d.tell(Event{Kind: EvElected})
	if d.g.AutoDisabled() {
		t.Error("everything was looked at")
	}
	d.take(EffStanding)
	d.tell(Event{Kind: EvJeopardy, Up: true, Reason: "coke was lost while one link was left"})
	if s := d.take(EffStanding); !d.g.AutoDisabled() || len(s) != 1 || s[0].Fit {
		t.Errorf("in jeopardy: %+v", s)
	}
	d.tell(Event{Kind: EvOrder, Order: OrderClear})
	if s := d.take(EffStanding); d.g.AutoDisabled() || len(s) != 1 || !s[0].Fit {
		t.Errorf("a person says that it may: %+v", s)
	}
	d.tell(Event{Kind: EvJeopardy, Up: true, Reason: "coke was lost while one link was left"})
	d.take(EffStanding)
	d.tell(Event{Kind: EvJeopardy})
	if s := d.take(EffStanding); d.g.AutoDisabled() || len(s) != 1 || !s[0].Fit {
		t.Errorf("it is heard again: %+v", s)
	}
}

// What a machine reports is what the other one understands.
func TestReportsTravel(t *testing.T) {
	c := standard(service("app"), address("ip1"))
	rum := newDesk(t, c)
	c.Node = "coke"
	coke := newDesk(t, c)
	coke.online()
	rum.tell(Event{Kind: EvElected})
	send := func(from, to *desk, name string) {
		t.Helper()
		r := Report{Groups: []GroupReport{from.g.Report()}}
		got, err := ParseReport(r.Append(nil))
		if err != nil || len(got.Groups) != 1 {
			t.Fatal(err)
		}
		to.tell(Event{Kind: EvPeer, Node: name, Peer: &got.Groups[0]})
	}
	rum.pass(2 * Second)
	rum.tell(Event{Kind: EvOrder, Order: OrderFreeze}) // it stays long enough to be reported
	send(coke, rum, "coke")
	send(rum, coke, "rum")
	rum.look(LookOnline)
	send(rum, coke, "rum")
	if a, b := rum.told(), coke.told(); a != theThreeLines || b != theThreeLines {
		t.Errorf("told on rum:\n%s\non coke:\n%s", a, b)
	}
	rum.tell(Event{Kind: EvOrder, Order: OrderUnfreeze})
	rum.did("-ip1")
	send(rum, coke, "rum")
	// The count of violations goes round without passing the 0 of a start.
	rum.g.violations = 255
	send(rum, coke, "rum")
	coke.told()
	send(coke, rum, "coke")
	rum.pass(2 * Second)
	rum.look(LookOnline)
	send(rum, coke, "rum")
	if got := coke.told(); got != theThreeLines {
		t.Errorf("told on coke after 255 violations:\n%s", got)
	}
	if coke.count() != 1 {
		t.Errorf("count %d", coke.count())
	}
	coke.is(Online)
	report := coke.g.Report()
	if names := report.up(); !slices.Equal(names, []string{"app", "ip1"}) {
		t.Errorf("up on coke: %v", names)
	}
}
