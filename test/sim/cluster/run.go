package cluster

import (
	"math/rand/v2"

	"hastd/test/sim/views"
)

// Sim is what a seed is here.
var Sim = views.Play{Run: Run, Command: "test/sim/cluster/cmd/cluster", Expected: expected}

// Run plays one seed.
func Run(opt views.Options) (r views.Result) {
	rng := rand.New(rand.NewPCG(opt.Seed, 0x636c7573))
	w := newWorld(opt, draw(opt.Seed, rng), rng)
	defer func() { r = w.finish(recover()) }()
	w.random()
	return r
}

// random is a random run: faults, and the end.
func (w *World) random() {
	w.begin()
	if w.chance(0.9) {
		w.net.Loss = 0
		w.runFor(4 * second) // let them meet first
	}
	w.setNet()
	for end := w.now + int64(w.prof.chaos); w.now < end; {
		w.runFor(w.span(w.prof.faultGap/4, 2*w.prof.faultGap))
		w.injectFault()
	}
	w.quiet = true
	if w.chance(0.5) {
		w.oneMissing()
	}
	w.heal()
}

// begin boots all hosts.
func (w *World) begin() {
	w.setNet()
	for _, h := range w.hosts {
		w.after(w.span(0, second), h.boot)
	}
	w.after(second, w.look)
}

// back brings hosts back: power, daemons, links; disks work and nobody leaves.
func (w *World) back(all bool, gone *host) {
	w.setNet()
	for _, p := range w.pairs {
		p.Quiet()
	}
	for _, h := range w.hosts {
		if !all && h == gone {
			continue
		}
		h.mend()
		w.after(second, func() {
			if v := h.vipd; v != nil {
				v.stay()
			}
		})
	}
}

// heal: once faults stop, whoever can serve does, within a bound, with nobody's help;
// and then, with help where a person is needed, everything is as it was.
func (w *World) heal() {
	w.tracef("HEAL")
	w.back(true, nil)
	w.runFor(views.Latest)
	w.oracleServes()
	w.look()
}

// oneMissing: faults stop, but one host is not there. A majority with a good replica
// serves within the bound.
func (w *World) oneMissing() {
	gone := w.any()
	w.tracef("NODE %d IS MISSING", gone.id)
	w.back(false, gone)
	if w.chance(0.5) {
		gone.powerLoss()
	} else {
		w.net.CutOff(gone.id)
		w.links()
	}
	w.runFor(views.Latest)
	w.oracleMajority(gone)
}
