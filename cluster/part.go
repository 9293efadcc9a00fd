package cluster

// Kind is what a part of a group is. A group goes up in this order and down in the
// other.
type Kind uint8

const (
	Resource Kind = iota // a replicated device: up is primary, down is secondary
	Mount
	Service
	Address
)

func (k Kind) String() string { return [...]string{"resource", "mount", "service", "address"}[k] }

// Part is one thing of a group.
type Part struct {
	Name string // GROUP/KIND/NAME
	Kind Kind

	UpLimit   Duration // how long going up may take
	DownLimit Duration // and going down

	// Services may be looked at: every Interval, each look at most MonitorLimit.
	Interval     Duration
	MonitorLimit Duration

	// Optional: its failure does not take the group down.
	Optional bool
}

// condition is what a part is believed to be.
type condition uint8

const (
	unknown   condition = iota // not looked at yet, or an attempt was broken off
	down                       // certainly
	goingUp                    //
	up                         //
	goingDown                  //
	stuck                      // it could not be taken down: tried again
	failed                     // optional, and did not go up or stay up
)

func (c condition) String() string {
	return [...]string{"unknown", "down", "starting", "up", "stopping", "stuck", "failed"}[c]
}

// part is a Part with what is known of it.
type part struct {
	Part
	is     condition
	reason string // of stuck and failed, for people
	found  bool   // up when it was first looked at: nobody here put it up
	lookAt Instant
	look   Op // a monitor under way
}

// PartStatus is a part as people see it.
type PartStatus struct {
	Name   string
	Kind   Kind
	State  string
	Reason string
}
