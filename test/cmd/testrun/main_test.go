package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Every package runs once, and the longest of a phase begins.
func TestPhases(t *testing.T) {
	packages := []string{"hastd/cmd/hastd", "hastd/replicate", "hastd/replicate/runner", "hastd/test/interop", lab, chaos, "hastd/test/lab/disk", sim, "hastd/test/sim/planted"}
	slices.Sort(packages)
	for _, raceAsked := range []bool{false, true} {
		var all []string
		place, raced := map[string]int{}, map[string]bool{}
		for i, p := range phases(raceAsked) {
			mine := p.of(packages)
			if slices.Contains(mine, p.first) && mine[0] != p.first {
				t.Errorf("%s: %v do not begin with %s", p.why, mine, p.first)
			}
			for _, pkg := range mine {
				place[pkg], raced[pkg] = i, p.race
			}
			all = append(all, mine...)
		}
		slices.Sort(all)
		if !slices.Equal(all, packages) {
			t.Errorf("run are %v, want each of %v once", all, packages)
		}
		if place[lab] <= place[chaos] || place[chaos] <= place["hastd/replicate/runner"] {
			t.Errorf("the phases are %v", place)
		}
		if raced["hastd/replicate"] != raceAsked || !raced["hastd/replicate/runner"] || raced[sim] {
			t.Errorf("with the race detector asked for, %v: under it run %v", raceAsked, raced)
		}
	}
}

// What runs without the race detector has nothing for it: test/imports_test.go holds that
// of the packages, this of their tests.
func TestPureTestsAreAlone(t *testing.T) {
	rules, err := os.ReadFile("../../imports_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(rules), "\nvar pure = ")
	list, _, _ = strings.Cut(list, "\n")
	for _, pkg := range pure {
		folder := strings.TrimPrefix(pkg, "hastd/")
		if !strings.Contains(list, `"`+folder+`"`) {
			t.Errorf("%s is not among the pure packages of test/imports_test.go", pkg)
		}
		files, err := filepath.Glob("../../../" + folder + "/*_test.go")
		if err != nil || len(files) == 0 {
			t.Errorf("%s has no tests: %v", pkg, err)
		}
		for _, file := range files {
			if why, err := beside(file); err != nil || why != "" {
				t.Errorf("%s runs something beside the test: %s %v", file, why, err)
			}
		}
	}
}

// beside finds what a file of tests runs beside others.
func beside(file string) (why string, err error) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		return "", err
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			why = "go"
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.SelectorExpr); ok && (f.Sel.Name == "Parallel" || f.Sel.Name == "Go") {
				why = f.Sel.Name
			}
		}
		return true
	})
	return why, nil
}
