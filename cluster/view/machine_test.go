package view

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// cluster is machines with a network that a test rules: what is sent waits in line.
type cluster struct {
	t      *testing.T
	cfg    Config
	now    Instant
	m      map[NodeID]*Machine
	disk   map[NodeID]*State
	line   []*Message
	holds  []Hold
	said   []string
	mine   map[NodeID][]Grant
	starts uint64
}

func newCluster(t *testing.T, cfg Config) *cluster {
	c := &cluster{t: t, cfg: cfg, m: map[NodeID]*Machine{}, disk: map[NodeID]*State{}, mine: map[NodeID][]Grant{}}
	for _, n := range cfg.Nodes {
		c.start(n.ID)
	}
	return c
}

func pair() Config {
	return Config{
		Nodes:     []NodeConfig{{ID: 0}, {ID: 1}},
		Resources: []ResourceConfig{{"data", []NodeID{0, 1}, SetOf(0, 1)}},
	}
}

func withWitness() Config {
	c := pair()
	c.Nodes = append(c.Nodes, NodeConfig{ID: 2, Witness: true})
	return c
}

func (c *cluster) start(id NodeID) {
	cfg := c.cfg
	c.starts++
	cfg.Self, cfg.Seed = id, 1000*uint64(id)+c.starts
	m, err := New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.m[id] = m
	c.step(id, Start{Stored: c.disk[id]})
}

// step feeds a machine and checks that nothing leaves it before what it stands on is
// stored.
func (c *cluster) step(id NodeID, ev Event) {
	c.t.Helper()
	c.do(id, c.m[id].Step(c.now, ev))
}

func (c *cluster) do(id NodeID, effects []Effect) {
	c.t.Helper()
	for _, e := range effects {
		switch e := e.(type) {
		case Persist:
			s := e.State
			c.disk[id] = &s
		case Send:
			c.standsOn(c.disk[id], e.Msg)
			c.line = append(c.line, e.Msg)
		case Learned:
			if e.View.Stamp.Index != 0 && c.disk[id].View != e.View {
				c.t.Fatalf("node %d tells of view %v before it is stored", id, e.View)
			}
			c.mine[id] = e.Mine
		case Hold:
			c.holds = append(c.holds, e)
		case Report:
			c.said = append(c.said, fmt.Sprintf("%d %s: %s", id, e.Kind, e.Text))
		}
	}
	if m := c.m[id]; !reflect.DeepEqual(m.st.Prom, c.disk[id].Prom) || m.st.Acc != c.disk[id].Acc || m.st.View != c.disk[id].View || m.st.Serial != c.disk[id].Serial {
		c.t.Fatalf("node %d remembers what it did not store: %+v, stored %+v", id, m.st, c.disk[id])
	}
}

// standsOn is what must be stored before a message may be sent.
func (c *cluster) standsOn(s *State, m *Message) {
	c.t.Helper()
	ok := s != nil && s.Inc == m.Inc && s.Serial == m.Serial && s.View.stamp() == m.Stamp
	switch m.Kind {
	case Ask:
		ok = ok && s.Prom.Compare(m.Round) >= 0
	case Promise:
		ok = ok && s.Prom == m.Round && (m.View == nil) == (s.Acc == nil)
	case Stored:
		ok = ok && s.Prom == m.Round && s.Acc != nil && s.Acc.Round == m.Round
	}
	if !ok {
		c.t.Fatalf("%v was sent with %+v stored", m, s)
	}
}

// beat is one heartbeat of everybody, heard by all in the same set.
func (c *cluster) beat(sets ...Set) {
	c.t.Helper()
	c.now += Instant(250 * Millisecond)
	for _, n := range c.cfg.Nodes {
		if m := c.m[n.ID]; m != nil {
			var heard Set
			for _, s := range sets {
				if s.Has(n.ID) {
					heard |= s
				}
			}
			for id := range c.cfg.Nodes {
				if c.m[NodeID(id)] == nil {
					heard &^= SetOf(NodeID(id))
				}
			}
			c.step(n.ID, Heard{heard})
			c.do(n.ID, m.Greet())
		}
	}
	c.deliver(sets...)
}

