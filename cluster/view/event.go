package view

// Event is what happens to a node.
type Event interface{ event() }

// Start is the first event. Stored is what was read, nil if there is nothing. Floor is
// the highest generation (Stamp.Number) that the node remembers otherwise: a stored
// state below it was put back from an older copy and counts as lost.
type Start struct {
	Stored *State
	Floor  uint64
}

// Received is a message that arrived, decoded and authenticated.
type Received struct{ Msg *Message }

// Heard tells whom this node hears now. The shell sends it at every heartbeat, also
// when nothing changed.
type Heard struct{ Nodes Set }

// Tick is nothing but time.
type Tick struct{}

// Storage says that the storage daemon started, with nothing of what it was told. It is
// told again.
type Storage struct{}

// Good says whose replicas of a resource are good, where no view has it yet: as the
// storage daemons found when they compared them.
type Good struct {
	Resource string
	Nodes    Set
}

// Synced says that the peer's replica, in this incarnation, has everything acknowledged.
type Synced struct {
	Resource string
	Inc      Incarnation
}

// Alone takes that back: something was acknowledged which the peer does not have.
type Alone struct{ Resource string }

// Held answers Hold: every write waits for the peer's confirmation from now on, or, not
// OK, something was acknowledged without the peer since Synced.
type Held struct {
	Resource string
	Number   uint64 // as in Hold
	OK       bool
}

// Holds says that the storage daemon holds by this view although neither the view has it
// nor an answer said so: it took a question whose answer came to nobody. Only another view
// ends that.
type Holds struct{ Resource string }

// Drop asks for a view without the peer in the in-sync set: writes wait for it.
type Drop struct{ Resource string }

// Move asks that another node own a resource; with Force this node becomes owner
// whatever its replica lacks. An owner that says so has stopped serving, and serves it
// no more by this view, whatever comes of it: nobody has to wait for its lease.
type Move struct {
	Resource string
	To       NodeID
	Force    bool
}

// SetGroup asks for a group's administrative state; "" removes it.
type SetGroup struct{ Group Group }

// Leave says that this node wants to leave, or no longer wants to: it leads no more where
// another can, and gets nothing new to own. What it owns it keeps and may serve until it
// moves that, is gone, or says that it Gave all of it up, as with Move.
type Leave struct{ On, Gave bool }

// Force is a person's order to commit a view of the nodes heard, without a quorum.
type Force struct {
	How  How // Bootstrap, where no view is known; else OthersAreDown
	Who  string
	When int64
}

func (Start) event()    {}
func (Received) event() {}
func (Heard) event()    {}
func (Tick) event()     {}
func (Storage) event()  {}
func (Good) event()     {}
func (Synced) event()   {}
func (Alone) event()    {}
func (Held) event()     {}
func (Holds) event()    {}
func (Drop) event()     {}
func (Move) event()     {}
func (SetGroup) event() {}
func (Leave) event()    {}
func (Force) event()    {}

// Effect is what the shell has to do.
type Effect interface{ effect() }

// Persist is a barrier: store the state, durably, before anything that follows.
type Persist struct{ State State }

// Hold asks the storage daemon to let every write from now on wait until the peer, in
// this incarnation, confirmed it, until a later Learned. The answer is Held. It is no if
// the writes are not held already and something was acknowledged without the peer
// since Synced was said of this incarnation.
type Hold struct {
	Resource string
	Peer     NodeID
	Inc      Incarnation
	Number   uint64 // the generation this node owns the resource in
}

// Send is a message to one node. It may be lost, and may be sent twice.
type Send struct{ Msg *Message }

// Known comes at the start: the generation that is stored. The storage daemon takes
// nothing of an older owner from now on. One that just started takes nothing at all
// before it was told Known or Learned: it may have forgotten an owner that it served.
type Known struct{ Number uint64 }

// Learned is a newly committed view and all that this node may do by it: Mine is
// what it owns; of everything else it is not primary.
type Learned struct {
	View *View
	Mine []Grant
}

// Grant is a resource that this node owns.
type Grant struct {
	Resource string
	Peer     NodeID
	PeerInc  Incarnation // whose confirmation counts; 0: the peer is no member
	Hold     bool        // the peer is in sync: a write waits for its confirmation
}

// Yield says that a view which takes something from these nodes is proposed, perhaps
// committed, and cannot be stored here while they may serve: their leases are not to be
// renewed or confirmed here before another view is learned, or for long enough that
// such a view can be.
type Yield struct{ Nodes Set }

// Report is for people.
type Report struct {
	Kind ReportKind
	Node NodeID
	Text string
}

// ReportKind says what a report is about.
type ReportKind uint8

const (
	Waiting     ReportKind = iota + 1 // no quorum: Text says who is missing
	Conflict                          // Node is in another chain of the same era
	Wiped                             // this node counts as a new one: Text says why
	Forced                            // a person's view was committed here
	ForceFailed                       // or was not: Text says why
	Refused                           // a wish that cannot be: Text says why
	Gone                              // an older era ended under this node
	Asks                              // this node asks for another view: Text says why
)

func (k ReportKind) String() string {
	return [...]string{"", "waiting", "conflict", "wiped", "forced", "force failed", "refused", "era ended", "asks for a view"}[k]
}

func (Persist) effect() {}
func (Hold) effect()    {}
func (Send) effect()    {}
func (Known) effect()   {}
func (Learned) effect() {}
func (Yield) effect()   {}
func (Report) effect()  {}
