package views

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hastd/cluster/view"
)

// BatchOptions choose many runs.
type BatchOptions struct {
	From    uint64
	Runs    int
	Workers int
	Limit   time.Duration // stop after this long; 0: never
	KeepOn  bool          // go on after a violation
	Until   string        // go on until this oracle was violated
	Log     io.Writer     // violations; nil: silence
	Tail    int           // how many lines of a failed run's trace to print
}

// Play is what a seed is. Another simulation that is run in the same way has its own.
type Play struct {
	Run      func(Options) Result
	Command  string // that replays one seed, by its folder
	Expected string // what a batch should reach, a line each
}

// Views are this package's runs.
var Views = Play{Run, "test/sim/views/cmd/views", expected}

// BatchResult tells what many runs were.
type BatchResult struct {
	Runs, Events, Views, Writes, Faults int
	Healed                              view.Duration // the longest without help
	HealedSeed                          uint64
	Began                               time.Time
	Took                                time.Duration
	Violations                          []*Violation
	Cover                               Coverage
}

// Batch runs seeds From, From+1, … on several goroutines and waits for them.
func (p Play) Batch(o BatchOptions) BatchResult {
	var next, stop atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	began := time.Now()
	res := BatchResult{Cover: Coverage{}, Began: began}
	for range max(1, o.Workers) {
		wg.Go(func() {
			for stop.Load() == 0 && (o.Limit == 0 || time.Since(began) < o.Limit) {
				i := next.Add(1) - 1
				if i >= int64(o.Runs) {
					return
				}
				cover := Coverage{}
				r := p.Safe(Options{Seed: o.From + uint64(i), Cover: cover})
				mu.Lock()
				res.add(o.From+uint64(i), &r, cover)
				if r.Violation != nil {
					res.Violations = append(res.Violations, r.Violation)
					if o.Log != nil {
						fmt.Fprintln(o.Log, p.failureText(r.Violation, o.Tail))
					}
					if !o.KeepOn && o.Until == "" || r.Violation.Oracle == o.Until {
						stop.Store(1)
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	res.Took = time.Since(began)
	slices.SortFunc(res.Violations, func(a, b *Violation) int { return cmp.Compare(a.Seed, b.Seed) })
	return res
}

func (b *BatchResult) add(seed uint64, r *Result, c Coverage) {
	b.Runs++
	b.Events += r.Events
	b.Views += r.Views
	b.Writes += r.Writes
	b.Faults += r.Faults
	if r.Healed > b.Healed {
		b.Healed, b.HealedSeed = r.Healed, seed
	}
	for k, v := range c {
		b.Cover[k] += v
	}
}

// Safe runs a seed; a panic is a violation.
func (p Play) Safe(opt Options) (r Result) {
	defer func() {
		if x := recover(); x != nil {
			r.Violation = &Violation{"panic", opt.Seed, fmt.Sprintf("%v\n%s", x, debug.Stack())}
		}
	}()
	return p.Run(opt)
}

// failureText is what a person needs of a failed run.
func (p Play) failureText(v *Violation, tail int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v\n", v)
	if tail > 0 {
		var t bytes.Buffer
		p.Safe(Options{Seed: v.Seed, Trace: &t})
		lines := strings.Split(strings.TrimRight(t.String(), "\n"), "\n")
		for _, l := range lines[max(0, len(lines)-tail):] {
			fmt.Fprintf(&b, "    %s\n", l)
		}
	}
	fmt.Fprintf(&b, "  replay: go run ./%s -seed %d -trace", p.Command, v.Seed)
	return b.String()
}

func (b *BatchResult) String() string {
	s := b.Took.Seconds()
	return fmt.Sprintf("%d runs, %d events, %d views, %d writes acknowledged, %d faults in %.1fs: %.0f runs/s; served by themselves within %.1fs (seed %d)",
		b.Runs, b.Events, b.Views, b.Writes, b.Faults, s, float64(b.Runs)/s, float64(b.Healed)/float64(second), b.HealedSeed)
}
