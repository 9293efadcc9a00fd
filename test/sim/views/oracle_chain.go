package views

import (
	"bytes"

	"hastd/cluster/view"
)

// oracleSuccessor: views of an era are learned without a gap, for a view is elected by
// those who know the one before. (That there is one of each, learned says.)
func (w *World) oracleSuccessor(v *view.View) {
	b := w.books.newest
	if v.Stamp.Chain == b.Stamp.Chain && v.Stamp.Index != b.Stamp.Index+1 {
		w.violate("chain", "view %s was committed after %s", v.Stamp, b.Stamp)
	}
}

// oracleLate: what is new and not the newest is of an older era, or of another chain.
func (w *World) oracleLate(n *node, v *view.View) {
	b := w.books.newest
	if v.Stamp.Era == b.Stamp.Era && v.Stamp.Chain == b.Stamp.Chain {
		w.violate("chain", "node %d learned %s, of which nobody knew, after %s was committed", n.id, v.Stamp, b.Stamp)
	}
	w.count("view beside the newest")
}

// judgeStored: what a node stores never goes back within an incarnation.
func (w *World) judgeStored(n *node, before []byte, s *view.State) {
	if before == nil {
		return
	}
	old, err := view.ReadState(before)
	if err != nil || old.Inc != s.Inc {
		return
	}
	a, b := old.View, s.View
	switch {
	case s.Serial < old.Serial, s.Serial == old.Serial && !sameBut(old, s):
		w.violate("stored", "node %d stored change %d after %d", n.id, s.Serial, old.Serial)
	case a == nil && b == nil:
	case a != nil && (b == nil || b.Stamp.Number() < a.Stamp.Number()):
		w.violate("stored", "node %d stored view %v after %v", n.id, b, a)
	case a == nil || b.Stamp != a.Stamp:
		return // a newer view: promise and proposal are of its successor
	}
	switch {
	case s.Prom.Compare(old.Prom) < 0:
		w.violate("stored", "node %d stored promise %v after %v", n.id, s.Prom, old.Prom)
	case old.Acc != nil && (s.Acc == nil || s.Acc.Round.Compare(old.Acc.Round) < 0):
		w.violate("stored", "node %d forgot proposal %v", n.id, old.Acc.Round)
	case s.Acc != nil && s.Acc.Round.Compare(s.Prom) > 0:
		w.violate("stored", "node %d stored proposal %v above its promise %v", n.id, s.Acc.Round, s.Prom)
	}
}

// sameBut says whether two states differ in what was seen of others at most.
func sameBut(a, b *view.State) bool {
	x, y := *a, *b
	x.Seen, y.Seen = nil, nil
	return bytes.Equal(view.AppendState(nil, &x), view.AppendState(nil, &y))
}
