package views

import (
	"container/heap"
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

type item struct {
	at  view.Instant
	seq int
	do  func()
}

type agenda []item

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].seq < a[j].seq
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(item)) }
func (a *agenda) Pop() any {
	old := *a
	x := old[len(old)-1]
	*a = old[:len(old)-1]
	return x
}

// World is one run.
type World struct {
	opt    Options
	prof   profile
	rng    *rand.Rand
	now    view.Instant
	seq    int
	queue  agenda
	events int
	nodes  []*node // by id
	cfg    view.Config
	net    network
	books  books
	res    Result
	bad    *Violation
	quiet  bool // faults have stopped
}

// NewWorld makes a world of a profile. Nothing runs yet.
func newWorld(opt Options, p profile) *World {
	w := &World{opt: opt, prof: p, rng: rand.New(rand.NewPCG(opt.Seed, 0x76696577))}
	w.cfg = p.config()
	w.net.init(len(w.cfg.Nodes))
	w.books.init(w)
	for i := range w.cfg.Nodes {
		w.nodes = append(w.nodes, newNode(w, view.NodeID(i)))
	}
	return w
}

func (w *World) after(d view.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, item{w.now + view.Instant(d), w.seq, do})
}

// step does the next thing, and says whether there was one before the time is over.
func (w *World) step(until view.Instant) bool {
	if w.bad != nil || len(w.queue) == 0 || w.queue[0].at > until {
		w.now = max(w.now, until)
		return false
	}
	x := heap.Pop(&w.queue).(item)
	w.now = x.at
	w.events++
	x.do()
	return w.bad == nil
}

func (w *World) runFor(d view.Duration) {
	for until := w.now + view.Instant(d); w.step(until); {
	}
}

func (w *World) chance(p float64) bool { return w.rng.Float64() < p }

func (w *World) span(a, b view.Duration) view.Duration {
	return a + view.Duration(w.rng.Int64N(int64(b-a)+1))
}

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
