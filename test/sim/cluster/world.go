package cluster

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"

	"hastd/cluster/view"
	"hastd/test/sim"
	"hastd/test/sim/views"
)

// Spans of virtual time.
const (
	millisecond = view.Millisecond
	second      = view.Second
)

// pair is a resource: two replicas with what lies between them.
type pair struct {
	*sim.Pair
	name  string
	hosts [2]*host
	judge ledger
}

// World is one run.
type World struct {
	opt    views.Options
	prof   profile
	rng    *rand.Rand
	now    int64
	agenda views.Agenda
	events int
	cfg    view.Config
	hosts  []*host // by id
	pairs  []*pair
	net    views.Network
	chain  views.Chain
	cover  *sim.Coverage
	res    views.Result
	quiet  bool // faults have stopped
	person bool // somebody was needed
	stood  bool // a host's clock stood still: what rests on leases is no promise any more
}

// newWorld makes a world of a profile. Nothing runs yet.
func newWorld(opt views.Options, p profile, rng *rand.Rand) *World {
	w := &World{opt: opt, prof: p, rng: rng, now: int64(second), cfg: p.config()}
	if opt.Cover != nil {
		w.cover = sim.NewCoverage()
	}
	w.net.Init(len(w.cfg.Nodes))
	for i := range w.cfg.Nodes {
		w.hosts = append(w.hosts, newHost(w, view.NodeID(i)))
	}
	for i, c := range w.cfg.Resources {
		x := &pair{name: c.Name, hosts: [2]*host{w.hosts[c.Nodes[0]], w.hosts[c.Nodes[1]]}}
		x.Pair = sim.NewPair(sim.PairOptions{
			Seed: rng.Uint64(), Label: c.Name + ": ", Trace: opt.Trace, Cover: w.cover, Profile: p.storage[i],
			Clocks: [2]sim.Clock{x.hosts[0].clock, x.hosts[1].clock},
			Told:   func(node int, write bool) { w.told(x, node, write) },
			Shows:  func(node, _ int) { w.shows(x, node) },
			Forced: func(node int) { w.force(x, node) },
			Judged: func(node int) bool { return w.counts(x, x.Grant(node).Generation) },
			Pause:  func(node int) int64 { return w.pause(x.hosts[node]) },
		})
		w.pairs = append(w.pairs, x)
		for side, h := range x.hosts {
			h.replicas = append(h.replicas, &replica{p: x, side: side})
			w.tracef("%s of node %d is %s's %c", c.Name, h.id, c.Name, 'A'+side)
		}
	}
	return w
}

func (w *World) after(d view.Duration, do func()) {
	w.agenda.Add(view.Instant(w.now)+view.Instant(d), do)
}

// step does the next thing, of a pair or of the hosts, and says whether there was one
// before the time is over.
func (w *World) step(until int64) bool {
	var first *pair
	at := until + 1
	if t, ok := w.agenda.NextAt(); ok {
		at = min(at, int64(t))
	}
	for _, p := range w.pairs {
		if t, ok := p.NextAt(); ok && t < at {
			first, at = p, t
		}
	}
	if at > until {
		w.moveTo(until)
		return false
	}
	w.events++
	if first != nil {
		w.now = max(w.now, at)
		first.Next()
		return true
	}
	w.moveTo(at)
	w.agenda.Take()()
	return true
}

// moveTo takes the time of everything forward: what is ordered of a pair happens now.
func (w *World) moveTo(at int64) {
	w.now = max(w.now, at)
	for _, p := range w.pairs {
		p.At(w.now)
	}
}

func (w *World) runFor(d view.Duration) {
	for until := w.now + int64(d); w.step(until); {
	}
}

func (w *World) chance(p float64) bool { return w.rng.Float64() < p }

func (w *World) span(a, b view.Duration) view.Duration {
	return a + view.Duration(w.rng.Int64N(int64(b-a)+1))
}

func (w *World) violate(oracle, format string, args ...any) {
	v := &views.Violation{Oracle: oracle, Seed: w.opt.Seed, Text: fmt.Sprintf(format, args...)}
	w.tracef("VIOLATION of %s: %s", oracle, v.Text)
	panic(v)
}

func (w *World) tracef(format string, args ...any) {
	if w.opt.Trace != nil {
		fmt.Fprintf(w.opt.Trace, "%11.6f ", float64(w.now)/float64(second))
		fmt.Fprintf(w.opt.Trace, format, args...)
		io.WriteString(w.opt.Trace, "\n")
	}
}

func (w *World) count(what string) {
	if w.opt.Cover != nil {
		w.opt.Cover[what]++
	}
}

// digest mixes something that happened into the run's fingerprint.
func (w *World) digest(x uint64) {
	w.res.Digest = (w.res.Digest ^ x ^ uint64(w.now)) * 0x100000001b3
}

// owner is who owns a resource by the newest view.
func (w *World) owner(name string) view.NodeID {
	if r := w.chain.Newest.Resource(name); r != nil {
		return r.Owner
	}
	return view.Nobody
}

func (w *World) status() string {
	var b strings.Builder
	fmt.Fprintf(&b, "newest view: %v\n", w.chain.Newest)
	for _, h := range w.hosts {
		fmt.Fprintf(&b, "node %d: %s\n", h.id, h.describe())
	}
	return b.String()
}

// finish tells what a run was, however it ended.
func (w *World) finish(ended any) views.Result {
	switch x := ended.(type) {
	case nil:
	case *views.Violation:
		w.res.Violation = x
	default:
		v := sim.Spoken(x)
		if v == nil {
			panic(x)
		}
		w.res.Violation = &views.Violation{Oracle: v.Oracle, Seed: w.opt.Seed, Text: v.Text}
	}
	w.res.Events, w.res.Time = w.events, view.Instant(w.now)
	for _, p := range w.pairs {
		w.digest(p.Digest())
	}
	if w.cover != nil {
		for k, n := range w.cover.Table() {
			w.opt.Cover["storage "+k] += n
		}
	}
	w.count("run")
	return w.res
}
