package cluster

import (
	"strings"
	"testing"
)

func TestServiceIsRestartedUpToItsLimit(t *testing.T) {
	d := newDesk(t, standard(service("db"), service("app"), address("ip1")))
	d.online()
	die := func() {
		t.Helper()
		d.pass(5 * Second)
		for _, e := range d.take(EffLook) {
			look := LookOnline
			if e.Part == 0 {
				look = LookOffline
			}
			d.tell(Event{Kind: EvLooked, Op: e.Op, Look: look})
		}
	}
	for _, want := range []string{"-db +db1", "-db +db2", "-db +db3"} {
		die()
		d.did(want)
		d.is(Online)
	}
	die()
	d.did("-ip1 -app -db")
	d.is(Faulted)
	if got := len(d.take(EffRestart)); got != 3 {
		t.Errorf("%d restarts were told", got)
	}
	if s := d.take(EffStanding); len(s) == 0 || s[len(s)-1].Fit {
		t.Error("a faulted node still wants to be master")
	}
	// It counts from the start after it was cleared, and after it was stable.
	d.tell(Event{Kind: EvOrder, Order: OrderClear})
	d.did("+db0 +app0 +ip10")
	die()
	d.did("-db +db1")
	for range 12 {
		d.pass(5 * Second)
		d.look(LookOnline)
	}
	die()
	d.did("-db +db1")
}

func TestRestartThatFailsIsTriedAgain(t *testing.T) {
	app := service("app")
	d := newDesk(t, standard(app, address("ip1")))
	d.online()
	d.fails["+app"] = "no"
	d.pass(5 * Second)
	d.look(LookOffline)
	d.did("-app +app1")
	d.is(Partial)
	d.pass(restartPause)
	d.did("-app +app2")
	delete(d.fails, "+app")
	d.pass(restartPause)
	d.did("-app +app3")
	d.is(Online)
	// A first start is not tried again: the other node may do better.
	d.tell(Event{Kind: EvElected})
	d.does = nil
	d.fails["+app"] = "no"
	d.tell(Event{Kind: EvElected, Master: true})
	d.did("+app0 -app")
	d.is(Faulted)
}

func TestRestartGivesWayToASwitch(t *testing.T) {
	d := newDesk(t, standard(service("app"), address("ip1")))
	d.online()
	d.hangs["+app"] = true
	d.pass(5 * Second)
	d.look(LookOffline)
	d.did("-app +app1")
	d.tell(Event{Kind: EvOrder, Order: OrderSwitch, ID: 7})
	d.did("-ip1 -app")
	d.is(Offline)
	if a := d.take(EffAnswer); len(a) != 1 || a[0].Err != "" {
		t.Errorf("the order's answer: %+v", a)
	}
	delete(d.hangs, "+app")
	d.tell(Event{Kind: EvElected})
	d.tell(Event{Kind: EvElected, Master: true})
	d.did("+app0 +ip10")
}

// The stop of a restart is under way when the group is to go: it is that of the way down.
func TestSwitchDuringTheStopOfARestart(t *testing.T) {
	d := newDesk(t, standard(service("app"), address("ip1")))
	d.online()
	d.hangs["-app"] = true
	d.pass(5 * Second)
	d.look(LookOffline)
	d.tell(Event{Kind: EvElected})
	d.tell(Event{Kind: EvDone, Op: d.g.op})
	d.did("-app -ip1")
	d.is(Offline)
	d.tell(Event{Kind: EvElected, Master: true})
	d.did("+app0 +ip10")
}

func TestServiceThatCannotBeStoppedToBeRestarted(t *testing.T) {
	d := newDesk(t, standard(service("app"), address("ip1")))
	d.online()
	d.hangs["-app"] = true
	d.pass(5 * Second)
	d.look(LookOffline)
	d.pass(10 * Second) // its limit: it is killed, and tried again
	d.does = nil
	d.pass(10 * Second)
	d.is(Partial)
	if f := d.g.Fault(); !strings.Contains(f, "could not be stopped to be started again: it took longer than 10 s") {
		t.Errorf("fault %q", f)
	}
	if p := d.g.Parts(); p[1].State != "down" || p[0].State == "down" {
		t.Errorf("%+v", p)
	}
	delete(d.hangs, "-app")
	d.pass(11 * Second)
	d.is(Faulted)
}

