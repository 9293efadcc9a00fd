// Command sim replays one seed of the simulation or runs many.
//
//	sim -seed 42 -trace        one run, with its transcript
//	sim -from 1 -runs 100000   a batch; exits 1 if an oracle was violated
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"time"

	"hastd/test/sim"
)

func main() { os.Exit(run()) }

func run() int {
	seed := flag.Uint64("seed", 0, "replay this seed")
	trace := flag.Bool("trace", false, "print what happens (with -seed)")
	from := flag.Uint64("from", 1, "first seed of a batch")
	runs := flag.Int("runs", 1000, "how many seeds")
	workers := flag.Int("workers", runtime.GOMAXPROCS(0), "how many at a time")
	events := flag.Int("events", 0, "events a run at least (0: 2000)")
	limit := flag.Duration("limit", 0, "end the batch after this long")
	keepOn := flag.Bool("k", false, "go on after a violation")
	restores := flag.Bool("restores", false, "have a replica put back from an older copy in every run")
	until := flag.String("until", "", "go on until this oracle was violated")
	tail := flag.Int("tail", 40, "lines of a failed run's trace")
	table := flag.Bool("table", true, "print what was reached")
	report := flag.String("report", "", "write what the batch was, as JSON, to this file")
	commit := flag.String("commit", "", "the revision to name in the report, if the build does not know it")
	must := flag.Bool("coverage", false, "fail if something of expected.txt was not reached")
	profile := flag.String("cpuprofile", "", "write a processor profile to this file")
	flag.Parse()

	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			fmt.Fprintln(os.Stderr, "sim:", err)
			return 1
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			fmt.Fprintln(os.Stderr, "sim:", err)
			return 1
		}
		defer pprof.StopCPUProfile()
	}
	if *seed != 0 {
		opt := sim.Options{Seed: *seed, Events: *events, Restores: *restores}
		out := bufio.NewWriter(os.Stdout)
		if *trace {
			opt.Trace = out
		}
		r := sim.NewRunner().Run(opt)
		out.Flush()
		fmt.Printf("seed %d: %d events, %d faults, %d crashes, %d writes, %s virtual, digest %016x\n",
			*seed, r.Events, r.Faults, r.Crashes, r.Writes, time.Duration(r.Time), r.Digest)
		if r.Violation != nil {
			fmt.Println(r.Violation)
			return 1
		}
		return 0
	}
	opt := sim.BatchOptions{From: *from, Runs: *runs, Workers: *workers, Events: *events, Restores: *restores, Limit: *limit, KeepOn: *keepOn, Until: *until, Log: os.Stdout, Tail: *tail}
	res := sim.Batch(opt)
	sum := res.Summary(opt, *commit)
	if *table {
		fmt.Print(res.Cover)
	}
	fmt.Println(sum)
	bad := 0
	if *report != "" {
		if err := sum.Write(*report); err != nil {
			fmt.Fprintln(os.Stderr, "sim: the report was not written:", err)
			bad = 1
		}
	}
	if n := len(res.Violations); n > 0 {
		by := map[string][]uint64{}
		for _, v := range res.Violations {
			by[v.Oracle] = append(by[v.Oracle], v.Seed)
		}
		fmt.Printf("%d violations:\n", n)
		for o, s := range by {
			fmt.Printf("  %-12s %5d, seeds %v\n", o, len(s), s[:min(8, len(s))])
		}
		bad = 1
	}
	if *must {
		for _, m := range sum.Missing {
			fmt.Println("never reached:", m)
			bad = 1
		}
	}
	return bad
}
