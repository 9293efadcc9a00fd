// Package cluster runs a whole cluster that decides by votes, in one deterministic
// process: on each host the production machine that vipd runs (cluster/member: views,
// lease and grants), and for each resource two production replicas (replicate, with real
// metadata) under it, connected as the two daemons are. vipd and hastd talk with delays,
// lose what they say, and restart apart from each other; hosts have clocks of their own,
// stand still, lose power, are cut off in any direction, and are ordered about.
// Everything follows from one seed.
//
// The parts are those of the two simulations beside it: replicas, disks, the connection
// between them and its oracles are test/sim's (sim.Pair), the network between the
// daemons that vote and the oracle of the views' chain are test/sim/views'. The oracles
// here (oracle_*.go) say what only the whole can promise: that one node serves, that the
// loser stopped before the winner began, that whoever may own has everything that was
// acknowledged, and that a majority with a good replica serves once faults stop. They
// judge by what applications were told, what the media hold and what was stored.
//
// A run never waits, sleeps or starts a goroutine.
package cluster
