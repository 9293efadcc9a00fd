package cluster

import (
	"bytes"
	"flag"
	"os"
	"runtime"
	"testing"
	"time"

	"hastd/test/sim/views"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "replay one seed (TestSeed)")
	traceFlag = flag.Bool("trace", false, "TestSeed prints what happens")
	runsFlag  = flag.Int("runs", 42, "how many seeds TestShort runs")
)

// TestSeed replays one seed: go test ./test/sim/cluster -run TestSeed -seed 42 -trace.
func TestSeed(t *testing.T) {
	if *seedFlag == 0 {
		t.Skip("no -seed given")
	}
	opt := views.Options{Seed: *seedFlag}
	if *traceFlag {
		opt.Trace = os.Stdout
	}
	if r := Sim.Safe(opt); r.Violation != nil {
		t.Error(r.Violation)
	}
}

// TestShort is the batch that every change must pass.
func TestShort(t *testing.T) {
	runs := *runsFlag
	if testing.Short() {
		runs = min(runs, 14)
	}
	var log bytes.Buffer
	res := Sim.Batch(views.BatchOptions{From: 1, Runs: runs, Workers: runtime.GOMAXPROCS(0), Limit: time.Minute, Log: &log, Tail: 40})
	t.Log(&res)
	for _, v := range res.Violations {
		t.Error(v)
	}
	if len(res.Violations) > 0 {
		t.Log(log.String())
		return
	}
	if runs >= 42 && res.Runs == runs {
		for _, m := range Sim.Missing(res.Cover) {
			t.Errorf("never reached: %s", m)
		}
	}
}

// TestDeterminism: a seed is a run.
func TestDeterminism(t *testing.T) {
	for seed := uint64(1); seed <= 4; seed++ {
		a, b := Sim.Safe(views.Options{Seed: seed}), Sim.Safe(views.Options{Seed: seed, Cover: views.Coverage{}})
		if a.Digest != b.Digest || a.Events != b.Events {
			t.Errorf("seed %d ran twice and differed: %d events, digest %x; %d events, digest %x", seed, a.Events, a.Digest, b.Events, b.Digest)
		}
		if a.Violation == nil && (a.Views == 0 || a.Faults == 0 || a.Writes == 0) {
			t.Errorf("seed %d: %d views, %d faults, %d writes", seed, a.Views, a.Faults, a.Writes)
		}
	}
}

// TestNamedSeeds replays what found something before.
func TestNamedSeeds(t *testing.T) {
	for _, s := range NamedSeeds {
		if r := Sim.Safe(views.Options{Seed: s.Seed}); r.Violation != nil {
			t.Errorf("once found: %s; now: %v", s.Found, r.Violation)
		}
	}
}