// deliver brings all that was sent, within the sets only.
func (c *cluster) deliver(sets ...Set) {
	c.t.Helper()
	for n := 0; len(c.line) > 0; n++ {
		if n > 10000 {
			c.t.Fatal("the nodes never stop talking")
		}
		msg := c.line[0]
		c.line = c.line[1:]
		for _, s := range sets {
			if s.Has(msg.From) && s.Has(msg.To) && c.m[msg.To] != nil {
				got, err := ReadMessage(AppendMessage(nil, msg))
				if err != nil {
					c.t.Fatalf("%v: %v", msg, err)
				}
				c.step(msg.To, Received{got})
				break
			}
		}
		for _, h := range c.holds {
			id := c.m[0].st.View.Resource(h.Resource).Owner
			c.holds = nil
			c.step(id, Held{h.Resource, h.Number, true})
			break
		}
	}
}

func (c *cluster) beats(n int, sets ...Set) {
	c.t.Helper()
	for range n {
		c.beat(sets...)
	}
}

func (c *cluster) has(word string) bool {
	return strings.Contains(strings.Join(c.said, "\n"), word)
}

func TestFirstViewNeedsEverybody(t *testing.T) {
	c := newCluster(t, withWitness())
	c.beats(20, SetOf(0, 1))
	if c.m[0].View() != nil {
		t.Fatalf("two of three made %v", c.m[0].View())
	}
	c.m[0].out = nil
	c.m[0].ask(SetOf(0, 1), nil) // nor if they should try
	c.do(0, c.m[0].out)
	c.deliver(SetOf(0, 1))
	c.beats(20, SetOf(0, 1))
	if c.m[0].View() != nil {
		t.Fatalf("two of three made %v", c.m[0].View())
	}
	c.beats(8, SetOf(0, 1, 2))
	v := c.m[2].View()
	if v.Set() != SetOf(0, 1, 2) || !v.Members[2].Witness || v.Resource("data").Owner != 0 || v.Resource("data").InSync != SetOf(0, 1) {
		t.Fatalf("%v", v)
	}
	if len(c.mine[0]) != 1 || !c.mine[0][0].Hold || c.mine[0][0].PeerInc != c.m[1].Inc() || len(c.mine[1]) != 0 {
		t.Errorf("grants %v", c.mine)
	}
}

func TestSurvivorsGoOn(t *testing.T) {
	c := newCluster(t, withWitness())
	c.beats(8, SetOf(0, 1, 2))
	c.beats(8, SetOf(1, 2))
	if v := c.m[1].View(); v.Set() != SetOf(1, 2) || v.Resource("data").Owner != 1 || v.Resource("data").InSync != SetOf(1) {
		t.Fatalf("%v", v)
	}
	if p, hold := c.m[1].Owns("data"); !p || hold {
		t.Errorf("primary %v, hold %v", p, hold)
	}
	if v := c.m[0].View(); v.Set() != SetOf(0, 1, 2) || c.m[0].Waits() == "" {
		t.Errorf("the node cut off has %v, waits: %q", v, c.m[0].Waits())
	}
	// It is taken back when it was heard for long enough, in sync when the owner says so.
	c.beats(12, SetOf(0, 1, 2))
	if v := c.m[0].View(); v.Set() != SetOf(1, 2) {
		t.Fatalf("taken back early: %v", v)
	}
	c.beats(20, SetOf(0, 1, 2))
	if v := c.m[0].View(); v.Set() != SetOf(0, 1, 2) || v.Resource("data").InSync != SetOf(1) {
		t.Fatalf("%v", v)
	}
	c.step(1, Synced{"data", c.m[0].Inc()})
	c.beats(8, SetOf(0, 1, 2))
	if v := c.m[0].View(); v.Resource("data").InSync != SetOf(0, 1) {
		t.Fatalf("%v", v)
	}
	if _, hold := c.m[1].Owns("data"); !hold {
		t.Error("nothing is held for the peer in sync")
	}
}

