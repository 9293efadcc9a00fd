package seat

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"hastd/cluster/view"
)

const (
	me    view.NodeID = 0
	other view.NodeID = 1
)

// desk is a seat on node 0 with all that is so, and a clock.
type desk struct {
	t   *testing.T
	m   *Machine
	now view.Instant
	f   Facts
}

func config() Config {
	return Config{
		Self: me, Nodes: []view.NodeID{me, other}, Needs: []string{"data"},
		Names: map[view.NodeID]string{me: "alpha", other: "bravo", 2: "charlie"}, Reset: 3 * view.Second,
	}
}

// newDesk is one that joined: this node owns, has a lease, and is fit; the other one can
// have the group.
func newDesk(t *testing.T) *desk {
	d := &desk{t: t, now: 100}
	d.m = New(config(), d.now)
	d.f = Facts{View: viewOf(me, me, other), Up: true, Lease: 1 << 60, Owns: map[string]bool{"data": true}, Linked: true, Able: view.SetOf(other)}
	d.say(Join{})
	d.say(Stand{Fit: true})
	return d
}

// viewOf is a view in which a node owns, and some are in sync.
func viewOf(owner view.NodeID, in ...view.NodeID) *view.View {
	v := &view.View{Stamp: view.Stamp{Index: 7}, Resources: []view.Resource{{Name: "data", Nodes: view.SetOf(me, other), Owner: owner, InSync: view.SetOf(in...)}}}
	for id := range view.NodeID(3) {
		v.Members = append(v.Members, view.Member{ID: id, Inc: 1})
	}
	return v
}

func (d *desk) say(ev Event) { d.t.Helper(); d.want(d.m.Step(d.now, ev)) }

// look tells what is so after a time, and wants effects, shortened.
func (d *desk) look(after view.Duration, want ...string) {
	d.t.Helper()
	d.now += view.Instant(after)
	d.want(d.m.Step(d.now, d.f), want...)
}

func (d *desk) want(got []Effect, want ...string) {
	d.t.Helper()
	var list []string
	for _, e := range got {
		list = append(list, short(e))
	}
	ok := len(list) == len(want)
	for i := range min(len(list), len(want)) {
		ok = ok && strings.HasPrefix(list[i], want[i])
	}
	if !ok {
		d.t.Fatalf("at %d: %q, want %q", d.now, list, want)
	}
}

func short(e Effect) string {
	switch e := e.(type) {
	case Tell:
		if e.Master {
			return "master: " + e.Reason
		}
		return "backup: " + e.Reason
	case Appoint:
		return map[bool]string{true: "appointed", false: "not appointed"}[e.Until != 0]
	case Hand:
		return fmt.Sprintf("hand %s to %d: %s", strings.Join(e.What, " "), e.To, e.Reason)
	}
	return "reset"
}

func TestOwnerIsMaster(t *testing.T) {
	d := newDesk(t)
	d.look(0, "master: view 0.7 names this node owner", "appointed")
	d.look(view.Second)
	d.f.Lease++
	d.look(0, "appointed")
	// The lease is over: adverts and addresses with it.
	d.f.Owns, d.f.Lease, d.f.Waits = nil, 0, "nobody is heard"
	d.look(0, "backup: there is no lease: nobody is heard", "not appointed")
	d.f.Owns, d.f.Lease, d.f.Waits = map[string]bool{"data": true}, 1<<60, ""
	d.look(0, "master", "appointed")
	d.f.View, d.f.Owns = viewOf(other, me, other), nil
	d.look(0, "backup: view 0.7 gives data to node bravo", "not appointed")
	d.f.View = viewOf(view.Nobody, other)
	d.look(0)
}

