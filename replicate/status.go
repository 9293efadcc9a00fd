package replicate

import "hastd/metadata"

// Status is what a machine tells about itself: the words of the status contract.
type Status struct {
	Role       metadata.Role
	Status     string // init complete degraded syncing split-brain failed
	Connection string // standalone connecting connected split-brain refused
	Reads      bool   // a primary that answers reads from its own replica
	Disk       string // diskless failed inconsistent outdated uptodate
	PeerRole   string // init primary secondary unknown
	PeerDisk   string // as Disk, or unknown
	Reason     string // a sentence: why the status is not complete

	Resuid                       metadata.ID
	Localcnt, Remotecnt          uint64
	Epoch                        metadata.Epoch
	Marks                        metadata.Marks
	Size                         int64
	DirtyBytes                   int64
	SyncState                    string // idle running paused verifying
	SyncDirection                string // "" to-peer from-peer
	SyncDone, SyncLeft, SyncRate int64  // bytes, bytes, bytes a second
	SyncETA                      int64  // seconds, -1 when it cannot be told
	Suspended                    bool
	SuspendReason                string // peer-lost peer-primary no-lease reconfiguration both-failed operator
	Counters                     Counters
	Inflight                     int
	LagBytes                     int64   // async: acknowledged and not confirmed by the peer
	LagAge                       Instant // since when the oldest of them waits
	Grant                        Grant   // with quorum: what the view allows
	Synced                       uint64  // … and the peer's incarnation, if it is in sync
}

// Counters only grow; they are the source of the metrics.
type Counters struct {
	LogWrites   uint64
	Repairs     uint64
	Reconnects  uint64
	SplitBrains uint64
	SyncSent    uint64    // bytes of blocks sent or fetched by sync
	ErrLocal    [3]uint64 // by read, write, flush
	ErrPeer     [3]uint64
}
