package conf

// Each choice of the configuration has a type of its own, so that the compiler
// tells them apart. The text of a value is what stands in the file and what
// status shows.

// Quorum says who may decide after a loss of contact.
type Quorum string

const (
	QuorumOff      Quorum = "off"      // CARP or VRRP alone decides
	QuorumMajority Quorum = "majority" // views by majority; a lease is needed to serve
)

// TOC says what a losing or hung node does to itself.
type TOC string

const (
	TOCOff   TOC = "off"
	TOCReset TOC = "reset"
	TOCCrash TOC = "crash"
)

// ReplicationMode says what must have happened before a write is acknowledged.
type ReplicationMode string

const (
	FullSync ReplicationMode = "fullsync" // both disks wrote
	MemSync  ReplicationMode = "memsync"  // local disk wrote, peer received
	Async    ReplicationMode = "async"    // local disk wrote
)

// ProviderKind is the front end that gives applications the device.
type ProviderKind string

const (
	ProviderAuto      ProviderKind = "auto" // the first of ublk, nbd, fuse that works
	ProviderUblk      ProviderKind = "ublk"
	ProviderNBD       ProviderKind = "nbd" // the kernel's client
	ProviderFUSE      ProviderKind = "fuse"
	ProviderNBDServer ProviderKind = "nbd-server"
)

// Checksum is what protects payload on the wire.
type Checksum string

const (
	ChecksumNone   Checksum = "none"
	ChecksumCRC32C Checksum = "crc32c"
	ChecksumXXH3   Checksum = "xxh3"
	ChecksumSHA256 Checksum = "sha256"
)

// Compression is how payload travels.
type Compression string

const (
	CompressionNone Compression = "none"
	CompressionHole Compression = "hole" // zeroes are not sent
	CompressionLZ4  Compression = "lz4"
	CompressionZstd Compression = "zstd"
)

// StartAs is the role a resource takes when the daemon starts.
type StartAs string

const (
	StartInit      StartAs = "init"
	StartSecondary StartAs = "secondary"
)

// OnPeerLoss says what a primary does when the peer is lost.
type OnPeerLoss string

const (
	PeerLossContinue OnPeerLoss = "continue" // go on degraded
	PeerLossSuspend  OnPeerLoss = "suspend"  // hold writes until the peer is back or the operator resumes
)

// VerifyAfterSync says how much is compared before a sync is called done.
type VerifyAfterSync string

const (
	VerifyNone   VerifyAfterSync = "none"
	VerifySample VerifyAfterSync = "sample"
	VerifyAll    VerifyAfterSync = "all"
)

// Election is the protocol that elects the holder of a group's addresses.
type Election string

const (
	ElectionCARP     Election = "carp"
	ElectionVRRP     Election = "vrrp"
	ElectionExternal Election = "external"
)

// SplitBrainKind is the kind of an automatic decision after a split-brain.
type SplitBrainKind string

const (
	SplitBrainNone         SplitBrainKind = "none" // a person decides
	SplitBrainZeroChanges  SplitBrainKind = "discard-zero-changes"
	SplitBrainLeastChanges SplitBrainKind = "discard-least-changes"
	SplitBrainOlder        SplitBrainKind = "discard-older"
	SplitBrainNode         SplitBrainKind = "discard-node"
)

// SplitBrainPolicy is the value of after-split-brain.
type SplitBrainPolicy struct {
	Kind SplitBrainKind
	// Node is whose changes are discarded, for SplitBrainNode only.
	Node string
}

// String gives the form of the configuration file.
func (p SplitBrainPolicy) String() string {
	if p.Kind == SplitBrainNode {
		return string(p.Kind) + ":" + p.Node
	}
	return string(p.Kind)
}
