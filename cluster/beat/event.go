package beat

// EventKind says what happened.
type EventKind uint8

const (
	EvTick    EventKind = iota + 1 // nothing but time
	EvPacket                       // Packet, Link: one that a Gate let pass
	EvCarrier                      // Link, Up: whether the interface of a link has a carrier
	EvSend                         // To (empty: every node that is up), Body, OnSerial: send it once over every link
	EvAttach                       // Body, OnSerial: from now on it travels with each heartbeat; without data no longer
	EvView                         // Era, Index: of the view committed last
	EvShared                       // Shared: the configuration was read anew
	EvLeave                        // this node stops: say so
)

// Event is what a machine is told.
type Event struct {
	Kind       EventKind
	Wall       int64 // the wall clock now, in nanoseconds
	Link       LinkID
	Packet     *Packet
	Up         bool
	To         Set
	Body       Body
	OnSerial   bool
	Era, Index uint64
	Shared     Shared
}

// EffectKind says what is wanted, or what there is to know.
type EffectKind uint8

const (
	EffSend      EffectKind = iota + 1 // Packet: send it to Node over Link
	EffLink                            // Node, Link, State, Reason: a link changed
	EffNode                            // Node, Up, Incarnation, Jeopardy, Reason: a node is heard again, or on no link any more
	EffJeopardy                        // Node, Up, Link: one link is left of several, or no longer only one
	EffPairs                           // who hears whom changed: ask Pairs
	EffView                            // Node, Era, Index: of the view that it committed last
	EffDeliver                         // Node, Incarnation, Link, Body: of another machine
	EffClock                           // Node, Differs: its wall clock is ahead by so much; 0: no longer
	EffDuplicate                       // Node, Reason: two hosts use its name
	EffShared                          // Node, Differences: its configuration differs; none: no longer
	EffLate                            // Late: this node stood still, and listens again
	EffRefused                         // Node, Link, Fault: a packet was not believed
)

// Effect is what a machine wants or tells.
type Effect struct {
	Kind        EffectKind
	Node        NodeID
	Link        LinkID
	State       LinkState
	Up          bool
	Jeopardy    bool // it was lost when one link of several was left
	Incarnation uint64
	Packet      Packet
	Body        Body
	Era, Index  uint64
	Differs     Duration
	Late        Duration
	Fault       Fault
	Differences []Difference
	Reason      string // for people
}

// Peer is another node.
type Peer struct {
	ID    NodeID
	Name  string
	Links []LinkID // to it; Serial if it is at the other end of the line
}

// Config is a node's part in a cluster.
type Config struct {
	Self        NodeID
	Incarnation uint64 // drawn at random at this start; not 0
	Peers       []Peer
	Interval    Duration // between two heartbeats on each link
	Trouble     Duration // silence after which a link is in trouble
	Timeout     Duration // silence after which it is down
	// SerialInterval is Interval for the serial line, if that is slower; 0: the same.
	SerialInterval Duration
	Shared         Shared
}

// Kinds of bodies that the machines of a cluster may use. The others are its own.
const (
	FirstKind byte = 1
	LastKind  byte = 0xef

	kindGroups byte = 0xf0 // digests of the groups of the shared configuration
	kindKeys   byte = 0xf1 // keys of groups that differ
)
