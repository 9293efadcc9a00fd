package member

import (
	"testing"

	"hastd/cluster/lease"
	"hastd/cluster/view"
)

// A cluster of two nodes and a witness with a network that loses nothing, and a hastd
// on each node that takes every grant at once.
type cluster struct {
	t     *testing.T
	now   view.Instant
	m     []*Machine
	down  view.Set
	told  []map[string]Grant
	own   []map[string]bool
	saved []*view.State
	queue []func()
	deaf  view.Set // nodes whose hastd takes nothing
	first view.Set // whose replicas are good as configured

	cut     view.Set // two that do not hear each other
	silent  bool     // no hastd answers, whatever it does
	refuses bool     // every hastd says no when it is asked whether it may hold
	slow    bool     // such a question is on its way
	gone    view.Set // nodes without a hastd
}

const (
	step   = 50 * view.Millisecond
	leases = 3 * view.Second
)

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, now: 1, first: view.SetOf(0, 1)}
	c.begin()
	return c
}

func (c *cluster) begin() {
	for id := range view.NodeID(3) {
		c.m, c.saved = append(c.m, nil), append(c.saved, nil)
		c.told, c.own = append(c.told, map[string]Grant{}), append(c.own, map[string]bool{})
		c.start(id)
	}
}

func (c *cluster) start(id view.NodeID) {
	m, err := New(Config{
		View: view.Config{
			Self: id, Seed: uint64(id) + 1, Rejoin: view.Second,
			Nodes:     []view.NodeConfig{{ID: 0}, {ID: 1}, {ID: 2, Witness: true}},
			Resources: []view.ResourceConfig{{Name: "data", Nodes: []view.NodeID{0, 1}, First: c.first}, {Name: "logs", Nodes: []view.NodeID{0, 1}, First: c.first}},
		},
		Lease: leases, Every: view.Second / 2,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.m[id], c.down = m, c.down&^view.SetOf(id)
	c.step(id, Start{Stored: c.saved[id]})
}

func (c *cluster) step(id view.NodeID, ev Event) {
	if !c.down.Has(id) {
		c.carryOut(id, c.m[id].Step(c.now, ev))
	}
}

func (c *cluster) carryOut(id view.NodeID, effects []Effect) {
	send := func(to view.NodeID, ev Event) {
		c.queue = append(c.queue, func() {
			if !c.down.Has(id) && c.cut != view.SetOf(id, to) {
				c.step(to, ev)
			}
		})
	}
	inc := c.m[id].v.Inc()
	for _, e := range effects {
		switch e := e.(type) {
		case view.Persist:
			s := e.State
			c.saved[id] = &s
		case view.Send:
			send(e.Msg.To, view.Received(e))
		case lease.SendRenew:
			for to := range view.NodeID(3) {
				if to != id {
					send(to, Renew{From: id, Inc: inc, Number: e.Number, Round: e.Round})
				}
			}
		case lease.SendConfirm:
			send(e.To, Confirm{From: id, Inc: inc, Number: e.Number, Round: e.Round})
		case Order:
			old := c.told[id][e.Resource]
			if (c.deaf | c.gone).Has(id) {
				c.queue = append(c.queue, func() { c.step(id, Answered{Resource: e.Resource, Gone: c.gone.Has(id)}) })
				break
			}
			if c.slow && e.Grant.Adding != 0 {
				break
			}
			if e.Grant.Generation < old.Generation {
				c.t.Errorf("node %d orders generation %d after %d", id, e.Grant.Generation, old.Generation)
			}
			ok := !c.silent && !(c.refuses && e.Grant.Adding != 0)
			if ok || c.silent {
				c.told[id][e.Resource] = e.Grant
			}
			c.queue = append(c.queue, func() { c.step(id, Answered{Resource: e.Resource, OK: ok, Lost: c.silent}) })
		case Own:
			c.own[id][e.Resource] = e.On
			if g := c.told[id][e.Resource]; e.On && (!g.Owner || g.Until <= c.now) {
				c.t.Errorf("node %d may serve %s, and hastd was told %+v", id, e.Resource, g)
			}
		}
	}
}

// run lets time pass; nobody may ever serve what another one serves.
func (c *cluster) run(d view.Duration) {
	c.t.Helper()
	for end := c.now + view.Instant(d); c.now < end; c.now += view.Instant(step) {
		for id := range view.NodeID(3) {
			if !c.down.Has(id) {
				deaf := c.down | view.SetOf(id)
				if c.cut.Has(id) {
					deaf |= c.cut
				}
				c.step(id, view.Heard{Nodes: 7 &^ deaf})
				c.carryOut(id, c.m[id].Greet())
				c.step(id, Tick{})
			}
		}
		for len(c.queue) > 0 {
			do := c.queue[0]
			c.queue = c.queue[1:]
			do()
		}
		for _, name := range []string{"data", "logs"} {
			serve := 0
			for id := range 3 {
				if g := c.told[id][name]; g.Owner && g.Until > c.now {
					serve++
				}
			}
			if serve > 1 {
				c.t.Fatalf("at %d ms two nodes may serve %s: %+v, %+v", c.now/view.Instant(view.Millisecond), name, c.told[0][name], c.told[1][name])
			}
		}
	}
}

func (c *cluster) owner(name string) int {
	for id := range 3 {
		if c.own[id][name] && !c.down.Has(view.NodeID(id)) {
			return id
		}
	}
	return -1
}

// until says how long something took.
func (c *cluster) until(what string, limit view.Duration, ok func() bool) view.Duration {
	c.t.Helper()
	began := c.now
	for !ok() {
		if c.now > began+view.Instant(limit) {
			c.t.Fatalf("%s: not within %d ms; views %v, %v, %v; told %+v, %+v", what, limit/view.Millisecond, c.m[0].View(), c.m[1].View(), c.m[2].View(), c.told[0], c.told[1])
		}
		c.run(step)
	}
	return view.Duration(c.now - began)
}

func TestOwnersServeAndHandOver(t *testing.T) {
	c := newCluster(t)
	c.until("somebody serves", 5*view.Second, func() bool { return c.owner("data") == 0 && c.owner("logs") == 0 })
	g := c.told[0]["data"]
	if !g.Hold || g.Peer == 0 || c.told[1]["data"].Owner || !c.told[1]["data"].PeerOwner {
		t.Errorf("granted %+v and %+v", g, c.told[1]["data"])
	}
	c.run(10 * view.Second)
	if c.owner("data") != 0 || c.told[0]["data"].Until < c.now+view.Instant(leases)/2 {
		t.Errorf("the lease is not renewed: %+v at %d", c.told[0]["data"], c.now)
	}
	// Handed over without waiting for a lease; the other resource stays.
	c.step(0, Stopped{Resources: []string{"data"}, To: 1})
	took := c.until("it is handed over", view.Second, func() bool { return c.owner("data") == 1 })
	if took > 500*view.Millisecond || c.owner("logs") != 0 {
		t.Errorf("handed over after %d ms; logs on %d", took/view.Millisecond, c.owner("logs"))
	}
}

// A node that is lost: the other takes over when the lease is over, and no sooner.
func TestLostOwnerIsReplacedAfterItsLease(t *testing.T) {
	c := newCluster(t)
	c.until("somebody serves", 5*view.Second, func() bool { return c.owner("data") == 0 })
	c.run(2 * view.Second)
	c.down = view.SetOf(0)
	c.own[0] = map[string]bool{}
	took := c.until("the other serves", 10*view.Second, func() bool { return c.owner("data") == 1 && c.owner("logs") == 1 })
	if limit := leases + lease.Margin(leases) + view.Second; took < leases/2 || took > limit {
		t.Errorf("after %d ms, want at most %d", took/view.Millisecond, limit/view.Millisecond)
	}
	if g := c.told[1]["data"]; g.Hold || g.Peer != 0 {
		t.Errorf("granted %+v: the peer is gone", g)
	}
	// It comes back, is copied to, and counts again; who owns goes on owning.
	c.start(0)
	c.until("it is a member", 5*view.Second, func() bool { return c.told[1]["data"].Peer != 0 })
	c.step(1, Storage{Resource: "data", Told: c.told[1]["data"].Generation, Synced: c.told[1]["data"].Peer})
	c.until("it counts as in sync", 2*view.Second, func() bool { return c.told[1]["data"].Hold && c.m[1].View().Resource("data").InSync == 3 })
	if c.owner("data") != 1 {
		t.Errorf("data is on %d", c.owner("data"))
	}
}

// Writes that wait for a lost replica: a view without it is asked for.
func TestWaitingWritesAskForAViewWithoutThePeer(t *testing.T) {
	c := newCluster(t)
	c.until("somebody serves", 5*view.Second, func() bool { return c.owner("data") == 0 })
	c.step(0, Storage{Resource: "data", Told: c.told[0]["data"].Generation, Synced: c.told[0]["data"].Peer, Waits: true})
	c.until("the peer is out", 2*view.Second, func() bool { return !c.told[0]["data"].Hold })
	if c.owner("data") != 0 || c.told[0]["logs"].Hold != true {
		t.Errorf("data on %d, logs %+v", c.owner("data"), c.told[0]["logs"])
	}
}

// A hastd that is started again is told everything anew.
func TestStorageThatStartsAgainIsTold(t *testing.T) {
	c := newCluster(t)
	c.until("somebody serves", 5*view.Second, func() bool { return c.owner("data") == 0 })
	c.told[0] = map[string]Grant{}
	c.step(0, Storage{Resource: "data"})
	c.run(view.Second / 2)
	for _, name := range []string{"data", "logs"} {
		if g := c.told[0][name]; !g.Owner || g.Until <= c.now {
			t.Errorf("%s: told %+v", name, g)
		}
	}
}

// A lease runs out for a view that is not elected, and hastd is started again meanwhile:
// what it is told anew is no other view, and the lease comes back after its time.
func TestLeaseComesBackAlthoughStorageStartsAgain(t *testing.T) {
	c := newCluster(t)
	c.until("somebody serves", 5*view.Second, func() bool { return c.owner("data") == 0 })
	c.m[0].pass([]view.Effect{view.Yield{Nodes: view.SetOf(0)}})
	c.until("the lease is over", 5*view.Second, func() bool { return c.m[0].Lease() == 0 })
	c.told[0] = map[string]Grant{}
	c.step(0, Storage{Resource: "data"})
	c.until("it is back", 20*view.Second, func() bool { return c.owner("data") == 0 })
}

// A node that slept hears first that an owner renews its lease, and by then its own is
// over, and it could go on without that owner. It promised first: it does not.
func TestPromiseBindsAtOnce(t *testing.T) {
	c := newCluster(t)
	c.until("somebody serves", 5*view.Second, func() bool { return c.owner("data") == 0 && c.owner("logs") == 0 })
	c.down = view.SetOf(2)
	c.until("two are left", 10*view.Second, func() bool { return c.m[0].View().Set() == view.SetOf(0, 1) && c.m[1].View().Set() == view.SetOf(0, 1) })
	c.step(0, Stopped{Resources: []string{"data"}, To: 1})
	c.until("each owns something", 5*view.Second, func() bool { return c.owner("data") == 1 && c.owner("logs") == 0 })
	c.cut = view.SetOf(0, 1)
	c.run(view.Second)
	c.down |= view.SetOf(0)
	c.run(2 * leases)
	c.down = view.SetOf(2)
	v := c.m[0].View()
	confirmed := false
	for _, e := range c.m[0].Step(c.now, Renew{From: 1, Inc: v.Member(1).Inc, Number: v.Stamp.Number(), Round: 1000}) {
		_, ok := e.(lease.SendConfirm)
		confirmed = confirmed || ok
	}
	if now := c.m[0].View(); !confirmed || now != v {
		t.Errorf("confirmed: %v; before %v, after %v", confirmed, v, now)
	}
}

// What is handed over is taken from hastd first: nobody else hears of it before.
func TestHandedOverOnlyOnceHastdKnows(t *testing.T) {
	c := newCluster(t)
	c.until("somebody serves", 5*view.Second, func() bool { return c.owner("data") == 0 })
	c.deaf = view.SetOf(0)
	c.step(0, Stopped{Resources: []string{"data"}, To: 1})
	if c.own[0]["data"] {
		t.Error("the groups are not told at once")
	}
	c.run(view.Second)
	if v := c.m[1].View(); v.Resource("data").Owner != 0 {
		t.Errorf("handed over behind hastd's back: %v", v)
	}
	c.deaf = 0
	c.until("it is handed over", view.Second, func() bool { return c.owner("data") == 1 })
	if g := c.told[0]["data"]; g.Owner {
		t.Errorf("the old owner's hastd was told %+v", g)
	}
}

// A node that leaves gives up everything, and is no owner by any later view.
func TestLeavingNodeGivesUpEverything(t *testing.T) {
	c := newCluster(t)
	c.until("somebody serves", 5*view.Second, func() bool { return c.owner("data") == 0 && c.owner("logs") == 0 })
	c.step(0, Leave{})
	took := c.until("the other serves", 2*view.Second, func() bool { return c.owner("data") == 1 && c.owner("logs") == 1 })
	if m := c.m[1].View().Member(0); took > 500*view.Millisecond || m == nil || !m.Leaving {
		t.Errorf("after %d ms: %v", took/view.Millisecond, c.m[1].View())
	}
	c.step(0, Stay{})
	c.until("it stays", 2*view.Second, func() bool { return !c.m[1].View().Member(0).Leaving })
	if c.owner("data") != 1 {
		t.Errorf("data is on %d", c.owner("data"))
	}
}

// A resource whose replicas were never compared enters no view, and both hastds are told
// so much that they can compare.
func TestResourceEntersOnceItsReplicasWereCompared(t *testing.T) {
	c := &cluster{t: t, now: 1}
	c.begin()
	c.until("a view", 5*view.Second, func() bool { return c.told[0]["data"].Peer != 0 && c.told[1]["data"].Peer != 0 })
	c.run(3 * view.Second)
	if v := c.m[0].View(); len(v.Resources) != 0 || c.told[0]["data"].Owner || c.told[1]["data"].Owner {
		t.Fatalf("entered unseen: %v", v)
	}
	// Node 1 alone knows, and its own replica is the only good one.
	c.step(1, Storage{Resource: "data", Told: c.told[1]["data"].Generation, Good: view.SetOf(1)})
	c.until("it has an owner", 2*view.Second, func() bool { return c.owner("data") == 1 })
	if v := c.m[0].View(); v.Resource("data").InSync != view.SetOf(1) || v.Resource("logs") != nil {
		t.Errorf("%v", v)
	}
}

// says is what node 0's hastd says of data: the peer has everything, or writes wait.
func (c *cluster) says(synced bool) {
	g := c.told[0]["data"]
	s := Storage{Resource: "data", Told: g.Generation, Waits: !synced}
	if synced {
		s.Synced = g.Peer
	}
	c.step(0, s)
}

// apart is a cluster whose node 0 owns data, and the peer is not in sync.
func apart(t *testing.T) *cluster {
	c := newCluster(t)
	c.until("somebody serves", 5*view.Second, func() bool { return c.owner("data") == 0 })
	c.says(false)
	c.until("the peer is out", 2*view.Second, func() bool { return !c.told[0]["data"].Hold })
	return c
}

// hastd says no to a question: it holds for nobody by this view, or it would take the
// peer for one in sync when it is asked again.
func TestRefusedQuestionLeavesNoHold(t *testing.T) {
	c := apart(t)
	c.refuses = true
	c.says(true)
	for range 100 {
		c.run(step)
		if at, ok := c.m[0].Deadline(); ok && at < c.now-view.Instant(step) {
			t.Fatalf("at %d a tick is due since %d", c.now, at)
		}
	}
	if g := c.told[0]["data"]; g.Hold {
		t.Errorf("granted %+v after the question was refused", g)
	}
	c.refuses = false
	c.says(false)
	c.says(true)
	c.until("the peer counts", 10*view.Second, func() bool { return c.m[0].View().Resource("data").InSync == 3 })
}

// A question whose answer is lost is asked again: hastd may hold since, and only who
// knows that can end it.
func TestQuestionWithoutAnAnswerIsAskedAgain(t *testing.T) {
	c := apart(t)
	c.silent = true
	c.says(true)
	c.until("hastd holds", 2*view.Second, func() bool { return c.told[0]["data"].Hold })
	c.run(5 * view.Second)
	if v := c.m[0].View(); v.Resource("data").InSync != 1 {
		t.Fatalf("in sync by %v, although nobody said that it is held", v)
	}
	c.silent = false
	c.until("the peer counts", 10*view.Second, func() bool { return c.m[0].View().Resource("data").InSync == 3 })
}

// That hastd was started again is heard late, of another resource: this one has been told
// since, and acknowledges alone. It does not hold before it said so.
func TestLateNewsOfARestartIsNoHold(t *testing.T) {
	c := apart(t)
	c.slow = true
	c.says(true)
	c.run(view.Second / 2)
	c.step(0, Storage{Resource: "logs"})
	for range 100 {
		c.says(true)
		c.run(step)
	}
	if v := c.m[0].View(); v.Resource("data").InSync != 1 || c.told[0]["data"].Hold {
		t.Fatalf("in sync by %v, and hastd was told %+v", v, c.told[0]["data"])
	}
	c.slow = false
	c.step(0, Answered{Resource: "data", Lost: true})
	c.until("the peer counts", 10*view.Second, func() bool {
		c.says(true)
		return c.m[0].View().Resource("data").InSync == 3
	})
}

// No hastd is a good end of what takes a resource from it. It is no answer to the
// question whether it holds.
func TestHastdThatIsGoneHoldsForNobody(t *testing.T) {
	c := apart(t)
	c.says(true)
	c.gone, c.told[0] = view.SetOf(0), map[string]Grant{}
	c.step(0, Leave{})
	c.until("it left", 10*view.Second, func() bool { return c.m[1].View().Resource("data").Owner != 0 })
	if v := c.m[1].View(); v.Resource("data").InSync != 1 {
		t.Errorf("in sync by %v, and nobody held", v)
	}
}

// Hastd took a question whose answer came to nobody, and what it was asked for is no
// more: it would hold for ever.
func TestHoldThatNobodyKnowsOfIsEnded(t *testing.T) {
	c := apart(t)
	g := c.told[0]["data"]
	g.Hold = true
	c.told[0]["data"] = g
	c.step(0, Storage{Resource: "data", Told: g.Generation, Holds: true})
	c.until("another view ends it", 5*view.Second, func() bool {
		now := c.told[0]["data"]
		return now.Generation > g.Generation && !now.Hold && now.Owner
	})
	if v := c.m[0].View(); v.Resource("data").InSync != 1 {
		t.Errorf("in sync by %v", v)
	}
}

// What was given up and cannot be handed over stays, and its owner is told to serve:
// the views refuse, or the node stays after all before they heard.
func TestOwnerThatKeepsWhatItGaveUpServesAgain(t *testing.T) {
	c := newCluster(t)
	c.until("somebody serves", 5*view.Second, func() bool { return c.owner("data") == 0 })
	c.step(0, Stopped{Resources: []string{"data"}, To: 2}) // a witness
	if c.own[0]["data"] {
		t.Error("it may serve what it gives up")
	}
	c.until("the wish was refused", 2*view.Second, func() bool { return c.owner("data") == 0 })
	c.deaf = view.SetOf(0)
	c.step(0, Leave{})
	c.step(0, Stay{})
	c.deaf = 0
	c.until("it stays", 5*view.Second, func() bool { return c.owner("data") == 0 && c.owner("logs") == 0 })
}

// A proposal that was stored by its proposer alone: who stored it has no lease by the
// view before, so it must be decided although nothing else asks for another view.
func TestStoredProposalIsDecided(t *testing.T) {
	c := newCluster(t)
	c.until("somebody serves", 5*view.Second, func() bool { return c.owner("data") == 0 && c.owner("logs") == 0 })
	c.step(0, Stopped{Resources: []string{"logs"}, To: 1})
	c.until("each has one", 2*view.Second, func() bool { return c.owner("data") == 0 && c.owner("logs") == 1 })
	// Node 0 does not hear node 1, and its guard runs out; the witness guards node 1 and
	// does not store what would take logs from it.
	c.cut = view.SetOf(0, 1)
	c.until("node 0 stored a proposal", 10*view.Second, func() bool { return c.saved[0].Acc != nil })
	c.cut = 0
	c.until("both serve again", 15*view.Second, func() bool {
		return c.saved[0].Acc == nil && c.told[0]["data"].Until > c.now && (c.owner("data") == 0 || c.owner("data") == 1) && c.owner("logs") >= 0 &&
			c.m[0].View().Set() == 7
	})
}
