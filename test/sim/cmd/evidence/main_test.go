package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func report(t *testing.T, change func(p *piece)) string {
	t.Helper()
	p := piece{Revision: "abc", From: 1, To: 10, Runs: 10, Events: 1234567, Faults: 7, Processor: 2, Reached: map[string]int64{"fault cut": 7, "row 3": 1, "other": 2}}
	if change != nil {
		change(&p)
	}
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	f := filepath.Join(t.TempDir(), "piece.json")
	if err := os.WriteFile(f, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestPiecesThatDoNotAddUpAreRefused(t *testing.T) {
	good := report(t, nil)
	next := func(change func(p *piece)) string {
		return report(t, func(p *piece) { p.From, p.To = 11, 20; change(p) })
	}
	for _, c := range []struct {
		of    string
		files []string
		want  string
	}{
		{"pair", nil, "no report"},
		{"disk", []string{good}, "cluster and pair"},
		{"pair", []string{good, good}, "share seeds"},
		{"pair", []string{next(func(p *piece) { p.From = 10 }), good}, "share seeds"},
		{"pair", []string{good, next(func(p *piece) { p.Revision = "abd" })}, "another"},
		{"pair", []string{good, next(func(p *piece) { p.Modified = true })}, "no revision names"},
		{"pair", []string{next(func(p *piece) { p.Revision = "unknown" })}, "no revision names"},
		{"pair", []string{next(func(p *piece) { p.Runs = 0 })}, "no simulator"},
		{"pair", []string{good + ".not"}, "no such file"},
	} {
		if err := run(new(strings.Builder), c.of, c.files); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %v: %v, want %q", c.of, c.files, err, c.want)
		}
	}
}

func TestPiecesAddUp(t *testing.T) {
	var out strings.Builder
	violated := report(t, func(p *piece) {
		p.From, p.To, p.Violations, p.Missing = 11, 20, []violation{{1725, "durable", "gone\nmore"}, {5, "ack", "early"}}, []string{"row 5"}
	})
	if err := run(&out, "pair", []string{violated, report(t, nil)}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"20 runs with 14 faults drawn", "**2 violations**", "| all | | | | | 4 | 20 | 2,469,134 | 14 | 2 |",
		"| 1725 | durable | gone | a flush was acknowledged although ", "| 5 | ack | early | **not known yet** |",
		"Not reached by every piece: row 5.", "| cut | 14 |", "| other | 4 |", "Revision abc.",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
}
