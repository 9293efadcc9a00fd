package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// event is a line of `go test -json` (see `go doc test2json`).
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// testID names a test of a package.
type testID struct{ pkg, test string }

func (t testID) String() string { return t.pkg + " " + t.test }

// result gathers what happened. A test with subtests is counted only if it failed
// by itself: its subtests are the tests.
type result struct {
	out     io.Writer
	pkgs    map[string]*pkgResult
	builds  map[string][]string // compiler's words by what was built
	passed  int
	failed  int
	skipped []testID
	reasons map[testID]string
	broken  []string // tests and packages that failed, for the end
}

type pkgResult struct {
	tests map[string]*testResult
	lines []string // of the package itself
	done  bool
}

type testResult struct {
	action   string // "": still running
	lines    []string
	children bool
	badChild bool
}

func newResult(out io.Writer) *result {
	return &result{out: out, pkgs: map[string]*pkgResult{}, builds: map[string][]string{}, reasons: map[testID]string{}}
}

// read takes in one run's events.
func (r *result) read(events io.Reader) error {
	in := bufio.NewReader(events)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(r.out, "%s", line) // not an event: go test's own words
			} else {
				r.take(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the events of go test: %w", err)
		}
	}
}

func (r *result) take(e event) {
	if e.Action == "build-output" {
		r.builds[e.ImportPath] = append(r.builds[e.ImportPath], e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	p := r.pkg(e.Package)
	if e.Test == "" {
		switch e.Action {
		case "output":
			p.lines = append(p.lines, e.Output)
		case "pass", "fail", "skip":
			r.finish(e, p)
		}
		return
	}
	t := p.test(e.Test)
	switch e.Action {
	case "output":
		t.lines = append(t.lines, e.Output)
	case "pass", "fail", "skip":
		t.action = e.Action
	}
}

func (r *result) pkg(name string) *pkgResult {
	p := r.pkgs[name]
	if p == nil {
		p = &pkgResult{tests: map[string]*testResult{}}
		r.pkgs[name] = p
	}
	return p
}

func (p *pkgResult) test(name string) *testResult {
	t := p.tests[name]
	if t == nil {
		t = &testResult{}
		p.tests[name] = t
	}
	return t
}

// finish counts and shows a package that ended.
func (r *result) finish(e event, p *pkgResult) {
	if p.done {
		return
	}
	p.done = true
	names := slices.Sorted(maps.Keys(p.tests))
	for _, name := range names {
		t := p.tests[name]
		for at := strings.LastIndexByte(name, '/'); at >= 0; at = strings.LastIndexByte(name[:at], '/') {
			if parent := p.tests[name[:at]]; parent != nil {
				parent.children = true
				parent.badChild = parent.badChild || t.action == "fail" || t.action == ""
			}
		}
	}
	var passed, skipped int
	var failed []string
	for _, name := range names {
		switch t := p.tests[name]; {
		case t.action == "fail" || t.action == "": // "": the process died around it
			if !t.badChild {
				failed = append(failed, name)
			}
		case t.children:
		case t.action == "skip":
			skipped++
			id := testID{e.Package, name}
			r.skipped = append(r.skipped, id)
			r.reasons[id] = reason(t.lines)
		default:
			passed++
		}
	}
	r.passed += passed
	r.failed += len(failed)
	if e.Action == "fail" && len(failed) == 0 {
		r.failed++ // it did not build, or died outside of its tests
		r.broken = append(r.broken, e.Package)
	}
	verdict := "ok  "
	if e.Action == "fail" {
		verdict = "FAIL"
	}
	fmt.Fprintf(r.out, "%s  %-32s %6.1fs  %4d passed", verdict, e.Package, e.Elapsed, passed)
	if len(failed) > 0 {
		fmt.Fprintf(r.out, ", %d failed", len(failed))
	}
	if skipped > 0 {
		fmt.Fprintf(r.out, ", %d skipped", skipped)
	}
	fmt.Fprintln(r.out)
	if e.Action != "fail" {
		return
	}
	r.show(r.builds[e.FailedBuild])
	for _, name := range failed {
		r.broken = append(r.broken, e.Package+" "+name)
		r.show(p.tests[name].lines)
	}
	// A panic, a race or a leak may be told outside of any test, or in the words of
	// a test around the one that failed.
	r.show(p.lines)
	for _, name := range names {
		if t := p.tests[name]; t.badChild {
			r.show(t.lines)
		}
	}
}

// missing counts packages of which nothing came back.
func (r *result) missing(packages []string) {
	for _, name := range packages {
		if p := r.pkg(name); !p.done {
			r.finish(event{Package: name, Action: "fail"}, p)
		}
	}
}

// maxShown is how many lines of one test are shown: its beginning and its end.
// Who needs all of it runs the test alone.
const maxShown = 160

// show prints what was said, without the marks that every test leaves.
func (r *result) show(lines []string) {
	var said []string
	for _, l := range lines {
		if s := strings.TrimSpace(l); strings.HasPrefix(s, "=== ") || s == "PASS" || s == "" || strings.HasPrefix(s, "--- PASS") {
			continue
		}
		said = append(said, l)
	}
	for i, l := range said {
		switch left := len(said) - maxShown; {
		case left <= 0 || i < maxShown/2 || i >= len(said)-maxShown/2:
			fmt.Fprint(r.out, "    ", l)
		case i == maxShown/2:
			fmt.Fprintf(r.out, "    … %d lines left out …\n", left)
		}
	}
}

// reason is what a skipped test said: the last line that is not a mark.
func reason(lines []string) string {
	said := ""
	for _, l := range lines {
		if s := strings.TrimSpace(l); s != "" && !strings.HasPrefix(s, "=== ") && !strings.HasPrefix(s, "--- ") {
			said = s
		}
	}
	return said
}

// summary tells what failed and what was skipped, and returns the skipped tests
// that are not allowed to be. Without a list every one is.
func (r *result) summary(allowed *skipList) (forbidden []string) {
	if len(r.skipped) > 0 {
		fmt.Fprintln(r.out, "\nskipped:")
		for _, t := range r.skipped {
			fmt.Fprintf(r.out, "  %s: %s\n", t, r.reasons[t])
			if allowed != nil && !allowed.has(t) {
				forbidden = append(forbidden, t.String())
			}
		}
	}
	if len(r.broken) > 0 {
		fmt.Fprintln(r.out, "\nfailed:")
		for _, name := range r.broken {
			fmt.Fprintf(r.out, "  %s\n", name)
		}
	}
	return forbidden
}
