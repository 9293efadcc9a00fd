package sim

import (
	"hastd/metadata"
	"hastd/replicate"
	"math/rand/v2"
)

// nodeState is what a host is doing.
type nodeState uint8

const (
	off     nodeState = iota // no power
	stopped                  // power, no daemon
	running
)

// node is the shell of one machine: it carries out effects as replicate/runner
// does in a daemon, on simulated parts.
type node struct {
	toldFailed    bool // the disk's state as reported last: failed
	toldSuspended bool // reported last: suspended
	steppedAlone  bool // no data flowed when it stepped down last
	w             *World
	id            int
	name          string
	state         nodeState
	life          uint32 // counts processes; stale events carry an older one
	m             *replicate.Machine
	disk          disk
	mark          bool // kept in the state directory: survives crashes
	mem           arena
	ids           rand.PCG

	mailbox  []replicate.Event
	batch    []replicate.Event
	out      []replicate.Effect
	draining bool
	thaw     int64 // frozen until then
	asleep   int64 // what was to happen while it was frozen happens then, even if that ended early
	sleep    sleeper
	primary  bool  // as reported
	timerAt  int64 // when the next kTimer stands in the queue; 0: none
	skew     int64
	drift    int64 // parts in a million
	wall     int64 // by how many seconds its wall clock is wrong

	opened      bool
	hashTime    int64 // how long a script lets reading a window for a sync take
	stopTime    int64 // of the provider: its requests get a time to end
	hashFree    int64
	linked      bool // the machine sent MsgFlow and has not been told of an end
	hadError    bool // an operation failed since the component was opened
	committed   bool // its machine is told of a commit
	ops         []op
	freeOps     []int32
	busy        int // operations on the component's data under way
	commit      bool
	sess        *session
	next        *session // came while sess still stands; taken when that ends
	wantConnect bool
	speaks      versions
	attemptGen  uint32

	prov       provState
	provOp     replicate.OpID
	app        app
	believed   [2]*metadata.Map // what the map was read as when the disk lied, and what it was
	commands   []*order
	recovering bool // told to discard its data, not yet made equal again
	wipeNext   bool // the operator gives this replica up
	copied     bool // put back from an older copy and not created anew since
	copies     [2]replicaCopy

	judge nodeJudge
	lease shellLease // with quorum
}

type provState uint8

const (
	provNone provState = iota
	provStarting
	provUp
	provStopping
)

// order is a command under way.
type order struct {
	id     uint64
	kind   replicate.CommandKind
	role   metadata.Role
	force  bool
	at     int64 // when the node was last able to work on it
	asked  int64 // when it was given
	was    bool  // the node had a provider
	done   bool
	answer *replicate.Refusal
}

const resourceName = "data"

func (n *node) reset(w *World, id int) {
	n.w, n.id, n.name = w, id, [...]string{"A", "B"}[id]
	n.life++
	n.state, n.m, n.mark, n.toldFailed = stopped, nil, false, false
	n.hashTime, n.hashFree = 0, 0
	n.mem.reset()
	n.ids.Seed(w.rng.Uint64(), uint64(id)+1)
	n.mailbox, n.batch, n.out = n.mailbox[:0], n.batch[:0], n.out[:0]
	n.draining, n.thaw, n.asleep, n.timerAt, n.sleep, n.primary = false, 0, 0, 0, sleeper{}, false
	n.skew, n.drift, n.wall = w.span(second, 1000*second), w.span(-w.prof.Drift, w.prof.Drift), 0
	n.dropOps()
	n.sess, n.next, n.wantConnect, n.speaks = nil, nil, false, present
	n.prov = provNone
	n.app.reset(n)
	n.commands = n.commands[:0]
	n.believed = [2]*metadata.Map{}
	n.recovering, n.wipeNext, n.copied = false, false, false
	n.lease = shellLease{}
	for i := range n.copies {
		n.copies[i].taken = false
	}
	size := w.prof.DataSize
	if id == 1 {
		size += w.prof.Larger
	}
	n.disk.reset(w, size)
	n.judge.reset(w)
	n.create()
}

// create is `hastctl create`.
func (n *node) create() {
	sb := metadata.Superblock{Resource: resourceName, SectorSize: n.w.prof.Sector, ExtentSize: extentSize, Keepdirty: n.log()}
	if n.w.prof.AssumeClean && n.w.events == 0 {
		sb.Marks |= metadata.AssumeClean
	}
	n.disk.create(sb)
	n.mark = false
	n.judgeSuper()
}

func (n *node) dropOps() {
	n.freeOps, n.ops = n.freeOps[:0], n.ops[:0] // the same order whatever ran before
	n.busy, n.commit, n.opened = 0, false, false
}

