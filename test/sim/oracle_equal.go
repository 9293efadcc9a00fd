package sim

// Invariants 6 and 7: when both say complete and nothing is in flight, the
// replicas are byte-identical, on the media too once flushed.

// still says whether nothing is under way anywhere.
func (w *World) still() bool {
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.state != running || n.app.pending > 0 || n.busy > 0 || n.commit || len(n.mailbox) > 0 || len(n.commands) > 0 {
			return false
		}
	}
	return w.link.idle()
}

// complete says whether both nodes call the pair complete.
func (w *World) complete() bool {
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.state != running || n.sess == nil || n.status().Status != "complete" {
			return false
		}
	}
	return true
}

// oracleEqual compares the replicas at a quiet moment.
func (w *World) oracleEqual() {
	if !w.still() || !w.complete() || !w.nodes[0].inFlow() {
		return
	}
	w.cover.count("checked", "equal")
	a, b := &w.nodes[0], &w.nodes[1]
	for s := range min(len(a.disk.cur), len(b.disk.cur), a.judge.sectors) {
		if x, y := a.disk.cur[s], b.disk.cur[s]; x != y && !lied(x) && !lied(y) {
			w.violate("equal", "status is complete, but sector %d differs: A has write %d, B write %d", s, w.owner(a.disk.cur[s]), w.owner(b.disk.cur[s]))
		}
	}
}

// oracleHandles: with nothing in flight the machine holds no memory.
func (w *World) oracleHandles() {
	for i := range w.nodes {
		if n := &w.nodes[i]; n.state == running && n.mem.live > 0 {
			for k := range n.mem.mems {
				if m := &n.mem.mems[k]; m.owned {
					w.violate("handles", "%s: with nothing in flight the machine still holds %d buffers, one of kind %d with %d sectors", n.name, n.mem.live, m.kind, len(m.stamps))
				}
			}
		}
	}
}
