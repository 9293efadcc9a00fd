package conf

import (
	"net/netip"
	"time"
)

// Group is [group.NAME]: what fails over together.
type Group struct {
	Name string
	// Nodes are in order of preference.
	Nodes []string
	// Resources are names of resources, promoted in this order.
	Resources []string
	// Parallel says that the group may be online on several nodes; it does not
	// fail over.
	Parallel bool
	// Failfast says that a fault of the group resets the node.
	Failfast bool
	Election Election
	// VHID is CARP's virtual host id or VRRP's VRID, 1 to 255.
	VHID int
	// PassFile is the file of CARP's shared secret.
	PassFile string
	// AdvBase is CARP's base interval in seconds.
	AdvBase int
	// AdvSkew has an entry for each of Nodes, 0 to MaxAdvSkew, the lower the
	// more preferred. The VRRP priority is 254 minus it.
	AdvSkew map[string]int
	// DeadRatio is how many missed adverts make a master dead.
	DeadRatio int
	// AdvertInterval is VRRP's interval, a multiple of 10 ms.
	AdvertInterval time.Duration
	Preempt        bool
	PreemptDelay   time.Duration
	// StartDelay runs from link up to the first election, with quorum off.
	StartDelay time.Duration
	// Unicast says that adverts go to the nodes' first addresses.
	Unicast bool
	// Interfaces are tried in order; the addresses stand on the first with a
	// link.
	Interfaces []string
	Addresses  []Address
	Mounts     []Mount
	Services   []Service
}

// MaxAdvSkew is the largest skew to configure: from 240 on it means demoted.
const MaxAdvSkew = 239

// Address is one service address of a group.
type Address struct {
	// Name is the short name, "" if none was given.
	Name string
	// CIDR is the address with the length of its network.
	CIDR netip.Prefix
}

// Mount is [[group.NAME.mount]]; mounts happen in the order of the file.
type Mount struct {
	Device  string
	Dir     string
	Type    string
	Options string
}

// Service is [[group.NAME.service]].
type Service struct {
	Name string
	// Start and Stop are commands with their arguments; both are empty for a
	// dependency that is only watched.
	Start, Stop []string
	// Monitor exits 110 for online and 100 for offline.
	Monitor []string
	// Requires names services of the same group; there is no cycle.
	Requires []string
	// Critical says that a fault of the service faults the group.
	Critical bool
	// Interval is the time between two monitor runs.
	Interval       time.Duration
	StartTimeout   time.Duration
	StopTimeout    time.Duration
	MonitorTimeout time.Duration
	// RestartLimit is the number of restarts on the same node.
	RestartLimit int
	// RestartReset is the time of stability after which restarts count from
	// zero again.
	RestartReset time.Duration
	Failfast     bool
}
