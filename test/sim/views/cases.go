package views

import (
	"hastd/cluster/view"
)

// Case is one of the cases that the rules of the cluster must decide rightly, as far as
// views decide it (the lease and what stands outside of storage have no part here).
type Case struct {
	Row   int // of the cluster rules' table; 0: none of them
	Name  string
	shape profile
	play  func(w *World)
}

var (
	pairAndWitness = profile{data: 2, witness: 1, pairs: [][]view.NodeID{{0, 1}}, writeGap: 50 * millisecond}
	fourNodes      = profile{data: 4, pairs: [][]view.NodeID{{0, 1}, {2, 3}}, writeGap: 50 * millisecond}
	threeNodes     = profile{data: 3, pairs: [][]view.NodeID{{0, 1}, {1, 2}}, writeGap: 50 * millisecond}
)

// Cases are the rows 1, 2, 4, 5, 6, 13 and 14.
var Cases = []Case{
	{1, "the held write of the cut-off owner", pairAndWitness, case1},
	{2, "a stale replica with a witness", pairAndWitness, case2},
	{2, "a stale replica in a majority", pairAndWitness, case2majority},
	{4, "a wiped witness hears the losing side", pairAndWitness, case4},
	{5, "witness lost, then the leader", pairAndWitness, case5},
	{6, "a cut that a witness does not see", pairAndWitness, case6},
	{6, "a cut that a third node does not see", threeNodes, case6},
	{14, "four nodes split, the leader in the pair", fourNodes, case14leader},
	{14, "four nodes split, the leader alone", fourNodes, case14alone},
	{0, "a wiped peer confirms to an owner that was cut off", pairAndWitness, caseWipedPeer},
}

// PlayCase plays a case with the random times of a seed.
func PlayCase(c *Case, opt Options) Result {
	w := newWorld(opt, c.shape)
	for _, n := range w.nodes {
		w.after(w.span(0, second), n.start)
	}
	w.after(0, w.work)
	w.quiet = true
	w.until("complete at first", w.complete)
	w.runFor(w.span(second, 2*second))
	if w.bad == nil {
		c.play(w)
	}
	return w.finish()
}

// until waits for something that must come.
func (w *World) until(what string, good func() bool) {
	for end := w.now + view.Instant(healTime); w.bad == nil && !good(); w.runFor(20 * millisecond) {
		if w.now >= end {
			w.violate("case", "not %s within %ds\n%s", what, healTime/second, w.status())
		}
	}
}

// never watches for something that must not come.
func (w *World) never(what string, bad func() bool) {
	for end := w.now + view.Instant(10*second); w.bad == nil && w.now < end; w.runFor(20 * millisecond) {
		if bad() {
			w.violate("case", "%s\n%s", what, w.status())
		}
	}
}

func (w *World) cutOff(a view.NodeID) { w.net.CutOff(a) }

// primaryOf says whether a node may acknowledge writes of a resource at all.
func (w *World) primaryOf(name string, id view.NodeID) bool {
	r := w.nodes[id].store.replica(name)
	return r != nil && r.primary
}

// serving says whether a node acknowledged something by the newest view.
func (w *World) serving(name string, id view.NodeID) func() bool {
	return func() bool {
		return w.primaryOf(name, id) && w.newestOwner(name) == id && w.books.highest(name) == w.books.Newest.Stamp.Number()
	}
}

func (w *World) owns(name string, id view.NodeID) func() bool {
	return func() bool { return w.newestOwner(name) == id && w.primaryOf(name, id) && w.complete() }
}

// case1: bravo's replication is reset, it holds a write, and is cut off at once.
func case1(w *World) {
	w.move("r0", 1, w.nodes[1])
	w.until("owned by bravo", w.owns("r0", 1))
	w.net.NoReplica[0][1], w.net.NoReplica[1][0] = true, true
	bravo := w.nodes[1].store.replica("r0")
	w.nodes[1].store.put(bravo)
	held := bravo.waiting[len(bravo.waiting)-1].id
	w.runFor(w.span(0, patience/2))
	w.cutOff(1)
	acked := func() bool { l := w.books.ledgers["r0"]; return l.acked.has(held) }
	w.until("served by alpha", w.serving("r0", 0))
	w.never("bravo acknowledged what it held", acked)
	w.setNet()
	w.until("complete again", w.complete)
	if w.bad == nil && acked() {
		w.violate("case", "write %d was acknowledged although its owner was cut off", held)
	}
}