// TestHoldComesFirst: nobody hears of a proposal with the peer in sync before the
// storage daemon holds for it; and a no ends the round.
func TestHoldComesFirst(t *testing.T) {
	c := newCluster(t, withWitness())
	all := SetOf(0, 1, 2)
	c.beats(8, all)
	c.step(0, Drop{"data"})
	c.beats(8, all)
	if v := c.m[1].View(); v.Resource("data").InSync != SetOf(0) || v.Set() != all {
		t.Fatalf("%v", v)
	}
	c.step(0, Synced{"data", c.m[1].Inc()})
	var held Hold
	for range 20 {
		c.now += Instant(50 * Millisecond)
		c.step(0, Tick{})
		for len(c.line) > 0 && len(c.holds) == 0 {
			msg := c.line[0]
			c.line = c.line[1:]
			c.step(msg.To, Received{msg})
		}
		if len(c.holds) > 0 {
			held = c.holds[0]
			break
		}
	}
	if held.Peer != 1 || held.Inc != c.m[1].Inc() || held.Number != c.m[0].View().Stamp.Number() {
		t.Fatalf("held: %+v", held)
	}
	c.holds = nil
	for _, m := range c.line {
		if m.Kind == Store {
			t.Fatalf("%v before anything is held", m)
		}
	}
	before := c.m[0].View()
	c.step(0, Held{"data", held.Number, false})
	c.beats(12, all)
	if v := c.m[0].View(); v != before {
		t.Fatalf("a view although nothing is held: %v", v)
	}
	c.step(0, Synced{"data", c.m[1].Inc()})
	c.beats(12, all)
	if v := c.m[0].View(); v.Resource("data").InSync != SetOf(0, 1) {
		t.Fatalf("%v", v)
	}
}

func TestTieNeedsTheLeaderAndNoStart(t *testing.T) {
	c := newCluster(t, pair())
	c.beats(8, SetOf(0, 1))
	c.beats(8, SetOf(0), SetOf(1))
	if v := c.m[0].View(); v.Set() != SetOf(0) {
		t.Errorf("the leader waits: %v", v)
	}
	if v := c.m[1].View(); v.Set() != SetOf(0, 1) {
		t.Errorf("the other went on: %v", v)
	}
	d := newCluster(t, pair())
	d.beats(8, SetOf(0, 1))
	d.start(0)
	d.beats(20, SetOf(0), SetOf(1))
	if v := d.m[0].View(); v.Set() != SetOf(0, 1) || !d.has("more than half") {
		t.Errorf("a leader that started went on alone: %v", v)
	}
	d.beats(8, SetOf(0, 1))
	if v := d.m[0].View(); !d.m[0].Up() || v.Stamp.Index != 2 {
		t.Errorf("%v", v)
	}
}

func TestWipedNodeHasNoVote(t *testing.T) {
	c := newCluster(t, withWitness())
	c.beats(8, SetOf(0, 1, 2))
	delete(c.m, 2)
	c.disk[2] = nil
	c.beats(8, SetOf(0, 1))
	c.beats(8, SetOf(0), SetOf(1)) // 0 has the tie
	c.start(2)
	c.beats(40, SetOf(0), SetOf(1, 2))
	if v := c.m[1].View(); v.Set() != SetOf(0, 1) {
		t.Errorf("a wiped witness helped to %v", v)
	}
	if c.m[2].View() == nil || c.m[2].Waits() == "" {
		t.Errorf("the witness knows %v, waits %q", c.m[2].View(), c.m[2].Waits())
	}
}

