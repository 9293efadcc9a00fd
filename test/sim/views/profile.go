package views

import (
	"fmt"

	"hastd/cluster/view"
)

// profile is what kind of cluster a run has and what is done to it.
type profile struct {
	data, witness int
	pairs         [][]view.NodeID // the nodes of each resource
	slowOrders    bool            // vipd and hastd talk with delays
	loss, twice   float64
	late          float64
	faultGap      view.Duration
	writeGap      view.Duration
	wipes         bool
	restores      bool
	forces        bool // people force, sometimes wrongly
	chaos         view.Duration
}

// shapes are the clusters; runs take them in turn.
var shapes = []profile{
	{data: 2, pairs: [][]view.NodeID{{0, 1}}},
	{data: 2, pairs: [][]view.NodeID{{0, 1}, {0, 1}}},
	{data: 2, witness: 1, pairs: [][]view.NodeID{{0, 1}}},
	{data: 2, witness: 1, pairs: [][]view.NodeID{{0, 1}, {0, 1}, {0, 1}}},
	{data: 3, pairs: [][]view.NodeID{{0, 1}, {1, 2}}},
	{data: 3, witness: 1, pairs: [][]view.NodeID{{0, 2}, {1, 2}}},
	{data: 4, pairs: [][]view.NodeID{{0, 1}, {2, 3}}},
	{data: 4, pairs: [][]view.NodeID{{0, 1}, {0, 1}}},
}

func (p *profile) config() view.Config {
	c := view.Config{Rejoin: rejoin}
	for i := range p.data + p.witness {
		c.Nodes = append(c.Nodes, view.NodeConfig{ID: view.NodeID(i), Witness: i >= p.data})
	}
	for i, nodes := range p.pairs {
		c.Resources = append(c.Resources, view.ResourceConfig{Name: fmt.Sprintf("r%d", i), Nodes: nodes, First: view.SetOf(nodes...)})
	}
	return c
}

// draw makes the profile of a random run.
func draw(seed uint64, rng interface {
	IntN(int) int
	Float64() float64
}) profile {
	p := shapes[seed%uint64(len(shapes))]
	pick := func(of ...float64) float64 { return of[rng.IntN(len(of))] }
	p.slowOrders = rng.IntN(2) == 0
	p.loss = pick(0, 0, 0.01, 0.05, 0.2)
	p.twice = pick(0, 0.02, 0.1)
	p.late = pick(0, 0.01, 0.05, 0.2)
	p.faultGap = view.Duration(pick(0.15, 0.4, 1) * float64(second))
	p.writeGap = view.Duration(pick(20, 60, 200) * float64(millisecond))
	p.wipes = rng.IntN(3) == 0
	p.restores = rng.IntN(6) == 0
	p.forces = rng.IntN(5) == 0
	p.chaos = view.Duration(pick(8, 15, 30) * float64(second))
	return p
}
