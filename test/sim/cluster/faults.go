package cluster

import (
	"hastd/cluster/member"
	"hastd/cluster/view"
	"hastd/test/sim/views"
)

// fault does one thing to the cluster.
type fault struct {
	name   string
	weight int
	may    func(p *profile) bool
	do     func(w *World)
}

func always(*profile) bool   { return true }
func wipes(p *profile) bool  { return p.wipes }
func forces(p *profile) bool { return p.forces }
func disks(p *profile) bool  { return p.disks }

var faults = []fault{
	{"cut a link", 5, always, func(w *World) { a, b := w.two(); w.net.SetBoth(a, b, true) }},
	{"cut a direction", 4, always, func(w *World) { a, b := w.two(); w.net.Set(a, b, true) }},
	{"cut replication only", 4, always, func(w *World) {
		a, b := w.two()
		w.net.NoReplica[a][b], w.net.NoReplica[b][a] = true, true
	}},
	{"cut replication one way", 3, always, func(w *World) { a, b := w.two(); w.net.NoReplica[a][b] = true }},
	{"cut heartbeats only", 3, always, func(w *World) {
		a, b := w.two()
		w.net.Cut[a][b], w.net.Cut[b][a] = true, true
	}},
	{"cut a node off", 5, always, func(w *World) { w.net.CutOff(w.any().id) }},
	{"cut the owner off", 4, always, func(w *World) {
		if h := w.ownerHost(); h != nil {
			w.net.CutOff(h.id)
		}
	}},
	{"mend a link", 5, always, func(w *World) { a, b := w.two(); w.net.SetBoth(a, b, false) }},
	{"mend all links", 14, always, func(w *World) { w.setNet() }},
	{"reset a connection", 4, always, func(w *World) { w.pairFault("flap") }},
	{"slow replication", 2, always, func(w *World) { w.pairFault("slow-net") }},
	{"end hastd", 6, always, func(w *World) { w.any().killStorage() }},
	{"end vipd", 4, always, func(w *World) { w.any().killVipd() }},
	{"end vipd at an effect", 5, always, func(w *World) { w.any().fuse = 1 + w.rng.IntN(12) }},
	{"power loss", 5, always, func(w *World) { w.any().powerLoss() }},
	{"power loss of the owner", 3, always, func(w *World) {
		if h := w.ownerHost(); h != nil {
			h.powerLoss()
		}
	}},
	{"power loss of all", 1, always, func(w *World) {
		for _, h := range w.hosts {
			h.powerLoss()
		}
	}},
	{"power returns", 12, always, func(w *World) {
		for _, h := range w.hosts {
			if w.chance(0.8) {
				h.boot()
			}
		}
	}},
	{"hastd stands still", 4, always, func(w *World) { w.any().stallStorage(w.standstill()) }},
	{"vipd stands still", 4, always, func(w *World) { w.any().stallVipd(w.standstill()) }},
	{"a node stands still", 4, always, func(w *World) { w.stall(w.any(), w.standstill()) }},
	{"the owner stands still", 3, always, func(w *World) {
		if h := w.ownerHost(); h != nil {
			w.stall(h, w.standstill())
		}
	}},
	{"wipe what vipd stored", 4, wipes, func(w *World) { w.wipe(w.any()) }},
	{"a write to a disk fails", 3, disks, func(w *World) { w.diskFault("disk-write") }},
	{"a read fails", 2, disks, func(w *World) { w.diskFault("disk-read") }},
	{"a flush fails", 2, disks, func(w *World) { w.diskFault("disk-flush") }},
	{"a metadata write fails", 2, disks, func(w *World) { w.diskFault("disk-meta") }},
	{"a disk is gone", 1, disks, func(w *World) { w.diskFault("disk-gone") }},
	{"a slow disk", 3, disks, func(w *World) { w.pairFault("slow-disk") }},
	{"move", 8, always, func(w *World) {
		p := w.pairs[w.rng.IntN(len(w.pairs))]
		w.move(p, p.hosts[w.rng.IntN(2)].id)
	}},
	{"leave or stay", 4, always, func(w *World) {
		v := w.any().vipd
		switch {
		case v == nil || v.h.standsStill():
		case v.leaving:
			v.stay()
		default:
			v.leave()
		}
	}},
	{"group state", 1, always, func(w *World) {
		if v := w.any().vipd; v != nil && !v.h.standsStill() {
			s := [...]string{"", "offline", "online", "frozen"}[w.rng.IntN(4)]
			v.step(view.SetGroup{Group: view.Group{Name: "g", State: s}})
		}
	}},
	{"force a resource", 2, forces, func(w *World) { w.forceResource(w.any(), w.pairs[w.rng.IntN(len(w.pairs))]) }},
	{"others are down", 2, forces, func(w *World) { w.forceView(w.any()) }},
}

