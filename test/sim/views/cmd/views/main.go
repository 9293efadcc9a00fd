// Command views replays one seed of the simulation of views, or runs many.
//
//	views -seed 42 -trace        one run, with its transcript
//	views -from 1 -runs 100000   a batch; exits 1 if an oracle was violated
package main

import (
	"bufio"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"

	"hastd/test/sim/views"
)

func main() { os.Exit(run()) }

func run() int {
	seed := flag.Uint64("seed", 0, "replay this seed")
	trace := flag.Bool("trace", false, "print what happens (with -seed)")
	from := flag.Uint64("from", 1, "first seed of a batch")
	runs := flag.Int("runs", 1000, "how many seeds")
	workers := flag.Int("workers", runtime.GOMAXPROCS(0), "how many at a time")
	limit := flag.Duration("limit", 0, "end the batch after this long")
	keepOn := flag.Bool("k", false, "go on after a violation")
	until := flag.String("until", "", "go on until this oracle was violated")
	tail := flag.Int("tail", 60, "lines of a failed run's trace")
	table := flag.Bool("table", true, "print what was reached")
	must := flag.Bool("coverage", false, "fail if something of expected.txt was not reached")
	flag.Parse()

	if *seed != 0 {
		opt := views.Options{Seed: *seed}
		out := bufio.NewWriter(os.Stdout)
		if *trace {
			opt.Trace = out
		}
		r := views.Safe(opt)
		out.Flush()
		fmt.Printf("seed %d: %d events, %d faults, %d views, %d writes acknowledged, %.1fs virtual, digest %016x\n",
			*seed, r.Events, r.Faults, r.Views, r.Writes, float64(r.Time)/1e9, r.Digest)
		if r.Violation != nil {
			fmt.Println(r.Violation)
			return 1
		}
		return 0
	}
	res := views.Batch(views.BatchOptions{From: *from, Runs: *runs, Workers: *workers, Limit: *limit, KeepOn: *keepOn, Until: *until, Log: os.Stdout, Tail: *tail})
	if *table {
		fmt.Print(res.Cover)
	}
	fmt.Println(&res)
	bad := 0
	if n := len(res.Violations); n > 0 {
		by := map[string][]uint64{}
		for _, v := range res.Violations {
			by[v.Oracle] = append(by[v.Oracle], v.Seed)
		}
		fmt.Printf("%d violations:\n", n)
		for _, o := range slices.Sorted(maps.Keys(by)) {
			fmt.Printf("  %-12s %5d, seeds %v\n", o, len(by[o]), by[o][:min(8, len(by[o]))])
		}
		bad = 1
	}
	if *must {
		for _, m := range res.Cover.Missing() {
			fmt.Println("never reached:", m)
			bad = 1
		}
	}
	return bad
}