// TestAbsentInSyncWiped: all who are in sync were absent; one comes back wiped.
func TestAbsentInSyncWiped(t *testing.T) {
	c := newCluster(t, withWitness())
	all := SetOf(0, 1, 2)
	c.beats(8, all)
	c.step(0, Drop{"data"})
	c.beats(8, all)
	delete(c.m, 0)
	c.beats(8, SetOf(1, 2))
	v := c.m[1].View()
	if r := v.Resource("data"); v.Set() != SetOf(1, 2) || r.Owner != Nobody || r.InSync != SetOf(0) || len(v.Absent) != 1 {
		t.Fatalf("%v", v)
	}
	c.disk[0] = nil
	c.start(0)
	c.beats(40, all)
	if r := c.m[1].View().Resource("data"); c.m[1].View().Set() != all || r.Owner != Nobody || r.InSync != 0 {
		t.Errorf("%v", c.m[1].View())
	}
	c.step(1, Move{"data", 1, true})
	c.beats(8, all)
	if r := c.m[1].View().Resource("data"); r.Owner != 1 || !r.Forced {
		t.Errorf("%v", c.m[1].View())
	}
}

func TestLeavingMovesWhatItOwns(t *testing.T) {
	c := newCluster(t, pair())
	c.beats(8, SetOf(0, 1))
	c.step(0, Leave{true, true})
	c.beats(8, SetOf(0, 1))
	v := c.m[1].View()
	if v.Resource("data").Owner != 1 || !v.Members[0].Leaving || v.Leader() != 1 {
		t.Fatalf("%v", v)
	}
	delete(c.m, 0)
	c.beats(8, SetOf(1))
	if v := c.m[1].View(); v.Set() != SetOf(1) {
		t.Errorf("%v", v)
	}
}

// TestLeavingOfTwoInSyncOfOneEach: who stays goes on with what it has.
func TestLeavingOfTwoInSyncOfOneEach(t *testing.T) {
	cfg := pair()
	cfg.Resources = append(cfg.Resources, ResourceConfig{"logs", []NodeID{0, 1}, SetOf(0, 1)})
	c := newCluster(t, cfg)
	both := SetOf(0, 1)
	c.beats(8, both)
	c.step(0, Move{Resource: "logs", To: 1})
	c.beats(8, both)
	c.step(0, Drop{"data"})
	c.step(1, Drop{"logs"})
	c.beats(20, both)
	c.step(0, Leave{true, true})
	c.beats(8, both)
	if v := c.m[1].View(); v.Resource("data").InSync != SetOf(0) || v.Resource("logs").InSync != SetOf(1) || !v.Members[0].Leaving {
		t.Fatalf("%v", v)
	}
	delete(c.m, 0)
	c.beats(8, SetOf(1))
	if v := c.m[1].View(); v.Set() != SetOf(1) || v.Resource("logs").Owner != 1 || v.Resource("data").Owner != Nobody {
		t.Errorf("%v, waits %q", v, c.m[1].Waits())
	}
}

func TestMovesAndGroups(t *testing.T) {
	c := newCluster(t, pair())
	c.beats(8, SetOf(0, 1))
	c.step(1, Move{Resource: "data", To: 1})
	c.step(0, SetGroup{Group{"web", "frozen"}})
	c.beats(12, SetOf(0, 1))
	v := c.m[0].View()
	if v.Resource("data").Owner != 1 || v.Group("web") != "frozen" {
		t.Fatalf("%v", v)
	}
	c.step(1, Drop{"data"})
	c.beats(8, SetOf(0, 1))
	c.step(0, Move{Resource: "data", To: 0})
	if !c.has("only force makes it owner") {
		t.Error(c.said)
	}
	c.step(1, SetGroup{Group{Name: "web"}})
	c.beats(8, SetOf(0, 1))
	if v := c.m[0].View(); v.Resource("data").Owner != 1 || v.Group("web") != "" {
		t.Errorf("%v", v)
	}
	index := c.m[0].View().Stamp.Index
	c.beats(20, SetOf(0, 1))
	if c.m[0].View().Stamp.Index != index {
		t.Error("views without a reason")
	}
}

