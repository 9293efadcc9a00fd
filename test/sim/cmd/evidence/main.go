// Command evidence makes one document of the reports that pieces of a simulation left.
//
//	evidence -of pair docs/evidence/pair/*.json >docs/evidence/simulation.md
//
// It refuses pieces of more than one revision, of sources that differed from it, and
// pieces that share seeds: what is counted twice proves nothing.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"hastd/test/sim"
	"hastd/test/sim/cluster"
)

// piece is what the reports of all simulators have.
type piece struct {
	Revision   string           `json:"revision"`
	Modified   bool             `json:"modified"`
	From       uint64           `json:"first_seed"`
	To         uint64           `json:"last_seed"`
	Began      time.Time        `json:"began"`
	Ended      time.Time        `json:"ended"`
	Workers    int              `json:"workers"`
	Runs       int64            `json:"runs"`
	Events     int64            `json:"events"`
	Faults     int64            `json:"faults_sum"`
	Acked      int64            `json:"writes_acknowledged"`
	Processor  float64          `json:"processor_seconds"`
	Healing    float64          `json:"longest_healing_seconds"`
	HealSeed   uint64           `json:"longest_healing_seed"`
	Missing    []string         `json:"never_reached"`
	Violations []violation      `json:"violations"`
	Reached    map[string]int64 `json:"reached"`
}

// violation is what an oracle said of one run.
type violation struct {
	Seed   uint64 `json:"seed"`
	Oracle string `json:"oracle"`
	Text   string `json:"text"`
}

// subject is what was simulated.
type subject struct {
	title, what, command string
	tables               []table
	found                map[uint64]string // what came out, by seed
}

// table is of what begins with a word.
type table struct{ word, title string }

var subjects = map[string]subject{
	"pair": {
		title: "The pair under simulation",
		what: `Two simulated nodes (one to three resources) run the production machines and
metadata rules of ` + "`replicate` and `metadata`" + `; disks, network, clocks, operators and
applications are simulated. What is judged stands in ` + "`docs/guarantees.md`" + `; how, in
` + "`test/sim/oracle_*.go`" + `.`,
		command: "go run ./test/sim/cmd/sim -from FIRST -runs N -limit TIME -k -coverage -report FILE",
		tables: []table{{"fault", "Faults"}, {"verdict", "Verdicts at a connection"},
			{"row", "Rows of the scenarios that began a run, random faults after them"}, {"unaided", "How pairs stood before anybody helped"}},
		found: map[uint64]string{},
	},
	"cluster": {
		title: "Clusters with votes under simulation",
		what: `Two, three or four simulated nodes run the production machines of ` + "`cluster`" + ` (heartbeats'
links, views, leases, members, who takes a group up) over those of ` + "`replicate` and `metadata`" + `;
vipd and hastd of a node end, stand still and lose messages apart from each other. What is
judged stands in ` + "`docs/guarantees.md`" + `; how, in ` + "`test/sim/cluster/oracle_*.go`" + ` and, for the
replicas, in ` + "`test/sim/oracle_*.go`" + `.`,
		command: "go run ./test/sim/cluster/cmd/cluster -from FIRST -runs N -limit TIME -k -coverage -report FILE",
		tables:  []table{{"fault", "Faults"}},
		found:   map[uint64]string{},
	},
}

func init() {
	for _, s := range sim.NamedSeeds {
		subjects["pair"].found[s.Seed] = s.Found
	}
	for _, s := range cluster.NamedSeeds {
		subjects["cluster"].found[s.Seed] = s.Found
	}
}

func main() {
	of := flag.String("of", "pair", "what was simulated: pair or cluster")
	flag.Parse()
	if err := run(os.Stdout, *of, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "evidence: error:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, of string, files []string) error {
	s, ok := subjects[of]
	if !ok {
		return fmt.Errorf("-of %s: there is %s", of, strings.Join(slices.Sorted(maps.Keys(subjects)), " and "))
	}
	var pieces []piece
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		var p piece
		if err := json.Unmarshal(b, &p); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		pieces = append(pieces, p)
	}
	if err := check(pieces); err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	s.write(out, pieces)
	return out.Flush()
}

// check sorts the pieces by their seeds and wants that they can be counted together.
func check(pieces []piece) error {
	if len(pieces) == 0 {
		return errors.New("no report is named")
	}
	slices.SortFunc(pieces, func(a, b piece) int { return cmp.Compare(a.From, b.From) })
	for i, p := range pieces {
		switch {
		case p.Runs == 0 || p.Processor <= 0:
			return fmt.Errorf("the piece from seed %d is of no simulator that is known here", p.From)
		case p.Modified || p.Revision == "unknown":
			return fmt.Errorf("the piece from seed %d ran on sources that no revision names", p.From)
		case p.Revision != pieces[0].Revision:
			return fmt.Errorf("the piece from seed %d is of revision %s, another of %s", p.From, p.Revision, pieces[0].Revision)
		case i > 0 && p.From <= pieces[i-1].To:
			return fmt.Errorf("the pieces from seed %d and from %d share seeds", pieces[i-1].From, p.From)
		}
	}
	return nil
}

