package replicate

import (
	"fmt"

	"hastd/metadata"
)

// With quorum = "majority" this node does nothing as primary but what the cluster's
// committed view allows, as vipd passes it on:
//
//	who owns the resource, until when (the lease), and whether the peer counts as in
//	sync. While it does, a write that the peer did not acknowledge is held: only a
//	view without the peer lets it be acknowledged alone, whatever any clock says.
//
// The lease guards the rest: reads, and what is acknowledged before the peer has it.
// The shell looks at the lease's clock once more before each answer.

// Grant is what a node may do by a committed view.
type Grant struct {
	// Generation is the view's; it never goes back.
	Generation uint64
	// Incarnation is this node's in the view, Peer the peer's; 0: it is no member.
	Incarnation, Peer uint64
	// Owner: this node owns the resource. PeerOwner: the peer does.
	Owner, PeerOwner bool
	// Hold: the view, or a proposal of this node since, counts the peer as in sync.
	Hold bool
	// Until is the end of the lease; 0: there is none.
	Until Instant
	// Adding: this node is about to propose a view that counts the peer, in this
	// incarnation, as in sync again. Refused unless it is.
	Adding uint64
}

// onGrant takes what vipd passes on.
func (m *Machine) onGrant(c *Command) {
	g, old := *c.Grant, m.grant
	switch {
	case !m.cfg.NeedLease:
		m.finish(c, &Refusal{RefusedPolicy, "quorum is \"off\" here: nothing is granted", "write quorum = \"majority\" into the configuration of every node"})
		return
	case g.Generation < old.Generation:
		m.finish(c, &Refusal{RefusedPolicy, fmt.Sprintf("generation %d is known here, %d is older", old.Generation, g.Generation), ""})
		return
	case g.Adding != 0 && m.syncedPeer != g.Adding && !(old.Hold && g.Adding == old.Peer):
		m.finish(c, &Refusal{RefusedPolicy, m.cfg.Peer + " is not in sync", "it is counted again once the sync is complete"})
		return
	case g.Generation == old.Generation:
		// A view does not change. A hold ends with the next one; a lease that was
		// given is not taken back.
		g.Hold = g.Hold || old.Hold
		g.Until = max(g.Until, old.Until)
	}
	m.grant = g
	if g.Generation != old.Generation {
		m.newView(old.Peer)
	}
	if m.owed && m.role == metadata.Primary && m.phase != linked && g.Owner && !g.Hold {
		m.owed = false
		if m.sound() && !m.marks().Has(metadata.Raised) {
			m.raise() // the peer is out, and may lack what it had only received
		}
	}
	m.suspension()
	m.thaw()
	m.finish(c, nil)
}

// newView parts from a peer that the view no longer has, or has anew.
func (m *Machine) newView(old uint64) {
	switch g := &m.grant; {
	case m.session == 0:
	case g.Peer == 0:
		m.hangUp(m.cfg.Peer + " is not a member of the cluster's view any more")
	case old != 0 && g.Peer != old:
		m.hangUp(m.cfg.Peer + " was started anew")
	case m.role == metadata.Primary && !g.Owner:
		m.hangUp(m.cfg.Node + " does not own " + m.cfg.Resource + " any more")
	case m.role != metadata.Primary && m.phase == linked && m.peer.Role == metadata.Primary && !g.PeerOwner:
		m.hangUp(m.cfg.Peer + " does not own " + m.cfg.Resource + " any more")
	}
	if m.syncedPeer != m.grant.Peer {
		m.syncedPeer = 0
	}
}

// leased says whether this node is the owner and its lease has not run out.
func (m *Machine) leased() bool { return m.grant.Owner && m.now < m.grant.Until }

// withheld is why this primary may not serve by the view, "" if it may.
func (m *Machine) withheld() string {
	switch {
	case !m.cfg.NeedLease:
	case !m.leased():
		return "no-lease"
	case m.grant.Hold && m.phase != linked:
		return "reconfiguration" // a view without the peer ends it
	}
	return ""
}

// countPeer notes whether the peer's replica holds everything that was acknowledged:
// only then vipd may have it counted as in sync.
func (m *Machine) countPeer() {
	switch {
	case !m.cfg.NeedLease || m.role != metadata.Primary:
		m.syncedPeer = 0
	case m.peerSound() && m.sync.phase == syncIdle:
		m.syncedPeer = m.peer.Incarnation
	case m.phase != linked && !m.grant.Hold:
		m.syncedPeer = 0 // what is acknowledged from now on it lacks
	}
}

// stranger says why no connection is agreed to by the view, "" if it may.
func (m *Machine) stranger() string {
	g, peer := &m.grant, m.cfg.Peer
	switch {
	case !m.cfg.NeedLease:
		return ""
	case g.Generation == 0:
		return m.cfg.Node + " does not know the cluster's view yet"
	case m.peer.Generation == 0:
		return peer + " does not know the cluster's view yet"
	case g.Peer == 0:
		return peer + " is not a member of the cluster's view"
	case m.peer.Incarnation != g.Peer:
		return peer + " was started anew, and the cluster's view names the one before"
	case m.peer.Role == metadata.Primary && !g.PeerOwner && m.peer.Generation <= g.Generation:
		return peer + " is primary by an older view"
	case m.role == metadata.Primary && !g.Owner:
		return m.cfg.Node + " is primary by an older view"
	}
	return ""
}
