package api

import "time"

// Cluster is vipd's answer to GET /v1/cluster: the cluster as this node knows it.
type Cluster struct {
	Node   string `json:"node"`
	Name   string `json:"name"`
	Quorum string `json:"quorum"` // off majority

	// Of the newest view that this node knows. Without one, and with quorum off, these
	// are empty or null.
	Generation string    `json:"generation"` // ERA.INDEX
	Leader     string    `json:"leader"`
	Era        *Era      `json:"era"`
	Votes      *Votes    `json:"votes"`
	Decision   *Decision `json:"decision"` // the last one
	// LeaseLeftMS is for how long this node may still serve what it owns; 0: it may not.
	LeaseLeftMS int64 `json:"lease_left_ms"`
	// Joined says that this node learned, since vipd started, a view that names it. Until
	// then the view shown is the one that it remembers.
	Joined bool `json:"joined"`
	// Waits says what for, if there should be another view and cannot be.
	Waits string `json:"waits"`

	Nodes     []ClusterNode     `json:"nodes"`
	Resources []ClusterResource `json:"resources"` // those that are in the view
}

// Era is how the views of this era began.
type Era struct {
	How  string    `json:"how"`  // elected bootstrap others-are-down
	By   string    `json:"by"`   // the node
	Who  string    `json:"who"`  // the person; "" where nodes elected
	When time.Time `json:"when"` // zero where nodes elected
}

// Votes are what the next view needs.
type Votes struct {
	Members int `json:"members"` // of the view: each has a vote
	Needed  int `json:"needed"`  // more than half
	Heard   int `json:"heard"`   // members that this node hears, itself included
	// TieBreak is the leader if half of the members suffice together with it; "" where
	// they do not: their number is odd, or this node is starting.
	TieBreak string `json:"tie_break"`
	Quorate  bool   `json:"quorate"` // those heard suffice
}

// Decision is what a view changed.
type Decision struct {
	Time time.Time `json:"time"`
	What string    `json:"what"`
	Why  string    `json:"why"` // "" unless this node asked for it
}

// ClusterNode is a configured node.
type ClusterNode struct {
	Name    string `json:"name"`
	ID      int    `json:"id"`
	Self    bool   `json:"self"`
	Witness bool   `json:"witness"`
	// State is by the view: member leaving excluded; with quorum off, and while no view
	// is known, unknown.
	State       string   `json:"state"`
	Incarnation string   `json:"incarnation"` // by the view: 16 hexadecimal digits; "" if it is no member
	Heard       bool     `json:"heard"`       // both ways, now; of this node itself always
	Reason      string   `json:"reason"`      // why it is not heard
	Jeopardy    bool     `json:"jeopardy"`    // heard on the last of several links
	Duplicate   bool     `json:"duplicate"`   // two hosts use its name
	Hears       []string `json:"hears"`       // whom it says that it hears
	Links       []Link   `json:"links"`       // from this node to it
	// ClockAheadMS is how far its wall clock is ahead, where that is worth a warning.
	ClockAheadMS int64        `json:"clock_ahead_ms"`
	Differences  []Difference `json:"differences"` // of its configuration
	Addresses    []string     `json:"addresses"`
}

// Link is one link to a node.
type Link struct {
	Name     string `json:"name"`      // link 0, serial line
	State    string `json:"state"`     // up trouble down
	SilentMS int64  `json:"silent_ms"` // -1: never heard
	Reason   string `json:"reason"`
}

// Difference is a key of the configuration that another node has otherwise.
type Difference struct {
	Key   string `json:"key"`
	Here  string `json:"here"`
	There string `json:"there"`
}

// ClusterResource is a resource by the view.
type ClusterResource struct {
	Name   string   `json:"name"`
	Owner  string   `json:"owner"`   // "" for nobody
	InSync []string `json:"in_sync"` // whose replica holds every acknowledged write
	Nodes  []string `json:"nodes"`   // that have a replica
	Forced bool     `json:"forced"`  // the owner became it by force, in this view
	Serves bool     `json:"serves"`  // this node may serve it now
}

// OwnRequest is the body of POST /v1/resources/NAME/own to vipd: a view is to name this
// node owner.
type OwnRequest struct {
	// Force: whatever the replica here lacks.
	Force bool `json:"force,omitempty"`
}