func (s *subject) write(w io.Writer, pieces []piece) {
	all := piece{Reached: map[string]int64{}}
	missing := map[string]int{}
	for _, p := range pieces {
		all.Runs, all.Events, all.Faults, all.Acked = all.Runs+p.Runs, all.Events+p.Events, all.Faults+p.Faults, all.Acked+p.Acked
		all.Processor += p.Processor
		all.Violations = append(all.Violations, p.Violations...)
		if p.Healing > all.Healing {
			all.Healing, all.HealSeed = p.Healing, p.HealSeed
		}
		for k, n := range p.Reached {
			all.Reached[k] += n
		}
		for _, m := range p.Missing {
			missing[m]++
		}
	}
	fmt.Fprintf(w, "# %s\n\nRevision %s. %s\n\n    %s\n\n", s.title, pieces[0].Revision, s.what, s.command)
	fmt.Fprintf(w, "%s runs with %s faults drawn (what they did is counted by kind below): **%s**.\n\n", figure(all.Runs), figure(all.Faults), many(len(all.Violations), "violation"))
	fmt.Fprintln(w, "| first seed | last seed | began (UTC) | minutes | workers | processor seconds | runs | events | faults | violations |")
	fmt.Fprintln(w, "| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	for _, p := range pieces {
		fmt.Fprintf(w, "| %d | %d | %s | %.1f | %d | %s | %s | %s | %s | %d |\n", p.From, p.To, p.Began.UTC().Format("2006-01-02 15:04"), p.Ended.Sub(p.Began).Minutes(),
			p.Workers, figure(int64(p.Processor)), figure(p.Runs), figure(p.Events), figure(p.Faults), len(p.Violations))
	}
	fmt.Fprintf(w, "| all | | | | | %s | %s | %s | %s | %d |\n\n", figure(int64(all.Processor)), figure(all.Runs), figure(all.Events), figure(all.Faults), len(all.Violations))
	fmt.Fprintf(w, "%.2f hours of processor time; %.0f runs and %s events a processor second. %s writes were\nacknowledged. Once faults stopped it took at most %.1f s of simulated time until all was well\nor a reason said why not (seed %d).\n\n",
		all.Processor/3600, float64(all.Runs)/all.Processor, figure(int64(float64(all.Events)/all.Processor)), figure(all.Acked), all.Healing, all.HealSeed)
	if len(missing) == 0 {
		fmt.Fprintln(w, "Every piece reached everything that `expected.txt` lists beside the simulator.")
	} else {
		fmt.Fprintf(w, "Not reached by every piece: %s.\n", strings.Join(slices.Sorted(maps.Keys(missing)), ", "))
	}
	s.violations(w, all.Violations)
	for _, t := range s.tables {
		section(w, t.title, t.word+" ", all.Reached)
	}
	for _, t := range s.tables {
		maps.DeleteFunc(all.Reached, func(k string, _ int64) bool { return strings.HasPrefix(k, t.word+" ") })
	}
	section(w, "What else occurred", "", all.Reached)
}

// violations tells of each what came of it, by the list of the seeds that found something.
func (s *subject) violations(w io.Writer, vs []violation) {
	if len(vs) == 0 {
		return
	}
	fmt.Fprintf(w, "\n## Violations\n\n| seed | oracle | what it said | what came of it |\n| ---: | --- | --- | --- |\n")
	for _, v := range vs {
		came := s.found[v.Seed]
		if came == "" {
			came = "**not known yet**"
		}
		said, _, _ := strings.Cut(v.Text, "\n")
		fmt.Fprintf(w, "| %d | %s | %s | %s |\n", v.Seed, v.Oracle, said, came)
	}
}

// section is a table of what begins with a prefix.
func section(w io.Writer, title, prefix string, reached map[string]int64) {
	fmt.Fprintf(w, "\n## %s\n\n| what | times |\n| --- | ---: |\n", title)
	for _, k := range slices.Sorted(maps.Keys(reached)) {
		if name, ok := strings.CutPrefix(k, prefix); ok && reached[k] > 0 {
			fmt.Fprintf(w, "| %s | %s |\n", name, figure(reached[k]))
		}
	}
}

func many(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// figure groups the digits of a number.
func figure(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
