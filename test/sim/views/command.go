package views

import (
	"bufio"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"time"

	"hastd/test/sim"
)

// Main is a command that replays one seed or runs many; it returns its exit status.
func (p Play) Main() int {
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
	report := flag.String("report", "", "write what the batch was, as JSON, to this file")
	commit := flag.String("commit", "", "the revision to name in the report, if the build does not know it")
	must := flag.Bool("coverage", false, "fail if something of expected.txt was not reached")
	flag.Parse()

	if *seed != 0 {
		return p.replay(*seed, *trace)
	}
	o := BatchOptions{From: *from, Runs: *runs, Workers: *workers, Limit: *limit, KeepOn: *keepOn, Until: *until, Log: os.Stdout, Tail: *tail}
	res := p.Batch(o)
	if *table {
		fmt.Print(res.Cover)
	}
	fmt.Println(&res)
	bad := 0
	if *report != "" {
		if err := sim.WriteReport(*report, p.report(&res, &o, *commit)); err != nil {
			fmt.Fprintln(os.Stderr, "the report was not written:", err)
			bad = 1
		}
	}
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
		for _, m := range p.Missing(res.Cover) {
			fmt.Println("never reached:", m)
			bad = 1
		}
	}
	return bad
}

func (p Play) replay(seed uint64, trace bool) int {
	opt := Options{Seed: seed}
	out := bufio.NewWriter(os.Stdout)
	if trace {
		opt.Trace = out
	}
	r := p.Safe(opt)
	out.Flush()
	fmt.Printf("seed %d: %d events, %d faults, %d views, %d writes acknowledged, %.1fs virtual, digest %016x\n",
		seed, r.Events, r.Faults, r.Views, r.Writes, float64(r.Time)/1e9, r.Digest)
	if r.Violation != nil {
		fmt.Println(r.Violation)
		return 1
	}
	return 0
}

// summary is a batch in figures, for a file.
type summary struct {
	Command    []string       `json:"command"`
	Revision   string         `json:"revision"`
	Modified   bool           `json:"modified"`
	From       uint64         `json:"first_seed"`
	To         uint64         `json:"last_seed"`
	Began      time.Time      `json:"began"`
	Ended      time.Time      `json:"ended"`
	Workers    int            `json:"workers"`
	Runs       int            `json:"runs"`
	Events     int            `json:"events"`
	Faults     int            `json:"faults_sum"`
	Views      int            `json:"views"`
	Acked      int            `json:"writes_acknowledged"`
	Healing    float64        `json:"longest_healing_seconds"`
	HealSeed   uint64         `json:"longest_healing_seed"`
	Processor  float64        `json:"processor_seconds"`
	RunRate    float64        `json:"runs_per_second"`
	EventRate  float64        `json:"events_per_second"`
	Missing    []string       `json:"never_reached"`
	Violations []sim.Found    `json:"violations"`
	Reached    map[string]int `json:"reached"`
}

func (p Play) report(r *BatchResult, o *BatchOptions, commit string) *summary {
	sec := r.Took.Seconds()
	s := &summary{
		Command: os.Args, From: o.From, To: o.From + uint64(max(r.Runs, 1)) - 1,
		Began: r.Began.UTC(), Ended: r.Began.Add(r.Took).UTC(), Workers: max(1, o.Workers),
		Runs: r.Runs, Events: r.Events, Faults: r.Faults, Views: r.Views, Acked: r.Writes,
		Healing: float64(r.Healed) / float64(second), HealSeed: r.HealedSeed,
		Processor: sim.Processor().Seconds(), RunRate: float64(r.Runs) / sec, EventRate: float64(r.Events) / sec,
		Missing: p.Missing(r.Cover), Violations: []sim.Found{}, Reached: r.Cover,
	}
	for _, v := range r.Violations {
		s.Violations = append(s.Violations, sim.Found{Seed: v.Seed, Oracle: v.Oracle, Text: v.Text})
	}
	s.Revision, s.Modified = sim.Revision(commit)
	return s
}
