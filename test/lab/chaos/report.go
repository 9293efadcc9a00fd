package chaos

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"hastd/test/lab"
)

// Report is what a run did and saw.
type Report struct {
	Command  string
	Revision string
	Seed     uint64
	Began    time.Time
	Took     time.Duration
	Machine  string

	Faults    map[string]int // by kind
	Beside    map[string]int // what lasted while they happened
	Skipped   []string       // kinds that cannot be done here, with the reason
	Failovers int            // promotions of the other node, planned switches included
	Refusals  map[string]int // by reason
	// Pauses are the longest by kind of fault: of the blocks, of the database. Those
	// of a fault with something beside it stand under "KIND, with KIND".
	Pauses map[string][2]time.Duration

	Writes, Flushes, Unanswered int64 // to the blocks
	Sectors                     int64 // of them judged, over all checks
	Committed, Unknown          int64 // transactions of the clients
	Checked                     int64 // transactions found right, over all checks
	BenchCommitted, BenchRows   int64 // of pgbench: told as committed; rows of its history judged, over all checks
	Checks                      int
	AmChecks, ChecksumRuns      int
	ComparedBytes               int64
	Notes                       []string
	Error                       string // "" when nothing was lost and nothing hung
}

func newReport(o Options) *Report {
	return &Report{
		Seed: o.Seed, Began: time.Now().UTC().Truncate(time.Second), Machine: machine(),
		Faults: map[string]int{}, Beside: map[string]int{}, Refusals: map[string]int{}, Pauses: map[string][2]time.Duration{},
	}
}

func machine() string {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // a report without it is one still
	return fmt.Sprintf("%d cores, Linux %s", runtime.NumCPU(), strings.TrimSpace(string(kernel)))
}

func (r *Report) finish(took time.Duration, err error) {
	r.Took = took
	if err != nil {
		r.Error = err.Error()
	}
}

func (r *Report) refused(no *lab.Refusal) {
	r.Refusals[fmt.Sprintf("%d %s", no.Code, no.Text)]++
}

func (r *Report) pause(kind string, app int, d time.Duration) {
	p := r.Pauses[kind]
	p[app] = max(p[app], d)
	r.Pauses[kind] = p
}

// Longest is the longest pause of each application.
func (r *Report) Longest() (blocks, database time.Duration) {
	for _, p := range r.Pauses {
		blocks, database = max(blocks, p[0]), max(database, p[1])
	}
	return blocks, database
}

// Total is how many faults there were.
func (r *Report) Total() int {
	n := 0
	for _, c := range r.Faults {
		n += c
	}
	for _, c := range r.Beside {
		n += c
	}
	return n
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// Markdown writes it for people. It reads as plain text too.
func (r *Report) Markdown(w io.Writer) {
	p := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	p("# Chaos: %s\n", map[bool]string{true: "nothing was lost", false: "FAILED"}[r.Error == ""])
	if r.Error != "" {
		p("```\n%s\n```\n", r.Error)
	}
	p("- command: `%s`", r.Command)
	p("- seed %d, revision %s, %s, %s", r.Seed, r.Revision, r.Began.Format(time.RFC3339), r.Took.Round(time.Second))
	p("- machine: %s", r.Machine)
	blocks, database := r.Longest()
	p("- faults: %d, failovers and switches: %d", r.Total(), r.Failovers)
	p("- longest pause: ledger %s, database %s", seconds(blocks), seconds(database))
	p("- ledger: %d writes and %d flushes acknowledged, %d unanswered; %d sectors judged", r.Writes, r.Flushes, r.Unanswered, r.Sectors)
	p("- database: %d transactions committed, %d unknown; %d found right in %d checks; pgbench was told of %d, %d rows of its history judged", r.Committed, r.Unknown, r.Checked, r.Checks, r.BenchCommitted, r.BenchRows)
	p("- pg_amcheck: %d runs, pg_checksums: %d", r.AmChecks, r.ChecksumRuns)
	p("- replicas compared: %.1f GiB, on disks and media", float64(r.ComparedBytes)/(1<<30))
	losses := "0"
	if r.Error != "" {
		losses = "see above"
	}
	p("- losses: %s\n", losses)
	p("| fault | times | longest pause of the ledger | of the database |\n| --- | ---: | ---: | ---: |")
	for _, k := range kinds {
		for _, with := range slices.Sorted(maps.Keys(r.Faults)) {
			if with == k.name || strings.HasPrefix(with, k.name+", with ") {
				p("| %s | %d | %s | %s |", with, r.Faults[with], seconds(r.Pauses[with][0]), seconds(r.Pauses[with][1]))
			}
		}
	}
	list := func(title string, m map[string]int) {
		if len(m) > 0 {
			p("\n%s:\n", title)
		}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			p("- %d: %s", m[k], k)
		}
	}
	list("Those that lasted while another happened", r.Beside)
	list("Refusals by reason", r.Refusals)
	for _, t := range []struct {
		title string
		lines []string
	}{{"Not done here", r.Skipped}, {"Notes", r.Notes}} {
		if len(t.lines) > 0 {
			p("\n%s:\n", t.title)
		}
		for _, l := range t.lines {
			p("- %s", l)
		}
	}
}

// WriteFile writes it as JSON or, by any other name, as Markdown.
func (r *Report) WriteFile(path string) error {
	var b strings.Builder
	if filepath.Ext(path) == ".json" {
		e := json.NewEncoder(&b)
		e.SetIndent("", "  ")
		if err := e.Encode(r); err != nil {
			return err
		}
	} else {
		r.Markdown(&b)
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
