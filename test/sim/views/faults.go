package views

import (
	"math/rand/v2"

	"hastd/cluster/view"
)

// fault does one thing to the cluster.
type fault struct {
	name   string
	weight int
	may    func(p *profile) bool
	do     func(w *World)
}

func always(*profile) bool { return true }

var faults = []fault{
	{"cut a link", 6, always, func(w *World) { a, b := w.two(); w.net.SetBoth(a.id, b.id, true) }},
	{"cut a direction", 3, always, func(w *World) { a, b := w.two(); w.net.Set(a.id, b.id, true) }},
	{"cut replication only", 3, always, func(w *World) {
		a, b := w.two()
		w.net.NoReplica[a.id][b.id], w.net.NoReplica[b.id][a.id] = true, true
	}},
	{"cut heartbeats only", 2, always, func(w *World) {
		a, b := w.two()
		w.net.Cut[a.id][b.id], w.net.Cut[b.id][a.id] = true, true
	}},
	{"cut a node off", 4, always, func(w *World) {
		w.net.CutOff(w.any().id)
	}},
	{"mend a link", 6, always, func(w *World) { a, b := w.two(); w.net.SetBoth(a.id, b.id, false) }},
	{"mend all links", 5, always, func(w *World) { w.setNet() }},
	{"crash", 5, always, func(w *World) { w.any().crash() }},
	{"crash at an effect", 6, always, func(w *World) { w.any().fuse = 1 + w.rng.IntN(12) }},
	{"crash all", 1, always, func(w *World) {
		for _, n := range w.nodes {
			n.crash()
		}
	}},
	{"restart vipd", 3, always, func(w *World) {
		if n := w.any(); n.m != nil {
			w.tracef("vipd of node %d restarts", n.id)
			n.wake()
			n.stopMachine()
			n.start()
		}
	}},
	{"restart hastd", 3, always, func(w *World) {
		if n := w.any(); n.m != nil {
			w.tracef("hastd of node %d restarts", n.id)
			n.wake()
			n.store.stop()
			n.step(view.Storage{})
		}
	}},
	{"wipe", 2, func(p *profile) bool { return p.wipes }, func(w *World) {
		n := w.any()
		n.crash()
		n.wipe()
	}},
	{"restore", 2, func(p *profile) bool { return p.restores }, func(w *World) { w.restore(w.any()) }},
	{"sleep", 4, always, func(w *World) { w.any().asleep = true }},
	{"wake", 4, always, func(w *World) { w.any().wake() }},
	{"start", 12, always, func(w *World) {
		for _, n := range w.nodes {
			switch {
			case n.m != nil || w.now < n.barred || w.chance(0.3):
			case w.chance(0.3):
				n.on = true // the storage daemon is there before vipd
				w.after(w.span(0, 2*second), func() {
					if n.on && n.m == nil {
						n.start()
					}
				})
			default:
				n.start()
			}
		}
	}},
	{"drop a good peer", 2, always, func(w *World) {
		n := w.any()
		for _, r := range n.store.replicas {
			n.step(view.Drop{Resource: r.name})
		}
	}},
	{"move", 4, always, func(w *World) {
		n, c := w.any(), w.cfg.Resources[w.rng.IntN(len(w.cfg.Resources))]
		w.move(c.Name, c.Nodes[w.rng.IntN(len(c.Nodes))], n)
	}},
	{"leave", 2, always, func(w *World) {
		w.any().step(view.Leave{On: w.chance(0.7), Gave: w.chance(0.7)})
	}},
	{"group state", 2, always, func(w *World) {
		s := [...]string{"", "offline", "online", "frozen"}[w.rng.IntN(4)]
		w.any().step(view.SetGroup{Group: view.Group{Name: "g", State: s}})
	}},
	{"force a resource", 2, func(p *profile) bool { return p.forces }, func(w *World) {
		n, c := w.any(), w.cfg.Resources[w.rng.IntN(len(w.cfg.Resources))]
		w.forceResource(n, c.Name)
	}},
	{"others are down", 2, func(p *profile) bool { return p.forces }, func(w *World) { w.forceView(w.any()) }},
}

// injectFault draws one.
func (w *World) injectFault() {
	f := &faults[Draw(w.rng, len(faults), func(i int) int {
		if !faults[i].may(&w.prof) {
			return 0
		}
		return faults[i].weight
	})]
	w.tracef("FAULT %s", f.name)
	w.count("fault " + f.name)
	w.res.Faults++
	f.do(w)
}

// Draw picks one of n things, the heavier the likelier.
func Draw(r *rand.Rand, n int, weight func(i int) int) int {
	total := 0
	for i := range n {
		total += weight(i)
	}
	x := r.IntN(total)
	for i := range n {
		if x -= weight(i); x < 0 {
			return i
		}
	}
	panic("views: nothing has a weight")
}

func (w *World) any() *node { return w.nodes[w.rng.IntN(len(w.nodes))] }

func (w *World) two() (a, b *node) {
	i := w.rng.IntN(len(w.nodes))
	j := (i + 1 + w.rng.IntN(len(w.nodes)-1)) % len(w.nodes)
	return w.nodes[i], w.nodes[j]
}

// setNet mends all links and gives the network the run's habits.
func (w *World) setNet() {
	w.net.Init(len(w.nodes))
	if !w.quiet {
		w.net.Loss, w.net.Twice, w.net.Late = w.prof.loss, w.prof.twice, w.prof.late
	}
}

func (n *node) wake() {
	if !n.asleep {
		return
	}
	n.w.tracef("node %d wakes", n.id)
	n.asleep = false
	box := n.inbox
	n.inbox = nil
	for _, do := range box {
		do()
	}
	if n.m != nil {
		n.step(view.Tick{})
	}
}

// restore puts an older copy of a node's stored state back, where somebody who is up
// saw a later one, or the disks know better: else the rules cannot know (package view).
func (w *World) restore(n *node) {
	if len(n.copies) == 0 || n.durable == nil {
		return
	}
	copied := n.copies[w.rng.IntN(len(n.copies))]
	old, err := view.ReadState(copied)
	if err != nil {
		return
	}
	if v := old.View; v != nil && len(v.Members) == 1 && v.Stamp.Number() >= n.store.floor() {
		w.count("fault restore not tried")
		return
	}
	for _, o := range w.nodes {
		if o == n {
			continue
		}
		if o.m == nil || o.m.LastSeen(n.id, old.Inc) <= old.Serial+1 {
			w.count("fault restore not tried")
			return
		}
	}
	w.count("fault restored")
	n.crash()
	n.durable, n.stored = copied, old.Inc
	n.barred = w.now + view.Instant(Latest) // what is under way to it is of an older session
}

func (w *World) forceResource(n *node, name string) {
	if n.store.replica(name) == nil {
		return
	}
	n.step(view.Move{Resource: name, To: n.id, Force: true})
}

func (w *World) forceView(n *node) {
	if n.m == nil {
		return
	}
	how := view.OthersAreDown
	if n.m.View() == nil {
		how = view.Bootstrap
	}
	w.books.Forced = true
	w.tracef("a person forces a view on node %d", n.id)
	n.step(view.Force{How: how, Who: "operator", When: int64(w.now / view.Instant(second))})
}
