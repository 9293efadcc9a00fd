package sim

import (
	"hastd/metadata"
	"hastd/replicate"
)

// A primary that stood still acknowledges nothing alone before it heard from its peer
// or could not reach it: the peer may have been promoted meanwhile, and a question
// keeps together what would part.

// sleeper is what is known of a primary's sleep.
type sleeper struct {
	began, woke int64 // 0: it did not sleep while data flowed, or had gone on alone before
}

// frozenNow notes that a node begins to stand still.
func (n *node) frozenNow() {
	n.sleep = sleeper{}
	if n.state == running && n.linked && n.status().Connection == "connected" && n.prov != provNone && !n.judge.sb.Marks.Has(metadata.Raised) {
		n.sleep = sleeper{n.w.now, n.thaw}
	}
}

// heardOfPeer: it may go on alone, if that is what follows.
func (n *node) heardOfPeer() {
	if !n.frozen() {
		n.sleep = sleeper{}
	}
}

// sleeperSlack is how far the clocks of a node may be from the world's.
const sleeperSlack = 2

func (n *node) oracleSleeper(write int32) {
	s, now := n.sleep, n.w.now
	if n.w.prof.Mode != replicate.Fullsync {
		return // what was acknowledged before the peer wrote it parts them already
	}
	if n.w.prof.Quorum && n.lease.grant.Peer == 0 {
		return // a view without the peer said that it is gone
	}
	if s.woke == 0 || now < s.woke || !n.wantConnect || s.woke-s.began < sleeperSlack*int64(replicate.StoodStill) || now-s.woke > int64(replicate.AskTime)/sleeperSlack {
		return
	}
	n.w.violate("sleeper", "%s stood still for %d ms, lost its peer and acknowledged write %d alone %d ms after it woke, without asking", n.name, (s.woke-s.began)/millisecond, write, (now-s.woke)/millisecond)
}
