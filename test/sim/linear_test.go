package sim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hastd/metadata"
	"hastd/replicate"
	"hastd/test/linear"
)

// Histories of whole runs in fullsync, judged as a block device's (test/linear).
// The oracles that judge promises are deaf here: what is found, is found from what
// applications saw.

// watcher writes down what the applications of a world see, and decides by what
// happens to the nodes when a loss is permitted and when promises end:
//
//   - a node that lost its power is hollow until both replicas are equal again, or
//     until it serves: that is a loss, of what was not flushed;
//   - a node is ahead once it acknowledged something while its superblock says that
//     it went on alone, or served what the other never was connected to. A node that
//     does not know of it and serves next is a fork, and the history ends there.
//
// Time is the order in which applications saw things.
type watcher struct {
	w      *World
	h      linear.History
	ops    []int32 // by request: index of its op, -1 for none
	now    int64
	hollow [2]bool
	ahead  [2]bool
	linked [2]int32 // the newest term in which data flowed
	newest int32    // term
	dual   int      // reads and acknowledgements of a node that had a successor
	after  int      // reads shown in terms that took over from the other node
	server int      // of the newest term
	taken  bool     // it took over
	losses int
}

// promises are the oracles that judge what applications were promised.
var promises = []string{"ack", "dirty", "durable", "equal", "false-split", "garbage", "loss", "overwrite", "promote", "reads", "split"}

// linearProfile is a load and a set of faults for histories: whole promises only.
func linearProfile(w *World) {
	p := &w.prof
	p.Mode, p.Restores, p.Cautious = replicate.Fullsync, false, true
	p.OnePrimary = w.chance(0.85) // what two of them answer is not judged
	p.DataSize = 2 << 20
	p.Hot = 4 + w.rng.IntN(8)
	p.Reads = 0.4 + 0.2*w.rng.Float64()
	p.FaultGap = 80 + w.rng.IntN(150)
	// Only what the whole of what is promised is promised under: a disk that fails
	// leaves one copy, which a person is told of, and one that lies keeps no promise.
	p.Lies, p.MetaLies = false, false
	for k := range p.Enabled {
		p.Enabled[k] = p.Enabled[k] && slices.Contains(linearFaults, faultKind(k))
	}
	p.Enabled[faultPower], p.Enabled[faultCrash] = true, true // what lets the other one take over
}

// linearFaults are the faults that a history may have.
var linearFaults = []faultKind{
	faultCrash, faultPower, faultBothPower, faultCut, faultHalfOpen, faultFlap, faultSlowNet, faultFreeze, faultDiskRead,
	faultBadBlock, faultSlowDisk, faultProvider, faultShortRead, faultLeap, faultWall, faultDup, faultLateWay,
}

func watch(w *World) *watcher {
	x := &watcher{w: w, ops: []int32{-1}, server: -1}
	w.hooks.issue, w.hooks.read, w.hooks.reply = x.issue, x.read, x.reply
	w.hooks.moment, w.hooks.report = x.moment, x.report
	w.hooks.deaf = func(oracle string) bool { return slices.Contains(promises, oracle) }
	return x
}

func (x *watcher) tick() int64 {
	x.now++
	return x.now
}

func (x *watcher) cut(why string) { x.h.Cut(x.tick(), why) }

func (x *watcher) issue(r *request) {
	o := linear.Op{Client: int(r.node), First: int64(r.sec), Count: int64(r.n), FUA: r.flags&replicate.FUA != 0, Call: x.tick(), Return: linear.Never}
	switch r.kind {
	case replicate.ReqRead:
		o.Kind = linear.Read
	case replicate.ReqWrite:
		o.Kind, o.Value = linear.Write, linear.Value(r.write)
	case replicate.ReqZero:
		o.Kind = linear.WriteZeroes
	case replicate.ReqFlush:
		o.Kind = linear.Flush
	}
	x.ops = append(x.ops, int32(len(x.h.Ops)))
	x.h.Ops = append(x.h.Ops, o)
}

