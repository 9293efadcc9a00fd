package sim

import (
	"hastd/replicate"
)

// phase is how far a run has come.
type phase uint8

const (
	eventful phase = iota // faults, careless operators, applications
	unaided               // faults have stopped and nobody helps (heal.go)
	aided                 // an operator helps until the pair is complete and quiet
	reading               // everything is read back
	over
)

// course is where a run stands.
type course struct {
	phase  phase
	probe  int   // the event at which replicas are compared next
	began  int64 // the phase
	limit  int   // events within which it must end
	look   int64 // when to look next
	good   int64 // since when the pair is complete
	calm   bool  // applications stopped
	since  int64 // since when a reason for help is told
	healed int64 // how long the pair took to be complete without help; 0: it was not
}

// lookEvery is how often a settling pair is looked at, and calmTime how long it
// must stay complete.
const (
	lookEvery = 100 * millisecond
	calmTime  = 300 * millisecond
)

// advance handles one event of a run and says whether there is more to come.
func (w *World) advance() bool {
	c := &w.course
	switch c.phase {
	case eventful:
		if w.site == nil && (w.events > maxEvents || w.events >= w.opt.Events && w.faults >= 5 && w.crashes >= 1) {
			w.beginUnaided()
			return true
		}
		w.step()
		if w.events >= w.nextFault {
			w.nextFault = w.events + w.prof.FaultGap/2 + w.rng.IntN(w.prof.FaultGap)
			w.injectFault()
		}
		if w.prof.Restores {
			w.copyAndRestore()
		}
		if w.events >= c.probe {
			c.probe = w.events + 50 + w.rng.IntN(150)
			w.oracleDirty("at a random moment", false)
			w.oracleEqual()
		}
	case unaided:
		w.advanceUnaided()
	case aided:
		w.advanceAided()
	case reading:
		if w.still() {
			w.endChecks()
			c.phase = over
			return false
		}
		if w.now > c.began+30*second {
			w.violate("live", "the last reads and flushes are not answered")
		}
		w.step()
	case over:
		return false
	}
	return true
}

func (w *World) step() {
	if !w.next() {
		w.violate("live", "nothing more happens")
	}
}

// begin queues what starts a random run.
func (w *World) begin() {
	if w.site == nil {
		for i := range w.nodes {
			n := &w.nodes[i]
			w.after(w.span(0, 50*millisecond), n.powerUp)
		}
	}
	meet := w.span(50*millisecond, 200*millisecond)
	if w.chance(0.85) {
		meet = w.span(500*millisecond, 700*millisecond) // let them meet first
	}
	w.after(meet, w.operate)
	w.nextFault = w.events + 300 + w.rng.IntN(300)
	w.nextCopy, w.nextRestore = 50+w.nextFault/2, 2*w.nextFault
	w.course = course{probe: w.events + 100}
}

// boot starts the daemon as `start-as = "secondary"` does.
func (n *node) boot() {
	n.start()
	n.role(1, false)
}

func (w *World) enter(p phase) {
	w.course = course{phase: p, began: w.now, look: w.now, limit: w.events + settleEvents, healed: w.course.healed}
}

// advanceAided helps until the pair is complete and quiet.
func (w *World) advanceAided() {
	c := &w.course
	if w.now >= c.look {
		c.look = w.now + lookEvery
		w.help()
		w.after(lookEvery, func() {})
		if w.complete() && w.nodes[0].inFlow() {
			if c.good == 0 {
				c.good = w.now
			}
			if w.now-c.good > calmTime && !c.calm {
				c.calm = true
				for i := range w.nodes {
					w.nodes[i].app.close()
					w.nodes[i].app.manual = true
				}
			}
		} else {
			c.good = 0
		}
		if c.calm && c.good != 0 && w.still() {
			w.readBack()
			return
		}
	}
	if w.now > c.began+settleTime || w.events > c.limit {
		a, b := w.describe(&w.nodes[0]), w.describe(&w.nodes[1])
		w.violate("live", "not complete %ds after the operator began to help: A %s; B %s", (w.now-c.began)/second, a, b)
	}
	w.step()
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

// readBack compares the replicas and reads everything through the provider.
func (w *World) readBack() {
	w.enter(reading)
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
}

// endChecks looks at everything once nothing is under way any more.
func (w *World) endChecks() {
	w.oracleHandles()
	for i := range w.nodes {
		w.nodes[i].checkFloor("at the end", w.nodes[i].disk.stable)
	}
	w.oracleEqual()
	w.oracleDirty("after the last flush", false)
}
