// Package api is the control interface of hastd: HTTP with JSON on a Unix
// socket. It holds the types of the contract, the server that hastd mounts over
// its resources and the client that hastctl (and cluster managers) use. docs/api.md
// describes it for others.
//
// It decides nothing about resources: every command goes to the Backend, whose
// answer comes back as it is.
package api

import (
	"time"

	"hastd/cmd/internal/build"
	"hastd/cmd/internal/exit"
)

// Unknown stands where the peer has not told yet.
const Unknown = "unknown"

// Status is the answer to GET /v1/resources. Fields are added, never removed or
// renamed: scripts read them.
type Status struct {
	Node      string     `json:"node"`
	Resources []Resource `json:"resources"`
}

// Resource is one resource on this node, in the words of the status contract.
type Resource struct {
	Name        string    `json:"name"`
	Role        string    `json:"role"`        // init primary secondary
	Status      string    `json:"status"`      // init complete degraded syncing split-brain failed
	Connection  string    `json:"connection"`  // standalone connecting connected split-brain refused
	Disk        string    `json:"disk"`        // diskless failed inconsistent outdated uptodate
	Replication string    `json:"replication"` // fullsync memsync async
	Provider    *Provider `json:"provider"`    // nil while there is none
	Peer        Peer      `json:"peer"`
	Resuid      string    `json:"resuid"` // 16 hexadecimal digits
	Localcnt    uint64    `json:"localcnt"`
	Remotecnt   uint64    `json:"remotecnt"`
	Epoch       uint64    `json:"epoch"`
	DirtyBytes  int64     `json:"dirty_bytes"`
	Sync        Sync      `json:"sync"`
	IO          IO        `json:"io"`
	Quorum      *Quorum   `json:"quorum,omitempty"` // with quorum = "majority"
	Reason      string    `json:"reason"`           // a sentence: why the status is not complete
	// Added after the first contract.
	Marks []string `json:"marks"` // of the local replica: raised inconsistent …
	Local string   `json:"local"` // path of the component
}

// Provider is the device that applications use.
type Provider struct {
	Kind string `json:"kind"` // nbd-server fuse …
	Path string `json:"path"`
	Size int64  `json:"size"` // bytes
}

// Peer is the other node as far as it told.
type Peer struct {
	Node    string `json:"node"`
	Role    string `json:"role"`
	Disk    string `json:"disk"`
	Address string `json:"address"`
}

// Sync is the progress of a synchronisation.
type Sync struct {
	State          string `json:"state"`     // idle running paused verifying
	Direction      string `json:"direction"` // "" to-peer from-peer
	BytesDone      int64  `json:"bytes_done"`
	BytesLeft      int64  `json:"bytes_left"`
	BytesPerSecond int64  `json:"bytes_per_second"`
	ETASeconds     int64  `json:"eta_seconds"` // -1: cannot be told
}

// IO says whether application requests wait.
type IO struct {
	Suspended bool   `json:"suspended"`
	Reason    string `json:"reason"` // peer-lost peer-primary no-lease reconfiguration both-failed operator
}

// Quorum is what the cluster's view allows, with quorum = "majority".
type Quorum struct {
	Generation  uint64 `json:"generation"`
	Owner       bool   `json:"owner"`
	Hold        bool   `json:"hold"`   // writes that the peer did not acknowledge wait for a view without it
	Synced      uint64 `json:"synced"` // the peer's incarnation, if it holds all that was acknowledged
	LeaseLeftMS int64  `json:"lease_left_ms"`
}

// Event is one line of GET /v1/events.
type Event struct {
	Time   time.Time `json:"time"`
	Node   string    `json:"node"`
	Kind   string    `json:"kind"`
	Name   string    `json:"name"` // of the resource
	Old    string    `json:"old"`
	New    string    `json:"new"`
	Reason string    `json:"reason"`
}

// KindDropped is the last event of a stream whose reader fell behind.
const KindDropped = "dropped"

// RoleRequest is the body of POST /v1/resources/NAME/role.
type RoleRequest struct {
	Role  string `json:"role"`
	Force bool   `json:"force,omitempty"`
}

// ResumeRequest is the body of POST /v1/resources/NAME/resume.
type ResumeRequest struct {
	// Error: requests that wait end in errors instead of going on alone.
	Error bool `json:"error,omitempty"`
}

// GrantRequest is the body of POST /v1/resources/NAME/grant: what the cluster's view
// allows this node, passed on by vipd. An older generation is refused.
type GrantRequest struct {
	Generation  uint64 `json:"generation"`
	Incarnation uint64 `json:"incarnation"`
	Peer        uint64 `json:"peer"` // the peer's incarnation, 0: it is no member
	Owner       bool   `json:"owner"`
	PeerOwner   bool   `json:"peer_owner"`
	Hold        bool   `json:"hold"`             // the view, or a proposal since, counts the peer as in sync
	Adding      uint64 `json:"adding,omitempty"` // it is to be counted again, in this incarnation
	LeaseEnd    int64  `json:"lease_end"`        // by CLOCK_BOOTTIME, nanoseconds; 0: no lease
}

// RecoverRequest is the body of POST /v1/resources/NAME/recover.
type RecoverRequest struct {
	// DiscardLocal must be true: what this node wrote apart from its peer is lost.
	DiscardLocal bool `json:"discard_local"`
}

// ReloadResult is the answer to POST /v1/reload.
type ReloadResult struct {
	Daemon  string   `json:"daemon"`  // hastd vipd
	Changed []string `json:"changed"` // settings in force now
	Restart []string `json:"restart"` // settings that need a restart of the daemon
}

// Version is the answer to GET /v1/version.
type Version struct {
	build.Info
	Daemon string `json:"daemon"` // hastd vipd
	Node   string `json:"node"`
	API    int    `json:"api"` // 1
}

// Failure is the body of every answer that is not a success.
type Failure struct {
	Error string    `json:"error"`
	Hint  string    `json:"hint"`
	Code  exit.Code `json:"code"` // what hastctl exits with
}

// Limits of the interface.
const (
	// MaxBody bounds the body of a request, in bytes.
	MaxBody = 16 << 10
	// MaxAnswer bounds what a client reads of one answer, in bytes.
	MaxAnswer = 16 << 20
	// MaxEvent bounds one line of the event stream, in bytes.
	MaxEvent = 64 << 10
	// DefaultTimeout bounds a command that does not say how long it may wait.
	DefaultTimeout = 30 * time.Second
	// MaxTimeout is the longest a command may wait.
	MaxTimeout = time.Hour
)
