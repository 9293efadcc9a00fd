// Package cluster decides what a node of a cluster does with its groups: which
// parts go up and down, in which order, how far each may take, and what a failure
// leads to.
//
// It is a set of pure machines. cluster/runner tells them what happened (an
// election, a program that ended, what hastd says of a replica) and carries out
// what they want. The package starts no program, mounts nothing, sets no address,
// reads no clock and logs nothing.
package cluster

// Instant is a reading of a monotonic clock; Duration is a span of it. Both count
// nanoseconds.
type (
	Instant  int64
	Duration int64
)

// Spans of time.
const (
	Millisecond Duration = 1e6
	Second               = 1000 * Millisecond
)

func (i Instant) add(d Duration) Instant { return i + Instant(d) }
