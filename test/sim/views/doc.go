// Package views runs two to four nodes with the production machine of cluster/view and
// a model of the storage daemon beside each, in one deterministic process: messages are
// lost, late, doubled and reordered, links are cut in one direction or between some,
// nodes crash at any effect of a step, keep or lose or get back older stored state,
// sleep, and are ordered about. Everything follows from one seed.
//
// The model (storage.go) keeps just the rules by which views make a write safe: wait
// for the peer while it is in sync, refuse an older generation. Oracles (oracle_*.go)
// judge from outside: by what was acknowledged, what replicas have, what was stored
// and what was learned; never by the machine's memory.
//
// There is no lease here and no clock that anything trusts: what is shown holds
// without. A run never waits, sleeps or starts a goroutine; only Batch does.
package views
