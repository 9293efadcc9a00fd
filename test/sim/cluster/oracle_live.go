package cluster

import (
	"hastd/cluster/view"
	"hastd/metadata"
	"hastd/replicate"
)

// Bounds of the end of a run, in virtual time. A lease and its margin is 1.6 s, a round
// a second at most, a failed one is begun anew within four; taking a node back takes
// rejoin, and a promotion up to two probes.
const (
	healTime = 20 * second // owners serve once everything is back, or once a person helped
	syncTime = 30 * second // and all is in sync
)

// oracleServes: faults have stopped. Everything is served within the bound, and then
// all nodes are in one view and all replicas in sync; where the rules say that a person
// decides, one does, and then it is so.
func (w *World) oracleServes() {
	began := w.now
	helps := 0
	reach := func(what string, bound view.Duration, good func() bool) {
		for end := w.now + int64(bound); !good(); w.runFor(100 * millisecond) {
			if w.now < end {
				if helps > 0 {
					w.help()
				}
				continue
			}
			why := w.needsHelp()
			if why == "" || helps > 4*len(w.hosts) {
				w.violate("live", "not %s within %ds, after %d helps\n%s", what, bound/second, helps, w.status())
			}
			helps++
			w.count("help: " + why)
			w.tracef("HELP: %s", why)
			w.help()
			end = w.now + int64(bound)
		}
	}
	reach("served", healTime, func() bool { return w.serves(began) })
	if helps == 0 {
		w.res.Healed = view.Duration(w.now - began)
		w.count("healed without help")
	}
	reach("complete", syncTime, func() bool { return w.complete(began) })
	if !w.chain.Parted {
		w.oracleKept("at the end")
	}
}

// served says whether a resource's owner by the newest view told an application of
// success a moment ago.
func (w *World) served(p *pair, since int64) bool {
	return !w.chain.Parted && p.judge.toldAt >= max(since, w.now-int64(2*second)) && p.judge.highest == w.chain.Newest.Stamp.Number()
}

func (w *World) serves(since int64) bool {
	for _, p := range w.pairs {
		if !w.served(p, since) {
			return false
		}
	}
	return true
}

// complete: all nodes know one view of them all, and all replicas are in sync.
func (w *World) complete(since int64) bool {
	v := w.chain.Newest
	for _, h := range w.hosts {
		if h.vipd == nil || h.vipd.m.View() == nil || h.vipd.m.View().Stamp != v.Stamp || v.Member(h.id) == nil {
			return false
		}
	}
	for i := range v.Resources {
		if r := &v.Resources[i]; r.InSync != r.Nodes {
			return false
		}
	}
	return w.serves(since)
}

// oracleMajority: one host is missing. If the others are most of the members, and each
// resource has a good replica in sync among them, all is served within the bound.
func (w *World) oracleMajority(gone *host) {
	v := w.known(gone)
	if v == nil || w.chain.Forced || w.forced() {
		return // who forces owes a hand to what parted
	}
	alive := 0
	for i := range v.Members {
		h := w.hosts[v.Members[i].ID]
		if h.vipd != nil && h != gone && h.inc == v.Members[i].Inc {
			alive++
		}
	}
	if 2*alive <= len(v.Members) {
		w.count("one missing: no majority")
		return
	}
	for _, p := range w.pairs {
		if r := v.Resource(p.name); r == nil || !w.goodReplica(p, r, v, gone) {
			w.count("one missing: no good replica")
			return
		}
	}
	began := w.now
	for end := began + int64(healTime); !w.serves(began); w.runFor(100 * millisecond) {
		if w.now < end {
			continue
		}
		now := w.known(gone)
		for _, p := range w.pairs {
			if r := now.Resource(p.name); r == nil || !w.goodReplica(p, r, now, gone) {
				w.count("one missing: no good replica")
				return
			}
		}
		w.violate("live", "node %d is missing, and the others do not serve within %ds\n%s", gone.id, healTime/second, w.status())
	}
	w.count("one missing: the others serve")
}

// goodReplica says whether a host that is there is in sync by the view and its replica
// can be served.
func (w *World) goodReplica(p *pair, r *view.Resource, v *view.View, gone *host) bool {
	if p.Parted() {
		w.count("one missing: two histories")
		return false
	}
	for side, h := range p.hosts {
		if h != gone && r.InSync.Has(h.id) && h.inc == v.InSyncAs(h.id) && p.Running(side) && p.Consistent(side) && p.Status(side).Disk == "uptodate" {
			return true
		}
	}
	return false
}

// known is the newest view that a node other than gone knows. A leader alone may have
// committed a newer one, and be gone or wiped before anybody heard of it.
func (w *World) known(gone *host) *view.View {
	var known *view.View
	for _, h := range w.hosts {
		if h == gone || h.vipd == nil {
			continue
		}
		if v := h.vipd.m.View(); v != nil && (known == nil || v.Stamp.Number() > known.Stamp.Number()) {
			known = v
		}
	}
	return known
}

