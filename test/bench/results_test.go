package main

import (
	"strings"
	"testing"
)

// TestVerdictOfResults feeds known figures: a round in which all were disturbed
// must not change what the others say, and a promise that is not kept is told.
func TestVerdictOfResults(t *testing.T) {
	promised := job{name: "w", least: 1.5}
	o := options{jobs: []job{promised, {name: "free"}}, rounds: 3}
	ours, theirs := &stack{name: "hastd"}, &stack{name: mirrorName}
	fill := func(a, b []float64) *results {
		r := newResults(o, []*stack{ours, theirs})
		for i := range a {
			for _, j := range o.jobs {
				r.add(j, ours, sample{IOPS: a[i]})
				r.add(j, theirs, sample{IOPS: b[i]})
			}
		}
		return r
	}
	for _, c := range []struct {
		ours, theirs []float64
		ratio        float64
		pass         bool
		word         string
	}{
		{[]float64{20, 2, 40}, []float64{10, 1, 20}, 2, true, "pass  w: 2.00"},
		{[]float64{14, 14, 90}, []float64{10, 10, 10}, 1.4, false, "FAIL  w: 1.40"},
		{[]float64{15}, []float64{10}, 1.5, true, "pass  w: 1.50"},
	} {
		r := fill(c.ours, c.theirs)
		if got := r.ratio(promised, mirrorName); got != c.ratio {
			t.Errorf("%v to %v is %v, want %v", c.ours, c.theirs, got, c.ratio)
		}
		if r.verdict() != c.pass {
			t.Errorf("%v to %v: verdict %v", c.ours, c.theirs, !c.pass)
		}
		var text strings.Builder
		r.write(&text)
		if !strings.Contains(text.String(), c.word) {
			t.Errorf("no %q in\n%s", c.word, &text)
		}
	}
}

func TestMedianOfEachFigure(t *testing.T) {
	m := median([]sample{{IOPS: 3, CPU: 1}, {IOPS: 1, CPU: 9}, {IOPS: 2, CPU: 5}, {IOPS: 8, CPU: 7}})
	if m.IOPS != 2.5 || m.CPU != 6 {
		t.Errorf("median is %+v", m)
	}
}

func TestUnknownJobIsRefused(t *testing.T) {
	if _, err := parse([]string{"-only", "nothing"}, &strings.Builder{}); err == nil || !strings.Contains(err.Error(), "randwrite-4k-d32") {
		t.Errorf("error %v does not name the jobs", err)
	}
}
