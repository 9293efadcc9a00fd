package main

import (
	"slices"
	"testing"
)

// Every package runs once, and the longest of a phase begins.
func TestPhases(t *testing.T) {
	packages := []string{"hastd/cmd/hastd", "hastd/replicate", "hastd/test/interop", lab, chaos, "hastd/test/lab/disk", "hastd/test/sim", "hastd/test/sim/planted"}
	var all []string
	for _, p := range phases {
		mine := p.of(packages)
		if slices.Contains(mine, p.first) && mine[0] != p.first {
			t.Errorf("%s: %v do not begin with %s", p.why, mine, p.first)
		}
		all = append(all, mine...)
	}
	if i := slices.Index(all, chaos); i != 4-1 {
		t.Errorf("%s is number %d of %v, want it to begin the third phase", chaos, i, all)
	}
	slices.Sort(all)
	slices.Sort(packages)
	if !slices.Equal(all, packages) {
		t.Errorf("run are %v, want each of %v once", all, packages)
	}
}