func TestForce(t *testing.T) {
	c := newCluster(t, withWitness())
	all := SetOf(0, 1, 2)
	c.step(1, Force{How: OthersAreDown, Who: "anna"})
	if !c.has("no view is known here") {
		t.Error(c.said)
	}
	c.beats(8, all)
	c.step(1, Force{How: Bootstrap, Who: "anna"})
	if !c.has("bootstrap is for the first one") {
		t.Error(c.said)
	}
	c.beats(8, SetOf(0), SetOf(1), SetOf(2))
	c.step(1, Force{How: OthersAreDown, Who: "anna", When: 1_790_000_000})
	v := c.m[1].View()
	if v.Stamp.Era != 1 || v.Set() != SetOf(1) || v.Resource("data").Owner != 1 || v.Origin != (Origin{OthersAreDown, 1, "anna", 1_790_000_000}) {
		t.Fatalf("%v", v)
	}
	// On the other side too: two chains, which do not mix until one is forced again.
	c.step(0, Force{How: OthersAreDown, Who: "bert"})
	c.beats(40, all)
	if a, b := c.m[0].View(), c.m[1].View(); a.Stamp.Chain == b.Stamp.Chain || a.Stamp.Era != 1 || b.Stamp.Era != 1 || !c.has("another chain") {
		t.Fatalf("%v beside %v, %v", a, b, c.said)
	}
	c.step(1, Force{How: OthersAreDown, Who: "anna"})
	c.beats(40, all)
	for id, m := range c.m {
		if v := m.View(); v.Stamp.Era != 2 || v.Set() != all {
			t.Errorf("node %d: %v", id, v)
		}
	}
	if !c.has("0 era ended") {
		t.Error(c.said)
	}
}

func TestBootstrap(t *testing.T) {
	c := newCluster(t, withWitness())
	delete(c.m, 2)
	c.beats(8, SetOf(0, 1))
	c.step(0, Force{How: Bootstrap, Who: "anna"})
	c.beats(8, SetOf(0, 1))
	if v := c.m[1].View(); v.Set() != SetOf(0, 1) || v.Origin.How != Bootstrap || v.Stamp.Era != 1 || v.Resource("data").Owner != 0 {
		t.Fatalf("%v", v)
	}
	c.start(2)
	c.beats(40, SetOf(0, 1, 2))
	if v := c.m[2].View(); v.Set() != SetOf(0, 1, 2) {
		t.Errorf("%v", v)
	}
}

// TestOlderCopyIsNoMember: what was put back is told so by the first who knows better.
func TestOlderCopyIsNoMember(t *testing.T) {
	c := newCluster(t, pair())
	c.beats(8, SetOf(0, 1))
	old, was := c.disk[1], c.m[1].Inc()
	c.step(1, SetGroup{Group{"web", "frozen"}})
	c.beats(8, SetOf(0, 1))
	c.step(1, SetGroup{Group{"web", "online"}})
	c.beats(8, SetOf(0, 1))
	c.disk[1] = old
	c.start(1)
	if c.m[1].Inc() != was {
		t.Fatal("known before anybody said so")
	}
	c.beats(4, SetOf(0, 1))
	if c.m[1].Inc() == was || !c.has("put back from an older copy") {
		t.Errorf("it goes on as %x: %v", was, c.said)
	}
	m, _ := New(Config{Self: 1, Seed: 5, Nodes: pair().Nodes})
	m.Step(0, Start{Stored: old, Floor: old.View.Stamp.Number() + 1})
	if m.Inc() == old.Inc {
		t.Error("a state older than the replicas was taken")
	}
}

