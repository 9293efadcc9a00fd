package sim

import (
	"fmt"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"strings"

	"hastd/metadata"
	"hastd/replicate"
)

// Spans of virtual time, in nanoseconds.
const (
	microsecond int64 = 1e3
	millisecond int64 = 1e6
	second      int64 = 1e9
)

// Bounds of a run.
const (
	// settleTime is how long a pair may take to be complete once faults stopped
	// and the operator helps.
	settleTime = 240 * second
	// settleEvents bounds the same in events: a machine that talks for ever
	// without progress is found by it.
	settleEvents = 120_000
	// maxEvents bounds the eventful part when virtual time does not.
	maxEvents = 60_000
	// sectorsPerBlock is how many sectors one bit of the dirty map stands for.
	sectorsPerBlock = metadata.BlockSize / sectorSize
)

// kind says what a queued event is.
type kind uint8

const (
	kDrain   kind = iota + 1 // a node steps its machine
	kOp                      // an operation of a node ends
	kDeliver                 // the head of a stream arrives
	kTimer                   // a machine's deadline
	kClient                  // an application thinks of something
	kFunc                    // anything rare
)

type event struct {
	at   int64
	seq  uint64
	kind kind
	node uint8
	life uint32 // of the process it belongs to; 0: of none
	x    uint32
	fn   func()
}

// World is one run: two nodes, what lies between them, and the judges.
type World struct {
	opt     Options
	prof    Profile
	rng     *rand.Rand
	pcg     rand.PCG
	now     int64
	seq     uint64
	tick    uint32 // order of what applications saw
	queue   []event
	nodes   [2]node
	link    link
	ledger  ledger
	cover   *Coverage
	trace   io.Writer
	events  int
	faults  int
	crashes int
	quiet   bool // faults stopped
	// scripted worlds have no clients, operators or faults of their own.
	scripted              bool
	op                    operator
	nextFault             int
	nextCopy, nextRestore int
	cmdID                 uint64
	seqArena              []uint64
	failed                *Violation
	restored              bool // a replica was put back from an older copy (restore.go), or a person chose the worse one
	forkSince             int64
	diskFault             bool // some disk error was injected: EIO is to be expected
	eioOK                 bool // an operator asked for errors
	hooks                 hooks
	probes                int
	course                course
	site                  *Site    // whose host this pair shares with others; nil: it has hosts of its own
	label                 string   // of the pair, in a transcript of several
	kept                  keptBook // with quorum
}

// hooks let scripts act at exact points.
type hooks struct {
	send    func(n *node, m *replicate.Msg)
	deliver func(n *node, m *replicate.Msg)
	commit  func(n *node)
	report  func(n *node, r *replicate.Report)
	reply   func(n *node, r *request, err replicate.Err)
	// An operation of a component ends: before it has its effect (false: the process
	// is gone), and after it was told.
	begin  func(n *node, o *op) bool
	ended  func(n *node)
	image  func(n *node, img *metadata.Image) // what opening a component read
	share  func() float64                     // how much of a cache survives a power loss
	issue  func(r *request)
	read   func(r *request, stamps []uint32) // before reply
	moment func(n *node, m moment)
	deaf   func(oracle string) bool // somebody else judges that
	// With quorum: an order was answered; a provider shows what src has; a daemon may
	// stand still between a decision and what applications are told of it.
	answered func(id uint64, r *replicate.Refusal)
	term     func(n, src *node, shows bool) // shows: src is read, not waited for
	pause    func(n *node) int64
	judged   func(n *node) bool // what the node does counts
}

// Options choose a run.
type Options struct {
	Seed   uint64
	Events int       // at least; 0: 2,000
	Trace  io.Writer // readable transcript, if not nil
	Cover  *Coverage // counts what was reached, if not nil
	// Restores has a replica put back from an older copy whatever the seed says.
	Restores bool
	// noWall stops all wall clocks: nothing may come out differently.
	noWall bool
	// prepare changes the profile and hangs hooks, before anything is built.
	prepare func(*World)
}

// Violation is an oracle's word.
type Violation struct {
	Oracle string
	Text   string
	Seed   uint64
	Event  int
	At     int64
}

