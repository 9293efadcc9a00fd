package views

import (
	"bytes"
	"fmt"

	"hastd/cluster/view"
)

// Chain judges the views of a run: of each generation there is one, and each is the
// successor of the one before. The zero Chain knows none.
type Chain struct {
	Newest *view.View // of the highest generation
	Forced bool       // a person forced a view in this run
	Parted bool       // two chains of one era: nothing is promised until the next era

	seen map[view.Stamp][]byte     // every view learned, as it is written
	last [view.MaxNodes]*view.View // what each stored last
	incs map[view.NodeID]view.Incarnation
}

// News is what a view that was learned means.
type News struct {
	First  bool // nobody learned it before
	Newest bool // it is the newest now
	Era    bool // and begins another era
	Beside bool // it is of another chain of the same era
	Wrong  string
}

// Len is how many views there were.
func (c *Chain) Len() int { return len(c.seen) }

// Era is the highest that anybody knows. What older ones do is the person's who forced.
func (c *Chain) Era() uint32 {
	if c.Newest == nil {
		return 0
	}
	return c.Newest.Stamp.Era
}

// Inc is the incarnation that a node was a member in last.
func (c *Chain) Inc(id view.NodeID) view.Incarnation { return c.incs[id] }

// Learned is called when a node has stored a view.
func (c *Chain) Learned(id view.NodeID, v *view.View) (n News) {
	if v == c.last[id] {
		return n
	}
	c.last[id] = v
	text := view.AppendMessage(nil, &view.Message{Kind: view.Committed, Inc: 1, Stamp: v.Stamp, View: v})
	was := c.Newest
	if was == nil {
		c.incs = map[view.NodeID]view.Incarnation{}
		c.take(v)
	}
	if known, ok := c.seen[v.Stamp]; ok {
		if !bytes.Equal(known, text) {
			n.Wrong = fmt.Sprintf("two views %s were committed: node %d learned %v", v.Stamp, id, v)
		}
		return n
	}
	if c.seen == nil {
		c.seen = map[view.Stamp][]byte{}
	}
	c.seen[v.Stamp] = text
	n.First = true
	if was == nil {
		n.Newest = true
		return n
	}
	sameEra := v.Stamp.Era == was.Stamp.Era
	if n.Beside = sameEra && v.Stamp.Chain != was.Stamp.Chain; n.Beside {
		if !c.Forced {
			n.Wrong = fmt.Sprintf("view %s is of another chain than %s, and nobody forced", v.Stamp, was.Stamp)
		}
		c.Parted = true
	}
	if v.Stamp.Number() <= was.Stamp.Number() {
		// What is new and not the newest is of an older era, or of another chain.
		if sameEra && !n.Beside {
			n.Wrong = fmt.Sprintf("node %d learned %s, of which nobody knew, after %s was committed", id, v.Stamp, was.Stamp)
		}
		return n
	}
	if sameEra && !n.Beside && v.Stamp.Index != was.Stamp.Index+1 {
		// Without a gap, for a view is elected by those who know the one before.
		n.Wrong = fmt.Sprintf("view %s was committed after %s", v.Stamp, was.Stamp)
	}
	if n.Era = !sameEra; n.Era {
		c.Parted = false
	}
	n.Newest = true
	c.take(v)
	return n
}

// Back makes an older view the newest: nobody knows the later ones any more.
func (c *Chain) Back(v *view.View) {
	c.Parted = false
	c.take(v)
}

func (c *Chain) take(v *view.View) {
	c.Newest = v
	for i := range v.Members {
		c.incs[v.Members[i].ID] = v.Members[i].Inc
	}
}

// Stored says what is wrong with what a node stores: it never goes back within an
// incarnation.
func Stored(id view.NodeID, before []byte, s *view.State) string {
	if before == nil {
		return ""
	}
	old, err := view.ReadState(before)
	if err != nil || old.Inc != s.Inc {
		return ""
	}
	a, b := old.View, s.View
	switch {
	case s.Serial < old.Serial, s.Serial == old.Serial && !sameBut(old, s):
		return fmt.Sprintf("node %d stored change %d after %d", id, s.Serial, old.Serial)
	case a == nil && b == nil:
	case a != nil && (b == nil || b.Stamp.Number() < a.Stamp.Number()):
		return fmt.Sprintf("node %d stored view %v after %v", id, b, a)
	case a == nil || b.Stamp != a.Stamp:
		return "" // a newer view: promise and proposal are of its successor
	}
	switch {
	case s.Prom.Compare(old.Prom) < 0:
		return fmt.Sprintf("node %d stored promise %v after %v", id, s.Prom, old.Prom)
	case old.Acc != nil && (s.Acc == nil || s.Acc.Round.Compare(old.Acc.Round) < 0):
		return fmt.Sprintf("node %d forgot proposal %v", id, old.Acc.Round)
	case s.Acc != nil && s.Acc.Round.Compare(s.Prom) > 0:
		return fmt.Sprintf("node %d stored proposal %v above its promise %v", id, s.Acc.Round, s.Prom)
	}
	return ""
}

// sameBut says whether two states differ in what was seen of others at most.
func sameBut(a, b *view.State) bool {
	x, y := *a, *b
	x.Seen, y.Seen = nil, nil
	return bytes.Equal(view.AppendState(nil, &x), view.AppendState(nil, &y))
}
