package cluster

import (
	"hastd/cluster/member"
	"hastd/cluster/view"
	"hastd/metadata"
	"hastd/replicate"
)

const (
	// adoptTime is how long a vipd that starts leaves alone what is up.
	adoptTime = 2 * second
	// polite is how long whoever uses a device has to leave it.
	polite = 300 * millisecond
)

// group is what serves a resource on a host, as vipd orders it: one resource, and an
// application that uses its device.
type group struct {
	v        *vipd
	r        *replica
	own      bool // as the machine said last
	stopping bool // ordered to go down; it stays down until the machine says that it owns
	to       view.NodeID
	force    bool  // a person's order: promote whatever the replica lacks
	adopt    int64 // what is up is left alone until then
	since    int64 // when it was to go down; 0: it is not
	busy     bool  // an order about the role is under way
	asked    bool  // hastd said something in this life
	seen     replicate.Status
}

// owns is the machine's word.
func (g *group) owns(on bool) {
	w := g.v.h.w
	w.tracef("node %d: owns %s: %v", g.v.h.id, g.r.p.name, on)
	g.own = on
	if on {
		g.since, g.adopt = 0, 0
		g.stopping = g.stopping && (g.to != view.Nobody || g.v.leaving) // not down yet
	}
	g.act()
}

// poll asks hastd how the resource stands, one question after the other.
func (g *group) poll() {
	v := g.v
	h := v.h
	w := h.w
	if !v.alive() {
		return
	}
	g.act()
	over := false
	next := func(d view.Duration) {
		if !over {
			over = true
			w.after(d, g.poll)
		}
	}
	w.after(orderLimit, func() { next(0) })
	if h.standsStill() || w.lost() {
		return
	}
	w.after(w.delay(), func() {
		r := g.r
		switch {
		case !r.p.Running(r.side):
			next(statusEvery)
			return
		case r.p.Frozen(r.side) || w.lost():
			return
		}
		st := r.p.Status(r.side)
		w.after(w.delay(), func() {
			h.whenAwake(false, func() {
				if v.alive() && !over {
					g.told(&st)
					next(statusEvery)
				}
			})
		})
	})
}

// told is hastd's word, which may be late.
func (g *group) told(st *replicate.Status) {
	v := g.v
	w := v.h.w
	g.seen, g.asked = *st, true
	peer := g.r.p.hosts[1-g.r.side].id
	s := member.Storage{Resource: g.r.p.name, Told: st.Grant.Generation, Synced: view.Incarnation(st.Synced)}
	// A view without the peer is for an owner whose own replica is good. One whose disk
	// failed leaves the resource to the peer.
	s.Waits = st.Suspended && st.SuspendReason == "reconfiguration" && st.Disk == "uptodate"
	if st.Disk == "uptodate" && st.Connection == "connected" {
		s.Good = view.SetOf(v.h.id)
		if st.PeerDisk == "uptodate" && st.Resuid != 0 { // two new ones are no copies of each other yet
			s.Good |= view.SetOf(peer)
		}
	}
	v.step(s)
	if v.alive() && g.own && !g.stopping && st.Suspended && st.Disk == "failed" {
		w.count("moved from a failed disk")
		g.stop(peer)
	}
	if v.alive() {
		g.act()
	}
}

// stop takes the group down, to hand it over or because the node leaves.
func (g *group) stop(to view.NodeID) {
	g.stopping, g.to = true, to
	g.act()
}

// act does the next thing.
func (g *group) act() {
	v := g.v
	w := v.h.w
	if g.busy || !g.asked || !v.alive() {
		return
	}
	running := g.r.p.Running(g.r.side)
	primary := running && g.seen.Role == metadata.Primary
	switch {
	case g.own && !g.stopping:
		g.since = 0
		if running && !primary {
			g.role(metadata.Primary, g.force)
		} else if running {
			g.r.p.Use(g.r.side)
		}
	case primary && w.now >= g.adopt:
		if g.since == 0 {
			g.since = w.now
			g.r.p.Release(g.r.side)
		}
		g.role(metadata.Secondary, w.now-g.since >= int64(polite))
	case running && g.seen.Role == metadata.Init && g.seen.Disk != "failed":
		g.role(metadata.Secondary, false)
	}
	if g.stopping && !g.busy && (!running || g.seen.Role != metadata.Primary) {
		g.down()
	}
}

// down: a group that was to stop has stopped.
func (g *group) down() {
	v := g.v
	if !v.leaving {
		if g.to != view.Nobody {
			to := g.to
			g.to = view.Nobody
			v.h.w.count("handed over")
			v.step(member.Stopped{Resources: []string{g.r.p.name}, To: to})
		}
		return
	}
	for _, o := range v.groups {
		if o.busy || o.own && !o.stopping || o.seen.Role == metadata.Primary && o.r.p.Running(o.r.side) {
			return
		}
	}
	if !v.told {
		v.told = true
		v.h.w.count("left")
		v.step(member.Leave{})
	}
}

func (g *group) role(r metadata.Role, force bool) {
	w := g.v.h.w
	g.busy = true
	g.v.call(g.r, roleLimit, replicate.Command{Kind: replicate.CmdRole, Role: r, Force: force}, func(a answer) {
		g.busy = false
		if a.ok {
			g.seen.Role = r
			w.count("role " + r.String())
		} else {
			w.tracef("node %d: role %s of %s: %s", g.v.h.id, r, g.r.p.name, a.why)
			w.count("role refused")
		}
		if a.ok && r == metadata.Primary {
			g.force = false
		}
		if a.ok { // else again with the next status
			g.act()
		}
	})
}

// leave takes everything down and says so; stay takes that back.
func (v *vipd) leave() {
	v.leaving, v.told = true, false
	v.step(member.Leaving{})
	if !v.alive() {
		return
	}
	for _, g := range v.groups {
		g.stop(view.Nobody)
	}
	if len(v.groups) == 0 && !v.told {
		v.told = true
		v.step(member.Leave{})
	}
}

func (v *vipd) stay() {
	if !v.leaving {
		return
	}
	v.leaving = false
	for _, g := range v.groups {
		g.stopping = false
	}
	v.step(member.Stay{})
	for _, g := range v.groups {
		g.act()
	}
}