// needsHelp says why the cluster cannot go on by itself, "" if it can.
func (w *World) needsHelp() string {
	v := w.known(nil)
	if w.chain.Parted {
		return "two chains"
	}
	if v == nil {
		return "no first view" // somebody was wiped, or forced, before there was one
	}
	alive := 0
	for i := range v.Members {
		if m := &v.Members[i]; m.Inc == w.hosts[m.ID].inc {
			alive++
		}
	}
	if 2*alive <= len(v.Members) {
		return "half of the members or more are wiped"
	}
	for _, p := range w.pairs {
		if why := w.pairNeedsHelp(p, v); why != "" {
			return why
		}
	}
	return ""
}

func (w *World) pairNeedsHelp(p *pair, v *view.View) string {
	r := v.Resource(p.name)
	if r != nil && r.Owner == view.Nobody {
		good := false
		for _, id := range r.InSync.IDs() {
			good = good || w.hosts[id].inc == v.InSyncAs(id)
		}
		if !good {
			return "no replica in sync"
		}
	}
	for side := range p.hosts {
		if !p.Running(side) {
			continue
		}
		switch st := p.Status(side); {
		case st.Disk == "failed":
			return "disk failed"
		case st.Connection == "split-brain" || st.Status == "split-brain":
			return "split-brain"
		case w.person && st.Connection == "refused":
			return "refused"
		}
	}
	if w.person || w.chain.Forced || w.forced() {
		return "forced"
	}
	return ""
}

// forced says whether a person made an owner.
func (w *World) forced() bool {
	for _, p := range w.pairs {
		if p.judge.forcedAt != 0 {
			return true
		}
	}
	return false
}

// help does what a person should.
func (w *World) help() {
	w.person = true
	v := w.known(nil)
	for _, h := range w.hosts {
		if h.vipd == nil {
			return
		}
	}
	alive := 0
	if v != nil {
		for i := range v.Members {
			if m := &v.Members[i]; m.Inc == w.hosts[m.ID].inc {
				alive++
			}
		}
	}
	if w.chain.Parted || v == nil || 2*alive <= len(v.Members) {
		w.helpView(v)
		return
	}
	for _, p := range w.pairs {
		w.helpPair(p, v)
	}
}

// helpView forces a view where the newest that is left is known.
func (w *World) helpView(v *view.View) {
	for _, h := range w.hosts {
		if v == nil || h.vipd.m.View() != nil && h.vipd.m.View().Stamp == v.Stamp {
			w.forceView(h)
			return
		}
	}
	w.forceView(w.hosts[0]) // whoever knew the newest view is wiped
}

// nobodyYet owns what is in no view.
const nobodyYet view.NodeID = view.MaxNodeID

// helpPair mends a resource: disks are opened anew, replicas that parted are given up
// where they do not own, and where nobody may own somebody is made to.
func (w *World) helpPair(p *pair, v *view.View) {
	r := v.Resource(p.name)
	if r == nil {
		r = &view.Resource{Owner: nobodyYet} // it enters once its replicas can be compared
	}
	for side, h := range p.hosts {
		if !p.Running(side) {
			return
		}
		st := p.Status(side)
		owner := r.Owner == h.id
		command := func(c replicate.Command) {
			p.Order(side, c, func(*replicate.Refusal) {})
		}
		switch {
		case p.Strangers() && !owner && st.Role == metadata.Init && st.Disk != "failed":
			p.Create(side) // else hastd has it open still
		case p.Strangers() && !owner:
			command(replicate.Command{Kind: replicate.CmdRole, Role: metadata.Init, Force: true})
		case st.Disk == "failed" && owner && r.InSync.Has(p.hosts[1-side].id) && p.good(1-side):
			w.move(p, p.hosts[1-side].id)
		case st.Disk == "failed" && st.Role != metadata.Init:
			command(replicate.Command{Kind: replicate.CmdRole, Role: metadata.Init, Force: true})
		case st.Role == metadata.Init:
			command(replicate.Command{Kind: replicate.CmdRole, Role: metadata.Secondary})
		case !owner && st.Role == metadata.Secondary && (st.Connection == "split-brain" || st.Status == "split-brain"):
			command(replicate.Command{Kind: replicate.CmdRecover})
		case r.Owner == view.Nobody && p.hasData(side):
			w.forceResource(h, p)
		case owner && !p.hasData(side) && p.hasData(1-side):
			w.forceResource(p.hosts[1-side], p) // a new replica was chosen
		case owner && st.Role == metadata.Secondary && w.hosts[h.id].vipd.group(p.name).own:
			w.hosts[h.id].vipd.group(p.name).force = true
		}
	}
}

// good says whether a replica could be served at once.
func (p *pair) good(side int) bool { return p.Running(side) && p.Status(side).Disk == "uptodate" }

// hasData says whether a replica is one to choose: it has data, or neither has.
func (p *pair) hasData(side int) bool {
	return p.Running(side) && (p.Status(side).Resuid != 0 || !p.Running(1-side) || p.Status(1-side).Resuid == 0)
}
