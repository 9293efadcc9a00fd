package chaos

import (
	"flag"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hastd/test/lab"
)

var seedFlag = flag.Uint64("seed", seed(), "seed of TestChaos")

func seed() uint64 {
	n, err := strconv.ParseUint(os.Getenv("LAB_SEED"), 10, 64)
	if err != nil {
		return 1
	}
	return n
}

// shortDatabase is room for a database that lives for two minutes. All of it is read
// whenever the replicas are compared.
const shortDatabase = 160 << 20

// short are the kinds of TestChaos, about a minute of them.
var short = []string{
	"role switched",
	"primary's daemon killed, failover",
	"secondary's daemon stopped",
	"primary loses power, failover",
	"disk fails writes",
	"disk replaced",
	"both lose power",
	"primary loses power during a sync",
	"database squeezed",
}

// TestChaos: two applications on a real pair, the important faults once each, and
// nothing that was acknowledged or committed is lost.
func TestChaos(t *testing.T) {
	if err := Needs(); err != nil {
		t.Skip(err)
	}
	// Not t.TempDir: socket paths have an end at 107 bytes, and the database's user
	// passes through.
	dir, err := os.MkdirTemp("", "chaos-")
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("LAB_KEEP") == "1" {
			t.Logf("kept: %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	programs, err := lab.Build(dir, os.Getenv("LAB_RACE") == "1")
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	r, err := Run(t.Context(), Options{Dir: dir, Programs: programs, Seed: *seedFlag, Plan: short, Database: shortDatabase, Log: &log})
	log.WriteString("\n")
	r.Markdown(&log)
	t.Logf("seed %d (again: LAB_SEED=%d)\n%s", *seedFlag, *seedFlag, log.String())
	if err != nil {
		tails, _ := os.ReadFile(dir + "/tails") // there if it came so far
		t.Fatalf("%v\n%s", err, tails)
	}
	// A run in which nothing happened would lose nothing either.
	if r.Total() != len(short) || r.Failovers < 3 {
		t.Errorf("%d faults and %d failovers, want %d and at least 3", r.Total(), r.Failovers, len(short))
	}
	if r.Writes == 0 || r.Committed == 0 || r.Checked == 0 || r.BenchRows == 0 || r.ComparedBytes == 0 || r.ChecksumRuns == 0 || r.AmChecks == 0 {
		t.Errorf("something was not tried or not judged: %+v", r)
	}
}

func TestKindsAreFound(t *testing.T) {
	for _, name := range short {
		if find(name) == nil {
			t.Errorf("there is no fault %q", name)
		}
	}
	if find("no such fault") != nil {
		t.Error("a fault was found that does not exist")
	}
}

func TestMeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m meter
		time.Sleep(time.Hour) // not measured
		m.start()
		time.Sleep(time.Second)
		m.mark()
		time.Sleep(3 * time.Second)
		m.mark()
		time.Sleep(2 * time.Second)
		if got := m.stop(); got != 3*time.Second {
			t.Errorf("the longest pause is %v, want 3s", got)
		}
		m.start()
		time.Sleep(5 * time.Second)
		if got := m.stop(); got != 5*time.Second || m.count() != 2 {
			t.Errorf("without an answer: %v and %d answers, want 5s and 2", got, m.count())
		}
	})
}

func TestReport(t *testing.T) {
	r := newReport(Options{Seed: 7})
	r.Faults["link cut"] = 2
	r.Faults["link cut, with disk slow"] = 1
	r.pause("link cut", 0, time.Second)
	r.pause("link cut", 1, 2*time.Second)
	r.pause("link cut", 1, time.Millisecond)
	r.refused(&lab.Refusal{Code: 77, Text: "no"})
	var b strings.Builder
	r.Markdown(&b)
	for _, want := range []string{"nothing was lost", "| link cut | 2 | 1.00 s | 2.00 s |", "- 1: 77 no", "| link cut, with disk slow | 1 | 0.00 s | 0.00 s |", "losses: 0", "longest pause: ledger 1.00 s, database 2.00 s"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	r.Error = "LOST"
	b.Reset()
	r.Markdown(&b)
	if strings.Contains(b.String(), "losses: 0") || !strings.Contains(b.String(), "LOST") {
		t.Errorf("a loss is told as none:\n%s", b.String())
	}
}
