package replicate

import "hastd/metadata"

// Mode is when a write is acknowledged.
type Mode uint8

// The replication modes.
const (
	Fullsync Mode = iota // both disks wrote
	Memsync              // local disk wrote, peer received
	Async                // local disk wrote
)

var modeNames = [...]string{"fullsync", "memsync", "async"}

func (m Mode) String() string { return modeNames[m] }

// Live is what can change while a resource runs.
type Live struct {
	Suspend       bool    // on-peer-loss = "suspend"
	MaxRate       int64   // bytes a second of sync; 0: no cap
	LatencyTarget Instant // sync yields when application requests take longer
}

// Config is what a machine is made of.
type Config struct {
	Live
	Resource string
	Node     string
	Peer     string
	NodeID   metadata.NodeID
	PeerID   metadata.NodeID
	Mode     Mode
	// NeedLease: quorum = "majority": no promotion without a lease.
	NeedLease bool
	// Timeout is how long an answer of the peer is waited for beyond DiskTimeout.
	Timeout     Instant
	DiskTimeout Instant
	// Wall turns an Instant into unix seconds, for people only.
	Wall func(Instant) int64
	// Random draws identifiers: never zero, never twice.
	Random func() uint64
}

// Named limits of a machine.
const (
	// AgreementTimeout bounds an agreement with the peer: the primary acknowledges
	// nothing alone from sending its facts until it ends, or from a change of roles.
	AgreementTimeout = 5 * Second
	// ProbeTime is how long a promotion waits for word of a silent peer.
	ProbeTime = 1 * Second
	// MaxSyncOps is how many windows are being compared or copied at a time.
	MaxSyncOps = 32
	// MaxCopied is how many windows may be copied before the next flush of both
	// replicas.
	MaxCopied = 4096
)

// MaxRequest is the longest request a machine takes with this many log extents of
// this size, in bytes, whatever its alignment; the shell splits longer ones.
func MaxRequest(keepdirty, extentSize uint32) int64 {
	n := int64(max(keepdirty/8, 1))
	if n == 1 {
		return int64(extentSize) // unaligned it may touch two extents
	}
	return (n - 1) * int64(extentSize)
}
