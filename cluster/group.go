package cluster

import "fmt"

// Config is a group's on one node.
type Config struct {
	Name  string
	Parts []Part // in the order of going up
	// External: somebody else decides; the group goes up when it is ordered to.
	External bool
	// Parallel: it may be up on several nodes.
	Parallel bool
	// FailFast: when this node leaves the field, the machine shall go.
	FailFast bool
	// Node is this node, Nodes are all of the group's in order of preference.
	Node  string
	Nodes []string
	// MasterHold is for how long a node that advertised as master is taken for one.
	MasterHold Duration
}

// Group is the machine of one group on one node. It does one thing at a time: the
// first part that is not up is started, or the last one that is not down is
// stopped, and only its end leads to the next.
type Group struct {
	cfg   Config
	parts []part
	now   Instant
	out   []Effect

	state   State
	master  bool // the election's word
	frozen  bool // by order: nothing changes
	offline bool // by order: it takes no part
	ending  bool // the daemon is to end

	held      bool // found up, and nobody said yet who is master
	heldUntil Instant

	facts Event  // the last EvStanding
	told  Effect // what the election was told last

	fault    string // why it left the field; "" if it did not
	faultOf  Kind
	faultAt  int      // the part
	violated bool     // it was up here outside the controller while it was up elsewhere
	cause    string   // Event.Reason of the standing when the group began to go up
	retryAt  Instant  // a fault of a resource is not forgotten before this
	backoff  Duration // how long the next one waits
	stuckAt  Instant  // a stuck part is not tried before this

	lastOp Op
	op     Op // the action under way; 0: none
	at     int
	isUp   bool
	limit  Instant
	broken string // why it was told to end

	orders []order

	jeopardy   string  // why the group must not be taken over; "" if it may
	peers      []peer  // the other nodes of the group, and one that is none
	violations uint8   // found here, as GroupReport.Violations
	found      []int   // the parts that were, last
	alarm      string  // the violation that was told, "" if there is none
	doubtful   Instant // two nodes say that the group is up by their order: since when
	critical   bool    // that it is faulted everywhere was told
}

type order struct {
	id   uint64
	kind Order
}

const (
	// breakGrace is how long an action that was told to end may take to do so.
	breakGrace = 5 * Second
	// stuckRetry is the time between two attempts to take a stuck part down.
	stuckRetry = 5 * Second
	// firstBackoff and lastBackoff bound how soon a node returns to the field after
	// its replica was refused, although the cause changed.
	firstBackoff = Second
	lastBackoff  = 60 * Second
	// holdLimit is how long a group that was found up is kept as it is while the
	// election has not said a word.
	holdLimit = 10 * Second
	// maxOrders bounds the orders that wait for their end.
	maxOrders = 16
)

// NewGroup makes a group of which nothing is known yet.
func NewGroup(cfg Config) *Group {
	g := &Group{cfg: cfg, backoff: firstBackoff}
	for _, p := range cfg.Parts {
		g.parts = append(g.parts, part{Part: p})
	}
	for _, name := range cfg.Nodes {
		if name != cfg.Node {
			g.peers = append(g.peers, peer{name: name})
		}
	}
	g.told = Effect{Kind: EffStanding, Reason: "not looked at yet"}
	return g
}

// State is the group's.
func (g *Group) State() State { return g.state }

// Fault is why the group left the field here, "" if it did not.
func (g *Group) Fault() string { return g.fault }

// Frozen and Disabled tell what an operator ordered.
func (g *Group) Frozen() bool   { return g.frozen }
func (g *Group) Disabled() bool { return g.offline }

// Held says that the group was found up and is kept so until the election says who
// is master: a controller that was started again harms nobody.
func (g *Group) Held() bool { return g.held }

// Probed says whether every part was looked at since the start.
func (g *Group) Probed() bool {
	for i := range g.parts {
		if g.parts[i].is == unknown && g.parts[i].reason == "" {
			return false
		}
	}
	return true
}

// Parts are the parts as they are now.
func (g *Group) Parts() []PartStatus {
	out := make([]PartStatus, len(g.parts))
	for i := range g.parts {
		p := &g.parts[i]
		out[i] = PartStatus{p.Name, p.Kind, p.is.String(), p.reason, p.tries, p.stray}
	}
	return out
}

// Deadline is when to step the group although nothing happened.
func (g *Group) Deadline() (Instant, bool) {
	at, ok := Instant(0), false
	soonest := func(t Instant) {
		if !ok || t < at {
			at, ok = t, true
		}
	}
	if g.op != 0 {
		soonest(g.limit)
	} else {
		if g.anyStuck() && g.stuckAt > g.now {
			soonest(g.stuckAt)
		}
		if g.fault != "" && g.faultOf == Resource && g.retryAt > g.now {
			soonest(g.retryAt)
		}
	}
	if g.held {
		soonest(g.heldUntil)
	}
	for i := range g.parts {
		p := &g.parts[i]
		if g.due(p) {
			soonest(p.lookAt)
		}
		if p.renew && g.op == 0 && p.renewAt > g.now {
			soonest(p.renewAt)
		}
	}
	if t, ok := g.silence(); ok {
		soonest(t)
	}
	return at, ok
}

