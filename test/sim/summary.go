package sim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hastd/replicate"
)

// Summary is a batch in figures: what a person reads at its end and what is kept
// as evidence of it.
type Summary struct {
	Command    []string       `json:"command"`
	Revision   string         `json:"revision"` // of the sources it was built from; "unknown" if nobody said
	Modified   bool           `json:"modified"` // the sources differed from it
	From       uint64         `json:"first_seed"`
	To         uint64         `json:"last_seed"`
	Began      time.Time      `json:"began"`
	Ended      time.Time      `json:"ended"`
	Workers    int            `json:"workers"`
	Runs       int            `json:"runs"`
	Sites      int            `json:"runs_of_several_pairs"`
	Directed   int            `json:"runs_of_scripts"`
	Events     int64          `json:"events"`
	Faults     map[string]int `json:"faults"`
	FaultsSum  int            `json:"faults_sum"`
	Crashes    int            `json:"daemons_ended"`
	Powers     int            `json:"power_losses"`
	Writes     int64          `json:"writes_issued"`
	Acked      int            `json:"writes_acknowledged"`
	Flushes    int            `json:"flushes_acknowledged"`
	Reads      int            `json:"reads_checked"`
	Errors     int            `json:"requests_failed"`
	Promotions int            `json:"promotions"`
	Syncs      int            `json:"syncs_completed"`
	Verdicts   map[string]int `json:"verdicts"`
	Rows       map[string]int `json:"rows"`
	Unaided    map[string]int `json:"without_help"` // how runs stood before anybody helped
	Healing    float64        `json:"longest_healing_seconds"`
	HealSeed   uint64         `json:"longest_healing_seed"`
	HealBound  float64        `json:"healing_bound_seconds"`
	Processor  float64        `json:"processor_seconds"` // of this process until now
	RunRate    float64        `json:"runs_per_second"`
	EventRate  float64        `json:"events_per_second"`
	Missing    []string       `json:"never_reached"`
	Violations []Found        `json:"violations"`
	Reached    map[string]int `json:"reached"`
}

// Found is a violation in a report.
type Found struct {
	Seed   uint64 `json:"seed"`
	Oracle string `json:"oracle"`
	Text   string `json:"text"`
}

// Summary gives a batch in figures. Commit names the sources if the build does not
// know them.
func (r *BatchResult) Summary(o BatchOptions, commit string) *Summary {
	c := r.Cover
	t := c.Table()
	sec := r.Took.Seconds()
	s := &Summary{
		Command: os.Args, From: o.From, To: o.From + uint64(max(r.Runs, 1)) - 1,
		Began: r.Began.UTC(), Ended: r.Began.Add(r.Took).UTC(), Workers: max(1, o.Workers),
		Runs: r.Runs, Sites: t["run site"], Directed: t["run directed"], Events: r.Events,
		Faults: group(t, "fault "), FaultsSum: int(r.Faults), Crashes: c.Deaths, Powers: c.Powers,
		Writes: r.Writes, Acked: c.Replied[replicate.ReqWrite] + c.Replied[replicate.ReqZero],
		Flushes: c.Replied[replicate.ReqFlush], Reads: c.Replied[replicate.ReqRead],
		Promotions: c.Effects[replicate.EffProviderStart], Syncs: c.Reports[replicate.ReportSyncDone],
		Verdicts: group(t, "verdict "), Rows: group(t, "row "), Unaided: group(t, "unaided "),
		Healing: float64(r.Healed) / float64(second), HealSeed: r.HealedSeed, HealBound: float64(healTime / second),
		Processor: Processor().Seconds(), RunRate: float64(r.Runs) / sec, EventRate: float64(r.Events) / sec,
		Missing: c.Missing(), Violations: []Found{}, Reached: t,
	}
	for _, n := range c.Failed {
		s.Errors += n
	}
	for _, v := range r.Violations {
		s.Violations = append(s.Violations, Found{v.Seed, v.Oracle, v.Text})
	}
	s.Revision, s.Modified = Revision(commit)
	return s
}

// group picks the counts of one group out of the table.
func group(t map[string]int, prefix string) map[string]int {
	g := map[string]int{}
	for k, v := range t {
		if name, ok := strings.CutPrefix(k, prefix); ok {
			g[name] = v
		}
	}
	return g
}

// Revision says which sources the program was built from.
func Revision(commit string) (string, bool) {
	dirty := false
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, x := range info.Settings {
			switch {
			case x.Key == "vcs.revision" && commit == "":
				commit = x.Value
			case x.Key == "vcs.modified":
				dirty = x.Value == "true"
			}
		}
	}
	return cmp.Or(commit, "unknown"), dirty
}

// Processor is the processor time that this process has taken.
func Processor() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// String is the end of a batch for a person.
func (s *Summary) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d runs (%d of several pairs, %d of scripts), %d events in %.1fs on %d workers: %.0f runs/s, %.0f events/s, %.0f events a run\n",
		s.Runs, s.Sites, s.Directed, s.Events, s.Ended.Sub(s.Began).Seconds(), s.Workers, s.RunRate, s.EventRate, float64(s.Events)/float64(max(1, s.Runs)))
	fmt.Fprintf(&b, "%d faults, %d daemons ended, %d power losses, %d promotions, %d syncs completed\n", s.FaultsSum, s.Crashes, s.Powers, s.Promotions, s.Syncs)
	fmt.Fprintf(&b, "%d of %d writes acknowledged, %d flushes, %d reads checked, %d requests failed\n", s.Acked, s.Writes, s.Flushes, s.Reads, s.Errors)
	fmt.Fprintf(&b, "without help: %s; complete after at most %.1fs (seed %d; bound %.0fs)", counts(s.Unaided), s.Healing, s.HealSeed, s.HealBound)
	return b.String()
}

// counts lists names with their counts, the most frequent first.
func counts(m map[string]int) string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b)) })
	for i, k := range keys {
		keys[i] = fmt.Sprintf("%s %d", k, m[k])
	}
	return strings.Join(keys, ", ")
}

// Write keeps the summary in a file.
func (s *Summary) Write(path string) error { return WriteReport(path, s) }

// WriteReport keeps the summary of a batch in a file.
func WriteReport(path string, summary any) error {
	b, err := json.MarshalIndent(summary, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
