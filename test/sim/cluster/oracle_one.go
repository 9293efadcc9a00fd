package cluster

import (
	"hastd/cluster/view"
	"hastd/test/sim/views"
)

// ledger is what applications were told of a resource.
type ledger struct {
	highest  uint64 // the newest generation by which something was told
	forcedAt uint64 // the last one in which a person made an owner
	toldAt   int64  // when something was told last by the newest view
	told     [2]int // how often each host told something
}

// told: an application on a host was told that something succeeded. At no instant may
// two do that: once a later owner did, no earlier one does.
func (w *World) told(p *pair, side int, write bool) {
	h, g := p.hosts[side], p.Grant(side)
	w.digest(g.Generation)
	p.judge.told[side]++
	if write {
		w.res.Writes++
		if g.Hold {
			w.count("acknowledged by both")
		} else {
			w.count("acknowledged alone")
		}
	}
	if !w.counts(p, g.Generation) {
		w.count("told beside force")
		return
	}
	if g.Generation < p.judge.highest && !w.stood {
		w.violate("one", "node %d, owner of %s by %s, tells an application of success after an owner by %s did", h.id, p.name, number(g.Generation), number(p.judge.highest))
	}
	p.judge.highest = max(p.judge.highest, g.Generation)
	if g.Generation == w.chain.Newest.Stamp.Number() {
		p.judge.toldAt = w.now
	}
}

// shows: a provider begins on a host. Whoever lost the resource has stopped by then, and
// the views name this host.
func (w *World) shows(p *pair, side int) {
	h, g := p.hosts[side], p.Status(side).Grant
	w.tracef("node %d shows %s by %s", h.id, p.name, number(g.Generation))
	w.count("promoted")
	if !w.counts(p, g.Generation) {
		w.count("promoted beside force")
		return
	}
	if !g.Owner {
		w.violate("owner", "node %d shows %s by %s, which does not make it the owner", h.id, p.name, number(g.Generation))
	}
	if p.MayAnswer(1-side) && w.counts(p, p.Grant(1-side).Generation) && !w.stood {
		o := p.hosts[1-side]
		w.violate("stopped", "node %d begins to show %s by %s, and node %d, owner by %s, may answer for %d ms more", h.id, p.name, number(g.Generation),
			o.id, number(p.Grant(1-side).Generation), (int64(p.Grant(1-side).Until)-int64(o.now()))/int64(millisecond))
	}
	if v := w.chain.Newest; v != nil && g.Generation == v.Stamp.Number() && w.owner(p.name) != h.id {
		w.violate("owner", "node %d shows %s, which belongs to node %d by view %s", h.id, p.name, w.owner(p.name), v.Stamp)
	}
}

// forgotten is called when a node was wiped. If it alone knew of the era that a person
// began, the others go on in theirs: nobody can know that there was another.
func (w *World) forgotten() {
	var v *view.View
	for _, h := range w.hosts {
		if h.durable == nil {
			continue
		}
		if s, err := view.ReadState(h.durable); err == nil && s.View != nil && (v == nil || s.View.Stamp.Number() > v.Stamp.Number()) {
			v = s.View
		}
	}
	if v == nil || v.Stamp.Era >= w.chain.Era() {
		return
	}
	w.count("era forgotten")
	w.tracef("nobody knows of era %d any more", w.chain.Era())
	w.chain.Back(v)
	for _, p := range w.pairs {
		p.judge = ledger{}
		p.Forget()
	}
}

// force: a person has the owner promote a replica that is not whole.
func (w *World) force(p *pair, side int) {
	w.count("promoted by force")
	p.judge = ledger{forcedAt: p.Grant(side).Generation}
}

// counts says whether what an owner does is judged: not if a person forced another view,
// or another owner, since the view that it owns by.
func (w *World) counts(p *pair, number uint64) bool {
	return uint32(number>>32) >= w.chain.Era() && number >= p.judge.forcedAt && !w.chain.Parted
}

func number(n uint64) string { return view.Stamp{Era: uint32(n >> 32), Index: uint32(n)}.String() }

// learned is called when a node stored a view: there is one chain of them, owners are
// in sync, and who is in sync has everything.
func (w *World) learned(h *host, v *view.View) {
	news := w.chain.Learned(h.id, v)
	if news.Wrong != "" {
		w.violate("chain", "%s", news.Wrong)
	}
	if !news.First {
		return
	}
	w.tracef("node %d learned %v", h.id, v)
	w.res.Views++
	w.count("view")
	w.digest(v.Stamp.Number())
	if wrong := views.Owners(v); wrong != "" {
		w.violate("owner", "%s", wrong)
	}
	if news.Beside {
		w.count("view of another chain")
	}
	if !news.Newest {
		w.count("view beside the newest")
		return
	}
	if news.Era {
		w.count("view by force")
		for _, p := range w.pairs {
			p.judge = ledger{}
			p.Forget()
		}
	}
	for _, p := range w.pairs {
		r := v.Resource(p.name)
		if r == nil {
			continue
		}
		if r.Forced {
			p.judge = ledger{forcedAt: v.Stamp.Number()}
			p.Forget()
		}
		views.CountResource(r, w.count)
	}
	w.oracleKept("when " + v.Stamp.String() + " was learned")
}
