package sim

import (
	"bytes"
	"flag"
	"os"
	"runtime"
	"testing"
	"time"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "replay one seed (TestSeed)")
	runsFlag  = flag.Int("runs", 3000, "how many seeds TestShort runs")
	fromFlag  = flag.Uint64("from", 1, "the first of them")
	traceFlag = flag.Bool("trace", false, "TestSeed prints what happens")
)

// TestSeed replays one seed: go test ./test/sim -run TestSeed -seed 42 -trace.
func TestSeed(t *testing.T) {
	if *seedFlag == 0 {
		t.Skip("no -seed given")
	}
	opt := Options{Seed: *seedFlag}
	if *traceFlag {
		opt.Trace = os.Stdout
	}
	r := NewRunner().Run(opt)
	t.Logf("%d events, %d faults, %d crashes, %d writes, %s virtual", r.Events, r.Faults, r.Crashes, r.Writes, time.Duration(r.Time))
	if r.Violation != nil {
		t.Error(r.Violation)
	}
}

// TestShort is the batch that every change must pass.
func TestShort(t *testing.T) {
	runs := *runsFlag
	if testing.Short() {
		runs = min(runs, 300)
	}
	var log bytes.Buffer
	res := Batch(BatchOptions{From: *fromFlag, Runs: runs, Workers: runtime.GOMAXPROCS(0), Limit: 3 * time.Minute, Log: &log, Tail: 30})
	t.Log(res.Rate())
	for _, v := range res.Violations {
		t.Error(v)
	}
	if len(res.Violations) > 0 {
		t.Log(log.String())
		return
	}
	if res.Runs < runs {
		t.Errorf("only %d of %d runs within the time", res.Runs, runs)
	}
	if runs >= 2000 {
		for _, m := range res.Cover.Missing() {
			t.Errorf("never reached: %s", m)
		}
	}
}

// TestNamedSeeds replays what found bugs before.
func TestNamedSeeds(t *testing.T) {
	for _, s := range NamedSeeds {
		t.Run(s.Name, func(t *testing.T) {
			if r := NewRunner().Run(Options{Seed: s.Seed}); r.Violation != nil {
				t.Errorf("once found: %s; now: %v", s.Found, r.Violation)
			}
		})
	}
}

// TestDeterminism: a seed is a run, whatever ran before it in the same memory.
func TestDeterminism(t *testing.T) {
	used := NewRunner()
	for seed := uint64(1); seed <= 60; seed++ {
		a := used.Run(Options{Seed: seed})
		b := NewRunner().Run(Options{Seed: seed})
		if a.Digest != b.Digest || a.Events != b.Events {
			t.Errorf("seed %d ran twice and differed: %d events, digest %x; %d events, digest %x", seed, a.Events, a.Digest, b.Events, b.Digest)
		}
	}
}

// TestRunSize: a run is long enough and eventful enough.
func TestRunSize(t *testing.T) {
	w := NewRunner()
	for seed := uint64(1); seed <= 20; seed++ {
		r := w.Run(Options{Seed: seed})
		if r.Violation == nil && (r.Events < 2000 || r.Faults < 5 || r.Crashes < 1) {
			t.Errorf("seed %d: %d events, %d faults, %d crashes", seed, r.Events, r.Faults, r.Crashes)
		}
	}
}
