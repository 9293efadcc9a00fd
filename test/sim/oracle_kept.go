package sim

import "fmt"

// With quorum: a replica that the views call in sync, and what an owner shows, hold
// everything that was acknowledged. Excused is, until a sync, what no flush covered
// when the replica's host lost power (it may have confirmed a write that is acknowledged
// only afterwards), and in memsync what the peer had only in memory
// when its daemon ended or its disk failed.

// keptBook is what must not be lost, by sector.
type keptBook struct {
	must []int32 // the newest acknowledged write
	firm []int32 // the newest that a flush covers, too
	lost [2]uint32
}

func (w *World) keepAll() {
	n := len(w.ledger.head)
	w.kept = keptBook{must: make([]int32, n), firm: make([]int32, n)}
}

// keptAcked is told of a write that was acknowledged.
func (w *World) keptAcked(id int32) {
	x := &w.ledger.writes[id]
	for s := x.sec; s < x.sec+x.n; s++ {
		w.kept.must[s] = w.ledger.newer(id, w.kept.must[s])
	}
}

// keptFirm is told of what a flush, or FUA, made durable.
func (w *World) keptFirm(sec, cnt, id int32) {
	for s := sec; s < sec+cnt; s++ {
		w.kept.firm[s] = w.ledger.newer(id, w.kept.firm[s])
	}
}

// keptLoses notes that a node loses what is only in its caches.
func (w *World) keptLoses(n *node) {
	if !w.prof.Quorum {
		return
	}
	w.tick++
	w.kept.lost[n.id] = w.tick
}

// keptMoment ends the excuse of a replica that was made whole, and what must be kept when
// a person chose a replica that is not.
func (w *World) keptMoment(n *node, m moment) {
	switch m {
	case momentSynced:
		w.keptGone(w.peerOf(n))
		w.kept.lost[n.id] = 0
	case momentJoined:
		w.kept.lost = [2]uint32{}
	case momentForced:
		w.keptForget()
	}
}

// keptForget: a person chose what there is.
func (w *World) keptForget() {
	clear(w.kept.must)
	clear(w.kept.firm)
}

// missing says what a replica lacks of what must be kept, "" if nothing.
func (n *node) missing() string {
	w, l := n.w, &n.w.ledger
	for s, must := range w.kept.must {
		if must == 0 || s >= len(n.disk.cur) {
			continue
		}
		v := n.disk.cur[s]
		id, ok := l.permitted(s, v, must)
		if ok {
			continue
		}
		if l.writes[must].issue <= w.kept.lost[n.id] {
			if id, ok = l.permitted(s, v, w.kept.firm[s]); ok {
				continue
			}
			must = w.kept.firm[s]
		}
		return fmt.Sprintf("sector %d holds write %d (%s) on %s, and write %d (%s, issued at %d) was acknowledged; unflushed ones issued up to %d may be lost there",
			s, id, l.history(id, l.writes[max(id, 0)].term), n.name, must, l.describe(must), l.writes[must].issue, w.kept.lost[n.id])
	}
	return ""
}

// keptTerm judges what a provider shows from now on: what src has.
func (w *World) keptTerm(n, src *node) {
	if lost := src.missing(); lost != "" {
		w.violate("kept", "%s becomes primary: %s", n.name, lost)
	}
	w.keptGone(src)
}

// keptGone: what src has counts from now on, in a term or as the source of a sync. What
// is excused there is gone for good.
func (w *World) keptGone(src *node) {
	l := &w.ledger
	for s, must := range w.kept.must {
		if must == 0 || s >= len(src.disk.cur) || l.writes[must].issue > w.kept.lost[src.id] {
			continue
		}
		if _, ok := l.permitted(s, src.disk.cur[s], must); !ok {
			w.kept.must[s] = w.kept.firm[s]
		}
	}
}
