package runner

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"hastd/metadata"
	"hastd/replicate"
	"hastd/transport"
)

// Sizes and limits of one resource.
const (
	// DefaultAppMemory bounds the payload of application requests under way.
	DefaultAppMemory = 64 << 20
	// DefaultPeerMemory bounds the bodies of messages received and not dealt with.
	DefaultPeerMemory = 64 << 20
	// DefaultSyncMemory bounds the blocks read for sync.
	DefaultSyncMemory = 16 << 20
	// DefaultHookTimeout is how long a hook may run.
	DefaultHookTimeout = 30 * time.Second

	// diskWorkers is how many operations a component has under way at once.
	diskWorkers = 32
	// syncWorkers is how many windows are being read and hashed at once.
	syncWorkers = 8
	// maxParts is how many parts of one long request the machine has at once.
	maxParts = 64
	// closeGrace is how long Close waits for a disk that may hang.
	closeGrace = 3 * time.Second
	// joinedSize is how much of neighbouring metadata is written at once.
	joinedSize = 256 << 10
	// orderAgain is how soon the order to shut down follows one that was refused.
	orderAgain = 20 * time.Millisecond
)

// MetadataInternal as Options.Metadata keeps the metadata at the component's end.
const MetadataInternal = "internal"

// Options say what a resource is made of on this node.
type Options struct {
	Resource       string
	Node, Peer     string
	NodeID, PeerID metadata.NodeID
	Mode           replicate.Mode
	Live           replicate.Live
	NeedLease      bool          // quorum = "majority"
	Timeout        time.Duration // of the peer
	DiskTimeout    time.Duration

	Component string // path of the local device or file
	Metadata  string // MetadataInternal, or a path

	Provider     string // auto, fuse, nbd-server (ublk, nbd: not in this build)
	ProviderPath string // where the provider is found

	StateDir string // durable: sizes last seen, marks
	RunDir   string // sockets and mount points

	Exec        string // hook program; "" for none
	HookTimeout time.Duration

	// Transport says who the peer is and how to prove it. Role, SharedHash and
	// Instance are filled here. With Paths this node dials; without, its listener
	// accepts by Resource.Endpoint.
	Transport transport.Options
	Paths     []transport.Path
	// Shared is the hash of the shared configuration by key, for telling
	// differences to the peer's.
	Shared map[string]string

	AppMemory, PeerMemory, SyncMemory int64

	Log *slog.Logger

	machine machine // tests: one that does as it is told
}

func (o *Options) settle() error {
	switch {
	case o.Resource == "" || len(o.Resource) > metadata.MaxResourceName:
		return fmt.Errorf("resource name %q must have 1 to %d bytes", o.Resource, metadata.MaxResourceName)
	case o.Node == "" || o.Component == "":
		return fmt.Errorf("resource %s: no node or no component given", o.Resource)
	case o.StateDir == "":
		return fmt.Errorf("resource %s: no state directory given", o.Resource)
	case o.DiskTimeout <= 0 || o.Timeout <= 0:
		return errors.New("resource " + o.Resource + ": time-outs must be positive")
	}
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.AppMemory, DefaultAppMemory)
	def(&o.PeerMemory, DefaultPeerMemory)
	def(&o.SyncMemory, DefaultSyncMemory)
	if o.HookTimeout == 0 {
		o.HookTimeout = DefaultHookTimeout
	}
	if o.Metadata == "" {
		o.Metadata = MetadataInternal
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Log = o.Log.With("resource", o.Resource)
	return nil
}