func TestNothingIsDecidedBeforeItIsClear(t *testing.T) {
	d := &desk{t: t, m: New(config(), 1), now: 1}
	d.f = Facts{View: viewOf(me, me), Up: true, Owns: map[string]bool{"data": true}, Lease: 9, Linked: true}
	d.look(view.Second) // nobody joined
	d = newDesk(t)
	d.f.View, d.f.Owns, d.f.Up, d.f.Lease = nil, nil, false, 0
	d.look(view.Second) // no view
	d.f.View = viewOf(me, me)
	d.look(view.Second) // owner by an old view
	d.f.Up = true
	d.look(view.Second) // owner, and no lease yet
	d.f.View = viewOf(other, me, other)
	d.look(0, "backup")

	// An election that has not found its link is waited for.
	d = newDesk(t)
	d.f.Linked = false
	d.look(linkWait - 1)
	d.f.Linked = true
	d.look(0, "master", "appointed")
	d = newDesk(t)
	d.f.Linked = false
	d.look(linkWait, "backup: no interface")
}

// A group that is down by order goes to the other node, and comes back if that does not
// take it.
func TestResigned(t *testing.T) {
	d := newDesk(t)
	d.look(0, "master", "appointed")
	d.say(Resign{"switched by a person"})
	d.look(0, "not appointed") // it knows, and is not down yet
	d.f.Down = true
	d.look(0, "hand data to 1: switched by a person")
	d.look(giveAgain - 1)
	d.look(1, "hand data to 1")
	d.f.View, d.f.Owns, d.f.Lease = viewOf(other, me, other), nil, 0
	d.look(0)
	d.f.View, d.f.Owns, d.f.Lease = viewOf(me, me, other), map[string]bool{"data": true}, 1<<60
	d.look(0, "master", "appointed") // it was taken, and came back later

	d.say(Resign{"switched by a person"})
	d.f.Able = 0
	d.look(0, "not appointed")
	d.look(ResignFor)
	d.look(1, "master", "appointed")
}

func TestUnfitMasterLeavesOnlyToWhoCanHaveIt(t *testing.T) {
	d := newDesk(t)
	d.look(0, "master", "appointed")
	d.say(Stand{Why: "the disk failed"})
	d.look(unfitFor / 2)
	d.say(Stand{Why: "the disk failed"})
	d.look(unfitFor / 2) // it may be a moment
	d.f.Able = 0
	d.look(1) // nobody else can
	d.f.Able = view.SetOf(other)
	d.look(0, "backup: the disk failed", "not appointed")
	d.f.Able = 0
	d.look(view.Second) // it does not come back to where it failed
	d.f.Able, d.f.Down = view.SetOf(other), true
	d.look(0, "hand data to 1: the disk failed")
	d.say(Stand{Fit: true})
	d.look(0, "master", "appointed")

	// A failed group goes at once.
	d = newDesk(t)
	d.look(0, "master", "appointed")
	d.f.Faulted, d.f.Down = true, true
	d.say(Stand{Why: "the service failed"})
	d.look(0, "hand data to 1: the service failed")
}

func TestWithoutALink(t *testing.T) {
	d := newDesk(t)
	d.look(0, "master", "appointed")
	d.f.Linked = false
	d.look(0, "backup: no interface", "not appointed")
	d.f.Down = true
	d.look(0, "hand data to 1: no interface")
	// The other one cannot any more: it runs here all the same, after a while.
	d.f.Able = 0
	d.look(noLinkFor - 1)
	d.look(1, "master", "appointed")
	d.look(view.Second)

	// A master that nobody else can replace stays.
	d = newDesk(t)
	d.f.Able = 0
	d.look(0, "master", "appointed")
	d.f.Linked = false
	d.look(10 * view.Second)
}

func TestResetOfAGroupThatOutlivesItsLease(t *testing.T) {
	d := newDesk(t)
	d.look(0, "master", "appointed")
	d.f.Owns, d.f.Lease = nil, 0
	d.look(0, "backup", "not appointed")
	d.look(3*view.Second - 1)
	d.look(1, "reset")
	d.look(10 * view.Second)

	d = newDesk(t)
	d.look(0, "master", "appointed")
	d.f.Owns, d.f.Lease = nil, 0
	d.look(0, "backup", "not appointed")
	d.f.Down = true
	d.look(view.Second)
	d.f.Down = false // another life of it is none of this
	d.look(10 * view.Second)
}

