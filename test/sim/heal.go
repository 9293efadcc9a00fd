package sim

import (
	"strings"

	"hastd/metadata"
)

// Liveness without help: once faults stop, power comes back and daemons start with
// the role that their configuration gives them. Nobody orders anything. Within
// healTime a pair that has a primary is complete, or a node says why a person is
// needed; wantsPerson is the whole list of what counts as such a reason.

const (
	// healTime is how long a pair may take to be complete without help: about three
	// times the longest that 20,000 runs showed, 10.6 s. Every batch tells its own.
	healTime = 30 * second
	// tellTime is how long a reason for help must have stood before it is believed.
	tellTime = 2 * second
)

// beginUnaided stops the faults.
func (w *World) beginUnaided() {
	w.quiet = true
	w.tracef("faults stop")
	w.healAll()
	w.prof.Think = 50 * millisecond
	for i := range w.nodes {
		n := &w.nodes[i]
		n.app.atOnce, n.app.held = 2, 0
		if w.site == nil && n.state != running {
			w.after(w.span(0, second), n.powerUp)
		}
	}
	w.enter(unaided)
}

// powerUp brings a host back as an unattended boot does.
func (n *node) powerUp() {
	if n.state == off {
		n.state = stopped
	}
	if n.state == stopped {
		n.boot()
	}
}

func (w *World) advanceUnaided() {
	c := &w.course
	if w.now >= c.look {
		c.look = w.now + lookEvery
		w.after(lookEvery, func() {})
		w.oracleCommands()
		w.oracleFork()
		if w.complete() && w.nodes[0].inFlow() {
			if c.good == 0 {
				c.good = w.now
			}
			if w.now-c.good > calmTime {
				c.healed = max(1, c.good-c.began)
				w.cover.count("unaided", "complete")
				w.enter(aided)
				return
			}
		} else {
			c.good = 0
		}
		reason := w.wantsPerson()
		if reason == "" {
			c.since = 0
		} else if c.since == 0 {
			c.since = w.now
		}
		if c.since != 0 && w.now-c.since > tellTime {
			w.tracef("a person is needed: %s", reason)
			w.cover.count("unaided", reason)
			w.enter(aided)
			return
		}
	}
	if w.now > c.began+healTime || w.events > c.limit {
		a, b := w.describe(&w.nodes[0]), w.describe(&w.nodes[1])
		w.violate("live", "nobody helped, and %ds after the last fault the pair is not complete, nor does a node say why a person is needed: A %s; B %s", (w.now-c.began)/second, a, b)
	}
	w.step()
}

// wantsPerson says why a pair cannot be complete by itself, as far as what the
// daemons tell says so; empty if they do not.
func (w *World) wantsPerson() string {
	secondaries, connected := 0, 0
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.state != running {
			return ""
		}
		if len(n.commands) > 0 {
			return "" // an order is being carried out
		}
	}
	if w.skewed() {
		for i := range w.nodes {
			if st := w.nodes[i].status(); st.Connection == "connecting" && strings.Contains(st.Reason, "protocol versions") {
				return "protocol versions"
			}
		}
	}
	for i := range w.nodes {
		st := w.nodes[i].status()
		switch {
		case st.Suspended && st.SuspendReason == "operator":
			return "suspended by order"
		case st.Role == metadata.Init:
			return "role init" // by an order; a daemon starts as secondary here
		case st.Disk == "failed" && st.Reason != "":
			return "disk failed"
		case st.Connection == "split-brain" && st.Reason != "":
			return "split-brain"
		case st.Connection == "refused" && st.Reason != "":
			return "refused"
		case st.Connection == "standalone" && st.Marks.Has(metadata.AdminDisconnected):
			return "standalone by order"
		}
		if st.Role == metadata.Secondary {
			secondaries++
		}
		if st.Connection == "connected" {
			connected++
		}
	}
	// Two secondaries that agreed copy nothing; that they agreed is still wanted.
	if secondaries == 2 && connected == 2 {
		return "nobody primary"
	}
	return ""
}