// TestRounds: promises and proposals at the level of messages.
func TestRounds(t *testing.T) {
	c := newCluster(t, withWitness())
	c.beats(8, SetOf(0, 1, 2))
	m := c.m[2]
	v := m.View()
	from := func(id NodeID, msg Message) []Effect {
		msg.From, msg.Inc, msg.To, msg.Stamp = id, c.m[id].Inc(), 2, v.Stamp
		return m.Step(c.now, Received{&msg})
	}
	answer := func(effects []Effect) *Message {
		for _, e := range effects {
			if s, ok := e.(Send); ok {
				return s.Msg
			}
		}
		return &Message{}
	}
	low, mid, high := Round{100, 0, c.m[0].Inc()}, Round{101, 1, c.m[1].Inc()}, Round{102, 0, c.m[0].Inc()}
	next := after(v)
	if a := answer(from(1, Message{Kind: Ask, Round: mid, View: v})); a.Kind != Promise || a.View != nil {
		t.Fatalf("%v", a)
	}
	if a := answer(from(1, Message{Kind: Ask, Round: mid, View: v})); a.Kind != Promise {
		t.Errorf("the same again: %v", a)
	}
	if a := answer(from(0, Message{Kind: Ask, Round: low, View: v})); a.Kind != Refuse || a.Told != mid {
		t.Errorf("%v", a)
	}
	if a := answer(from(0, Message{Kind: Store, Round: low, View: next})); a.Kind != Refuse {
		t.Errorf("%v", a)
	}
	if a := answer(from(1, Message{Kind: Store, Round: mid, View: next})); a.Kind != Stored {
		t.Errorf("%v", a)
	}
	if a := answer(from(0, Message{Kind: Ask, Round: high, View: v})); a.Kind != Promise || a.View != next || a.Told != mid {
		t.Errorf("%v", a)
	}
}

// TestOrderOfEffects: at random, with lost and doubled messages and restarts; the
// cluster checks each effect against what is stored.
func TestOrderOfEffects(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 1))
		c := newCluster(t, withWitness())
		for range 400 {
			id := NodeID(rng.IntN(3))
			c.now += Instant(rng.IntN(100)) * Instant(Millisecond)
			switch k := rng.IntN(20); {
			case k == 0:
				c.start(id)
			case k == 1:
				c.step(id, Move{"data", NodeID(rng.IntN(2)), rng.IntN(5) == 0})
			case k == 2:
				c.step(id, Drop{"data"})
			case k == 3:
				c.step(id, Synced{"data", c.m[NodeID(rng.IntN(2))].Inc()})
			case k == 4:
				c.step(id, SetGroup{Group{"g", fmt.Sprint(rng.IntN(3))}})
			case k < 8:
				c.step(id, Heard{SetOf(0, 1, 2)})
				c.do(id, c.m[id].Greet())
			case len(c.line) > 0:
				i := rng.IntN(len(c.line))
				msg := c.line[i]
				if rng.IntN(3) > 0 {
					c.line = append(c.line[:i], c.line[i+1:]...)
				}
				c.step(msg.To, Received{msg})
			default:
				c.step(id, Tick{})
			}
			for _, h := range c.holds {
				for n := range c.m {
					c.step(n, Held{h.Resource, h.Number, true})
				}
			}
			c.holds = nil
		}
	}
}

