package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each case is what go test -json says about one package, and what is to be made
// of it.
func TestResult(t *testing.T) {
	for _, c := range []struct {
		name    string
		events  string
		counts  [3]int
		shows   []string
		conceal []string
	}{
		{
			name: "all is well",
			events: `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"noise\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p"}`,
			counts: [3]int{1, 0, 0}, shows: []string{"ok    p"}, conceal: []string{"noise"},
		},
		{
			name: "subtests are the tests",
			events: `{"Action":"pass","Package":"p","Test":"TestA/x"}
{"Action":"fail","Package":"p","Test":"TestA/y/z"}
{"Action":"fail","Package":"p","Test":"TestA/y"}
{"Action":"skip","Package":"p","Test":"TestA/s"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`,
			counts: [3]int{1, 1, 1}, shows: []string{"FAIL  p", "p TestA/y/z"},
		},
		{
			name: "a parent fails by itself",
			events: `{"Action":"pass","Package":"p","Test":"TestA/x"}
{"Action":"output","Package":"p","Test":"TestA","Output":"mine alone\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`,
			counts: [3]int{1, 1, 0}, shows: []string{"mine alone"},
		},
		{
			name: "it does not build",
			events: `{"ImportPath":"p [p.test]","Action":"build-output","Output":"p.go:1: nonsense\n"}
{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}`,
			counts: [3]int{0, 1, 0}, shows: []string{"nonsense"},
		},
		{
			name: "the process dies in a test",
			events: `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"panic: alas\n"}
{"Action":"fail","Package":"p"}`,
			counts: [3]int{0, 1, 0}, shows: []string{"panic: alas"},
		},
		{
			name: "a leak after the tests",
			events: `{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"goroutines left\n"}
{"Action":"fail","Package":"p"}`,
			counts: [3]int{1, 1, 0}, shows: []string{"goroutines left"},
		},
		{name: "nothing comes back", events: "", counts: [3]int{0, 1, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			r := newResult(&out)
			if err := r.read(strings.NewReader(c.events)); err != nil {
				t.Fatal(err)
			}
			r.missing([]string{"p"})
			r.summary(nil)
			if got := [3]int{r.passed, r.failed, len(r.skipped)}; got != c.counts {
				t.Errorf("passed, failed, skipped: %v, want %v\n%s", got, c.counts, out.String())
			}
			for _, s := range c.shows {
				if !strings.Contains(out.String(), s) {
					t.Errorf("does not show %q:\n%s", s, out.String())
				}
			}
			for _, s := range c.conceal {
				if strings.Contains(out.String(), s) {
					t.Errorf("shows %q:\n%s", s, out.String())
				}
			}
		})
	}
}

func TestSkips(t *testing.T) {
	file := filepath.Join(t.TempDir(), "skips.txt")
	if err := os.WriteFile(file, []byte("# a comment\n\np TestA needs a person\np TestB/* depends on timing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := readSkips(file)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	r := newResult(&out)
	for _, name := range []string{"TestA", "TestB/x", "TestC"} {
		r.skipped = append(r.skipped, testID{"p", name})
	}
	if got := r.summary(l); len(got) != 1 || got[0] != "p TestC" {
		t.Errorf("forbidden: %v, want only p TestC", got)
	}
	if err := os.WriteFile(file, []byte("p TestA\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readSkips(file); err == nil || !strings.Contains(err.Error(), ":1: write package") {
		t.Errorf("a line without a reason: %v", err)
	}
}

func TestTheCommittedListIsReadable(t *testing.T) {
	if _, err := readSkips("../../skips.txt"); err != nil {
		t.Error(err)
	}
}
