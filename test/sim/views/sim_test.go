package views

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
	traceFlag = flag.Bool("trace", false, "TestSeed prints what happens")
	runsFlag  = flag.Int("runs", 100, "how many seeds TestShort runs")
)

// TestSeed replays one seed: go test ./test/sim/views -run TestSeed -seed 42 -trace.
func TestSeed(t *testing.T) {
	if *seedFlag == 0 {
		t.Skip("no -seed given")
	}
	opt := Options{Seed: *seedFlag}
	if *traceFlag {
		opt.Trace = os.Stdout
	}
	if r := Views.Safe(opt); r.Violation != nil {
		t.Error(r.Violation)
	}
}

// TestShort is the batch that every change must pass.
func TestShort(t *testing.T) {
	runs := *runsFlag
	if testing.Short() {
		runs = min(runs, 40)
	}
	var log bytes.Buffer
	res := Views.Batch(BatchOptions{From: 1, Runs: runs, Workers: runtime.GOMAXPROCS(0), Limit: time.Minute, Log: &log, Tail: 40})
	t.Log(&res)
	for _, v := range res.Violations {
		t.Error(v)
	}
	if len(res.Violations) > 0 {
		t.Log(log.String())
		return
	}
	if runs >= 100 && res.Runs == runs {
		for _, m := range Views.Missing(res.Cover) {
			t.Errorf("never reached: %s", m)
		}
	}
}

// TestDeterminism: a seed is a run.
func TestDeterminism(t *testing.T) {
	for seed := uint64(1); seed <= 16; seed++ {
		a, b := Views.Safe(Options{Seed: seed}), Views.Safe(Options{Seed: seed})
		if a.Digest != b.Digest || a.Events != b.Events {
			t.Errorf("seed %d ran twice and differed: %d events, digest %x; %d events, digest %x", seed, a.Events, a.Digest, b.Events, b.Digest)
		}
		if a.Views == 0 || a.Faults == 0 {
			t.Errorf("seed %d: %d views, %d faults", seed, a.Views, a.Faults)
		}
	}
}
