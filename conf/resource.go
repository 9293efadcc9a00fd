package conf

import "time"

// MetadataInternal is the value of Component.Metadata that puts the metadata at
// the end of the component itself.
const MetadataInternal = "internal"

// Resource is [resource.NAME]: one replicated device.
type Resource struct {
	Name        string
	Replication ReplicationMode
	Provider    ProviderKind
	// ExtentSize is the unit of the activity log in bytes, a power of two from
	// MinExtentSize to MaxExtentSize. It counts when a component is created.
	ExtentSize int64
	// KeepDirty is the number of extents in the activity log, from MinKeepDirty
	// to MaxKeepDirty.
	KeepDirty   int
	Checksum    Checksum
	Compression Compression
	TLS         bool
	// Timeout is how long a silent peer is waited for before it counts as lost.
	Timeout time.Duration
	// DiskTimeout is how long a silent disk is waited for before it has failed.
	DiskTimeout     time.Duration
	StartAs         StartAs
	AfterSplitBrain SplitBrainPolicy
	OnPeerLoss      OnPeerLoss
	Sync            Sync
	// On has the two components, sorted by the id of their node.
	On [2]Component
}

// Bounds of the activity log's geometry.
const (
	MinExtentSize = 64 << 10 // bytes
	MaxExtentSize = 64 << 20 // bytes
	MinKeepDirty  = 16       // extents
	MaxKeepDirty  = 4000     // extents
)

// Sync is [resource.NAME.sync].
type Sync struct {
	// MaxRate is in bytes a second, 0 for no cap.
	MaxRate int64
	// LatencyTarget is the duration of application requests above which sync
	// yields.
	LatencyTarget   time.Duration
	VerifyAfterSync VerifyAfterSync
	// VerifySchedule says when `hastctl verify` runs by itself.
	VerifySchedule Schedule
}

// Component is [resource.NAME.on.NODE]: what a resource is made of on one node.
type Component struct {
	// Node is the name of the node.
	Node string
	// Local is the path of the block device or file.
	Local string
	// Metadata is MetadataInternal or the path of another device or file.
	Metadata string
	// ProviderPath is where the provider is found. For ProviderNBDServer it is
	// the path of a Unix socket, or IP:PORT for TCP (it does not begin with a
	// slash then); for the others the path of the symlink to the device.
	ProviderPath string
}

// OnNode returns the component of the named node.
func (r *Resource) OnNode(node string) (Component, bool) {
	for _, c := range r.On {
		if c.Node == node {
			return c, true
		}
	}
	return Component{}, false
}