// injectFault draws one.
func (w *World) injectFault() {
	f := &faults[views.Draw(w.rng, len(faults), func(i int) int {
		if !faults[i].may(&w.prof) {
			return 0
		}
		return faults[i].weight
	})]
	w.tracef("FAULT %s", f.name)
	w.count("fault " + f.name)
	w.res.Faults++
	f.do(w)
	w.links()
}

// links brings what is cut between replicas to the pairs.
func (w *World) links() {
	for _, p := range w.pairs {
		a, b := p.hosts[0].id, p.hosts[1].id
		p.Cut(0, w.net.NoReplica[a][b])
		p.Cut(1, w.net.NoReplica[b][a])
	}
}

func (w *World) any() *host { return w.hosts[w.rng.IntN(len(w.hosts))] }

func (w *World) two() (a, b view.NodeID) {
	i := w.rng.IntN(len(w.hosts))
	return view.NodeID(i), view.NodeID((i + 1 + w.rng.IntN(len(w.hosts)-1)) % len(w.hosts))
}

func (w *World) ownerHost() *host {
	if o := w.owner(w.pairs[w.rng.IntN(len(w.pairs))].name); o != view.Nobody {
		return w.hosts[o]
	}
	return nil
}

// standstill is for how long something stands still: mostly shorter than a lease, or
// around its end.
func (w *World) standstill() view.Duration {
	if w.chance(0.3) {
		return w.span(2*second, 8*second)
	}
	return w.span(50*millisecond, 2*leaseTime)
}

// stall has a whole host stand still, as a paused machine does.
func (w *World) stall(h *host, d view.Duration) {
	h.stallStorage(d)
	h.stallVipd(d)
}

func (w *World) pairFault(name string) {
	w.pairs[w.rng.IntN(len(w.pairs))].Fault(name, w.rng.IntN(2))
}

func (w *World) diskFault(name string) {
	w.pairFault(name)
}

// setNet mends all links and gives the network the run's habits.
func (w *World) setNet() {
	w.net.Init(len(w.hosts))
	if !w.quiet {
		w.net.Loss, w.net.Twice, w.net.Late = w.prof.loss, w.prof.twice, w.prof.late
	}
	w.links()
}

// wipe loses what vipd stored on a host, if it would be the only one: a cluster most of
// which is new is a person's.
func (w *World) wipe(h *host) {
	v := w.chain.Newest
	for _, o := range w.hosts {
		if m := v.Member(o.id); m == nil || m.Inc != o.inc {
			return
		}
	}
	if w.rng.IntN(2) == 0 {
		h.powerLoss()
	}
	h.wipe()
	w.count("vipd's store wiped")
	w.after(w.span(20*millisecond, second), h.startVipd)
}

// move hands a resource over: its owner gives it up itself.
func (w *World) move(p *pair, to view.NodeID) {
	o := w.owner(p.name)
	if o == view.Nobody || o == to {
		return
	}
	if v := w.hosts[o].vipd; v != nil && !v.h.standsStill() && !v.leaving {
		if g := v.group(p.name); g.master {
			w.count("move ordered")
			g.resign("switched by order")
		}
	}
}

// forceResource makes a host owner whatever its replica lacks, and promotes it so.
func (w *World) forceResource(h *host, p *pair) {
	v := h.vipd
	if v == nil || h.standsStill() {
		return
	}
	g := v.group(p.name)
	if g == nil {
		return
	}
	w.tracef("a person forces %s to node %d", p.name, h.id)
	g.force = true
	v.step(member.Event(view.Move{Resource: p.name, To: h.id, Force: true}))
}

// forceView commits a view of whom a host hears.
func (w *World) forceView(h *host) {
	v := h.vipd
	if v == nil || h.standsStill() {
		return
	}
	how := view.OthersAreDown
	if v.m.View() == nil {
		how = view.Bootstrap
	}
	w.chain.Forced = true
	w.tracef("a person forces a view on node %d", h.id)
	v.step(view.Force{How: how, Who: "operator", When: w.now / int64(second)})
}
