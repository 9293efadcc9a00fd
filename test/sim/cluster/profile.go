package cluster

import (
	"fmt"
	"math/rand/v2"

	"hastd/cluster/view"
	"hastd/test/sim"
)

// profile is what kind of cluster a run has and what is done to it.
type profile struct {
	data, witness int
	pairs         [][]view.NodeID // the nodes of each resource
	storage       []sim.Profile   // and what each is like
	drift         int64           // of a clock, parts in a million at most
	loss, twice   float64         // of messages between vipds
	late          float64
	slow          bool    // vipd and hastd talk with delays
	deaf          float64 // chance that what they say is lost
	stalls        float64 // chance that a daemon stands still before it tells an application
	faultGap      view.Duration
	chaos         view.Duration
	wipes         bool
	forces        bool // people force, sometimes wrongly
	disks         bool // disks fail
}

// maxDrift keeps any two clocks within the margin of a lease, 5 % of it.
const maxDrift = 24_000

// shapes are the clusters; runs take them in turn.
var shapes = []profile{
	{data: 2, pairs: [][]view.NodeID{{0, 1}}},
	{data: 2, witness: 1, pairs: [][]view.NodeID{{0, 1}}},
	{data: 2, witness: 1, pairs: [][]view.NodeID{{0, 1}, {0, 1}}},
	{data: 3, pairs: [][]view.NodeID{{0, 1}, {1, 2}}},
	{data: 2, witness: 1, pairs: [][]view.NodeID{{0, 1}}},
	{data: 2, pairs: [][]view.NodeID{{0, 1}, {0, 1}}},
	{data: 4, pairs: [][]view.NodeID{{0, 1}, {2, 3}}},
}

func (p *profile) config() view.Config {
	c := view.Config{Rejoin: rejoin}
	for i := range p.data + p.witness {
		c.Nodes = append(c.Nodes, view.NodeConfig{ID: view.NodeID(i), Witness: i >= p.data})
	}
	for i, nodes := range p.pairs {
		c.Resources = append(c.Resources, view.ResourceConfig{Name: fmt.Sprintf("r%d", i), Nodes: nodes})
	}
	return c
}

// outfit gives every resource of a shape replicas.
func (p profile) outfit(rng *rand.Rand) profile {
	p.storage = nil
	for range p.pairs {
		p.storage = append(p.storage, sim.QuorumProfile(rng))
	}
	return p
}

// draw makes the profile of a random run.
func draw(seed uint64, rng *rand.Rand) profile {
	p := shapes[seed%uint64(len(shapes))].outfit(rng)
	pick := func(of ...float64) float64 { return of[rng.IntN(len(of))] }
	p.drift = int64(pick(20, 200, maxDrift))
	p.loss = pick(0, 0, 0.01, 0.05)
	p.twice = pick(0, 0.02, 0.1)
	p.late = pick(0, 0.01, 0.05)
	p.slow = rng.IntN(2) == 0
	p.deaf = pick(0, 0, 0.02, 0.1)
	p.stalls = pick(0, 0.002, 0.01)
	p.faultGap = view.Duration(pick(0.3, 0.8, 2) * float64(second))
	p.chaos = view.Duration(pick(8, 15, 25) * float64(second))
	p.wipes = rng.IntN(4) == 0
	p.forces = rng.IntN(6) == 0
	p.disks = rng.IntN(4) == 0
	return p
}
