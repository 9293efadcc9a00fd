package sim

import (
	"io"

	"hastd/metadata"
	"hastd/replicate"
)

// Pair is one resource on two nodes for another simulation to drive: that one has the
// time, the hosts and the orders, and decides by quorum who serves (test/sim/cluster).
// The replicas, their disks, the connection between the two, the applications and all
// oracles of this package are the pair's own. Node i is 0 or 1.
//
// A violation unwinds the caller; Spoken makes a Violation of it.
type Pair struct {
	w        *World
	answered map[uint64]func(*replicate.Refusal)
}

// PairOptions choose a pair.
type PairOptions struct {
	Seed    uint64
	Label   string // in the transcript
	Trace   io.Writer
	Cover   *Coverage
	Profile Profile
	Clocks  [2]Clock
	// Told is called whenever an application is told that something succeeded; write
	// says whether it changed something.
	Told func(node int, write bool)
	// Shows is called when a provider begins to show what the replica on src has.
	Shows func(node, src int)
	// Forced is called when a replica is promoted by force: a person chose what there is.
	Forced func(node int)
	// Judged says whether what a node does is judged: not what goes on beside a person
	// who chose another node by force.
	Judged func(node int) bool
	// Pause says for how long a daemon stands still between a decision and what
	// applications are told of it.
	Pause func(node int) int64
}

// Clock is a host's: how far ahead it is, and how many parts in a million too fast.
type Clock struct{ Skew, Drift int64 }

// At is what the clock reads at an instant.
func (c Clock) At(now int64) int64 { return c.Skew + now + now*c.Drift/1_000_000 }

// World is when, in the simulation's time, the clock reads that.
func (c Clock) World(at int64) int64 {
	return int64((float64(at) - float64(c.Skew)) / (1 + float64(c.Drift)/1e6))
}

// QuorumProfile draws what a resource of a cluster that decides is like. Applications
// are slow: these runs are about owners and views.
func QuorumProfile(draw interface {
	IntN(int) int
	Float64() float64
}) Profile {
	p := Profile{
		Quorum: true, Mode: replicate.Fullsync, Sector: 512, DataSize: 1 << 20,
		AssumeClean: draw.IntN(2) == 0,
		Think:       []int64{4, 15, 40}[draw.IntN(3)] * millisecond,
		DiskTime:    []int64{50, 300, 2000}[draw.IntN(3)] * microsecond,
		NetTime:     []int64{50, 300, 2000}[draw.IntN(3)] * microsecond,
		Hot:         4 + draw.IntN(24),
		Reads:       0.1 + 0.3*draw.Float64(),
		Drift:       1,
	}
	if draw.Float64() < 0.25 {
		p.Mode = replicate.Memsync
	}
	return p
}

// NewPair makes two new replicas on hosts whose daemons are not started.
func NewPair(o PairOptions) *Pair {
	p := &Pair{w: NewWorld(), answered: map[uint64]func(*replicate.Refusal){}}
	w := p.w
	w.reset(Options{Seed: o.Seed, Trace: o.Trace, Cover: o.Cover})
	w.label, w.prof = o.Label, o.Profile
	w.build()
	w.keepAll()
	w.eioOK = true // whoever loses a group cuts off its applications
	for i := range w.nodes {
		w.nodes[i].skew, w.nodes[i].drift = o.Clocks[i].Skew, o.Clocks[i].Drift
	}
	w.hooks.answered = func(id uint64, r *replicate.Refusal) {
		if f := p.answered[id]; f != nil {
			delete(p.answered, id)
			f(r)
		}
	}
	w.hooks.reply = func(n *node, r *request, err replicate.Err) {
		if err == replicate.OK && r.write != 0 && o.Judged(n.id) {
			w.keptAcked(r.write)
		}
		if err == replicate.OK {
			o.Told(n.id, r.write != 0)
		}
	}
	w.hooks.term = func(n, src *node, shows bool) {
		o.Shows(n.id, src.id)
		if shows && o.Judged(n.id) {
			w.keptTerm(n, src)
		}
	}
	w.hooks.judged = func(n *node) bool { return o.Judged(n.id) }
	w.hooks.moment = func(n *node, m moment) {
		w.keptMoment(n, m)
		if m == momentForced {
			o.Forced(n.id)
		}
	}
	w.hooks.pause = func(n *node) int64 { return o.Pause(n.id) }
	return p
}

// NextAt is when the pair's next event comes.
func (p *Pair) NextAt() (int64, bool) {
	if len(p.w.queue) == 0 {
		return 0, false
	}
	return p.w.queue[0].at, true
}

// Next handles it.
func (p *Pair) Next() { p.w.next() }

// At takes the pair to an instant that is not later than its next event.
func (p *Pair) At(now int64) *Pair {
	p.w.now = max(p.w.now, now)
	return p
}

// Boot starts the daemon as a boot does: as a secondary.
func (p *Pair) Boot(i int) { p.w.nodes[i].powerUp() }

// Kill ends the daemon, PowerLoss the host under it.
func (p *Pair) Kill(i int)      { p.w.nodes[i].die() }
func (p *Pair) PowerLoss(i int) { p.w.nodes[i].powerLoss() }

