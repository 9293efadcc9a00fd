package sim

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// BatchOptions choose many runs.
type BatchOptions struct {
	From     uint64
	Runs     int
	Workers  int
	Events   int
	Limit    time.Duration // stop after this long; 0: never
	KeepOn   bool          // go on after a violation
	Restores bool          // every run restores a replica
	Until    string        // go on until this oracle was violated
	Log      io.Writer     // violations and progress; nil: silence
	Tail     int           // how many lines of a failed run's trace to print
}

// BatchResult tells what many runs were.
type BatchResult struct {
	Runs       int
	Events     int64
	Writes     int64
	Faults     int64
	Healed     int64  // the longest healing without help, in virtual nanoseconds
	HealedSeed uint64 // and the run it was in
	Began      time.Time
	Took       time.Duration
	Violations []*Violation
	Cover      *Coverage
}

// Batch runs seeds From, From+1, … on several goroutines, each with a world of
// its own, and waits for them.
func Batch(o BatchOptions) BatchResult {
	var next, stop atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	res := BatchResult{Cover: NewCoverage()}
	began := time.Now()
	res.Began = began
	for range max(1, o.Workers) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			w := NewRunner()
			c := NewCoverage()
			var runs int
			var events, writes, faults, healed int64
			var healedSeed uint64
			for stop.Load() == 0 && (o.Limit == 0 || time.Since(began) < o.Limit) {
				i := next.Add(1) - 1
				if i >= int64(o.Runs) {
					break
				}
				c.Runs++
				r := w.Run(Options{Seed: o.From + uint64(i), Events: o.Events, Restores: o.Restores, Cover: c})
				runs++
				events += int64(r.Events)
				writes += int64(r.Writes)
				faults += int64(r.Faults)
				if r.Healed > healed {
					healed, healedSeed = r.Healed, o.From+uint64(i)
				}
				if r.Violation == nil {
					continue
				}
				w = NewRunner()
				mu.Lock()
				res.Violations = append(res.Violations, r.Violation)
				if o.Log != nil {
					fmt.Fprintln(o.Log, FailureText(r.Violation, o))
				}
				mu.Unlock()
				if !o.KeepOn && o.Until == "" || r.Violation.Oracle == o.Until {
					stop.Store(1)
				}
			}
			mu.Lock()
			res.Cover.Add(c)
			res.Runs += runs
			res.Events += events
			res.Writes += writes
			res.Faults += faults
			if healed > res.Healed || healed == res.Healed && healedSeed < res.HealedSeed {
				res.Healed, res.HealedSeed = healed, healedSeed
			}
			mu.Unlock()
		}()
	}
	wg.Wait()
	res.Took = time.Since(began)
	slices.SortFunc(res.Violations, func(a, b *Violation) int { return cmp.Compare(a.Seed, b.Seed) })
	return res
}

// FailureText is what a person needs of a failed run: the oracle, the end of the
// trace (the seed is run again for it) and the command that replays it.
func FailureText(v *Violation, o BatchOptions) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v\n", v)
	if o.Tail > 0 {
		var t bytes.Buffer
		NewRunner().Run(Options{Seed: v.Seed, Events: o.Events, Restores: o.Restores, Trace: &t})
		lines := strings.Split(strings.TrimRight(t.String(), "\n"), "\n")
		for _, l := range lines[max(0, len(lines)-o.Tail):] {
			fmt.Fprintf(&b, "    %s\n", l)
		}
	}
	fmt.Fprintf(&b, "  replay: go run ./test/sim/cmd/sim -seed %d -trace", v.Seed)
	if o.Events != 0 {
		fmt.Fprintf(&b, " -events %d", o.Events)
	}
	if o.Restores {
		b.WriteString(" -restores")
	}
	return b.String()
}

// Rate tells how fast a batch was.
func (r *BatchResult) Rate() string {
	s := r.Took.Seconds()
	return fmt.Sprintf("%d runs, %d events, %d writes in %.1fs: %.0f runs/s, %.0f events/s, %.0f events a run, healed by itself within %.1fs",
		r.Runs, r.Events, r.Writes, s, float64(r.Runs)/s, float64(r.Events)/s, float64(r.Events)/float64(max(1, r.Runs)), float64(r.Healed)/float64(second))
}
