package views

import (
	"fmt"

	"hastd/cluster/view"
)

// oracleKept: every node that may own a resource without force has every acknowledged
// write of it.
func (w *World) oracleKept(when string) {
	v := w.books.Newest
	if w.books.Parted {
		return
	}
	for i := range v.Resources {
		r := &v.Resources[i]
		l := w.books.ledgers[r.Name]
		for _, id := range r.InSync.IDs() {
			n := w.nodes[id]
			if inc := n.inc(); inc == 0 || inc != w.books.Inc(id) {
				continue // another life: it is out with its first promise
			}
			if lost := l.acked.missing(&n.store.replica(r.Name).content); lost >= 0 {
				w.violate("kept", "%s write %d of %s was missing on node %d, in sync by view %s", when, lost, r.Name, id, v.Stamp)
			}
		}
	}
}

// oracleOwner: an owner is in the in-sync set, a member and no witness.
func (w *World) oracleOwner(v *view.View) {
	if wrong := Owners(v); wrong != "" {
		w.violate("owner", "%s", wrong)
	}
}

// Owners says what is wrong with the owners of a view.
func Owners(v *view.View) string {
	for i := range v.Resources {
		r := &v.Resources[i]
		if r.Owner == view.Nobody {
			continue
		}
		if m := v.Member(r.Owner); m == nil || m.Witness || !r.InSync.Has(r.Owner) {
			return fmt.Sprintf("%s of view %s belongs to node %d, in sync are %s", r.Name, v.Stamp, r.Owner, r.InSync)
		}
	}
	return ""
}