// Freeze has the daemon stand still; Thaw ends that.
func (p *Pair) Freeze(i int, d int64) {
	n := &p.w.nodes[i]
	if n.state != running || n.thaw >= n.w.now+d {
		return
	}
	n.thaw = n.w.now + d
	n.asleep = max(n.asleep, n.thaw)
	n.frozenNow()
	n.frozenPeer(d)
}

// Thaw has the daemon go on.
func (p *Pair) Thaw(i int) { n := &p.w.nodes[i]; n.thaw = min(n.thaw, p.w.now) }

// SetBack sets a host's clock back, as that of a machine that was paused with its clock.
func (p *Pair) SetBack(i int, d int64) { p.w.nodes[i].leap(-d) }

// Order gives the daemon a command; answered is called with its answer, if one comes.
// It says whether there is a daemon.
func (p *Pair) Order(i int, c replicate.Command, answered func(*replicate.Refusal)) bool {
	n := &p.w.nodes[i]
	if n.state != running {
		return false
	}
	o := n.command(c)
	p.answered[o.id] = answered
	return true
}

// Running says whether there is a daemon, Frozen whether it stands still.
func (p *Pair) Running(i int) bool { return p.w.nodes[i].state == running }
func (p *Pair) Frozen(i int) bool  { return p.w.nodes[i].frozen() }

// Status is what the daemon says of the resource. It must be running.
func (p *Pair) Status(i int) replicate.Status { return p.w.nodes[i].status() }

// Grant is what the daemon took last, by the shell's reckoning; MayAnswer says whether
// it may tell applications now that something succeeded.
func (p *Pair) Grant(i int) replicate.Grant { return p.w.nodes[i].lease.grant }
func (p *Pair) MayAnswer(i int) bool {
	n := &p.w.nodes[i]
	return n.state == running && n.prov != provNone && n.mayAnswer()
}

// Release has the application leave its device alone, Use has it use it again.
func (p *Pair) Release(i int) { p.w.nodes[i].app.close() }
func (p *Pair) Use(i int) {
	if a := &p.w.nodes[i].app; a.closing || !a.opened {
		a.closing = false
		a.open()
		a.arm(0)
	}
}

// Cut opens or closes what node i sends.
func (p *Pair) Cut(i int, cut bool) { p.w.link.setCut(i, cut) }

// Fault makes something go wrong by its name (faultNames) at a node, for a while.
func (p *Pair) Fault(name string, i int) {
	for k, f := range faultNames {
		if f == name {
			p.w.fault(faultKind(k), &p.w.nodes[i])
			return
		}
	}
	panic("sim: no fault is named " + name)
}

// Quiet ends what was injected, but for cuts.
func (p *Pair) Quiet() {
	w := p.w
	w.quiet = true
	w.link.slow = 1
	w.link.hurry()
	for i := range w.nodes {
		w.nodes[i].disk.heal()
	}
}

// Missing says what a node's replica lacks of what was acknowledged, "" if nothing.
// Received, in memsync, is not yet there: ask only when it is to be served.
func (p *Pair) Missing(i int) string { return p.w.nodes[i].missing() }

// Written says whether what was acknowledged is on both disks at once: not in memsync.
func (p *Pair) Written() bool { return p.w.prof.Mode == replicate.Fullsync }

// Parted says whether both replicas have a history of their own, on stable storage. One
// that nobody heard of, and by which nothing was acknowledged, is none: a node raised, and
// died, was refused by its disk or was cut off before it could say so (replication 12).
func (p *Pair) Parted() bool {
	a, b := &p.w.nodes[0].judge, &p.w.nodes[1].judge
	if a.unused() || b.unused() {
		return false
	}
	return a.sb.Resuid == b.sb.Resuid && !metadata.Agree(a.sb.Lineage, b.sb.Lineage)
}

// Strangers says whether the two replicas belong to different resources; Create makes
// one anew, on a node that has the role init.
func (p *Pair) Strangers() bool { return p.w.strangers() }
func (p *Pair) Create(i int)    { p.w.wipe(&p.w.nodes[i]) }

// Forget: a person chose what there is.
func (p *Pair) Forget() { p.w.keptForget() }

// Look has the oracles look that are due now and then.
func (p *Pair) Look() {
	w := p.w
	w.oracleCommands()
	w.oracleDirty("at a random moment", false)
	w.oracleEqual()
}

// Consistent says what a node's replica says of itself on stable storage: whether it
// can be served.
func (p *Pair) Consistent(i int) bool {
	n := &p.w.nodes[i]
	return n.consistent() && !n.judge.sb.Marks.Has(metadata.Outdated)
}

// Digest is the fingerprint of all that happened.
func (p *Pair) Digest() uint64 { return p.w.result().Digest }

// Events is how much happened, Writes how many writes were issued.
func (p *Pair) Events() int { return p.w.events }
func (p *Pair) Writes() int { return len(p.w.ledger.writes) }

// Spoken makes a violation of what unwound a run of pairs; nil if it was something else.
func Spoken(r any) *Violation {
	if vp, ok := r.(violationPanic); ok {
		return vp.v
	}
	return nil
}