// case2: bravo is down, alpha writes alone and dies, bravo and the witness are there.
func case2(w *World) {
	w.nodes[1].crash()
	w.until("served by alpha alone", func() bool { return w.books.Newest.Set() == view.SetOf(0, 2) && w.serving("r0", 0)() })
	w.runFor(w.span(0, second))
	w.nodes[0].crash()
	w.runFor(w.span(0, second))
	w.nodes[1].start()
	w.never("bravo was promoted", func() bool { return w.primaryOf("r0", 1) })
	w.says(1)
	w.forceView(w.nodes[1])
	w.never("bravo was promoted by a forced view", func() bool { return w.primaryOf("r0", 1) })
	w.forceResource(w.nodes[1], "r0")
	w.until("served by force", w.serving("r0", 1))
}

// case2majority: bravo is a member and behind, so there is a quorum, and no owner.
func case2majority(w *World) {
	w.net.NoReplica[0][1], w.net.NoReplica[1][0] = true, true
	w.until("served by alpha alone", func() bool {
		return w.books.Newest.Resource("r0").InSync == view.SetOf(0) && w.serving("r0", 0)()
	})
	w.runFor(w.span(0, second))
	w.nodes[0].crash()
	w.until("a view without alpha", func() bool { return w.books.Newest.Set() == view.SetOf(1, 2) })
	w.never("bravo was promoted", func() bool { return w.primaryOf("r0", 1) })
	w.nodes[0].start()
	w.setNet()
	w.until("complete again", w.complete)
}

// case4: the witness dies, the pair is cut, and the witness, wiped, hears bravo only.
func case4(w *World) {
	w.nodes[2].crash()
	w.until("a view of the pair", func() bool { return w.books.Newest.Set() == view.SetOf(0, 1) })
	w.runFor(w.span(0, second))
	w.net.SetBoth(0, 1, true)
	w.net.SetBoth(0, 2, true)
	w.nodes[2].wipe()
	w.runFor(w.span(0, second))
	w.nodes[2].start()
	w.until("served by alpha, by the tie", func() bool { return w.books.Newest.Set() == view.SetOf(0) && w.serving("r0", 0)() })
	w.never("bravo started", func() bool { return w.primaryOf("r0", 1) })
	w.says(1)
	w.setNet()
	w.until("complete again", w.complete)
}

// case5: the witness is lost, then alpha, the leader: bravo waits for a person.
func case5(w *World) {
	w.nodes[2].crash()
	w.until("a view of the pair", func() bool { return w.books.Newest.Set() == view.SetOf(0, 1) })
	w.runFor(w.span(0, second))
	w.nodes[0].crash()
	w.never("bravo went on alone", func() bool { return w.primaryOf("r0", 1) })
	w.says(1)
	w.forceView(w.nodes[1])
	w.until("served by force", w.serving("r0", 1))
	if o := w.books.Newest.Origin; w.bad == nil && (o.How != view.OthersAreDown || o.By != 1 || o.Who == "" || o.When == 0) {
		w.violate("case", "the view says of who forced it: %+v", o)
	}
	w.nodes[0].start()
	w.nodes[2].start()
	w.until("complete again", w.complete)
}

// case6: 0 and 1 do not hear each other, 2 hears both.
func case6(w *World) {
	w.net.SetBoth(0, 1, true)
	w.until("one pair", func() bool { return w.books.Newest.Set().Len() == 2 && w.newestOwner("r0") != view.Nobody })
	w.until("served", w.serves)
	v := w.books.Newest
	w.never("another view came", func() bool {
		return w.books.Newest.Set() != v.Set()
	})
	w.setNet()
	w.until("complete again", w.complete)
}

