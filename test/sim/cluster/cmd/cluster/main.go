// Command cluster replays one seed of the simulation of a cluster, or runs many.
//
//	cluster -seed 42 -trace       one run, with its transcript
//	cluster -from 1 -runs 10000   a batch; exits 1 if an oracle was violated
package main

import (
	"os"

	"hastd/test/sim/cluster"
)

func main() { os.Exit(cluster.Sim.Main()) }