func (v *Violation) Error() string {
	return fmt.Sprintf("seed %d: oracle %s: %s (event %d, %.6fs)", v.Seed, v.Oracle, v.Text, v.Event, float64(v.At)/1e9)
}

// violationPanic unwinds a run from wherever an oracle spoke.
type violationPanic struct{ v *Violation }

// violate speaks for an oracle: it ends the run, unless that oracle cannot know
// better since a replica was restored (restore.go).
func (w *World) violate(oracle, format string, args ...any) {
	if w.deaf(oracle) || w.hooks.deaf != nil && w.hooks.deaf(oracle) {
		return
	}
	v := &Violation{Oracle: oracle, Text: fmt.Sprintf(format, args...), Seed: w.opt.Seed, Event: w.events, At: w.now}
	w.tracef("VIOLATION %s: %s", oracle, v.Text)
	panic(violationPanic{v})
}

func (w *World) tracef(format string, args ...any) {
	if w.trace == nil {
		return
	}
	fmt.Fprintf(w.trace, "%11.6f %s", float64(w.now)/1e9, w.label)
	fmt.Fprintf(w.trace, format, args...)
	io.WriteString(w.trace, "\n")
}

// NewWorld makes memory for runs; each Run uses it anew.
func NewWorld() *World { return &World{} }

// Result tells what a run was.
type Result struct {
	Violation *Violation
	Events    int
	Faults    int
	Crashes   int
	Writes    int
	Time      int64 // virtual, in nanoseconds
	Healed    int64 // how long the pair took to be complete without help; 0: it was not
	Digest    uint64
}

// Run runs one seed to its end.
func (w *World) Run(opt Options) (res Result) {
	if opt.Events == 0 {
		opt.Events = 2000
	}
	defer func() {
		if r := recover(); r != nil {
			v := w.spoken(r)
			res = w.result()
			res.Violation = v
		}
	}()
	w.prepare(opt)
	for w.advance() {
	}
	return w.result()
}

// prepare makes everything for a run, up to its first event, or past the script of a
// directed one.
func (w *World) prepare(opt Options) {
	w.reset(opt)
	w.prof = randomProfile(w.rng)
	w.prof.Logs, w.prof.Meddles = logsOf(opt.Seed), meddles(opt.Seed)
	if opt.Restores || opt.Seed%restoreEvery == 0 {
		w.prof.Restores = true
		if opt.Seed%3 != 0 {
			w.prof.Think *= 20 // so that the two part without anything under way
		}
	}
	if opt.prepare != nil {
		opt.prepare(w)
		w.build()
	} else if r, disturbed, ok := directed(&opt); ok {
		w.direct(r, disturbed)
	} else {
		w.build()
	}
	w.begin()
}

// spoken makes a violation of what unwound a run.
func (w *World) spoken(r any) *Violation {
	if vp, ok := r.(violationPanic); ok {
		return vp.v
	}
	stack := string(debug.Stack())
	w.tracef("PANIC %v\n%s", r, stack)
	return &Violation{Oracle: "panic", Text: fmt.Sprint(r) + " at " + panicPlace(stack), Seed: w.opt.Seed, Event: w.events, At: w.now}
}

// panicPlace finds the first line of production code in a stack.
func panicPlace(stack string) string {
	for _, l := range strings.Split(stack, "\n") {
		l = strings.TrimSpace(l)
		if (strings.Contains(l, "/replicate/") || strings.Contains(l, "/metadata/")) && strings.Contains(l, ".go:") {
			if i := strings.LastIndex(l, " +"); i > 0 {
				l = l[:i]
			}
			parts := strings.Split(l, "/")
			return strings.Join(parts[max(0, len(parts)-2):], "/")
		}
	}
	return "the simulator itself"
}

func (w *World) result() Result {
	return Result{Events: w.events, Faults: w.faults, Crashes: w.crashes, Writes: len(w.ledger.writes), Time: w.now, Healed: w.course.healed, Digest: w.ledger.digest ^ uint64(w.now)<<20 ^ uint64(w.events)}
}

