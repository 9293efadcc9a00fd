package sim

import (
	"fmt"
	"math/rand/v2"
)

// Site is one run of several resources on two hosts. Each pair is a World of its own:
// what they share is what one daemon on each host gives them, and nothing else. A
// process dies with all its resources, a host loses power under all its disks, the
// network is cut for all sessions, the clock of a host is everybody's. Disks fail one
// by one. The site steps the pairs in the order of virtual time and lets what happens
// to a host happen to all at one instant.
type Site struct {
	opt       Options
	rng       *rand.Rand
	pcg       rand.PCG
	drawn     *rand.Rand // gives all pairs the same numbers for one fault
	drawnPCG  rand.PCG
	pool      []*World
	pairs     []*World
	current   *World
	now       int64
	events    int
	nextFault int
	gap       int
	enabled   [faultKinds]bool
	todo      []hostEvent
	quiet     bool
}

// hostEvent is something that happens to hosts.
type hostEvent struct {
	at int64
	fn func()
}

const (
	// siteEvery: of so many seeds one is a site.
	siteEvery = 8
	// siteSeed is the remainder of such a seed.
	siteSeed = 6
	// maxPairs is how many resources a site has at most.
	maxPairs = 3
)

// hostFaults happen to all resources of a host; the others to one.
var hostFaults = [faultKinds]bool{faultCrash: true, faultPower: true, faultBothPower: true, faultCut: true, faultHalfOpen: true,
	faultSlowNet: true, faultFreeze: true, faultLeap: true, faultWall: true, faultLateWay: true}

// NewSite makes memory for runs; each Run uses it anew.
func NewSite() *Site { return &Site{} }

// Run runs one seed to its end.
func (s *Site) Run(opt Options) (res Result) {
	if opt.Events == 0 {
		opt.Events = 2000
	}
	defer func() {
		if r := recover(); r != nil {
			v := s.current.spoken(r)
			v.Text = s.current.label + v.Text
			res = s.result()
			res.Violation = v
		}
	}()
	s.build(opt)
	for s.advance() {
	}
	return s.result()
}

// build draws how many pairs there are and makes them.
func (s *Site) build(opt Options) {
	s.opt = opt
	s.pcg.Seed(opt.Seed, 0x5173)
	s.rng, s.drawn = rand.New(&s.pcg), rand.New(&s.drawnPCG)
	s.now, s.events, s.quiet, s.todo = second, 0, false, s.todo[:0]
	n := 1 + s.rng.IntN(maxPairs)
	for len(s.pool) < n {
		s.pool = append(s.pool, NewWorld())
	}
	s.pairs = s.pool[:n]
	s.opt.Events = opt.Events * (n + 1) / 2
	s.gap = 100 + s.rng.IntN(300)
	s.nextFault = 300*n + s.rng.IntN(300)
	for i := range s.enabled {
		s.enabled[i] = hostFaults[i] && s.rng.Float64() < 0.6
	}
	opt.Cover.count("run", "site")
	for i, w := range s.pairs {
		s.current = w
		of := opt
		of.Seed = s.rng.Uint64()
		w.reset(of)
		w.opt.Seed = opt.Seed
		w.site, w.label = s, fmt.Sprintf("pair %d: ", i+1)
		w.prof = randomProfile(w.rng)
		w.prof.Logs = logsOf(of.Seed)
		for k := range w.prof.Enabled {
			w.prof.Enabled[k] = w.prof.Enabled[k] && !hostFaults[k]
		}
		w.prof.Enabled[faultFlap] = true
		w.prof.FaultGap *= 2
		w.prof.NetTime = s.pairs[0].prof.NetTime
		w.build()
		for h := range w.nodes {
			a, b := &w.nodes[h], &s.pairs[0].nodes[h]
			a.skew, a.drift, a.wall = b.skew, b.drift, b.wall
		}
		w.begin()
	}
	for h := range 2 {
		s.after(s.span(0, 50*millisecond), func() { s.each(func(w *World) { w.nodes[h].powerUp() }) })
	}
	s.after(s.span(500*millisecond, 700*millisecond), s.tend)
}

func (s *Site) span(a, b int64) int64 { return a + s.rng.Int64N(b-a) }

func (s *Site) chance(p float64) bool { return s.rng.Float64() < p }

func (s *Site) after(d int64, fn func()) { s.todo = append(s.todo, hostEvent{s.now + d, fn}) }

// each does something to all pairs at this instant.
func (s *Site) each(f func(*World)) {
	for _, w := range s.pairs {
		s.current = w
		w.now = max(w.now, s.now)
		f(w)
	}
}

// earliest is the pair whose next event comes first; nil: all are over.
func earliest(pairs []*World) *World {
	var first *World
	for _, w := range pairs {
		if w.course.phase != over && (first == nil || w.nextAt() < first.nextAt()) {
			first = w
		}
	}
	return first
}

