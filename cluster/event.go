package cluster

// Op is an action under way: the answer to an effect carries its number.
type Op uint64

// EventKind says what happened.
type EventKind uint8

const (
	EvTick     EventKind = iota + 1 // nothing but time
	EvProbed                        // Part, Up, or Err if it cannot be told: what was found before anything was done
	EvElected                       // Master, Reason: what the election says
	EvDone                          // Op, Err: an action ended
	EvLooked                        // Op, Look, Err: a monitor ended
	EvLost                          // Part, Err: it went down by itself, or somebody took it down
	EvStanding                      // Fit, Demotion, Reason: what the replicas allow
	EvOrder                         // Order, ID: of an operator
	EvStop                          // the daemon is to end: everything down
	EvMended                        // Part, Err: it was taken away, and its driver put it back at once
	EvPeer                          // Node, Peer: what a node says of the group; a nil Peer: it is not heard any more
	EvMaster                        // Node, Up: a node advertises as master, or says goodbye
	EvJeopardy                      // Up, Reason: a peer was lost while one link was left, so nobody knows what it does
)

// Look is what a monitor saw.
type Look uint8

const (
	LookUnknown Look = iota
	LookOnline       // exit status 110
	LookOffline      // exit status 100
)

// Order is what an operator asks of a group on this node.
type Order uint8

const (
	OrderOnline   Order = iota + 1 // take part again; with an external election: go up
	OrderOffline                   // go down and stay down
	OrderSwitch                    // hand over to the other node
	OrderTake                      // be master now
	OrderFreeze                    // change nothing, whatever happens
	OrderUnfreeze                  //
	OrderClear                     // forget a fault
)

// Event is what a group is told.
type Event struct {
	Kind     EventKind
	Part     int
	Up       bool
	Master   bool
	Op       Op
	Look     Look
	Err      string // "" is success
	Fit      bool
	Demotion uint8
	Reason   string
	Order    Order
	ID       uint64
	Node     string
	Peer     *GroupReport
}

// EffectKind says what is wanted.
type EffectKind uint8

const (
	EffUp        EffectKind = iota + 1 // Part, Op, Try: start it, for the Try-th time after a failure; answered by EvDone
	EffDown                            // Part, Op: stop it; answered by EvDone
	EffLook                            // Part, Op: run its monitor; answered by EvLooked
	EffSeek                            // Part, Op: is it up here, although it is down? Answered by EvLooked
	EffBreak                           // Op: end it now, by force; it is still answered
	EffStanding                        // Fit, Demotion, Reason: for the election
	EffTake                            // the election shall make this node master
	EffResign                          // Reason: the election shall give up being master
	EffState                           // From, To, Reason: the group's state changed
	EffReport                          // Part, Reason: something worth a line in the log
	EffAnswer                          // ID, Err: the end of an order
	EffStopped                         // everything is down after EvStop, or could not be
	EffRestart                         // Part, Try, Reason: it failed, and is put up again here
	EffFail                            // Part, Reason: this machine shall go down at once (TOC)
	EffViolation                       // Lines, Part: the group is up on more than one node; Part is -1 unless it is here in violation
	EffSuspend                         // Part, Reason: hold the I/O of a resource that is primary where it must not be
	EffCritical                        // Reason: the group can run nowhere until a person helps
)

// Effect is what a group wants.
type Effect struct {
	Kind     EffectKind
	Part     int
	Op       Op
	Fit      bool
	Demotion uint8
	Reason   string
	From, To State
	ID       uint64
	Err      string
	Try      int
	Lines    []string
}

// State is a group's on one node.
type State uint8

const (
	Offline State = iota
	Starting
	Online
	Stopping
	Partial // some parts are up and it goes neither up nor down
	Faulted // down, after a failure, until it is cleared or its cause is gone
)

func (s State) String() string {
	return [...]string{"OFFLINE", "STARTING", "ONLINE", "STOPPING", "PARTIAL", "FAULTED"}[s]
}