// case14leader: {0,1} with the leader, {2} and {3}.
func case14leader(w *World) {
	w.split(view.SetOf(0, 1))
	w.until("a view of the pair", func() bool { return w.books.Newest.Set() == view.SetOf(0, 1) && w.serving("r0", 0)() })
	w.never("another side went on", func() bool { return w.books.Newest.Set() != view.SetOf(0, 1) || w.res.Views != w.books.Len() })
	w.says(2)
	w.says(3)
	w.setNet()
	w.until("complete again", w.complete)
}

// case14alone: {2,3} without the leader, {0} and {1}: nobody goes on.
func case14alone(w *World) {
	views := w.res.Views
	w.split(view.SetOf(2, 3))
	w.never("a side without quorum went on", func() bool { return w.res.Views != views })
	for id := range view.NodeID(4) {
		w.says(id)
	}
	w.setNet()
	w.until("complete again", w.complete)
}

// caseWipedPeer: alpha is cut off and holds a write; bravo serves, is wiped, and its
// new life knows of nothing when alpha's write reaches it.
func caseWipedPeer(w *World) {
	w.until("owned by alpha", w.owns("r0", 0))
	w.cutOff(0)
	alpha := w.nodes[0].store.replica("r0")
	w.nodes[0].store.put(alpha)
	held := alpha.waiting[len(alpha.waiting)-1].id
	w.until("served by bravo", w.serving("r0", 1))
	w.runFor(w.span(0, second))
	w.nodes[1].crash()
	w.nodes[1].wipe()
	w.cutOff(1)
	w.net.NoReplica[0][1], w.net.NoReplica[1][0] = false, false
	w.nodes[1].start()
	w.never("alpha acknowledged what it held", func() bool { l := w.books.ledgers["r0"]; return l.acked.has(held) })
	w.setNet()
	w.runFor(Latest)
}

func (w *World) split(s view.Set) { w.net.Split(s) }

// says: a node that waits tells why.
func (w *World) says(id view.NodeID) {
	if w.bad == nil && w.nodes[id].m.Waits() == "" {
		w.violate("case", "node %d does not say what it waits for\n%s", id, w.status())
	}
}

// Twice is case 13: three changes at once, and a node that ends at its step-th effect
// from then on, and comes back later. There is one view at the end, or a reason to wait.
func Twice(shape int, victim view.NodeID, step int, opt Options) (r Result, ended bool) {
	p := shapes[shape]
	p.writeGap = 50 * millisecond
	w := newWorld(opt, p)
	for _, n := range w.nodes {
		w.after(w.span(0, second), n.start)
	}
	w.after(0, w.work)
	w.quiet = true
	w.until("complete at first", w.complete)
	c := w.cfg.Resources[0]
	w.nodes[victim].fuse = step
	last := w.nodes[len(w.nodes)-1]
	w.move(c.Name, c.Nodes[1], w.nodes[c.Nodes[1]])
	last.step(view.SetGroup{Group: view.Group{Name: "g", State: "frozen"}})
	w.nodes[c.Nodes[0]].step(view.Leave{On: true, Gave: true})
	w.runFor(w.span(2*second, 4*second))
	w.until("one view of the others, or a reason to wait", func() bool {
		for _, n := range w.nodes {
			if n.m == nil {
				continue
			}
			if v := n.m.View(); n.m.Waits() == "" && (v == nil || v.Stamp != w.books.Newest.Stamp || v.Set() != w.running()) {
				return false
			}
		}
		return true
	})
	ended = w.nodes[victim].m == nil
	w.nodes[victim].fuse = 0
	w.everybody()
	w.until("complete again", w.complete)
	return w.finish(), ended
}

// running is who is up.
func (w *World) running() view.Set {
	var s view.Set
	for _, n := range w.nodes {
		if n.m != nil {
			s |= view.SetOf(n.id)
		}
	}
	return s
}
