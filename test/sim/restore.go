package sim

import "hastd/metadata"

// A component restored from a copy (replication rules, section 12: a copy taken
// within the same connection cannot be told apart, so a restored component must be
// created anew). One run in restoreEvery has such an accident, sometimes with an
// operator who goes on with the old copy before it met its peer.
//
// From that moment on World.restored says that what people were promised may be
// gone, and violate is deaf to the oracles that judge promises: durable, reads,
// overwrite, split and false-split for the rest of the run; ack, dirty, equal and epoch
// until the replica was created anew. All others go on: whatever a copy says, no daemon
// may crash, leak, hang, break the metadata or take its peer for broken, and once
// faults stop and the operator helps, the pair becomes complete.

// restoreEvery: every so manieth seed. The draw takes nothing from the run's own
// numbers, so that other runs are what they would be without it.
const restoreEvery = 20

// replicaCopy is what a copy of a component holds.
type replicaCopy struct {
	taken bool
	data  []uint32
	meta  []byte
}

// keepCopy copies a component as it is now, in use or not.
func (n *node) keepCopy(c *replicaCopy) {
	c.taken = true
	c.data = append(c.data[:0], n.disk.cur...)
	c.meta = append(c.meta[:0], n.disk.metaCur...)
	n.w.tracef("%s: a copy is taken", n.name)
}

// restore puts a copy back. The daemon is down.
func (n *node) restore(c *replicaCopy) {
	w, j := n.w, &n.judge
	w.tracef("%s: an older copy is put back", n.name)
	w.cover.fault("restore")
	w.restored, n.copied = true, true
	n.disk.blank()
	copy(n.disk.cur, c.data)
	copy(n.disk.stable, c.data)
	copy(n.disk.metaCur, c.meta)
	copy(n.disk.metaStable, c.meta)
	j.sbOK = false // nothing is to be concluded from what it said before
	n.judgeSuper()
	n.forget()
	n.recovering = false
}

// forget is for a replica that does not hold what it held.
func (n *node) forget() {
	j := &n.judge
	clear(j.floor)
	j.gone += len(j.pending)
	j.pending = j.pending[:0]
	j.alone, j.wild, j.forced = false, false, true
}

// deaf says whether an oracle cannot know better since a replica was restored.
func (w *World) deaf(oracle string) bool {
	if !w.restored {
		return false
	}
	switch oracle {
	case "durable", "reads", "overwrite", "split", "false-split":
		return true
	case "ack", "dirty", "equal", "epoch":
		return w.nodes[0].copied || w.nodes[1].copied
	}
	return false
}

// copyAndRestore takes copies now and then and has the accident.
func (w *World) copyAndRestore() {
	if w.events >= w.nextCopy {
		w.nextCopy = w.events + 50 + w.rng.IntN(250)
		n := &w.nodes[w.rng.IntN(2)]
		c := &n.copies[w.rng.IntN(len(n.copies))]
		if !c.taken || w.chance(0.4) {
			n.keepCopy(c)
		}
	}
	if w.events < w.nextRestore {
		return
	}
	w.nextRestore = w.events + 500 + w.rng.IntN(1500)
	n := &w.nodes[w.rng.IntN(2)]
	c := &n.copies[w.rng.IntN(len(n.copies))]
	if !c.taken {
		return
	}
	w.faults++
	if w.chance(0.6) {
		w.restoreLater(n, c)
		return
	}
	w.accident(n, c, w.chance(0.6))
}

// restoreLater lets the pair meet again and part in peace before the accident, so
// that the copy is of an earlier connection although its counters still fit.
func (w *World) restoreLater(n *node, c *replicaCopy) {
	p := w.peerOf(n)
	n.app.hold(5 * second)
	p.app.hold(5 * second)
	unlessQuiet := func(d int64, f func()) {
		w.after(d, func() {
			if !w.quiet {
				f()
			}
		})
	}
	for i := range int64(2) {
		unlessQuiet(200*millisecond+i*900*millisecond, func() { w.link.down(n, "connection reset") })
	}
	unlessQuiet(2*second, func() {
		for i := range w.nodes {
			if x := &w.nodes[i]; x.idleOrders() && x.prov != provNone {
				x.role(metadata.Secondary, true)
			}
		}
	})
	unlessQuiet(2200*millisecond, func() { w.accident(n, c, w.chance(0.7)) })
}

// accident puts a copy back; goOn: the operator promotes it while its peer is out
// of reach, and lets them meet afterwards.
func (w *World) accident(n *node, c *replicaCopy, goOn bool) {
	if n.state == running {
		w.crashes++
		n.die()
	}
	n.state = stopped
	n.restore(c)
	if !goOn {
		return
	}
	w.link.setCut(0, true)
	w.link.setCut(1, true)
	w.after(w.span(millisecond, 50*millisecond), func() {
		if !w.quiet && n.state == stopped {
			n.start()
			n.role(metadata.Primary, true)
		}
	})
	w.after(w.span(700*millisecond, 3*second), func() {
		w.link.setCut(0, false)
		w.link.setCut(1, false)
	})
}

// giveUpCopy is the helping operator's part: half of them know what happened and
// create a restored replica anew, the others go by what the daemons say. It says
// whether it did something.
func (w *World) giveUpCopy() bool {
	if w.opt.Seed/restoreEvery%2 == 0 {
		return false
	}
	for i := range w.nodes {
		if n := &w.nodes[i]; n.copied && w.peerOf(n).consistent() {
			w.replace(n)
			return true
		}
	}
	return false
}
