package api

import (
	"strings"
	"time"
)

// Groups is vipd's answer to GET /v1/groups: the groups of this node. Fields are
// added, never removed or renamed.
type Groups struct {
	Node   string  `json:"node"`
	Groups []Group `json:"groups"`
}

// Group is one group on this node.
type Group struct {
	Name     string    `json:"name"`
	State    string    `json:"state"`    // offline starting online stopping partial faulted
	Since    time.Time `json:"since"`    // of the state
	Reason   string    `json:"reason"`   // a sentence: why it is not online, or why it is
	Election string    `json:"election"` // carp vrrp external
	Elected  bool      `json:"elected"`  // the election says that this node is master
	Online   string    `json:"online"`   // the node where it is online, as far as this node knows; "" if it does not
	Nodes    []string  `json:"nodes"`    // in order of preference
	Fit      bool      `json:"fit"`      // this node may become master
	Standing string    `json:"standing"` // what that follows from
	Frozen   bool      `json:"frozen"`   // by order: nothing changes
	Disabled bool      `json:"disabled"` // by order: it takes no part
	Probed   bool      `json:"probed"`   // every part was looked at
	// AutoDisabled says that the group is not taken over here: unprobed, or nobody
	// knows what a lost peer does.
	AutoDisabled bool     `json:"autodisabled"`
	Count        int      `json:"count"` // on how many nodes it is online or partial, as far as this node knows
	Hosts        []string `json:"hosts"` // those nodes
	Fault        string   `json:"fault"` // why it left the field here
	Parts        []Part   `json:"parts"` // in the order of going up
}

// Part is one thing of a group.
type Part struct {
	Name   string `json:"name"`  // GROUP/KIND/NAME
	Kind   string `json:"kind"`  // resource mount service address
	State  string `json:"state"` // unknown down starting up stopping stuck failed stray
	Reason string `json:"reason"`
	// Address is the bare address of an address; its name may be another.
	Address string `json:"address"`
	// Restarts is how often it was put up again here since it was last stable.
	Restarts int `json:"restarts"`
}

// Summary is vipd's answer to GET /v1/summary: the cluster as this node knows it.
type Summary struct {
	Node    string          `json:"node"`
	Systems []SystemSummary `json:"systems"`
	Groups  []GroupSummary  `json:"groups"`
	Failed  []FailedPart    `json:"failed"`
}

// SystemSummary is a node.
type SystemSummary struct {
	System string `json:"system"`
	State  string `json:"state"`  // running; faulted: it was heard and is not any more; unknown
	Frozen bool   `json:"frozen"` // all its groups are
}

// GroupSummary is a group on a node.
type GroupSummary struct {
	Group        string `json:"group"`
	System       string `json:"system"`
	Probed       bool   `json:"probed"`
	AutoDisabled bool   `json:"autodisabled"`
	State        string `json:"state"` // a group's, or unknown
}

// FailedPart is a part of a group that a person has to look at.
type FailedPart struct {
	Group  string `json:"group"`
	Kind   string `json:"kind"`
	Part   string `json:"part"`
	System string `json:"system"`
}

// VIPs is vipd's answer to GET /v1/vip: the elections of this node.
type VIPs struct {
	Node string `json:"node"`
	VIPs []VIP  `json:"vips"`
}

// VIP is the election of one group on this node, and its addresses.
type VIP struct {
	Group     string    `json:"group"`
	Protocol  string    `json:"protocol"` // carp vrrp external
	ID        int       `json:"id"`       // vhid or VRID
	State     string    `json:"state"`    // init backup master; "" with external
	Since     time.Time `json:"since"`
	Interface string    `json:"interface"` // that packets go out on, or that has the addresses
	Addresses []string  `json:"addresses"`
	Held      bool      `json:"held"` // the addresses stand on this node
	Adverts   Adverts   `json:"adverts"`
	Last      Change    `json:"last"` // the last change of state
}

// Adverts counts packets since vipd started.
type Adverts struct {
	Sent     uint64            `json:"sent"`
	Received uint64            `json:"received"`
	Refused  map[string]uint64 `json:"refused"` // by cause
}

// Change is one of state.
type Change struct {
	Time   time.Time `json:"time"`
	Old    string    `json:"old"`
	New    string    `json:"new"`
	Reason string    `json:"reason"`
}

// ClearRequest is the body of POST /v1/groups/NAME/clear.
type ClearRequest struct {
	// Part is the one whose fault is to be forgotten: its full name, the last word
	// of it, or a bare address; "" is all.
	Part string `json:"part,omitempty"`
}

// What may be ordered of a group, in the order that people are told.
var GroupOrders = []string{"online", "offline", "switch", "freeze", "unfreeze", "clear"}

// PartMatches says whether a person means this part: by its full name, the last
// word of it, or a bare address.
func PartMatches(p Part, name string) bool {
	if name == p.Name || p.Address != "" && name == p.Address {
		return true
	}
	words := strings.SplitN(p.Name, "/", 3)
	return len(words) == 3 && name == words[2]
}
