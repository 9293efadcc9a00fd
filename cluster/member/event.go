package member

import (
	"hastd/cluster/lease"
	"hastd/cluster/view"
)

// Event is what happens to a node. Those of the views' machine that only pass through
// (view.Received, view.Heard, view.SetGroup, view.Force, view.Good, view.Move) are events
// here too.
type Event interface{}

// Start is the first event, with what is stored and what hastd remembers.
type Start = view.Start

// Renew and Confirm are what other nodes say of leases.
type (
	Renew   = lease.Renew
	Confirm = lease.Confirm
)

// Tick is nothing but time.
type Tick struct{}

// Storage is what hastd says of a resource, at least as often as it changes.
type Storage struct {
	Resource string
	// Told is the generation of the newest grant that it took; 0: it was just started.
	Told uint64
	// Synced is the peer's incarnation, if its replica has everything acknowledged.
	Synced view.Incarnation
	// Holds: it lets every write wait for the peer until another view than this one.
	Holds bool
	// Waits: writes wait for a view without the peer.
	Waits bool
	// Good are the nodes whose replica has everything, as far as hastd knows; it counts
	// only for a resource that no view has yet.
	Good view.Set
}

// Answered is the end of an Order: hastd took it, or did not; or, Lost, no answer came,
// and it may have taken it; or, Gone, there is no hastd.
type Answered struct {
	Resource       string
	OK, Lost, Gone bool
}

// Stopped says that resources are down here and stay so until Own says otherwise; To is
// who shall have them. Hastd is told first, and then the others.
type Stopped struct {
	Resources []string
	To        view.NodeID
}

// Leaving says that this node is about to leave, and still serves what it owns: the
// others need not wait for it where they can do without. Leave says that it leaves, and
// that everything it owns is down. Stay takes both back.
type (
	Leaving struct{}
	Leave   struct{}
	Stay    struct{}
)

// Effect is what the shell has to do. Those of the views' machine (view.Persist,
// view.Send, view.Report) and of the lease's (lease.SendRenew, lease.SendConfirm) pass
// through, in their order: view.Persist is a barrier.
type Effect interface{}

// Order is a grant for hastd. There is never more than one for a resource under way;
// it is answered by Answered.
type Order struct {
	Resource string
	Grant    Grant
}

// Grant is what hastd is told (replicate.Grant).
type Grant struct {
	Generation        uint64
	Incarnation, Peer view.Incarnation
	Owner, PeerOwner  bool
	Hold              bool
	Until             view.Instant // by CLOCK_BOOTTIME; 0: no lease
	Adding            view.Incarnation
}

// Own says whether this node may serve a resource: it owns it, and has a lease.
type Own struct {
	Resource string
	On       bool
}