// TestStorageIsToldAgain: a storage daemon that starts is told what it was told, holds
// included, and nothing is called in sync by what the one before it knew.
func TestStorageIsToldAgain(t *testing.T) {
	c := newCluster(t, withWitness())
	c.step(1, Storage{})
	if c.m[1].View() != nil || len(c.mine[1]) != 0 {
		t.Fatal("told of a view that is not there")
	}
	all := SetOf(0, 1, 2)
	c.beats(8, all)
	want := c.mine[0]
	c.mine[0] = nil
	c.step(0, Storage{})
	if !reflect.DeepEqual(c.mine[0], want) || len(want) != 1 || !want[0].Hold {
		t.Fatalf("told %+v, before %+v", c.mine[0], want)
	}
	c.step(0, Drop{"data"})
	c.beats(8, all)
	c.step(0, Synced{"data", c.m[1].Inc()})
	c.step(0, Storage{})
	index := c.m[0].View().Stamp.Index
	c.beats(20, all)
	if v := c.m[0].View(); v.Stamp.Index != index || v.Resource("data").InSync != SetOf(0) || c.mine[0][0].Hold {
		t.Errorf("%v, %+v", v, c.mine[0])
	}
	// Held for a proposal that came to nothing, and no longer in sync: a view ends that,
	// or nothing would be copied any more.
	c.m[0].stake("data").hold = true
	c.beats(8, all)
	if _, hold := c.m[0].Owns("data"); hold || c.m[0].View().Stamp.Index == index {
		t.Error("it holds for ever")
	}
	// A vipd that started owns nothing yet, whatever view is stored.
	c.start(0)
	c.step(0, Storage{})
	if len(c.mine[0]) != 0 {
		t.Errorf("told to own %+v", c.mine[0])
	}
}

// TestLeavingServesOn: a leader that is about to leave and still serves is not in the way
// of the other node: the trap of a stop that takes long while the links are cut.
func TestLeavingServesOn(t *testing.T) {
	c := newCluster(t, pair())
	both := SetOf(0, 1)
	c.beats(8, both)
	c.step(0, Leave{On: true})
	c.beats(8, both)
	if v := c.m[1].View(); v.Resource("data").Owner != 0 || !v.Members[0].Leaving || v.Leader() != 1 || len(c.mine[0]) != 1 {
		t.Fatalf("%v", v)
	}
	c.beats(20, SetOf(0), SetOf(1))
	if v := c.m[1].View(); v.Set() != SetOf(1) || v.Resource("data").Owner != 1 {
		t.Errorf("who stays: %v, waits %q", v, c.m[1].Waits())
	}
	if v := c.m[0].View(); v.Set() != both {
		t.Errorf("who leaves went on alone: %v", v)
	}
	// One that gave up what nobody else can have leaves it to nobody, until it stays.
	c = newCluster(t, pair())
	c.beats(8, both)
	c.step(0, Drop{"data"})
	c.beats(20, both)
	c.step(0, Leave{On: true, Gave: true})
	c.beats(8, both)
	if v := c.m[1].View(); v.Resource("data").Owner != Nobody {
		t.Errorf("%v", v)
	}
	c.step(0, Leave{})
	c.beats(8, both)
	if v := c.m[1].View(); v.Resource("data").Owner != 0 {
		t.Errorf("%v", v)
	}
}

// A node that starts hears one member before the other: it leaves nobody out before it
// had the time to hear everybody, and waits no longer than that for who is gone.
func TestStartLeavesNobodyOut(t *testing.T) {
	for _, gone := range []bool{false, true} {
		c := newCluster(t, withWitness())
		c.beats(8, SetOf(0, 1, 2))
		was := c.m[0].View()
		c.m[0] = nil
		for id := range NodeID(2) {
			c.m[id+1].Guard(0, c.now+Instant(5*Second)) // by its lease
		}
		c.start(0)
		for range 3 {
			c.now += Instant(250 * Millisecond)
			for id, hears := range []Set{SetOf(2), SetOf(0, 2), SetOf(0, 1)} {
				c.step(NodeID(id), Heard{hears})
				c.do(NodeID(id), c.m[NodeID(id)].Greet())
			}
			c.deliver(SetOf(0, 1, 2))
		}
		if v := c.m[0].View(); v.Stamp != was.Stamp || c.m[0].Up() {
			t.Fatalf("0.75 s after the start: %v", v)
		}
		want := SetOf(0, 2)
		if gone {
			c.beats(4, SetOf(0, 2))
		} else {
			c.beats(2, SetOf(0, 1, 2))
			want = SetOf(0, 1, 2)
		}
		if v := c.m[0].View(); v.Set() != want || !c.m[0].Up() || v.Resource("data").Owner != 0 {
			t.Errorf("gone %v: %v", gone, v)
		}
	}
}
