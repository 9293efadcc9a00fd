package cluster

import (
	"slices"

	"hastd/cluster"
	"hastd/cluster/member"
	"hastd/cluster/seat"
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
	v      *vipd
	r      *replica
	seat   *seat.Machine
	own    bool       // as the machine said last
	stands seat.Stand // as the seat was told last
	master bool       // as the seat said last
	force  bool       // a person's order: promote whatever the replica lacks
	adopt  int64      // what is up is left alone until then
	since  int64      // when it was to go down; 0: it is not
	busy   bool       // an order about the role is under way
	asked  bool       // hastd said something in this life
	seen   replicate.Status
}

func newGroup(v *vipd, r *replica) *group {
	g := &group{v: v, r: r, adopt: v.h.w.now + int64(adoptTime)}
	cfg := seat.Config{Self: v.h.id, Needs: []string{r.p.name}, Names: map[view.NodeID]string{}, Reset: leaseTime}
	for _, h := range r.p.hosts {
		cfg.Nodes = append(cfg.Nodes, h.id)
	}
	g.seat = seat.New(cfg, v.h.now())
	g.seat.Step(v.h.now(), seat.Join{})
	return g
}

// owns is the machine's word.
func (g *group) owns(on bool) {
	w := g.v.h.w
	w.tracef("node %d: owns %s: %v", g.v.h.id, g.r.p.name, on)
	g.own = on
	g.look()
}

// look tells the seat what is so, and does what it says.
func (g *group) look() {
	v := g.v
	if !v.alive() {
		return
	}
	g.decided(g.seat.Step(v.h.now(), seat.Facts{
		View: v.m.View(), Up: v.m.Up(), Lease: v.m.Lease(), Waits: v.m.Waits(), Owns: map[string]bool{g.r.p.name: g.own},
		Linked: true, Down: g.isDown(), Able: g.able(),
	}))
	g.act()
}

// decided carries out what the seat says.
func (g *group) decided(effects []seat.Effect) {
	v := g.v
	w := v.h.w
	for _, e := range effects {
		switch e := e.(type) {
		case seat.Tell:
			w.tracef("node %d: %s: master %v: %s", v.h.id, g.r.p.name, e.Master, e.Reason)
			g.master = e.Master
			if e.Master {
				g.since, g.adopt = 0, 0
			}
		case seat.Hand:
			w.tracef("node %d: hands %s to node %d: %s", v.h.id, g.r.p.name, e.To, e.Reason)
			w.count("handed over")
			if g.seen.Disk == "failed" {
				w.count("moved from a failed disk")
			}
			v.step(member.Stopped{Resources: e.What, To: e.To})
		case seat.Reset:
			w.count("reset by a seat")
		}
	}
}

// isDown says whether nothing of the group is up here or on its way.
func (g *group) isDown() bool {
	return g.asked && !g.busy && (g.seen.Role != metadata.Primary || !g.r.p.Running(g.r.side))
}

// able says whether the other host can have the group, as its heartbeats say.
func (g *group) able() view.Set {
	o := g.r.p.hosts[1-g.r.side].id
	at := g.v.heardAt[o]
	if at == 0 || g.v.h.now()-at >= view.Instant(deafAfter) || !slices.Contains(g.v.fit[o], g.r.p.name) {
		return 0
	}
	return view.SetOf(o)
}

// stand tells the seat whether this node can have the group, by its replica.
func (g *group) stand(r cluster.Replica) {
	r.Name = g.r.p.name
	fit, _, why := cluster.Standing([]cluster.Replica{r})
	if g.v.leaving {
		fit, why = false, "taken offline by order"
	}
	if s := (seat.Stand{Fit: fit, Why: why}); s != g.stands {
		g.stands = s
		g.decided(g.seat.Step(g.v.h.now(), s))
	}
}

// resign takes the group down, for the other node to take it.
func (g *group) resign(why string) {
	g.master = false
	g.decided(g.seat.Step(g.v.h.now(), seat.Resign{Reason: why}))
	g.look()
}

// poll asks hastd how the resource stands, one question after the other.
func (g *group) poll() {
	v := g.v
	h := v.h
	w := h.w
	if !v.alive() {
		return
	}
	g.look()
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
			h.whenAwake(false, func() {
				if v.alive() {
					g.stand(cluster.Replica{})
				}
			})
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
	g.seen, g.asked = *st, true
	peer := g.r.p.hosts[1-g.r.side].id
	s := member.Storage{Resource: g.r.p.name, Told: st.Grant.Generation, Synced: view.Incarnation(st.Synced), Holds: st.Grant.Hold}
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
	if v.alive() {
		is := cluster.Replica{Reached: true, Role: st.Role.String(), Status: st.Status, Connection: st.Connection, Disk: st.Disk, PeerRole: st.PeerRole, PeerDisk: st.PeerDisk}
		if st.Suspended {
			is.Suspended = st.SuspendReason
		}
		g.stand(is)
		g.look()
	}
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
	case g.master && !v.leaving:
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
	if v.leaving {
		v.leaves()
	}
}

// leaves says that the node leaves, once everything is down.
func (v *vipd) leaves() {
	for _, g := range v.groups {
		if !g.isDown() {
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
		if v.alive() {
			g.resign("taken offline by order")
		}
	}
	if v.alive() {
		v.leaves()
	}
}

func (v *vipd) stay() {
	if !v.leaving {
		return
	}
	v.leaving = false
	v.step(member.Stay{})
	for _, g := range v.groups {
		g.look()
	}
}