// nextAt is when the next event of a pair comes; one that has none is asked at once,
// and says so.
func (w *World) nextAt() int64 {
	if len(w.queue) == 0 {
		return w.now
	}
	return w.queue[0].at
}

// advance handles one event of one pair, or one of the hosts.
func (s *Site) advance() bool {
	w := earliest(s.pairs)
	if w == nil {
		return false
	}
	next := -1
	for i := range s.todo {
		if s.todo[i].at <= w.nextAt() && (next < 0 || s.todo[i].at < s.todo[next].at) {
			next = i
		}
	}
	if next >= 0 {
		e := s.todo[next]
		s.todo = append(s.todo[:next], s.todo[next+1:]...)
		s.now = max(s.now, e.at)
		e.fn()
		return true
	}
	s.now = max(s.now, w.nextAt())
	s.current = w
	w.advance()
	s.events++
	switch {
	case s.quiet:
	case s.events >= s.opt.Events && s.enough() || s.events > maxEvents:
		s.calmDown()
	case s.events >= s.nextFault:
		s.nextFault = s.events + len(s.pairs)*(s.gap/2+s.rng.IntN(s.gap))
		s.inject()
	}
	return true
}

// enough says whether the run was eventful.
func (s *Site) enough() bool {
	r := s.result()
	return r.Faults >= 5 && r.Crashes >= 1
}

// calmDown stops the faults everywhere; hosts come back by themselves.
func (s *Site) calmDown() {
	s.quiet = true
	s.each((*World).beginUnaided)
	for h := range 2 {
		s.after(s.span(0, second), func() { s.each(func(w *World) { w.nodes[h].powerUp() }) })
	}
}

// tend brings hosts and daemons back, sooner or later.
func (s *Site) tend() {
	if s.quiet {
		return
	}
	gap := s.pairs[0].prof.OperatorGap
	s.after(s.span(gap/4, gap*2), s.tend)
	for h := range 2 {
		switch s.pairs[0].nodes[h].state {
		case off:
			if s.chance(0.5) {
				s.each(func(w *World) { w.nodes[h].state = stopped })
			}
		case stopped:
			if w := s.pairs[s.rng.IntN(len(s.pairs))]; s.chance(0.02) && w.prof.Enabled[faultDiskGone] {
				s.current, w.now = w, max(w.now, s.now)
				w.wipe(&w.nodes[h])
			} else if s.chance(0.6) {
				s.each(func(w *World) {
					w.nodes[h].start()
					if s.chance(0.9) {
						w.nodes[h].role(1, false)
					}
				})
			}
		}
	}
}

// inject makes something go wrong with a host or the network.
func (s *Site) inject() {
	k := faultCrash
	if s.result().Crashes > 0 || s.chance(0.7) {
		total := 0
		for i, x := range faultWeights {
			if s.enabled[i] {
				total += x
			}
		}
		if total > 0 {
			x := s.rng.IntN(total)
			for i, wt := range faultWeights {
				if !s.enabled[i] {
					continue
				}
				if x -= wt; x < 0 {
					k = faultKind(i)
					break
				}
			}
		}
	}
	h := s.rng.IntN(2)
	if k != faultBothPower {
		s.fault(k, h)
		return
	}
	s.pairs[0].cover.fault(faultNames[k])
	s.fault(faultPower, h)
	s.after(s.span(0, 5*millisecond), func() {
		if !s.quiet {
			s.fault(faultPower, 1-h)
		}
	})
}

// fault does one thing to all pairs; it counts once. All draw the same numbers for
// it, so that what lasts for a while ends for all at once.
func (s *Site) fault(k faultKind, host int) {
	x := s.rng.Uint64()
	s.each(func(w *World) {
		rng, cover, faults, crashes := w.rng, w.cover, w.faults, w.crashes
		s.drawnPCG.Seed(x, 1)
		w.rng = s.drawn
		if w != s.pairs[0] {
			w.cover = nil
		}
		w.fault(k, &w.nodes[host])
		w.rng, w.cover = rng, cover
		if w != s.pairs[0] {
			w.faults, w.crashes = faults, crashes
		}
	})
}

func (s *Site) result() Result {
	r := Result{Time: s.now}
	for _, w := range s.pairs {
		x := w.result()
		r.Events += x.Events
		r.Faults += x.Faults
		r.Crashes += x.Crashes
		r.Writes += x.Writes
		r.Healed = max(r.Healed, x.Healed)
		r.Digest = r.Digest*1099511628211 ^ x.Digest
	}
	return r
}

// Runner has the memory for runs of every kind: what a seed is, the seed says.
type Runner struct {
	world *World
	site  *Site
}

// NewRunner makes memory for runs.
func NewRunner() *Runner { return &Runner{NewWorld(), NewSite()} }

// Run runs one seed to its end.
func (r *Runner) Run(opt Options) Result {
	if opt.Seed%siteEvery == siteSeed && !opt.Restores {
		return r.site.Run(opt)
	}
	return r.world.Run(opt)
}
