package views

import (
	"hastd/cluster/view"
)

// Bounds of the end of a run, in virtual time. A round takes a second at most, a
// failed one is begun anew within four, and taking a node back takes rejoin.
const (
	oddTime   = 20 * second // views settle when the links stand, whichever stand
	stillTime = 6 * second  // and then there is no new one
	healTime  = 15 * second // owners serve once everything is back, or once a person helped
	syncTime  = 15 * second // and all is in sync
)

// Run plays one seed.
func Run(opt Options) Result {
	w := newWorld(opt, profile{data: 2})
	p := draw(opt.Seed, w.rng)
	rng := w.rng
	w = newWorld(opt, p)
	w.rng = rng
	w.random()
	return w.finish()
}

func (w *World) finish() Result {
	w.res.Violation, w.res.Events, w.res.Time = w.bad, w.events, w.now
	w.count("run")
	return w.res
}

// random is a random run: faults, a while of odd but standing links, and the end.
func (w *World) random() {
	w.setNet()
	for _, n := range w.nodes {
		w.after(w.span(0, second), func() {
			if n.m == nil {
				n.start()
			}
		})
	}
	w.after(0, w.work)
	if w.chance(0.8) {
		w.net.Loss = 0
		w.runFor(3 * second) // let them meet first
	}
	w.setNet()
	for end := w.now + view.Instant(w.prof.chaos); w.now < end && w.bad == nil; {
		w.runFor(w.span(w.prof.faultGap/4, 2*w.prof.faultGap))
		w.injectFault()
	}
	w.quiet = true
	if w.bad == nil && w.chance(0.5) {
		w.oddLinks()
	}
	if w.bad == nil {
		w.heal()
	}
}

// work is applications writing, and replicas being copied, for ever.
func (w *World) work() {
	w.after(w.span(w.prof.writeGap/2, 2*w.prof.writeGap), w.work)
	n := w.any()
	if n.asleep || !n.on {
		return
	}
	for _, r := range n.store.replicas {
		if r.primary && w.chance(0.7) && len(r.waiting) < 8 {
			n.store.put(r)
		}
		n.store.copyOver(r)
	}
}

// everybody is started and awake.
func (w *World) everybody() {
	for _, n := range w.nodes {
		n.fuse = 0
		n.wake()
		if n.m == nil {
			n.start()
		}
		if n.m != nil {
			n.step(view.Leave{On: false})
		}
	}
}

// oddLinks: with any links, as long as they stand, the views come to rest.
func (w *World) oddLinks() {
	w.tracef("ODD LINKS")
	w.setNet()
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			if a != b && w.chance(0.25) {
				w.net.Set(a.id, b.id, true)
			}
		}
	}
	w.runFor(Latest)
	w.everybody()
	w.runFor(oddTime)
	views := w.res.Views
	w.runFor(stillTime)
	if w.bad == nil && w.res.Views != views {
		w.violate("still", "%d views within %ds although the links stood for %ds\n%s", w.res.Views-views, stillTime/second, oddTime/second, w.status())
	}
	w.count("odd links")
}

// heal: once faults stop, whoever can serve does, within a bound, with nobody's help;
// and then, with help where a person is needed, everything is as it was.
func (w *World) heal() {
	w.tracef("HEAL")
	w.setNet()
	w.runFor(Latest)
	w.everybody()
	w.oracleServes()
}
