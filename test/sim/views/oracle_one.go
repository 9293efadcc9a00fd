package views

// oracleOne: nobody acknowledges a write after a later owner acknowledged one. A write
// takes effect when the peer took it, or, alone, when it is acknowledged.
func (w *World) oracleOne(n *node, r *replica, id int, alone bool, highest uint64) {
	if highest > r.number {
		how := "with its peer"
		if alone {
			how = "alone"
		}
		w.violate("one", "node %d, owner of %s by %d.%d, acknowledged write %d %s after an owner by %d.%d had acknowledged",
			n.id, r.name, r.number>>32, uint32(r.number), id, how, highest>>32, uint32(highest))
	}
}

// oracleAlone: at no instant may two nodes acknowledge writes of a resource without
// asking each other.
func (w *World) oracleAlone() {
	for _, c := range w.cfg.Resources {
		free := 0
		for _, n := range w.nodes {
			if r := n.store.replica(c.Name); r != nil && r.primary && !r.hold && w.counts(r) {
				free++
			}
		}
		if free > 1 {
			w.violate("one", "%d nodes may acknowledge writes of %s alone", free, c.Name)
		}
	}
}

// counts says whether what an owner does is judged: not if a person forced another
// view, or another owner, since the view that it owns by.
func (w *World) counts(r *replica) bool {
	b := &w.books
	return uint32(r.number>>32) >= b.Era() && r.number >= b.ledgers[r.name].forcedAt && !b.Parted
}