// The votes hang: they say again and again what was so, and nobody takes it back.
func TestLeaseThatIsOverIsNone(t *testing.T) {
	d := newDesk(t)
	d.f.Lease = d.now + view.Instant(3*view.Second)
	d.look(0, "master", "appointed")
	d.look(3*view.Second - 1)
	d.look(1, "backup: there is no lease", "not appointed")
	d.look(3*view.Second, "reset")

	// One that is down in time is left alone.
	d = newDesk(t)
	d.f.Lease = d.now + view.Instant(3*view.Second)
	d.look(0, "master", "appointed")
	d.look(3*view.Second, "backup: there is no lease", "not appointed")
	d.f.Down = true
	d.look(10 * view.Second)
}

// The others count from the end of the lease, not from when this node noticed.
func TestResetCountsFromTheEndOfTheLease(t *testing.T) {
	d := newDesk(t)
	d.f.Lease = d.now + view.Instant(3*view.Second)
	d.look(0, "master", "appointed")
	d.f.Owns, d.f.Lease = nil, 0
	d.look(5*view.Second, "backup", "not appointed") // it stood still
	d.look(view.Second - 1)
	d.look(1, "reset")

	// What was taken before the lease was over counts from then.
	d = newDesk(t)
	d.f.Lease = d.now + view.Instant(3*view.Second)
	d.look(0, "master", "appointed")
	d.f.View, d.f.Owns, d.f.Lease = viewOf(other, me, other), nil, 0
	d.look(view.Second, "backup", "not appointed")
	d.look(3*view.Second - 1)
	d.look(1, "reset")
}

func TestTwoThingsOwnedApartComeTogether(t *testing.T) {
	cfg := config()
	cfg.Needs = []string{"data", "more"}
	d := newDesk(t)
	d.m = New(cfg, d.now)
	d.say(Join{})
	d.say(Stand{Fit: true})
	both := func(first, second view.NodeID) *view.View {
		v := viewOf(first, me, other)
		v.Resources = append(v.Resources, view.Resource{Name: "more", Owner: second, InSync: view.SetOf(me, other)})
		return v
	}
	d.f.View, d.f.Owns, d.f.Down = both(other, me), map[string]bool{"more": true}, true
	d.look(0, "backup: view 0.7 gives data to node bravo", "hand more to 1: the group's first")
	d.f.View, d.f.Owns = both(me, other), map[string]bool{"data": true}
	d.look(giveAgain) // the other one gives
}

func TestSuccessor(t *testing.T) {
	leaving, gone := viewOf(me, me, other), viewOf(me, me, other)
	leaving.Members[1].Leaving = true
	gone.Members = slices.Delete(gone.Members, 1, 2)
	cfg := config()
	for _, c := range []struct {
		view *view.View
		able view.Set
		why  string
	}{
		{viewOf(me, me, other), view.SetOf(other), ""},
		{viewOf(me, me, other), 0, "node bravo says that it cannot take it"},
		{viewOf(me, me), view.SetOf(other), "node bravo is not in sync of data"},
		{leaving, view.SetOf(other), "node bravo is leaving"},
		{gone, view.SetOf(other), "node bravo is not a member of view 0.7"},
		{nil, view.SetOf(other), "no view of the cluster is known"},
	} {
		why := cfg.Unable(c.view, c.able)
		to, ok := cfg.Successor(c.view, c.able)
		if why != c.why || ok != (why == "") || ok && to != other {
			t.Errorf("%q, to %v %v; want %q", why, to, ok, c.why)
		}
	}
	cfg.Nodes = []view.NodeID{me}
	if why := cfg.Unable(viewOf(me, me), 0); why != "it has no other node" {
		t.Error(why)
	}
}
