// Package sim runs two whole nodes of a resource in one deterministic process:
// the production machine (replicate.Machine) and the production metadata codecs,
// on simulated disks whose caches a crash tears, a simulated network that delays,
// cuts and half-opens, and clocks of their own. Everything that happens follows
// from one seed, so a failure is a number. A World is a pair of one resource; a Site
// (site.go) is several on the same two hosts.
//
// cmd/sim replays seeds and runs batches; the tests run a short batch, the named
// seeds and the scenarios of the replication rules (rows.go), which one run in
// sixteen plays too, with random times around them (directed.go). Oracles stand in files of
// their own (oracle_*.go) and judge from outside: they look at what applications
// were told, at the bytes on the two media and at decoded metadata, never at the
// machine's memory.
//
// A run never waits, sleeps or starts a goroutine (only Batch does, one a worker),
// and no production package imports this one.
//
// Data is not bytes here: each 512-byte sector holds a stamp, a number that no two
// sectors of two writes share (zero is a zeroed sector). A payload is a vector of
// stamps. Metadata is real bytes.
package sim

// sectorSize is the unit in which a medium tears, in bytes.
const sectorSize = 512

// poison is a stamp that no write ever had: memory that holds nothing meant.
const poison = ^uint32(0)