func (w *World) reset(opt Options) {
	w.opt, w.cover, w.trace = opt, opt.Cover, opt.Trace
	w.pcg.Seed(opt.Seed, 0x9e3779b97f4a7c15)
	w.rng = rand.New(&w.pcg)
	w.now, w.seq, w.tick = second, 0, 0
	for i := range w.queue {
		w.queue[i].fn = nil
	}
	w.queue = w.queue[:0]
	w.events, w.faults, w.crashes, w.quiet, w.scripted = 0, 0, 0, false, false
	w.nextFault, w.cmdID, w.probes, w.failed = 0, 0, 0, nil
	w.diskFault, w.eioOK = false, false
	w.restored, w.forkSince, w.nextCopy, w.nextRestore = false, 0, 0, 0
	w.hooks = hooks{}
	w.seqArena = w.seqArena[:0]
	w.op = operator{}
	w.course, w.site, w.label = course{}, nil, ""
	w.kept = keptBook{}
}

// build makes two nodes with new replicas, daemons not yet started.
func (w *World) build() {
	w.ledger.reset(int(w.prof.DataSize / sectorSize))
	w.link.reset(w)
	for i := range w.nodes {
		w.nodes[i].reset(w, i)
	}
	w.tracef("seed %d: %s", w.opt.Seed, w.prof.String())
	if w.prof.Drift == badDrift {
		w.cover.fault("clock-drift")
	}
}

// at queues an event.
func (w *World) at(e event) {
	w.seq++
	e.seq = w.seq
	q := append(w.queue, e)
	i := len(q) - 1
	for i > 0 {
		p := (i - 1) / 2
		if !less(&q[i], &q[p]) {
			break
		}
		q[i], q[p] = q[p], q[i]
		i = p
	}
	w.queue = q
}

func less(a, b *event) bool { return a.at < b.at || a.at == b.at && a.seq < b.seq }

func (w *World) after(d int64, fn func()) {
	w.at(event{at: w.now + d, kind: kFunc, fn: fn})
}

// next takes the first event off the queue and handles it. It says false when
// there is none.
func (w *World) next() bool {
	if len(w.queue) == 0 {
		return false
	}
	q := w.queue
	e := q[0]
	n := len(q) - 1
	q[0] = q[n]
	q[n].fn = nil
	q = q[:n]
	i := 0
	for {
		c := 2*i + 1
		if c >= n {
			break
		}
		if c+1 < n && less(&q[c+1], &q[c]) {
			c++
		}
		if !less(&q[c], &q[i]) {
			break
		}
		q[i], q[c] = q[c], q[i]
		i = c
	}
	w.queue = q
	w.now = e.at
	w.events++
	switch e.kind {
	case kDrain:
		w.nodes[e.node].drain(e.life)
	case kOp:
		w.nodes[e.node].opDone(e.life, int(e.x))
	case kDeliver:
		w.link.deliver(int(e.node), e.x, e.at)
	case kTimer:
		w.nodes[e.node].timer(e.life, e.at)
	case kClient:
		w.nodes[e.node].app.think(e.life)
	case kFunc:
		e.fn()
	}
	return true
}

// Small helpers on the seed.

func (w *World) chance(p float64) bool { return w.rng.Float64() < p }

// span draws from [a, b).
func (w *World) span(a, b int64) int64 {
	if b <= a {
		return a
	}
	return a + w.rng.Int64N(b-a)
}

func (w *World) peerOf(n *node) *node { return &w.nodes[1-n.id] }

// Profile is what a run is like: drawn from the seed, or chosen by a script.
type Profile struct {
	Mode        replicate.Mode
	Suspend     bool
	Sector      uint32
	DataSize    int64
	Larger      int64 // how much larger the second component is
	AssumeClean bool
	Think       int64 // mean time between an application's requests
	DiskTime    int64
	NetTime     int64
	Hot         int // how many hot blocks
	Reads       float64
	FaultGap    int // events between faults, mean
	OperatorGap int64
	Enabled     [faultKinds]bool
	Cautious    bool      // the operator seldom uses force
	Restores    bool      // a replica is put back from an older copy
	Lies        bool      // disks return wrong data now and then, without an error
	MetaLies    bool      // disks do so when metadata is read
	Skew        bool      // daemons of other releases
	Drift       int64     // how wrong clocks run at most, in parts in a million
	OnePrimary  bool      // the operator never asks for a second primary knowingly
	Logs        [2]uint32 // extents in the activity log of each node; 0: keepdirty
	Meddles     bool      // the operator gives orders out of turn
	Quorum      bool      // quorum = "majority": somebody else's views decide (pair.go)
}