// A switch whose stop fails says so, and the group stays PARTIAL while it is tried
// again, however often.
func TestSwitchWhoseStopFailsEndsPartial(t *testing.T) {
	d := newDesk(t, standard(service("db"), service("app"), address("ip1")))
	d.online()
	d.fails["-app"] = "it will not"
	d.tell(Event{Kind: EvOrder, Order: OrderSwitch, ID: 7})
	if a := d.take(EffAnswer); len(a) != 1 || !strings.Contains(a[0].Err, "group1/service/app could not be stopped: it will not") {
		t.Errorf("the order's answer: %+v", a)
	}
	d.did("-ip1 -app")
	d.is(Partial)
	d.take(EffState)
	d.hangs["-app"] = true
	for range 6 {
		d.pass(2 * Second)
		d.is(Partial)
	}
	if s := d.take(EffState); len(s) != 0 {
		t.Errorf("it flickers: %+v", s)
	}
	d.hangs["-app"], d.fails["-app"] = false, ""
	d.pass(30 * Second)
	d.is(Offline)
}

func TestServiceThatIsNotCritical(t *testing.T) {
	app := service("app")
	app.Optional, app.RestartLimit, app.FailFast = true, 1, true
	d := newDesk(t, standard(app, address("ip1")))
	d.fails["+app"] = "no"
	d.tell(Event{Kind: EvElected})
	d.tell(Event{Kind: EvOrder, Order: OrderTake, ID: 1})
	d.tell(Event{Kind: EvElected, Master: true})
	d.is(Partial)
	if a := d.take(EffAnswer); len(a) != 1 || a[0].Err != "" {
		t.Errorf("who ordered it up waits: %+v", a)
	}
	d.fails = map[string]string{}
	d.tell(Event{Kind: EvOrder, Order: OrderClear})
	d.is(Online)
	d.does = nil
	d.pass(5 * Second)
	d.look(LookOffline)
	d.did("-app +app1")
	d.pass(5 * Second)
	d.look(LookOffline)
	d.did("")
	d.is(Partial)
	d.tell(Event{Kind: EvOrder, Order: OrderClear})
	d.did("+app0")
	d.fails["+app"] = "no"
	d.pass(5 * Second)
	d.look(LookOffline)
	d.did("-app +app1")
	d.is(Partial)
	if d.g.Fault() != "" || len(d.take(EffFail)) != 0 {
		t.Errorf("it took the group down: %s", d.g.Fault())
	}
}

func TestWatchedDependency(t *testing.T) {
	gw := service("gateway")
	gw.Watched = true
	d := newDesk(t, standard(gw, address("ip1")))
	d.online()
	d.pass(5 * Second)
	d.look(LookOffline)
	d.did("-ip1 -gateway") // the latter does nothing
	d.is(Faulted)
	if len(d.take(EffRestart)) != 0 {
		t.Error("what is only watched cannot be started again")
	}
}

func TestFailFast(t *testing.T) {
	for name, set := range map[string]func(*Config){
		"service": func(c *Config) { c.Parts[1].FailFast = true },
		"group":   func(c *Config) { c.FailFast = true },
		"none":    func(*Config) {},
	} {
		c := standard(Part{Name: "group1/resource/data", Kind: Resource, UpLimit: Second, DownLimit: Second}, service("app"))
		c.Parts[1].RestartLimit = 1
		set(&c)
		d := newDesk(t, c)
		d.online()
		for n := range 2 {
			d.pass(5 * Second)
			d.look(LookOffline)
			if want := n == 1 && name != "none"; len(d.take(EffFail)) == 1 != want {
				t.Errorf("%s: after %d losses, TOC asked is not %v", name, n+1, want)
			}
		}
		d.is(Faulted)
		// A replica that is refused is no fault of the machine.
		d.tell(Event{Kind: EvOrder, Order: OrderClear})
		d.take(EffFail)
		d.tell(Event{Kind: EvLost, Part: 0, Err: "hastd is not running"})
		if len(d.take(EffFail)) != 0 {
			t.Errorf("%s: TOC for a replica", name)
		}
	}
}

func TestAddressThatIsTakenAwayAgainAndAgain(t *testing.T) {
	d := newDesk(t, standard(service("app"), address("ip1")))
	d.online()
	for range 3 {
		d.tell(Event{Kind: EvMended, Part: 1, Err: "it was taken away"})
		d.is(Online)
	}
	d.pass(61 * Second)
	for range 3 { // it counts from the start
		d.tell(Event{Kind: EvMended, Part: 1, Err: "it was taken away"})
	}
	d.is(Online)
	d.did("")
	d.tell(Event{Kind: EvMended, Part: 1, Err: "it was taken away"})
	d.is(Faulted)
	if f := d.g.Fault(); f != "group1/address/ip1: it was taken away, after it was put back 3 times" {
		t.Errorf("fault %q", f)
	}
}
