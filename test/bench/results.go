package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// results are the samples of a run, by job and stack. The first stack is ours.
type results struct {
	o       options
	stacks  []string
	samples map[string]map[string][]sample
}

func newResults(o options, stacks []*stack) *results {
	r := &results{o: o, samples: map[string]map[string][]sample{}}
	for _, s := range stacks {
		r.stacks = append(r.stacks, s.name)
	}
	return r
}

func (r *results) add(j job, s *stack, m sample) {
	if r.samples[j.name] == nil {
		r.samples[j.name] = map[string][]sample{}
	}
	r.samples[j.name][s.name] = append(r.samples[j.name][s.name], m)
}

// median of each figure by itself.
func median(all []sample) sample {
	of := func(f func(sample) float64) float64 {
		v := make([]float64, len(all))
		for i, m := range all {
			v[i] = f(m)
		}
		slices.Sort(v)
		if n := len(v); n%2 == 0 {
			return (v[n/2-1] + v[n/2]) / 2
		}
		return v[len(v)/2]
	}
	return sample{
		IOPS: of(func(m sample) float64 { return m.IOPS }),
		MBps: of(func(m sample) float64 { return m.MBps }),
		P50:  of(func(m sample) float64 { return m.P50 }),
		P99:  of(func(m sample) float64 { return m.P99 }),
		CPU:  of(func(m sample) float64 { return m.CPU }),
	}
}

// ratio is how many times the rate of other ours is: the median over the rounds,
// so that what disturbed a round disturbs both.
func (r *results) ratio(j job, other string) float64 {
	ours, theirs := r.samples[j.name][r.stacks[0]], r.samples[j.name][other]
	v := make([]sample, min(len(ours), len(theirs)))
	for i := range v {
		v[i].IOPS = ours[i].IOPS / theirs[i].IOPS
	}
	return median(v).IOPS
}

// mirrorName is whom the promise is measured by.
const mirrorName = "qemu-mirror"

// verdict says whether the promise was kept by all jobs that were run.
func (r *results) verdict() bool {
	for _, j := range r.o.jobs {
		if j.least > 0 && r.ratio(j, mirrorName) < j.least {
			return false
		}
	}
	return true
}

func (r *results) write(w io.Writer) {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	style := table.StyleLight
	style.Format.Header = text.FormatDefault // µs stays µs
	t.SetStyle(style)
	head := table.Row{"job", "server", "IOPS", "MB/s", "p50 µs", "p99 µs", "CPU µs/op", "ours is"}
	t.AppendHeader(head)
	var right []table.ColumnConfig
	for i := 3; i <= len(head); i++ {
		right = append(right, table.ColumnConfig{Number: i, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(right)
	for _, j := range r.o.jobs {
		for i, s := range r.stacks {
			m, name, ratio := median(r.samples[j.name][s]), "", ""
			if i == 0 {
				name = j.name
			} else {
				ratio = fmt.Sprintf("%.2f ×", r.ratio(j, s))
			}
			t.AppendRow(table.Row{name, s, fmt.Sprintf("%.0f", m.IOPS), fmt.Sprintf("%.0f", m.MBps),
				fmt.Sprintf("%.0f", m.P50), fmt.Sprintf("%.0f", m.P99), fmt.Sprintf("%.1f", m.CPU), ratio})
		}
		t.AppendSeparator()
	}
	t.Render()
	fmt.Fprintf(w, "Medians of %d rounds of %v by turns; CPU is the servers', fio's not counted.\n", r.o.rounds, r.o.runtime)
	for _, j := range r.o.jobs {
		if j.least > 0 {
			got, word := r.ratio(j, mirrorName), "pass"
			if got < j.least {
				word = "FAIL"
			}
			fmt.Fprintf(w, "%s  %s: %.2f times qemu's mirror, at least %.1f\n", word, j.name, got, j.least)
		}
	}
}

func (r *results) writeJSON(w io.Writer) error {
	type row struct {
		Job    string             `json:"job"`
		Server map[string]sample  `json:"servers"`
		Ratio  map[string]float64 `json:"ratios"`
		Least  float64            `json:"least,omitempty"`
	}
	var doc struct {
		Rounds  int     `json:"rounds"`
		Seconds float64 `json:"seconds"`
		Jobs    []row   `json:"jobs"`
		Pass    bool    `json:"pass"`
	}
	doc.Rounds, doc.Seconds, doc.Pass = r.o.rounds, r.o.runtime.Seconds(), r.verdict()
	for _, j := range r.o.jobs {
		x := row{Job: j.name, Server: map[string]sample{}, Ratio: map[string]float64{}, Least: j.least}
		for i, s := range r.stacks {
			x.Server[s] = median(r.samples[j.name][s])
			if i > 0 {
				x.Ratio[s] = r.ratio(j, s)
			}
		}
		doc.Jobs = append(doc.Jobs, x)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(doc)
}
