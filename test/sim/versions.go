package sim

import (
	"fmt"
	"strings"

	"hastd/metadata"
	"hastd/replicate"
)

// Daemons of different releases. transport settles on a version that both speak or
// refuses with a reason; here a daemon may have been replaced by one whose versions
// do not meet its peer's, until somebody installs the right one. Until then each
// node says why it has no peer, and nothing else is different from a cut.

// versions are the oldest and the newest protocol version that a daemon speaks.
type versions struct{ min, max uint16 }

// present is what both daemons speak at first, and foreign what meets it nowhere.
var (
	present = versions{3, 4}
	foreign = [...]versions{{1, 2}, {5, 6}}
)

func (v versions) meet(o versions) bool { return v.min <= o.max && o.min <= v.max }

// skewed says whether the two daemons cannot speak with each other.
func (w *World) skewed() bool { return !w.nodes[0].speaks.meet(w.nodes[1].speaks) }

// versionReason is what the server says to a client, as transport has it, and
// versionRefused how the client tells it.
const (
	versionReason  = "node %s speaks protocol versions %d to %d, node %s speaks %d to %d: upgrade the older one"
	versionRefused = "refused by the peer: "
)

func refusal(server, client *node) string {
	a, b := server.speaks, client.speaks
	return versionRefused + fmt.Sprintf(versionReason, server.name, a.min, a.max, client.name, b.min, b.max)
}

// otherRelease ends the daemon; the next one speaks other versions.
func (n *node) otherRelease() {
	if n.state == running {
		n.w.crashes++
		n.die()
	}
	if n.speaks != present {
		n.speaks = present
		return
	}
	n.speaks = foreign[n.w.rng.IntN(len(foreign))]
}

// installRelease brings daemons to the same release again. It says whether it did
// something.
func (w *World) installRelease() bool {
	did := false
	for i := range w.nodes {
		if n := &w.nodes[i]; n.speaks != present && (n.state == running || n.state == stopped) {
			w.cover.fault("version-skew-ended")
			n.otherRelease()
			did = true
		}
	}
	return did
}

// oracleRefused: who was refused for its version and is not connected says so, unless
// an administrator's order to part is being carried out.
func (n *node) oracleRefused(e *replicate.Event) {
	if e.Kind != replicate.EvUnreachable || !e.Refused || !strings.Contains(e.Text, "protocol versions") {
		return
	}
	n.w.cover.fault("version-refused")
	st := n.status()
	if st.Connection == "connecting" && st.Status == "degraded" && !n.recovering && !st.Marks.Has(metadata.AdminDisconnected) && !strings.HasSuffix(st.Reason, e.Text) {
		n.w.violate("live", "%s was refused (%s) and says %q", n.name, e.Text, st.Reason)
	}
}
