package views

import (
	"bytes"

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
	ledgers  map[string]*ledger
	chain    map[view.Stamp][]byte     // every view learned, as it is written
	newest   *view.View                // of the highest generation
	last     [view.MaxNodes]*view.View // what each stored last
	lastInc  map[view.NodeID]view.Incarnation
	writes   int
	sessions int
	proposed int
	changed  view.Instant // when the newest view was learned first
	forced   bool         // a person forced a view in this run
	parted   bool         // two chains of one era: nothing is promised until the next era
}

func (b *books) init(w *World) {
	*b = books{ledgers: map[string]*ledger{}, chain: map[view.Stamp][]byte{}, lastInc: map[view.NodeID]view.Incarnation{}}
	for _, r := range w.cfg.Resources {
		b.ledgers[r.Name] = &ledger{}
	}
}

func (b *books) highest(resource string) uint64 { return b.ledgers[resource].highest }

// era is the highest that anybody knows. What older ones do is the person's who forced.
func (b *books) era() uint32 {
	if b.newest == nil {
		return 0
	}
	return b.newest.Stamp.Era
}

// written is a view as bytes.
func written(v *view.View) []byte {
	return view.AppendMessage(nil, &view.Message{Kind: view.Committed, Inc: 1, Stamp: v.Stamp, View: v})
}

// learned is called when a node has stored a view.
func (w *World) learned(n *node, v *view.View) {
	b := &w.books
	if v == b.last[n.id] {
		return
	}
	b.last[n.id] = v
	text := written(v)
	if b.newest == nil {
		b.newest, b.changed = v, w.now
		b.lastInc = map[view.NodeID]view.Incarnation{}
		b.remember(v)
	}
	if known, ok := b.chain[v.Stamp]; ok {
		if !bytes.Equal(known, text) {
			w.violate("chain", "two views %s were committed: node %d learned %v", v.Stamp, n.id, v)
		}
		return
	}
	b.chain[v.Stamp] = text
	w.res.Views++
	w.count("view")
	w.digest(v.Stamp.Number())
	w.oracleOwner(v)
	if v.Stamp.Era == b.newest.Stamp.Era && v.Stamp.Chain != b.newest.Stamp.Chain {
		if !b.forced {
			w.violate("chain", "view %s is of another chain than %s, and nobody forced", v.Stamp, b.newest.Stamp)
		}
		b.parted = true
		w.count("view of another chain")
	}
	if b.newest != v && v.Stamp.Number() <= b.newest.Stamp.Number() {
		w.oracleLate(n, v)
		return
	}
	if b.newest != v && v.Stamp.Era == b.newest.Stamp.Era {
		w.oracleSuccessor(v)
	}
	if v.Stamp.Era != b.newest.Stamp.Era {
		for _, l := range b.ledgers {
			*l = ledger{}
		}
		b.parted = false
		w.count("view by force")
	}
	b.newest, b.changed = v, w.now
	b.remember(v)
	for _, o := range w.nodes {
		w.oracleLease(o)
	}
	for i := range v.Resources {
		r := &v.Resources[i]
		if r.Handed {
			w.count("resource handed over")
		}
		switch {
		case r.Forced:
			*b.ledgers[r.Name] = ledger{forcedAt: v.Stamp.Number()}
			w.count("resource by force")
		case r.Owner == view.Nobody:
			w.count("resource of nobody")
		case r.InSync.Len() == 1:
			w.count("resource alone")
		default:
			w.count("resource in sync")
		}
	}
	w.oracleKept("when " + v.Stamp.String() + " was learned")
}

func (b *books) remember(v *view.View) {
	for i := range v.Members {
		b.lastInc[v.Members[i].ID] = v.Members[i].Inc
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
	if w.books.newest == nil {
		return
	}
	w.count("everything wiped")
	w.tracef("nobody knows any view")
	w.books.newest = nil
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
