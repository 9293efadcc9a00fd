package cluster

import "strings"

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

	// While it is up it may be looked at: every Interval, each look at most
	// MonitorLimit. While it is down every OffInterval: somebody may have put it up
	// outside the controller. Zero is never.
	Interval     Duration
	OffInterval  Duration
	MonitorLimit Duration

	// RestartLimit is how often it is put up again here when it fails while it is up,
	// before this node leaves the field; RestartReset is for how long it must be up for
	// the count to start again.
	RestartLimit int
	RestartReset Duration
	// Watched: it is only looked at, and cannot be started again.
	Watched bool
	// FailFast: when this node leaves the field because of it, the machine shall go.
	FailFast bool
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

	tries    int     // restarts since it was last stable
	steadyAt Instant // when it will have been up for so long that they are forgotten
	renew    bool    // it failed, and is being stopped and started again
	renewAt  Instant // not before this
	wedged   bool    // it could not be stopped, and was not since

	stray   bool    // down by all that was ordered here, and up
	strayAt Instant // since when that is known
}

// short is the last word of a part's name.
func (p *Part) short() string {
	name := p.Name
	for range 2 {
		if _, rest, ok := strings.Cut(name, "/"); ok {
			name = rest
		}
	}
	return name
}

// PartStatus is a part as people see it.
type PartStatus struct {
	Name     string
	Kind     Kind
	State    string
	Reason   string
	Restarts int  // local ones that count
	Stray    bool // up although nobody here ordered that
}