// Step takes an event and says what is to be done.
func (g *Group) Step(now Instant, ev Event, out []Effect) []Effect {
	g.now = max(g.now, now)
	g.out = out
	switch ev.Kind {
	case EvProbed:
		g.onProbed(&ev)
	case EvElected:
		g.master, g.held = ev.Master, false
		if ev.Master {
			g.masterless() // who was heard before this is master no more
		}
	case EvDone:
		if ev.Op == g.op && g.op != 0 {
			g.ended(ev.Err)
		}
	case EvLooked:
		g.onLooked(&ev)
	case EvLost:
		g.lost(ev.Part, ev.Err)
	case EvStanding:
		g.facts = ev
	case EvOrder:
		g.onOrder(&ev)
	case EvStop:
		g.ending, g.held = true, false
	case EvMended:
		g.onMended(ev.Part, ev.Err)
	case EvPeer:
		g.onPeer(&ev)
	case EvMaster:
		g.onMaster(&ev)
	case EvJeopardy:
		g.jeopardy = ""
		if ev.Up {
			g.jeopardy = ev.Reason
		}
	}
	if g.held && g.now >= g.heldUntil {
		g.held = false
	}
	g.overdue()
	g.forget()
	g.judge()
	g.proceed()
	g.monitor()
	g.tell()
	return g.out
}

func (g *Group) emit(e Effect) { g.out = append(g.out, e) }

// wanted says whether the group is to be up here.
func (g *Group) wanted() bool { return g.master && !g.offline && !g.ending && g.fault == "" }

func (g *Group) onProbed(ev *Event) {
	p := &g.parts[ev.Part]
	if p.is != unknown {
		return
	}
	switch {
	case ev.Err != "":
		p.reason = ev.Err // taken down before anything else
	case ev.Up:
		p.is, p.found, p.lookAt = up, true, g.now.add(p.Interval)
	default:
		p.is, p.lookAt = down, g.now.add(p.OffInterval)
	}
	if g.Probed() {
		g.hold()
	}
}

// hold decides whether what was found up is kept until the election has spoken:
// only over replicas that are primary. With nobody to ask, a whole group stays.
func (g *Group) hold() {
	ups := 0
	for i := range g.parts {
		if g.parts[i].is == up {
			ups++
		} else if g.parts[i].Kind == Resource {
			return
		}
	}
	if g.cfg.External {
		g.master = ups == len(g.parts)
	} else if ups > 0 {
		g.held, g.heldUntil = true, g.now.add(holdLimit)
	}
}

// again says whether a part that was found up is to be put up once more. A mount
// may be another's, an address must be kept alive; both take it well. A service is
// believed.
func (p *part) again() bool { return p.is == up && p.found && p.Kind != Service }

// proceed begins the next action.
func (g *Group) proceed() {
	if !g.Probed() {
		return
	}
	if g.op != 0 {
		if g.isUp && !g.wanted() {
			g.breakOff("the group is to go down")
		}
		return
	}
	if g.frozen || g.held {
		return
	}
	if g.wanted() {
		for i := range g.parts {
			if g.parts[i].again() {
				g.begin(i, true)
				return
			}
			if p := &g.parts[i]; p.renew {
				if g.now >= p.renewAt {
					g.begin(i, p.is == down)
				}
				return
			}
			switch g.parts[i].is {
			case up, failed:
			case down:
				g.begin(i, true)
				return
			default: // stuck, or nobody knows how far an earlier attempt came
				g.lower(i)
				return
			}
		}
		return
	}
	for i := range g.parts {
		if p := &g.parts[i]; p.renew {
			p.renew, p.tries = false, 0
		}
	}
	g.lower(0)
}

// lower takes the topmost part down that is not, but none below least.
func (g *Group) lower(least int) {
	for i := len(g.parts) - 1; i >= least; i-- {
		switch g.parts[i].is {
		case down:
			continue
		case stuck:
			if g.now < g.stuckAt {
				return // what is below it must wait
			}
		}
		g.parts[i].tries, g.parts[i].renew = 0, false
		g.begin(i, false)
		return
	}
}

