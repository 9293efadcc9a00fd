// Command views replays one seed of the simulation of views, or runs many.
//
//	views -seed 42 -trace        one run, with its transcript
//	views -from 1 -runs 100000   a batch; exits 1 if an oracle was violated
package main

import (
	"os"

	"hastd/test/sim/views"
)

func main() { os.Exit(views.Views.Main()) }
