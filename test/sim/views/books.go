package views

import (
	"hastd/cluster/view"
)

// ledger is what was acknowledged of a resource.
type ledger struct {
	acked   bits
	highest uint64 // the newest generation something was acknowledged in

	forcedAt uint64 // the last generation in which a person made an owner
}

// books is what the oracles remember of a run.
type books struct {
	Chain
	ledgers  map[string]*ledger
	writes   int
	sessions int
	proposed int
	changed  view.Instant // when the newest view was learned first
}

func (b *books) init(w *World) {
	*b = books{ledgers: map[string]*ledger{}}
	for _, r := range w.cfg.Resources {
		b.ledgers[r.Name] = &ledger{}
	}
}

func (b *books) highest(resource string) uint64 { return b.ledgers[resource].highest }

// learned is called when a node has stored a view.
func (w *World) learned(n *node, v *view.View) {
	b := &w.books
	news := b.Learned(n.id, v)
	if news.Wrong != "" {
		w.violate("chain", "%s", news.Wrong)
	}
	if !news.First {
		return
	}
	w.res.Views++
	w.count("view")
	w.digest(v.Stamp.Number())
	w.oracleOwner(v)
	if news.Beside {
		w.count("view of another chain")
	}
	if !news.Newest {
		w.count("view beside the newest")
		return
	}
	if news.Era {
		for _, l := range b.ledgers {
			*l = ledger{}
		}
		w.count("view by force")
	}
	b.changed = w.now
	for _, o := range w.nodes {
		w.oracleLease(o)
	}
	for i := range v.Resources {
		r := &v.Resources[i]
		if r.Forced {
			*b.ledgers[r.Name] = ledger{forcedAt: v.Stamp.Number()}
		}
		CountResource(r, w.count)
	}
	w.oracleKept("when " + v.Stamp.String() + " was learned")
}

// CountResource counts what a newly learned view says of a resource.
func CountResource(r *view.Resource, count func(what string)) {
	if r.Handed {
		count("resource handed over")
	}
	switch {
	case r.Forced:
		count("resource by force")
	case r.Owner == view.Nobody:
		count("resource of nobody")
	case r.InSync.Len() == 1:
		count("resource alone")
	default:
		count("resource in sync")
	}
}

// wiped is called when a node was. Once no node knows any view there is no cluster, and
// the next one begins with what is acknowledged in it.
func (w *World) wiped() {
	for _, n := range w.nodes {
		if n.durable == nil {
			continue
		}
		if s, err := view.ReadState(n.durable); err != nil || s.View != nil {
			return
		}
	}
	if w.books.Newest == nil {
		return
	}
	w.count("everything wiped")
	w.tracef("nobody knows any view")
	w.books.Newest = nil
	for _, l := range w.books.ledgers {
		*l = ledger{}
	}
}

// acknowledged is called when an application is told that its write is there. For a
// confirmed one, highest is the newest generation that had acknowledged anything when
// the peer took it.
func (w *World) acknowledged(n *node, r *replica, id int, alone bool, highest uint64) {
	if !w.counts(r) {
		w.count("acknowledged beside force")
		return
	}
	w.res.Writes++
	w.digest(uint64(id))
	if alone {
		w.count("acknowledged alone")
		highest = w.books.highest(r.name)
	} else {
		w.count("acknowledged by both")
	}
	l := w.books.ledgers[r.name]
	w.oracleOne(n, r, id, alone, highest)
	l.acked.add(id)
	l.highest = max(l.highest, r.number)
	w.oracleKept("when a write was acknowledged")
}