// op finds the operation of a request: both are numbered in the order of issue.
func (x *watcher) op(r *request) *linear.Op {
	for i := len(x.w.ledger.reqs) - 1; i > 0; i-- {
		if &x.w.ledger.reqs[i] == r {
			return &x.h.Ops[x.ops[i]]
		}
	}
	panic("a reply to a request that was not issued")
}

func (x *watcher) read(r *request, stamps []uint32) {
	o := x.op(r)
	for i := range int(r.n) {
		v := linear.Zero
		if s := stamps[i]; s != 0 {
			v = linear.Garbage
			if at, ok := x.w.ledger.place(s); ok && at == int(r.sec)+i {
				v = linear.Value(x.w.ledger.owners[s])
			}
		}
		o.Seen = append(o.Seen, v)
	}
}

func (x *watcher) reply(n *node, r *request, err replicate.Err) {
	j, o := &n.judge, x.op(r)
	if err != replicate.OK {
		o.Seen = nil // as good as never answered
		return
	}
	if j.term != 0 && j.term != x.newest || r.node != uint8(x.server) {
		x.dual++
		x.cut(n.name + " answers although the other node was promoted since")
		return
	}
	o.Return = x.tick()
	switch {
	case n.linked:
		x.linked[n.id] = j.term
	case x.linked[n.id] != j.term || j.term == 0:
		x.ahead[n.id] = true
	}
	if r.kind != replicate.ReqRead && j.sb.Marks.Has(metadata.Raised) {
		x.ahead[n.id] = true
	}
	if r.kind == replicate.ReqRead && x.taken {
		x.after++
	}
}

func (x *watcher) report(_ *node, r *replicate.Report) {
	if r.Kind == replicate.ReportDataLoss {
		x.cut("a loss was reported: " + r.Reason)
	}
}

func (x *watcher) moment(n *node, m moment) {
	p := x.w.peerOf(n)
	switch m {
	case momentTerm:
		x.serve(n, p)
	case momentRebase:
		x.newest = int32(len(x.w.ledger.terms)) // the term that is about to be counted
		if x.hollow[p.id] {
			x.loss(p)
		}
	case momentPower:
		x.hollow[n.id] = true
		x.h.Note(x.tick(), n.name+" loses power")
	case momentSynced, momentGave:
		// Each in its own time: between the two the source may have gone on alone.
		x.ahead[n.id], x.hollow[n.id] = false, false
		x.h.Note(x.tick(), n.name+" has all there is")
	case momentJoined:
		x.ahead, x.hollow = [2]bool{}, [2]bool{}
		x.h.Note(x.tick(), "both replicas are the same")
	case momentGiven:
		x.cut(n.name + ": a person chose")
	case momentForced:
		if n.judge.ordered { // what nobody ordered nobody excuses
			x.cut(n.name + ": a person used force")
		}
	}
}

// serve: n begins to serve, from its own replica or from its peer's.
func (x *watcher) serve(n, p *node) {
	x.newest = int32(len(x.w.ledger.terms))
	x.h.Note(x.tick(), n.name+" serves")
	x.taken = x.server == p.id
	x.server = n.id
	own := n.consistent() && !n.judge.sb.Marks.Has(metadata.Outdated)
	switch {
	case own && x.ahead[p.id] && (n.judge.ordered || !n.judge.sb.Marks.Has(metadata.Forced)):
		x.cut(p.name + " served alone before, and " + n.name + " does not know")
	case own && n.sess != nil && p.sound():
		// Connected: the verdict may be that either is the source.
		if x.hollow[n.id] || x.hollow[p.id] {
			x.h.MayLose(x.tick(), "the source may have lost its power")
			x.losses++
		}
	case own && x.hollow[n.id]:
		x.loss(n)
	case !own && x.hollow[p.id]:
		x.loss(p)
	}
}

func (x *watcher) loss(n *node) {
	x.h.Loss(x.tick(), "what is served went through a power loss of "+n.name)
	x.hollow[n.id] = false
	x.losses++
}

// linearTotals are sums over runs, so that a load that sees nothing is noticed.
type linearTotals struct {
	mu                                                                       sync.Mutex
	runs, cuts, ops, reads, unknown, losses, after, registers, judged, asked int
	largest                                                                  int
	why                                                                      map[string]int
}

