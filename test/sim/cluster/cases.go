package cluster

import (
	"math/rand/v2"

	"hastd/cluster/view"
	"hastd/metadata"
	"hastd/replicate"
	"hastd/test/sim/views"
)

// Case is one of the cases that the rules of the cluster must decide rightly, with the
// replicas under it.
type Case struct {
	Row  int // of the cluster rules' table
	Name string
	play func(w *World, p *pair)
}

// Cases are the rows 1 to 5, 11 and 12, of a pair of nodes and a witness.
var Cases = []Case{
	{1, "the held writes of the cut-off owner", case1},
	{2, "a stale replica with a witness", case2},
	{3, "only the replication port is cut", case3},
	{4, "a wiped witness hears the losing side", case4},
	{5, "witness lost, then the owner", case5},
	{11, "hastd stands still", func(w *World, p *pair) { case11(w, p, 0, func(h *host, d view.Duration) { h.stallStorage(d) }) }},
	{11, "vipd stands still", func(w *World, p *pair) { case11(w, p, 1, func(h *host, d view.Duration) { h.stallVipd(d) }) }},
	{11, "both stand still", func(w *World, p *pair) { case11(w, p, 1, w.stall) }},
	{11, "the machine is paused, and its clock", func(w *World, p *pair) { case11(w, p, 1, w.stallWithClock) }},
	{12, "a power cut, and one link slow at boot", case12},
}

// PlayCase plays a case with the random times and replicas of a seed.
func PlayCase(c *Case, opt views.Options) views.Result {
	return scripted(opt, profile{data: 2, witness: 1, pairs: [][]view.NodeID{{0, 1}}}, func(w *World) { c.play(w, w.pairs[0]) })
}

// scripted plays a script once everything is up and in sync.
func scripted(opt views.Options, p profile, script func(w *World)) (r views.Result) {
	rng := rand.New(rand.NewPCG(opt.Seed, 0x63617365))
	p = p.outfit(rng)
	p.drift, p.stalls = maxDrift, 0.002
	w := newWorld(opt, p, rng)
	defer func() { r = w.finish(recover()) }()
	w.begin()
	w.quiet = true
	w.until("complete at first", func() bool { return w.complete(0) })
	w.runFor(w.span(0, second))
	script(w)
	return r
}

// until waits for something that must come.
func (w *World) until(what string, good func() bool) {
	for end := w.now + int64(healTime); !good(); w.runFor(20 * millisecond) {
		if w.now >= end {
			w.violate("case", "not %s within %ds\n%s", what, healTime/second, w.status())
		}
	}
}

// never watches for something that must not come.
func (w *World) never(what string, bad func() bool) {
	for end := w.now + int64(8*second); w.now < end; w.runFor(20 * millisecond) {
		if bad() {
			w.violate("case", "%s\n%s", what, w.status())
		}
	}
}

// servedBy says whether a host serves by the newest view.
func (w *World) servedBy(p *pair, side int) bool {
	return w.served(p, 0) && w.owner(p.name) == p.hosts[side].id
}

func (w *World) untilServedBy(p *pair, side int, how string) {
	w.until(how, func() bool { return w.servedBy(p, side) })
}

// apart: nobody reports two histories.
func (w *World) apart(p *pair) {
	for side := range p.hosts {
		if st := p.Status(side); st.Status == "split-brain" || st.Counters.SplitBrains > 0 {
			w.violate("case", "split-brain, although nobody forced\n%s", w.status())
		}
	}
}

func (w *World) whole(p *pair) {
	began := w.now
	w.until("complete again", func() bool { return w.complete(began) })
	w.apart(p)
	w.oracleKept("at the end")
}

func (w *World) cutOff(h *host) {
	w.net.CutOff(h.id)
	w.links()
}

func (w *World) cutReplication(a, b *host) {
	w.net.NoReplica[a.id][b.id], w.net.NoReplica[b.id][a.id] = true, true
	w.links()
}

// says: a node that serves nothing tells why.
func (w *World) says(h *host) {
	if h.vipd.m.Waits() == "" {
		w.violate("case", "node %d does not say what it waits for\n%s", h.id, w.status())
	}
}

// case1: bravo serves, its connection is reset, and the links are cut: what it holds it
// never acknowledges.
func case1(w *World, p *pair) {
	w.move(p, 1)
	w.untilServedBy(p, 1, "served by bravo")
	p.Fault("flap", 1)
	w.cutReplication(p.hosts[0], p.hosts[1])
	w.runFor(w.span(0, 60*millisecond)) // not for long: bravo may ask for a view without alpha
	w.cutOff(p.hosts[1])
	w.until("alpha or bravo serves", func() bool { return w.servedBy(p, 0) || w.servedBy(p, 1) })
	if w.owner(p.name) == 0 {
		told := p.judge.told[1]
		w.never("bravo told an application of success after it was cut off", func() bool { return p.judge.told[1] != told })
		w.count("case 1: alpha took over")
	}
	w.setNet()
	w.whole(p)
}

// case2: bravo is down, alpha writes alone and dies, bravo and the witness are there.
func case2(w *World, p *pair) {
	p.hosts[1].powerLoss()
	w.until("served by alpha alone", func() bool { return w.chain.Newest.Resource(p.name).InSync == view.SetOf(0) && w.servedBy(p, 0) })
	w.runFor(w.span(second/2, second))
	p.hosts[0].powerLoss()
	w.runFor(w.span(0, second))
	p.hosts[1].boot()
	told := p.judge.told[1]
	w.never("bravo serves", func() bool { return p.judge.told[1] != told })
	if w.owner(p.name) != view.Nobody {
		w.says(p.hosts[1])
	}
	w.forceView(p.hosts[1])
	w.until("bravo is up", func() bool { return p.hosts[1].vipd.m.Up() })
	w.never("bravo serves by a forced view", func() bool { return p.judge.told[1] != told })
	w.forceResource(p.hosts[1], p)
	w.untilServedBy(p, 1, "served by force")
}

