package sim

import (
	"hastd/replicate"
)

// runRandom is a whole run: an eventful part, then a quiet one in which all must
// come to order.
func (w *World) runRandom() {
	for i := range w.nodes {
		n := &w.nodes[i]
		w.after(w.span(0, 50*millisecond), func() {
			n.start()
			n.role(1, false)
		})
	}
	meet := w.span(50*millisecond, 200*millisecond)
	if w.chance(0.85) {
		meet = w.span(500*millisecond, 700*millisecond) // let them meet first
	}
	w.after(meet, w.operate)
	w.nextFault = 300 + w.rng.IntN(300)
	w.nextCopy, w.nextRestore = 50+w.nextFault/2, 2*w.nextFault
	probe := 100
	for w.events < w.opt.Events || w.faults < 5 || w.crashes < 1 {
		if w.events > maxEvents {
			break
		}
		if !w.next() {
			w.violate("live", "nothing more happens")
		}
		if w.events >= w.nextFault {
			w.nextFault = w.events + w.prof.FaultGap/2 + w.rng.IntN(w.prof.FaultGap)
			w.injectFault()
		}
		if w.prof.Restores {
			w.copyAndRestore()
		}
		if w.events >= probe {
			probe = w.events + 50 + w.rng.IntN(150)
			w.oracleDirty("at a random moment", false)
			w.oracleEqual()
		}
	}
	w.settle()
}

// settle stops the faults and helps until the pair is complete and quiet, then
// looks at everything.
func (w *World) settle() {
	w.quiet = true
	w.tracef("faults stop")
	w.healAll()
	w.prof.Think = 50 * millisecond
	for i := range w.nodes {
		w.nodes[i].app.atOnce, w.nodes[i].app.held = 2, 0
	}
	end := w.now + settleTime
	limit := w.events + settleEvents
	good := int64(0)
	nextHelp := w.now
	calm := false
	for {
		if w.now >= nextHelp {
			nextHelp = w.now + 100*millisecond
			w.help()
			w.after(100*millisecond, func() {})
			if w.complete() && w.nodes[0].inFlow() {
				if good == 0 {
					good = w.now
				}
				if w.now-good > 300*millisecond && !calm {
					calm = true
					for i := range w.nodes {
						w.nodes[i].app.close()
						w.nodes[i].app.manual = true
					}
				}
			} else {
				good = 0
			}
			if calm && good != 0 && w.still() {
				break
			}
		}
		if w.now > end || w.events > limit {
			a, b := w.describe(&w.nodes[0]), w.describe(&w.nodes[1])
			w.violate("live", "not complete %ds after the last fault: A %s; B %s", (w.now-end+settleTime)/second, a, b)
		}
		if !w.next() {
			w.violate("live", "nothing more happens")
		}
	}
	w.finalChecks()
}

func (w *World) describe(n *node) string {
	if n.state != running {
		return "not running"
	}
	s := n.status()
	t := s.Role.String() + " " + s.Status + " " + s.Connection + " disk " + s.Disk + " sync " + s.SyncState + " (" + s.Reason + ")"
	if s.Suspended {
		t += " suspended " + s.SuspendReason
	}
	if n.app.pending > 0 {
		t += " requests wait"
	}
	return t
}

// finalChecks reads everything back through the provider and compares.
func (w *World) finalChecks() {
	w.oracleEqual()
	w.oracleDirty("at the end", false)
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.prov != provUp {
			continue
		}
		n.app.manual = true
		step := int(replicate.MaxRequest(keepdirty, extentSize)) / sectorSize
		for s := 0; s < n.judge.sectors; s += step {
			n.app.issue(replicate.ReqRead, 0, s, min(step, n.judge.sectors-s))
		}
		n.app.issue(replicate.ReqFlush, 0, 0, 0)
	}
	end := w.now + 30*second
	for !w.still() {
		if w.now > end || !w.next() {
			w.violate("live", "the last reads and flushes are not answered")
		}
	}
	w.oracleHandles()
	for i := range w.nodes {
		w.nodes[i].checkFloor("at the end", w.nodes[i].disk.stable)
	}
	w.oracleEqual()
	w.oracleDirty("after the last flush", false)
}
