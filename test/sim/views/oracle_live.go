package views

import (
	"strings"

	"hastd/cluster/view"
)

// oracleServes: faults have stopped. A quorum with a replica in sync serves within the
// bound, and then all nodes are in one view and all replicas in sync; where the rules
// say that a person decides, one does, and then it is so.
func (w *World) oracleServes() {
	began := w.now
	helps := 0
	reach := func(what string, bound view.Duration, good func() bool) {
		for end := w.now + view.Instant(bound); w.bad == nil && !good(); w.runFor(100 * millisecond) {
			if w.now < end {
				continue
			}
			why := w.needsHelp()
			if why == "" || helps > 4*len(w.nodes) {
				w.violate("live", "not %s within %ds, after %d helps\n%s", what, bound/second, helps, w.status())
				return
			}
			helps++
			w.count("help: " + why)
			w.tracef("HELP: %s", why)
			w.help(why)
			end = w.now + view.Instant(bound)
		}
	}
	reach("served", healTime, w.serves)
	if helps == 0 {
		w.res.Healed = view.Duration(w.now - began)
	}
	reach("complete", syncTime, w.complete)
	if w.bad == nil {
		w.oracleKept("at the end")
	}
}

// serves: every resource has an owner that acknowledges what is written.
func (w *World) serves() bool {
	if w.books.Parted {
		return false
	}
	for _, c := range w.cfg.Resources {
		ok := false
		for _, n := range w.nodes {
			r := n.store.replica(c.Name)
			ok = ok || r != nil && r.primary && w.newestOwner(c.Name) == n.id && (len(r.waiting) == 0 || r.waiting[0].issued > w.now-view.Instant(2*second))
		}
		if !ok {
			return false
		}
	}
	return true
}

func (w *World) newestOwner(name string) view.NodeID {
	if r := w.books.Newest.Resource(name); r != nil {
		return r.Owner
	}
	return view.Nobody
}

// complete: all nodes know one view of them all, and all replicas are in sync.
func (w *World) complete() bool {
	v := w.books.Newest
	for _, n := range w.nodes {
		if n.m == nil || n.m.View() == nil || n.m.View().Stamp != v.Stamp || !n.m.Up() {
			return false
		}
	}
	for i := range v.Resources {
		if r := &v.Resources[i]; r.InSync != r.Nodes {
			return false
		}
	}
	return w.serves()
}

// needsHelp says why the nodes cannot go on by themselves, "" if they can.
func (w *World) needsHelp() string {
	v := w.books.Newest
	if w.books.Parted {
		return "two chains"
	}
	if v == nil {
		for _, n := range w.nodes {
			if s, err := view.ReadState(n.durable); err == nil && s.Acc != nil && !w.namesAll(s.Acc.View) {
				return "no first view: a proposal names a wiped node"
			}
		}
		return ""
	}
	alive := 0
	for _, n := range w.nodes {
		if m := v.Member(n.id); m != nil && m.Inc == n.inc() {
			alive++
		}
	}
	if 2*alive <= len(v.Members) {
		return "half of the members or more are wiped"
	}
	for i := range v.Resources {
		r := &v.Resources[i]
		if r.Owner == view.Nobody {
			good := false
			for _, id := range r.InSync.IDs() {
				good = good || w.nodes[id].inc() == w.books.Inc(id)
			}
			if !good {
				return "no replica in sync"
			}
		}
	}
	return ""
}

func (w *World) namesAll(v *view.View) bool {
	for _, n := range w.nodes {
		if m := v.Member(n.id); m == nil || m.Inc != n.inc() {
			return false
		}
	}
	return true
}

// help does what a person should.
func (w *World) help(why string) {
	v := w.books.Newest
	if !strings.HasPrefix(why, "no replica in sync") {
		w.helpView(v)
		return
	}
	for _, n := range w.nodes {
		if v != nil && (n.m.View() == nil || n.m.View().Stamp != v.Stamp) {
			continue
		}
		for i := range v.Resources {
			r := &v.Resources[i]
			if r.Owner == view.Nobody && n.store.replica(r.Name) != nil && n.m.Up() {
				w.forceResource(n, r.Name)
				return
			}
		}
	}
}

// helpView forces a view where the newest is known.
func (w *World) helpView(v *view.View) {
	for _, n := range w.nodes {
		if v == nil || n.m.View() != nil && n.m.View().Stamp == v.Stamp {
			w.forceView(n)
			return
		}
	}
	w.forceView(w.nodes[0]) // whoever knew the newest view is wiped
}
