package conf

import (
	"net/netip"
	"time"
)

// Config is a whole configuration that passed every check. Slices stand in the
// order of the file, except Nodes, which is sorted by id.
type Config struct {
	// File is the name the configuration was read under, for messages.
	File string

	Cluster Cluster
	// Hastd and Vipd hold the values of [hastd] and [vipd]. What counts on one
	// node is Effective, because a node may override any of them.
	Hastd Hastd
	Vipd  Vipd

	Nodes     []*Node
	Resources []*Resource
	Groups    []*Group

	// Warnings are things that work but that the administrator should know
	// about, each one line, with file and line. To be logged once at start.
	Warnings []string
}

// Cluster is [cluster].
type Cluster struct {
	// Name is bound into every handshake and heartbeat.
	Name string
	// KeyFile is the file of the shared cluster key (LoadKey), "" without one;
	// then Insecure is true.
	KeyFile string
	// Insecure says that the administrator agreed to run without a key. It has
	// no effect while KeyFile is set.
	Insecure bool
	Quorum   Quorum
	// Lease is how long a renewal entitles its holder to answer.
	Lease time.Duration
	// Rejoin is how long an excluded node must be heard before it is taken back.
	Rejoin time.Duration
	TOC    TOC
	// Watchdog is the watchdog device; used only with TOC on.
	Watchdog string
	// WatchdogTimeout is a whole number of seconds: the kernel counts in them.
	WatchdogTimeout time.Duration
	Heartbeat       Heartbeat
}

// Heartbeat is [cluster.heartbeat]. Interval < Trouble < Timeout.
type Heartbeat struct {
	// Port is a UDP port.
	Port int
	// Interval is the time between two heartbeats on each link.
	Interval time.Duration
	// Trouble is the silence after which a link is in trouble.
	Trouble time.Duration
	// Timeout is the silence after which a link is down.
	Timeout time.Duration
}

// Hastd is [hastd], or what it amounts to on one node.
type Hastd struct {
	// Port is the TCP port on which replication listens, on every address of
	// the node.
	Port int
	// Control is the path of the control socket.
	Control string
	// State is a directory for what is useful but never needed to find data.
	State string
	// HTTP is HOST:PORT of metrics and status page, "" for none.
	HTTP string
	// Exec is the hook program, "" for none.
	Exec string
}

// Vipd is [vipd], or what it amounts to on one node.
type Vipd struct {
	// Control is the path of the control socket.
	Control string
	// State is the directory of the stored views.
	State string
	// HTTP is HOST:PORT of metrics and status page, "" for none.
	HTTP string
	// HastdTimeout is the silence after which hastd is killed and restarted.
	HastdTimeout time.Duration
	// HastdGrace is how long it then has before the group goes down here.
	HastdGrace time.Duration
}

// Node is [node.NAME].
type Node struct {
	Name string
	// ID is unique; the lowest is leader in a tie.
	ID int
	// Addresses are one per link; the n-th of two nodes form a path.
	Addresses []netip.Addr
	// Serial is the device of the heartbeat line, "" for none.
	Serial string
	// Witness says that the node votes and stores nothing.
	Witness bool

	// hastd and vipd are the values in force on this node.
	hastd Hastd
	vipd  Vipd
}
