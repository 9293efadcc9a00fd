// Command planted shows that the simulation's oracles catch bugs in production
// code: it plants them one at a time in a copy of the tree. Run it in the module's
// root; with arguments only bugs whose name or oracle contains one of them are tried.
package main

import (
	"fmt"
	"os"
	"strings"

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
	missed := 0
	for _, b := range planted.Bugs {
		if !wanted(b.Name + " " + b.Oracle) {
			continue
		}
		r, err := planted.Try(".", b)
		switch {
		case err != nil:
			fmt.Fprintln(os.Stderr, "planted:", err)
			missed++
		case !r.Found():
			fmt.Printf("MISSED  %-58s oracle %s did not fire: %v\n", b.Name, b.Oracle, r.First)
			missed++
		default:
			fmt.Printf("found   %-58s by %s in run %d (%d when the table was written); first runs by oracle: %v\n", b.Name, b.Oracle, r.First[b.Oracle], b.Took, r.First)
		}
	}
	if missed > 0 {
		return 1
	}
	return 0
}
