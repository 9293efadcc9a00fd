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

// BatchResult tells what many runs were.
type BatchResult struct {
	Runs, Events, Views, Writes, Faults int
	Healed                              view.Duration // the longest without help
	HealedSeed                          uint64
	Took                                time.Duration
	Violations                          []*Violation
	Cover                               Coverage
}

// Batch runs seeds From, From+1, … on several goroutines and waits for them.
func Batch(o BatchOptions) BatchResult {
	var next, stop atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	res := BatchResult{Cover: Coverage{}}
	began := time.Now()
	for range max(1, o.Workers) {
		wg.Go(func() {
			for stop.Load() == 0 && (o.Limit == 0 || time.Since(began) < o.Limit) {
				i := next.Add(1) - 1
				if i >= int64(o.Runs) {
					return
				}
				cover := Coverage{}
				r := Safe(Options{Seed: o.From + uint64(i), Cover: cover})
				mu.Lock()
				res.add(o.From+uint64(i), &r, cover)
				if r.Violation != nil {
					res.Violations = append(res.Violations, r.Violation)
					if o.Log != nil {
						fmt.Fprintln(o.Log, FailureText(r.Violation, o.Tail))
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

// Safe is Run with a panic as a violation.
func Safe(opt Options) (r Result) {
	defer func() {
		if p := recover(); p != nil {
			r.Violation = &Violation{"panic", opt.Seed, fmt.Sprintf("%v\n%s", p, debug.Stack())}
		}
	}()
	return Run(opt)
}

// FailureText is what a person needs of a failed run.
func FailureText(v *Violation, tail int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v\n", v)
	if tail > 0 {
		var t bytes.Buffer
		Safe(Options{Seed: v.Seed, Trace: &t})
		lines := strings.Split(strings.TrimRight(t.String(), "\n"), "\n")
		for _, l := range lines[max(0, len(lines)-tail):] {
			fmt.Fprintf(&b, "    %s\n", l)
		}
	}
	fmt.Fprintf(&b, "  replay: go run ./test/sim/views/cmd/views -seed %d -trace", v.Seed)
	return b.String()
}

func (b *BatchResult) String() string {
	s := b.Took.Seconds()
	return fmt.Sprintf("%d runs, %d events, %d views, %d writes acknowledged, %d faults in %.1fs: %.0f runs/s; served by themselves within %.1fs (seed %d)",
		b.Runs, b.Events, b.Views, b.Writes, b.Faults, s, float64(b.Runs)/s, float64(b.Healed)/float64(second), b.HealedSeed)
}
