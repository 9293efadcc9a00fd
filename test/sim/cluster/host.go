package cluster

import (
	"fmt"

	"hastd/cluster/view"
	"hastd/test/sim"
	"hastd/test/sim/views"
)

// host is a machine: a clock, power, what vipd stored, and two daemons, vipd and (not on
// a witness) hastd with its replicas.
type host struct {
	w        *World
	id       view.NodeID
	clock    sim.Clock
	on       bool
	durable  []byte // what vipd stored; nil: nothing
	inc      view.Incarnation
	vipd     *vipd // nil: it does not run
	replicas []*replica
	idle     int64 // vipd stands still until then
	inbox    []func()
	fuse     int  // effects until vipd crashes; 0: none
	wanted   bool // vipd is to run: somebody starts it again
}

// replica is one of a host's resources.
type replica struct {
	p    *pair
	side int
}

// inboxMost is how much the sockets of a daemon that stands still keep.
const inboxMost = 200

func newHost(w *World, id view.NodeID) *host {
	h := &host{w: w, id: id}
	h.clock = sim.Clock{Skew: int64(w.span(second, 1000*second)), Drift: w.rng.Int64N(2*w.prof.drift+1) - w.prof.drift}
	return h
}

// now is the host's CLOCK_BOOTTIME.
func (h *host) now() view.Instant { return view.Instant(h.clock.At(h.w.now)) }

// boot starts a host: hastd and vipd come up in any order.
func (h *host) boot() {
	w := h.w
	if h.on {
		return
	}
	w.tracef("node %d boots", h.id)
	h.on, h.wanted = true, true
	w.after(w.span(0, second/2), h.startStorage)
	w.after(w.span(0, second/2), h.startVipd)
}

// powerLoss ends everything on the host, and what its disks had in their caches.
func (h *host) powerLoss() {
	w := h.w
	if !h.on {
		return
	}
	w.tracef("node %d loses power", h.id)
	w.digest(uint64(h.id) + 77)
	h.on, h.wanted = false, false
	h.endVipd()
	h.idle, h.inbox = 0, nil
	for _, r := range h.replicas {
		r.p.PowerLoss(r.side)
	}
}

func (h *host) startStorage() {
	if !h.on {
		return
	}
	for _, r := range h.replicas {
		r.p.Boot(r.side)
	}
}

// killStorage ends hastd. Its supervisor starts it again, which may take a while.
func (h *host) killStorage() {
	w := h.w
	if !h.storageRuns() {
		return
	}
	w.tracef("hastd of node %d ends", h.id)
	w.digest(uint64(h.id) + 99)
	for _, r := range h.replicas {
		r.p.Kill(r.side)
	}
	w.after(w.span(50*millisecond, 3*second), h.startStorage)
	if v := h.vipd; v != nil {
		v.connectionsEnd()
	}
}

func (h *host) storageRuns() bool {
	return h.on && len(h.replicas) > 0 && h.replicas[0].p.Running(h.replicas[0].side)
}

// stallStorage has hastd stand still, with all its resources.
func (h *host) stallStorage(d view.Duration) {
	for _, r := range h.replicas {
		r.p.At(h.w.now).Freeze(r.side, int64(d))
	}
}

// stallVipd has vipd stand still.
func (h *host) stallVipd(d view.Duration) {
	if h.vipd == nil {
		return
	}
	until := h.w.now + int64(d)
	if until <= h.idle {
		return
	}
	h.idle = until
	h.w.after(d, h.goOn)
}

func (h *host) standsStill() bool { return h.idle > h.w.now }

// goOn is the end of standing still: what arrived meanwhile is looked at.
func (h *host) goOn() {
	if h.standsStill() {
		return
	}
	box := h.inbox
	h.inbox = nil
	for _, do := range box {
		do()
	}
	if v := h.vipd; v != nil {
		v.tick()
	}
}

// whenAwake does something of vipd's at once, or when it goes on. Only what comes from
// the network is lost when there is too much of it.
func (h *host) whenAwake(fromNet bool, do func()) {
	switch {
	case !h.standsStill() && len(h.inbox) == 0:
		do()
	case !fromNet || len(h.inbox) < inboxMost:
		h.inbox = append(h.inbox, do)
	}
}

// everything comes back: power, daemons, and all go on.
func (h *host) mend() {
	w := h.w
	h.fuse = 0
	if h.standsStill() {
		h.idle = w.now
		w.after(0, h.goOn)
	}
	for _, r := range h.replicas {
		r.p.Thaw(r.side)
	}
	h.boot()
	h.wanted = true
	w.after(w.span(0, second/2), h.startStorage)
	w.after(w.span(0, second/2), h.startVipd)
}

func (h *host) describe() string {
	s := ""
	switch v := h.vipd; {
	case !h.on:
		return "no power"
	case v == nil:
		s = "no vipd"
	default:
		s = fmt.Sprintf("inc %04x, view %v, lease %d ms", uint16(h.inc), v.m.View(), (v.m.Lease()-h.now())/view.Instant(millisecond))
		for _, g := range v.groups {
			s += fmt.Sprintf("; group of %s own %v master %v leaving %v", g.r.p.name, g.own, g.master, v.leaving)
		}
	}
	for _, r := range h.replicas {
		if !r.p.Running(r.side) {
			s += "; no hastd"
			continue
		}
		st := r.p.Status(r.side)
		s += fmt.Sprintf("\n    %s: %s %s %s disk %s sync %s%s (%s) marks %s", r.p.name, st.Role, st.Status, st.Connection, st.Disk, st.SyncState, st.SyncDirection, st.Reason, st.Marks)
		if st.Suspended {
			s += " suspended " + st.SuspendReason
		}
		s += fmt.Sprintf(" granted %+v synced %04x", st.Grant, uint16(st.Synced))
	}
	return s
}

// persist is vipd's store.
func (h *host) persist(s *view.State) {
	w := h.w
	if wrong := views.Stored(h.id, h.durable, s); wrong != "" {
		w.violate("stored", "%s", wrong)
	}
	h.durable, h.inc = view.AppendState(nil, s), s.Inc
	if s.View != nil {
		w.learned(h, s.View)
	}
}

// wipe loses what vipd stored. The replicas stay.
func (h *host) wipe() {
	h.w.tracef("node %d loses what vipd stored", h.id)
	h.endVipd()
	h.durable, h.inc = nil, 0
	h.w.forgotten()
}

// pause is for how long hastd stands still between a decision and what it tells: alone, or
// with its whole host.
func (w *World) pause(h *host) int64 {
	if w.quiet || !w.chance(w.prof.stalls) {
		return 0
	}
	d := w.span(10*millisecond, 2*leaseTime)
	if w.chance(0.4) {
		w.count("fault a node still before an answer")
		d += w.span(leaseTime, 4*leaseTime)
		h.stallVipd(d)
	} else {
		w.count("fault hastd still before an answer")
	}
	w.tracef("hastd of node %d stands still for %d ms before it tells", h.id, d/millisecond)
	h.stallStorage(d)
	return int64(d)
}