func (p *Profile) String() string {
	s := fmt.Sprintf("%s sector %d size %dK", p.Mode, p.Sector, p.DataSize>>10)
	for i, l := range p.Logs {
		if l != 0 {
			s += fmt.Sprintf(" log of %c %d", 'A'+i, l)
		}
	}
	if p.Suspend {
		s += " suspend"
	}
	if p.Meddles {
		s += " meddles"
	}
	if p.AssumeClean {
		s += " assume-clean"
	}
	if p.Restores {
		s += " restores"
	}
	if p.Lies {
		s += " lies"
	}
	if p.Skew {
		s += " skew"
	}
	if p.MetaLies {
		s += " metadata lies"
	}
	if p.Drift == badDrift {
		s += " drift"
	}
	return s
}

// The geometry of simulated replicas: small, so that the log overflows often.
const (
	extentSize = 64 << 10
	keepdirty  = 16
	// largerLog is what a request may reach past on a node that has keepdirty.
	largerLog = 8 * keepdirty
)

// logsOf gives one node in some runs a larger log: it writes what the other's cannot take.
// Not drawn, so that a seed goes on meaning what it meant.
func logsOf(seed uint64) (logs [2]uint32) {
	if i := seed * 0x9e3779b97f4a7c15 >> 60; i < 2 {
		logs[i] = largerLog
	}
	return logs
}

// meddles has an operator in some runs who orders what nothing calls for. Not drawn, too.
func meddles(seed uint64) bool { return seed*0xbf58476d1ce4e5b9>>62 == 0 }

// log is how many extents are in the activity log of a node.
func (n *node) log() uint32 {
	if l := n.w.prof.Logs[n.id]; l != 0 {
		return l
	}
	return keepdirty
}

func randomProfile(r *rand.Rand) Profile {
	p := Profile{
		Mode:        replicate.Fullsync,
		Suspend:     r.Float64() < 0.12,
		Sector:      512,
		DataSize:    2 << 20,
		AssumeClean: r.Float64() < 0.3,
		Think:       []int64{200, 500, 1500, 4000}[r.IntN(4)] * microsecond,
		DiskTime:    []int64{30, 150, 800}[r.IntN(3)] * microsecond,
		NetTime:     []int64{30, 150, 1000}[r.IntN(3)] * microsecond,
		Hot:         8 + r.IntN(56),
		Reads:       0.1 + 0.3*r.Float64(),
		FaultGap:    100 + r.IntN(300),
		OperatorGap: []int64{30, 120, 500}[r.IntN(3)] * millisecond,
		Cautious:    r.Float64() < 0.5,
	}
	switch x := r.Float64(); {
	case x < 0.2:
		p.Mode = replicate.Memsync
	case x < 0.4:
		p.Mode = replicate.Async
	}
	if r.Float64() < 0.2 {
		p.Sector = 4096
	}
	if r.Float64() < 0.3 {
		p.DataSize = 4 << 20
	}
	if r.Float64() < 0.2 {
		p.Larger = 256 << 10
	}
	for i := range p.Enabled {
		p.Enabled[i] = r.Float64() < 0.6
	}
	p.Lies = r.Float64() < 0.05
	p.Enabled[faultMisRead], p.Enabled[faultOldRead] = p.Lies, p.Lies
	p.MetaLies = r.Float64() < 0.08
	p.Enabled[faultMisMeta], p.Enabled[faultOldMeta] = p.MetaLies, p.MetaLies
	p.Skew = r.Float64() < 0.05
	p.Enabled[faultSkew] = p.Skew
	p.Drift = 200
	if r.Float64() < 0.15 {
		p.Drift = badDrift
	}
	return p
}

// badDrift is how wrong clocks run in some runs, in parts in a million.
const badDrift = 50_000
