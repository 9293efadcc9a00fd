package cluster

// oracleKept: every replica that is owned without force, or would be, holds everything
// that was acknowledged (test/sim says what a loss of power excuses). In memsync a write may be
// on its way to the medium: there only who becomes primary is judged.
func (w *World) oracleKept(when string) {
	v := w.chain.Newest
	if v == nil || w.chain.Parted {
		return
	}
	for _, p := range w.pairs {
		r := v.Resource(p.name)
		if r == nil || !p.Written() {
			continue
		}
		for side, h := range p.hosts {
			if !r.InSync.Has(h.id) || h.inc == 0 || h.inc != v.InSyncAs(h.id) {
				continue // another life: it is out with its first promise
			}
			if !p.Consistent(side) || p.Running(side) && p.Status(side).Disk == "failed" {
				continue // its own record says so, and it is not promoted
			}
			if lost := p.Missing(side); lost != "" {
				w.violate("kept", "%s node %d was in sync of %s by view %s: %s", when, h.id, p.name, v.Stamp, lost)
			}
		}
	}
}

// look has the oracles look at the replicas now and then.
func (w *World) look() {
	w.after(w.span(second/2, 2*second), w.look)
	for _, p := range w.pairs {
		p.Look()
	}
	w.oracleKept("at a random moment")
	w.oracleSplit()
}

// oracleSplit: nobody writes apart unless a person forces.
func (w *World) oracleSplit() {
	if w.chain.Forced || w.forced() {
		return
	}
	for _, p := range w.pairs {
		if p.Parted() {
			w.violate("split", "%s: two histories, although nobody forced\n%s", p.name, w.status())
		}
	}
}