// case3: the replicas lose each other: one owner serves, and the other is refused.
func case3(w *World, p *pair) {
	w.cutReplication(p.hosts[0], p.hosts[1])
	w.until("served by one", func() bool { return w.chain.Newest.Resource(p.name).InSync.Len() == 1 && w.serves(0) })
	side := 0
	if w.owner(p.name) == p.hosts[0].id {
		side = 1
	}
	answered := false
	p.Order(side, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Primary, Force: w.chance(0.5)}, func(r *replicate.Refusal) {
		if answered = true; r == nil {
			w.violate("case", "node %d was promoted without a lease", p.hosts[side].id)
		}
	})
	w.until("refused", func() bool { return answered })
	told := p.judge.told[side]
	w.never("the other serves", func() bool { return p.judge.told[side] != told || p.MayAnswer(side) })
	w.setNet()
	w.whole(p)
}

// case4: the witness dies, the pair is cut, and the witness, wiped, hears bravo only.
func case4(w *World, p *pair) {
	witness := w.hosts[2]
	witness.powerLoss()
	w.until("a view of the pair", func() bool { return w.chain.Newest.Set() == view.SetOf(0, 1) })
	w.runFor(w.span(0, second))
	w.net.SetBoth(0, 1, true)
	w.net.SetBoth(0, 2, true)
	w.links()
	witness.wipe()
	w.runFor(w.span(0, second))
	witness.boot()
	told := p.judge.told[1]
	w.until("served by alpha, by the tie", func() bool { return w.chain.Newest.Set() == view.SetOf(0) && w.servedBy(p, 0) })
	w.never("bravo serves", func() bool { return p.judge.told[1] != told })
	w.says(p.hosts[1])
	w.setNet()
	w.whole(p)
}

// case5: the witness is lost, then alpha, the leader: bravo waits for a person.
func case5(w *World, p *pair) {
	w.hosts[2].powerLoss()
	w.until("a view of the pair", func() bool { return w.chain.Newest.Set() == view.SetOf(0, 1) })
	w.runFor(w.span(0, second))
	p.hosts[0].powerLoss()
	told := p.judge.told[1]
	w.never("bravo serves", func() bool { return p.judge.told[1] != told })
	w.says(p.hosts[1])
	w.forceView(p.hosts[1])
	w.untilServedBy(p, 1, "served by force")
	p.hosts[0].boot()
	w.hosts[2].boot()
	w.whole(p)
}

// case11: the owner, or a part of it, stands still for a minute. Whatever it decided
// before it tells nobody afterwards. A hastd that stands still is killed by its vipd, and
// serves again; else the other node takes over.
func case11(w *World, p *pair, by int, stall func(h *host, d view.Duration)) {
	o := p.hosts[0]
	w.untilServedBy(p, 0, "served by alpha")
	stall(o, 60*second)
	end := w.now + int64(60*second)
	w.runFor(second)
	w.untilServedBy(p, by, "served again")
	w.runFor(view.Duration(end-w.now) + 100*millisecond)
	w.whole(p)
}

// stallWithClock pauses a machine whose clock stands still meanwhile.
func (w *World) stallWithClock(h *host, d view.Duration) {
	w.stall(h, d)
	w.stood = true
	w.after(d-1, func() {
		h.clock.Skew -= int64(d)
		for _, r := range h.replicas {
			r.p.SetBack(r.side, int64(d))
		}
	})
}

// case12: all lose power while bravo is behind, and come back; alpha's links are slow.
func case12(w *World, p *pair) {
	p.hosts[1].powerLoss()
	w.until("served by alpha alone", func() bool { return w.chain.Newest.Resource(p.name).InSync == view.SetOf(0) && w.servedBy(p, 0) })
	w.runFor(w.span(second/2, second))
	for _, h := range w.hosts {
		h.powerLoss()
	}
	w.cutOff(p.hosts[0])
	for _, h := range w.hosts {
		w.after(w.span(0, second), h.boot)
	}
	told := p.judge.told[1]
	w.never("bravo serves", func() bool { return p.judge.told[1] != told })
	w.setNet()
	w.untilServedBy(p, 0, "served by alpha")
	w.whole(p)
}

// Thrice is case 13: three changes at once, and a host on which vipd ends at its step-th
// effect from then on, hastd ends, or the power, by turns. There is one view at the end.
func Thrice(victim view.NodeID, step int, opt views.Options) (ended bool, r views.Result) {
	p := profile{data: 2, witness: 1, pairs: [][]view.NodeID{{0, 1}, {0, 1}}}
	r = scripted(opt, p, func(w *World) {
		h := w.hosts[victim]
		h.fuse = step
		v := h.vipd
		first := w.pairs[0]
		w.move(first, 1)
		w.hosts[2].vipd.step(view.SetGroup{Group: view.Group{Name: "g", State: "frozen"}})
		if o := w.hosts[0].vipd; o != nil {
			o.leave()
		}
		if step%3 == 1 {
			w.after(w.span(0, 300*millisecond), h.killStorage)
		}
		w.runFor(w.span(second, 2*second))
		if ended = h.vipd != v; ended && step%3 == 2 {
			h.powerLoss()
		}
		w.runFor(w.span(second, 2*second))
		w.back(true, nil)
		w.runFor(1500 * millisecond)
		w.whole(first)
	})
	return ended, r
}