// clock is the node's own reading of time; instant n of it is when the world has
// the time that world gives.
func (n *node) clock() replicate.Instant {
	return replicate.Instant(n.skew + n.w.now + n.w.now*n.drift/1_000_000)
}

// leap lets the node's clock go forward at once.
func (n *node) leap(d int64) {
	n.skew += d
	n.sleep = sleeper{} // the time for its question is over
	if n.state == running {
		n.setTimer()
	}
}

// wallClock is Config.Wall.
func (n *node) wallClock(i replicate.Instant) int64 {
	if n.w.opt.noWall {
		return 0
	}
	return 1_700_000_000 + int64(i/replicate.Second) + n.wall
}

func (n *node) world(i replicate.Instant) int64 {
	return int64((float64(i) - float64(n.skew)) / (1 + float64(n.drift)/1e6))
}

func (n *node) random() uint64 {
	for {
		if x := n.ids.Uint64(); x != 0 {
			return x
		}
	}
}

func (n *node) status() replicate.Status { return n.m.Status(n.clock()) }

func (n *node) frozen() bool { return n.thaw > n.w.now }

// start runs the daemon.
func (n *node) start() {
	w := n.w
	if n.state != stopped {
		return
	}
	n.life++
	n.state = running
	n.m, n.toldFailed, n.toldSuspended = replicate.New(n.config()), false, false
	n.linked = false
	w.tracef("%s: daemon starts", n.name)
}

func (n *node) config() replicate.Config {
	peer := n.w.peerOf(n)
	return replicate.Config{
		Live:        replicate.Live{Suspend: n.w.prof.Suspend, LatencyTarget: 20 * replicate.Millisecond},
		Resource:    resourceName,
		Node:        n.name,
		Peer:        peer.name,
		NodeID:      metadata.NodeID(n.id + 1),
		PeerID:      metadata.NodeID(peer.id + 1),
		Mode:        n.w.prof.Mode,
		NeedLease:   n.w.prof.Quorum,
		Timeout:     2 * replicate.Second,
		DiskTimeout: 4 * replicate.Second,
		Wall:        n.wallClock,
		Random:      n.random,
	}
}

// die ends the process at once. What it had asked of the disk may have happened or
// not; the disk's cache stays.
func (n *node) die() {
	w := n.w
	if n.state != running {
		return
	}
	w.cover.died()
	for i := range n.ops {
		o := &n.ops[i]
		if !o.used {
			continue
		}
		switch {
		case o.kind == opCommit:
			n.disk.putMeta(o.writes, o.copied, false)
		case o.kind == opMark:
			if w.chance(0.5) {
				n.mark = o.eff.Set
			}
		case o.kind == opData && !o.lost:
			n.tearOp(o)
		}
	}
	w.link.gone(n)
	if w.prof.Mode == replicate.Memsync {
		w.keptLoses(n)
	}
	n.state = stopped
	n.life++
	n.m = nil
	n.mailbox, n.batch = n.mailbox[:0], n.batch[:0]
	n.draining, n.thaw, n.asleep, n.timerAt, n.sleep, n.primary = false, 0, 0, 0, sleeper{}, false
	n.dropOps()
	n.mem.reset()
	n.prov = provNone
	n.lease = shellLease{}
	n.oracleProcessGone()
	n.app.cutOff()
	n.commands = n.commands[:0]
	n.judgeSuper()
}

// tearOp leaves a random part of a write under way on the disk.
func (n *node) tearOp(o *op) {
	e := &o.eff
	sec, cnt := int(e.Off)/sectorSize, int(e.Len)/sectorSize
	switch e.Disk {
	case replicate.DiskWrite:
		n.disk.tear(sec, cnt, n.lookup(e.Buf).stamps)
	case replicate.DiskZero:
		n.disk.tear(sec, cnt, nil)
	case replicate.DiskWriteMasked:
		m := n.lookup(e.Buf)
		n.eachBlock(e.Off, e.Mask, func(b, at int) {
			if e.Zeroes&(1<<uint(at)) != 0 {
				n.disk.tear(b*sectorsPerBlock, sectorsPerBlock, nil)
			} else {
				n.disk.tear(b*sectorsPerBlock, sectorsPerBlock, m.stamps[at*sectorsPerBlock:])
			}
		})
	}
}

// powerLoss is a daemon's death with the caches of the disk.
func (n *node) powerLoss() {
	if n.state == off {
		return
	}
	n.w.cover.power()
	n.w.oracleDirty("before power loss", false)
	n.w.keptLoses(n)
	// The network goes silent rather than closing.
	n.w.link.silence(n)
	n.die()
	n.disk.powerLoss()
	n.state = off
	n.judgeSuper()
	n.oraclePowerLost()
	n.moment(momentPower)
	n.w.oracleDirty("after power loss", false)
}