// linearEvents is a run's length: long enough for several terms of each node.
const linearEvents = 5000

// judgeLinear runs a seed and looks for an order in what was seen.
func judgeLinear(w *World, seed uint64, sum *linearTotals) (*watcher, *Violation, error) {
	var x *watcher
	res := w.Run(Options{Seed: seed, Events: linearEvents, prepare: func(w *World) {
		linearProfile(w)
		x = watch(w)
	}})
	rep, err := linear.Check(&x.h, 0)
	why, cut := x.h.WasCut()
	judged := 0
	for _, o := range x.h.Ops {
		if o.Return < x.h.End() {
			judged++
		}
	}
	sum.mu.Lock()
	defer sum.mu.Unlock()
	sum.runs++
	if cut {
		sum.cuts++
		sum.why[why[min(len(why), 2):]]++
	}
	sum.ops += rep.Ops
	sum.judged += judged
	sum.asked += len(x.h.Ops)
	sum.reads += rep.Reads
	sum.unknown += rep.Unknown
	sum.losses += rep.Losses
	sum.registers += rep.Registers
	sum.largest = max(sum.largest, rep.Largest)
	sum.after += x.after
	return x, res.Violation, err
}

// TestLinearSim: LINEAR_SEEDS=n runs that many, LINEAR_FROM=n from another one on.
func TestLinearSim(t *testing.T) {
	number := func(name string, def int64) int64 {
		if v, err := strconv.ParseInt(os.Getenv(name), 10, 64); err == nil {
			return v
		}
		return def
	}
	seeds, from := number("LINEAR_SEEDS", 320), uint64(number("LINEAR_FROM", 1))
	sum := &linearTotals{why: map[string]int{}}
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range 2 {
		wg.Go(func() {
			w := NewWorld()
			for i := next.Add(1) - 1; i < seeds && failed.Load() < 3; i = next.Add(1) - 1 {
				seed := from + uint64(i)
				x, v, err := judgeLinear(w, seed, sum)
				if v != nil { // another judge's word; its history up to there is judged all the same
					failed.Add(1)
					t.Errorf("%v (with the profile of this test)", v)
					w = NewWorld()
				}
				if err == nil {
					continue
				}
				failed.Add(1)
				w = NewWorld()
				t.Errorf("seed %d (again: LINEAR_FROM=%d LINEAR_SEEDS=1): %v\n%s", seed, seed, err, kept(t, &x.h, seed, err))
			}
		})
	}
	wg.Wait()
	t.Logf("%d runs in %.1fs: %d of %d requests judged, %d operations in %d registers (the largest had %d), %d reads, %d of them by who took over, %d unanswered writes that were seen, %d losses, %d cut short: %v",
		sum.runs, time.Since(began).Seconds(), sum.judged, sum.asked, sum.ops, sum.registers, sum.largest, sum.reads, sum.after, sum.unknown, sum.losses, sum.cuts, sum.why)
	if int64(sum.runs) == seeds && seeds >= 300 {
		for what, ok := range map[string]bool{
			"reads by who took over":       sum.after > sum.runs,
			"unanswered writes seen":       sum.unknown > 0,
			"losses":                       sum.losses > sum.runs/4,
			"runs that were not cut short": sum.runs-sum.cuts > sum.runs/4,
		} {
			if !ok {
				t.Errorf("too few %s", what)
			}
		}
	}
}

// kept writes a refused history where LINEAR_DIR says, and shows its end.
func kept(t *testing.T, h *linear.History, seed uint64, err error) string {
	text := ""
	if r, ok := errors.AsType[*linear.Refused](err); ok {
		for _, o := range r.Kept[max(0, len(r.Kept)-20):] {
			text += fmt.Sprintf("    %+v\n", o)
		}
	}
	if dir := os.Getenv("LINEAR_DIR"); dir != "" {
		dir = filepath.Join(dir, fmt.Sprint("seed-", seed))
		if err := errors.Join(os.MkdirAll(dir, 0o755), linear.Save(dir, h, err)); err != nil {
			t.Log(err)
		}
	}
	return text + "    (LINEAR_DIR=folder writes all of it)"
}
