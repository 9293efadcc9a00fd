// Command planted shows that the simulation's oracles, and a few tests, catch bugs in
// production code: it plants them one at a time. Run it in the module's root; with
// arguments only bugs whose name, oracle or test contains one of them are tried. The
// table at the end tells, for each, how many runs it took of how many it may take.
package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"hastd/test/sim/planted"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(only []string) int {
	wanted := func(name string) bool {
		for _, o := range only {
			if strings.Contains(name, o) {
				return true
			}
		}
		return len(only) == 0
	}
	var table strings.Builder
	tried, missed := 0, 0
	began := time.Now()
	for _, b := range planted.Bugs {
		if !wanted(b.Name + " " + b.Catcher()) {
			continue
		}
		tried++
		start := time.Now()
		r, err := planted.Try(".", b)
		said := ""
		switch {
		case err != nil:
			fmt.Fprintln(os.Stderr, "planted:", err)
			missed++
			said = "ERROR"
		case !r.Found():
			fmt.Printf("MISSED: %s: %s said nothing; first runs by oracle: %v\n", b.Name, b.Catcher(), r.First)
			missed++
			said = "MISSED"
		case b.Test != "":
			said = "failed"
		default:
			said = fmt.Sprintf("run %d of %d", r.First[b.Oracle], b.Runs)
			if r.First[b.Oracle] != b.Took {
				said += fmt.Sprintf(" (once %d)", b.Took)
			}
			fmt.Printf("found: %s: first runs by oracle: %v, %.0f s\n", b.Name, r.First, time.Since(start).Seconds())
		}
		fmt.Fprintf(&table, "%-62s %-12s %s\n", b.Name, b.Catcher(), said)
	}
	fmt.Printf("\n%s%d bugs planted, %d not caught, %.0f s\n", &table, tried, missed, time.Since(began).Seconds())
	if missed > 0 {
		return 1
	}
	return 0
}