func (g *Group) begin(i int, goUp bool) {
	g.lastOp++
	p := &g.parts[i]
	p.look, p.found = 0, p.found && goUp // what a monitor says now is of no use any more
	g.op, g.at, g.isUp, g.broken = g.lastOp, i, goUp, ""
	if goUp {
		p.is, p.reason, p.stray = goingUp, "", false
		if i == 0 {
			g.cause = g.facts.Reason // what changes from here on, the attempt may not have known
		}
		g.limit = g.now.add(p.UpLimit)
		g.emit(Effect{Kind: EffUp, Part: i, Op: g.op, Try: p.tries})
		return
	}
	p.is = goingDown
	g.limit = g.now.add(p.DownLimit)
	g.emit(Effect{Kind: EffDown, Part: i, Op: g.op})
}

// breakOff tells the action under way to end.
func (g *Group) breakOff(why string) {
	if g.broken != "" {
		return
	}
	g.broken = why
	g.limit = g.now.add(breakGrace)
	g.emit(Effect{Kind: EffBreak, Part: g.at, Op: g.op})
}

// overdue ends what takes longer than it may.
func (g *Group) overdue() {
	if g.op == 0 || g.now < g.limit {
		return
	}
	p := &g.parts[g.at]
	limit := p.DownLimit
	if g.isUp {
		limit = p.UpLimit
	}
	if g.broken == "" {
		g.breakOff(fmt.Sprintf("it took longer than %d s", limit/Second))
		return
	}
	g.ended(g.broken + ", and could not be ended by force")
}

// ended takes the end of the action under way.
func (g *Group) ended(err string) {
	p := &g.parts[g.at]
	if g.broken != "" && err != "" {
		err = g.broken + ": " + err
	}
	broken := g.broken != ""
	g.op, p.found = 0, false
	switch {
	case g.isUp && err == "":
		p.is, p.lookAt, p.renew, p.steadyAt = up, g.now.add(p.Interval), false, g.now.add(p.RestartReset)
	case p.renew && g.wanted():
		g.notRenewed(g.at, err)
	case g.isUp && p.Optional:
		p.is, p.reason = failed, err
		g.emit(Effect{Kind: EffReport, Part: g.at, Reason: "could not be started: " + err})
	case g.isUp:
		p.is, p.reason = unknown, err
		if !broken || g.wanted() {
			g.leave(g.at, "could not be started: "+err)
		}
	case err == "":
		p.is, p.reason, p.wedged, p.lookAt = down, "", false, g.now.add(p.OffInterval)
	default:
		p.is, p.reason, p.wedged = stuck, err, true
		g.stuckAt = g.now.add(stuckRetry)
		g.emit(Effect{Kind: EffReport, Part: g.at, Reason: "could not be stopped: " + err})
		g.endOrders(OrderOffline, p.Name+" could not be stopped: "+err)
		g.endOrders(OrderSwitch, p.Name+" could not be stopped: "+err)
	}
	if g.isUp && g.served() {
		g.backoff = firstBackoff
	}
}

// lost is the end of a part that nobody here ordered.
func (g *Group) lost(i int, why string) {
	p := &g.parts[i]
	if p.is != up {
		return
	}
	p.is, p.reason, p.look = unknown, why, 0
	switch {
	case g.wanted() && g.renewable(p):
		g.renew(i, why)
	case p.Optional:
		p.is = failed
		g.emit(Effect{Kind: EffReport, Part: i, Reason: why})
	case g.wanted():
		g.leave(i, why)
		g.cause = "" // any standing that is told from now on will do
	default:
		g.held = false
	}
}

// leave takes this node out of the field: the group goes down here, so that it can
// go up on the other.
func (g *Group) leave(i int, why string) {
	p := &g.parts[i]
	g.fault, g.faultOf, g.faultAt = p.Name+": "+why, p.Kind, i
	g.retryAt = g.now.add(g.backoff)
	g.backoff = min(2*g.backoff, lastBackoff)
	g.emit(Effect{Kind: EffReport, Part: i, Reason: why})
	// A replica that is refused is no fault of this machine.
	if (p.FailFast || g.cfg.FailFast) && p.Kind != Resource {
		g.emit(Effect{Kind: EffFail, Part: i, Reason: g.fault})
	}
	g.endOrders(OrderOnline, g.fault)
	g.endOrders(OrderTake, g.fault)
}

// forget lets a node return to the field once what kept its replica from being
// promoted has changed since that was tried. Other faults wait for a person.
func (g *Group) forget() {
	if g.fault != "" && g.faultOf == Resource && !g.violated && g.facts.Reason != g.cause && g.now >= g.retryAt && g.allDown() {
		g.fault = ""
	}
}

func (g *Group) allDown() bool {
	for i := range g.parts {
		if g.parts[i].is != down {
			return false
		}
	}
	return g.op == 0
}

func (g *Group) anyStuck() bool {
	for i := range g.parts {
		if g.parts[i].is == stuck {
			return true
		}
	}
	return false
}