// push puts an event into the machine's mailbox.
func (n *node) push(e replicate.Event) {
	n.mailbox = append(n.mailbox, e)
	n.wake(n.w.rng.Int64N(20 * microsecond))
}

func (n *node) wake(d int64) {
	if n.draining || n.state != running {
		return
	}
	n.draining = true
	n.w.at(event{at: max(n.w.now+d, n.thaw), kind: kDrain, node: uint8(n.id), life: n.life})
}

// maxBatch bounds a batch, as a daemon's mailbox does.
const maxBatch = 64

func (n *node) drain(life uint32) {
	if n.life != life || n.state != running {
		return
	}
	n.draining = false
	if n.frozen() {
		n.wake(0)
		return
	}
	k := min(len(n.mailbox), maxBatch)
	if k > 1 && n.w.rng.IntN(3) == 0 {
		k = 1 + n.w.rng.IntN(k)
	}
	n.batch = append(n.batch[:0], n.mailbox[:k]...)
	n.mailbox = n.mailbox[:copy(n.mailbox, n.mailbox[k:])]
	if len(n.mailbox) > 0 {
		n.wake(n.w.rng.Int64N(10 * microsecond))
	}
	n.step()
}

// step gives the batch to the machine and carries out what it wants.
func (n *node) step() {
	w := n.w
	now := n.clock()
	life := n.life
	for i := range n.batch {
		if ev := &n.batch[i]; ev.Kind == replicate.EvUnreachable && !ev.Refused {
			n.heardOfPeer()
		}
	}
	out := n.m.Step(now, n.batch, n.out[:0])
	n.out = out
	if len(out) > maxEffects {
		w.violate("bounds", "%s: one step gave %d effects", n.name, len(out))
	}
	for i := range out {
		n.carryOut(&out[i])
		if n.life != life {
			return // a script killed it
		}
	}
	n.tell()
	for i := range n.batch { // what came before the end in the batch was still linked
		if n.batch[i].Kind == replicate.EvSessionDown {
			n.linked = false
		}
	}
	if k := len(n.batch); k > 0 && w.prof.Skew {
		n.oracleRefused(&n.batch[k-1])
	}
	n.setTimer()
}

// maxEffects bounds what one step may ask for. Honest runs stay below 100.
const maxEffects = 400

func (n *node) setTimer() {
	at, ok := n.m.Deadline()
	if !ok {
		return
	}
	t := max(n.world(at)+microsecond, n.w.now+100) // a little late, as timers are
	if n.timerAt != 0 && n.timerAt <= t {
		return
	}
	n.timerAt = t
	n.w.at(event{at: t, kind: kTimer, node: uint8(n.id), life: n.life})
}

func (n *node) timer(life uint32, at int64) {
	if n.life != life || n.state != running || n.timerAt != at {
		return
	}
	n.timerAt = 0
	if n.frozen() {
		n.timerAt = n.thaw
		n.w.at(event{at: n.thaw, kind: kTimer, node: uint8(n.id), life: life})
		return
	}
	d, ok := n.m.Deadline()
	if !ok {
		return
	}
	if d > n.clock() {
		n.setTimer()
		return
	}
	n.push(replicate.Event{Kind: replicate.EvTick})
}

func (n *node) scheduleAttempt(d int64) {
	n.attemptGen++
	gen, life := n.attemptGen, n.life
	n.w.after(d, func() {
		if n.life == life && n.attemptGen == gen {
			if n.frozen() {
				n.scheduleAttempt(n.thaw - n.w.now)
				return
			}
			n.w.link.attempt(n)
		}
	})
}

// command gives an order to the machine.
func (n *node) command(c replicate.Command) *order {
	w := n.w
	w.cmdID++
	c.ID = w.cmdID
	o := &order{id: c.ID, kind: c.Kind, role: c.Role, force: c.Force, at: w.now, asked: w.now, was: n.prov != provNone}
	if n.state != running {
		o.done, o.answer = true, &replicate.Refusal{Code: replicate.RefusedInternal, Text: "no daemon"}
		return o
	}
	n.commands = append(n.commands, o)
	w.tracef("%s: command %s", n.name, commandString(&c))
	w.cover.command(&c)
	n.oracleCommand(&c)
	n.push(replicate.Event{Kind: replicate.EvCommand, Command: &c})
	return o
}

func (n *node) eachBlock(off int64, mask uint64, f func(block, at int)) {
	first := int(off / metadata.BlockSize)
	for i := range replicate.Window {
		if mask&(1<<uint(i)) != 0 {
			f(first+i, i)
		}
	}
}
