package views

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"

	"hastd/cluster/view"
)

// Times of the model.
const (
	millisecond = view.Millisecond
	second      = view.Second

	beatEvery = 250 * millisecond // heartbeats
	deafAfter = 800 * millisecond // three lost, and a node is not heard
	rejoin    = 1500 * millisecond
)

// Violation is what an oracle saw.
type Violation struct {
	Oracle string
	Seed   uint64
	Text   string
}

func (v *Violation) Error() string {
	return fmt.Sprintf("seed %d: oracle %s: %s", v.Seed, v.Oracle, v.Text)
}

// Options choose a run.
type Options struct {
	Seed  uint64
	Trace io.Writer
	Cover Coverage // nil: nothing is counted
}

// Result tells what a run was.
type Result struct {
	Violation *Violation
	Events    int
	Views     int // committed
	Writes    int // acknowledged
	Faults    int
	Time      view.Instant
	Healed    view.Duration // how long the cluster took to serve without help; 0: a person helped
	Digest    uint64
}

// World is one run.
type World struct {
	opt    Options
	prof   profile
	rng    *rand.Rand
	now    view.Instant
	queue  Agenda
	events int
	nodes  []*node // by id
	cfg    view.Config
	net    Network
	books  books
	res    Result
	bad    *Violation
	quiet  bool // faults have stopped
}

// NewWorld makes a world of a profile. Nothing runs yet.
func newWorld(opt Options, p profile) *World {
	w := &World{opt: opt, prof: p, rng: rand.New(rand.NewPCG(opt.Seed, 0x76696577))}
	w.cfg = p.config()
	w.net.Init(len(w.cfg.Nodes))
	w.books.init(w)
	for i := range w.cfg.Nodes {
		w.nodes = append(w.nodes, newNode(w, view.NodeID(i)))
	}
	return w
}

func (w *World) after(d view.Duration, do func()) { w.queue.Add(w.now+view.Instant(d), do) }

// step does the next thing, and says whether there was one before the time is over.
func (w *World) step(until view.Instant) bool {
	at, ok := w.queue.NextAt()
	if w.bad != nil || !ok || at > until {
		w.now = max(w.now, until)
		return false
	}
	w.now = at
	w.events++
	w.queue.Take()()
	return w.bad == nil
}

func (w *World) runFor(d view.Duration) {
	for until := w.now + view.Instant(d); w.step(until); {
	}
}

func (w *World) chance(p float64) bool { return w.rng.Float64() < p }

func (w *World) span(a, b view.Duration) view.Duration { return span(w.rng, a, b) }

func (w *World) violate(oracle, format string, args ...any) {
	if w.bad == nil {
		w.bad = &Violation{oracle, w.opt.Seed, fmt.Sprintf(format, args...)}
		w.tracef("VIOLATION of %s: %s", oracle, w.bad.Text)
	}
}

func (w *World) tracef(format string, args ...any) {
	if w.opt.Trace != nil {
		fmt.Fprintf(w.opt.Trace, "%9.3f  %s\n", float64(w.now)/float64(second), fmt.Sprintf(format, args...))
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

func (w *World) status() string {
	var b strings.Builder
	for _, n := range w.nodes {
		fmt.Fprintf(&b, "node %d: %s\n", n.id, n.describe())
	}
	return b.String()
}
