package cluster

import (
	"hastd/cluster/lease"
	"hastd/cluster/member"
	"hastd/cluster/view"
	"hastd/replicate"
)

// Times of vipd as it is here. The machines' own are theirs.
const (
	leaseTime   = 1 * second
	beatEvery   = 250 * millisecond
	deafAfter   = 800 * millisecond // three heartbeats lost, and a node is not heard
	rejoin      = 1500 * millisecond
	statusEvery = 100 * millisecond
	orderLimit  = 1 * second // for hastd's answer to a grant
	roleLimit   = 5 * second // to an order about a role
	leastWait   = millisecond
	// hastdTimeout is how long hastd may say nothing before it is killed.
	hastdTimeout = 3 * second
	hastdEvery   = 500 * millisecond
	// overdueMost is how many ticks in a row may leave something due.
	overdueMost = 20
)

// vipd is one life of the daemon: the machine and what stands around it.
type vipd struct {
	h       *host
	m       *member.Machine
	heardAt [view.MaxNodes]view.Instant // 0: never
	fit     [view.MaxNodes][]string     // what each can have, as its last heartbeat said
	tickAt  view.Instant
	groups  []*group
	leaving bool  // ordered
	told    bool  // and said, since everything is down
	overdue int   // ticks in a row that changed nothing
	silent  int64 // since when hastd does not answer; 0: it does, or there is none
	askedAt int64 // when that was looked at last
	pending map[int]func()
	calls   int
}

// startVipd starts the daemon on what is stored.
func (h *host) startVipd() {
	w := h.w
	if !h.on || !h.wanted || h.vipd != nil {
		return
	}
	var stored *view.State
	if h.durable != nil {
		s, err := view.ReadState(h.durable)
		if err != nil {
			w.violate("stored", "node %d cannot read what it stored: %v", h.id, err)
		}
		stored = s
	}
	cfg := w.cfg
	cfg.Self, cfg.Seed = h.id, w.rng.Uint64()
	m, err := member.New(member.Config{View: cfg, Lease: leaseTime, Every: beatEvery})
	if err != nil {
		panic(err)
	}
	v := &vipd{h: h, m: m, pending: map[int]func(){}}
	for _, r := range h.replicas {
		v.groups = append(v.groups, newGroup(v, r))
	}
	h.vipd, h.idle, h.inbox = v, 0, nil
	w.tracef("vipd of node %d starts (stored: %v)", h.id, stored != nil)
	v.step(member.Start{Stored: stored})
	w.after(w.span(0, beatEvery), v.beat)
	for _, g := range v.groups {
		w.after(w.span(0, statusEvery), g.poll)
	}
	if len(v.groups) > 0 {
		v.askedAt = w.now
		w.after(hastdEvery, v.guardHastd)
	}
}

// endVipd ends the daemon; hastd goes on by what it was told.
func (h *host) endVipd() {
	h.vipd, h.fuse = nil, 0
	h.idle, h.inbox = 0, nil
}

// killVipd ends it; its supervisor starts it again.
func (h *host) killVipd() {
	w := h.w
	if h.vipd == nil {
		return
	}
	w.tracef("vipd of node %d ends", h.id)
	w.digest(uint64(h.id) + 55)
	h.endVipd()
	w.after(w.span(20*millisecond, 2*second), h.startVipd)
}

func (v *vipd) alive() bool { return v.h.vipd == v }

func (v *vipd) beat() {
	if !v.alive() {
		return
	}
	h := v.h
	h.w.after(beatEvery, v.beat)
	if h.standsStill() {
		return
	}
	var heard view.Set
	for _, o := range h.w.hosts {
		if at := v.heardAt[o.id]; at != 0 && h.now()-at < view.Instant(deafAfter) {
			heard |= view.SetOf(o.id)
		}
	}
	v.step(view.Heard{Nodes: heard})
	if v.alive() {
		v.carryOut(v.m.Greet())
		v.step(member.Tick{})
	}
}

func (v *vipd) tick() {
	if v.alive() && !v.h.standsStill() {
		v.step(member.Tick{})
	}
}

// step feeds the machine.
func (v *vipd) step(ev member.Event) {
	if !v.alive() {
		return
	}
	v.carryOut(v.m.Step(v.h.now(), ev))
	if !v.alive() {
		return
	}
	if at, ok := v.m.Deadline(); ok {
		_, tick := ev.(member.Tick)
		if v.overdue++; at > v.h.now() || !tick {
			v.overdue = 0
		}
		if v.overdue > overdueMost {
			v.h.w.violate("bounds", "node %d: vipd wants a tick at once, again and again", v.h.id)
		}
		at = max(at, v.h.now()+view.Instant(leastWait))
		if v.tickAt == 0 || at < v.tickAt || v.tickAt <= v.h.now() {
			v.tickAt = at
			w := v.h.w
			w.after(view.Duration(max(v.h.clock.World(int64(at))-w.now, 0))+1, func() {
				if v.alive() && v.tickAt == at {
					v.tickAt = 0
					v.tick()
				}
			})
		}
	}
}

// carryOut does the effects in order. The daemon may end between any two.
func (v *vipd) carryOut(effects []member.Effect) {
	h := v.h
	w := h.w
	for _, e := range effects {
		if h.fuse > 0 {
			if h.fuse--; h.fuse == 0 {
				w.count("fault vipd ends between effects")
				h.killVipd()
			}
		}
		if !v.alive() {
			return
		}
		switch e := e.(type) {
		case view.Persist:
			h.persist(&e.State)
		case view.Send:
			v.send(e.Msg)
		case lease.SendRenew:
			for _, id := range (v.m.View().Set() &^ view.SetOf(h.id)).IDs() {
				v.say(w.hosts[id], member.Renew{From: h.id, Inc: h.inc, Number: e.Number, Round: e.Round})
			}
		case lease.SendConfirm:
			v.say(w.hosts[e.To], member.Confirm{From: h.id, Inc: h.inc, Number: e.Number, Round: e.Round})
		case member.Order:
			v.order(e)
		case member.Own:
			v.group(e.Resource).owns(e.On)
		case view.Report:
			w.count("report " + e.Kind.String())
			w.tracef("node %d reports %s: %s", h.id, e.Kind, e.Text)
		}
	}
}

func (v *vipd) group(resource string) *group {
	for _, g := range v.groups {
		if g.r.p.name == resource {
			return g
		}
	}
	return nil
}

// deliver brings something to another host's vipd, or does not, or twice.
func (v *vipd) deliver(to *host, do func(to *vipd)) {
	h := v.h
	w := h.w
	for _, d := range w.net.Arrivals(w.rng, w.count) {
		w.after(d, func() {
			if o := to.vipd; o != nil && !w.net.Cut[h.id][to.id] {
				to.whenAwake(true, func() {
					if o.alive() {
						do(o)
					}
				})
			}
		})
	}
}

// say sends an event of another machine.
func (v *vipd) say(to *host, ev member.Event) {
	v.deliver(to, func(o *vipd) { o.step(ev) })
}

func (v *vipd) send(msg *view.Message) {
	w := v.h.w
	if msg.Kind != view.Hello {
		w.tracef("  %v", msg)
	}
	w.count("message " + msg.Kind.String())
	b := view.AppendMessage(nil, msg)
	var fit []string
	for _, g := range v.groups {
		if g.stands.Fit {
			fit = append(fit, g.r.p.name)
		}
	}
	v.deliver(w.hosts[msg.To], func(o *vipd) {
		got, err := view.ReadMessage(b)
		if err != nil {
			w.violate("codec", "%v cannot be read: %v", msg, err)
		}
		if got.Kind == view.Hello {
			o.heardAt[got.From], o.fit[got.From] = o.h.now(), fit
		}
		o.step(view.Received{Msg: got})
	})
}

// answer is the end of a call; lost: what was asked may have been done all the same.
type answer struct {
	ok, lost, gone bool
	why            string
}

// call asks hastd for something, and hands back its answer, or nothing within a limit,
// as a connection to its socket does.
func (v *vipd) call(r *replica, limit view.Duration, c replicate.Command, done func(a answer)) {
	w := v.h.w
	v.calls++
	n := v.calls
	end := func(a answer) {
		v.h.whenAwake(false, func() {
			if v.alive() && v.pending[n] != nil {
				delete(v.pending, n)
				done(a)
			}
		})
	}
	v.pending[n] = func() { end(answer{lost: true, why: "the connection ended"}) }
	w.after(limit, func() { end(answer{lost: true, why: "no answer"}) })
	if w.lost() {
		w.count("fault order lost")
		return
	}
	w.after(w.delay(), func() {
		ok := r.p.Order(r.side, c, func(refused *replicate.Refusal) {
			if w.lost() {
				w.count("fault answer lost")
				return
			}
			text := ""
			if refused != nil {
				text = refused.Text
			}
			w.after(w.delay(), func() { end(answer{ok: refused == nil, why: text}) })
		})
		if !ok {
			w.after(w.delay(), func() { end(answer{gone: true, why: "no hastd"}) })
		}
	})
}

// guardHastd kills a hastd that stands still, unless vipd did so itself.
func (v *vipd) guardHastd() {
	h := v.h
	w := h.w
	if !v.alive() {
		return
	}
	w.after(hastdEvery, v.guardHastd)
	if h.standsStill() {
		return
	}
	if w.now-v.askedAt > int64(hastdTimeout/2) {
		v.silent = 0
	}
	v.askedAt = w.now
	r := h.replicas[0]
	switch {
	case !r.p.Running(r.side) || !r.p.Frozen(r.side):
		v.silent = 0
	case v.silent == 0:
		v.silent = w.now
	case w.now-v.silent >= int64(hastdTimeout):
		v.silent = 0
		w.count("a silent hastd is killed")
		h.killStorage()
	}
}

// connectionsEnd: hastd is gone, and whoever waits for it notices.
func (v *vipd) connectionsEnd() {
	for n := range v.calls + 1 {
		if end := v.pending[n]; end != nil {
			v.h.w.after(millisecond, end)
		}
	}
}

// delay is how long a word between the daemons of a host is on its way.
func (w *World) delay() view.Duration {
	if w.prof.slow && !w.quiet && w.chance(0.2) {
		w.count("fault late between daemons")
		return w.span(0, 1500*millisecond)
	}
	return w.span(50*view.Millisecond/1000, 2*millisecond)
}

func (w *World) lost() bool { return !w.quiet && w.chance(w.prof.deaf) }

// order passes a grant on.
func (v *vipd) order(o member.Order) {
	g := v.group(o.Resource)
	grant := replicate.Grant{
		Generation: o.Grant.Generation, Incarnation: uint64(o.Grant.Incarnation), Peer: uint64(o.Grant.Peer),
		Owner: o.Grant.Owner, PeerOwner: o.Grant.PeerOwner, Hold: o.Grant.Hold,
		Until: replicate.Instant(o.Grant.Until), Adding: uint64(o.Grant.Adding),
	}
	w := v.h.w
	v.call(g.r, orderLimit, replicate.Command{Kind: replicate.CmdGrant, Grant: &grant}, func(a answer) {
		if !a.ok {
			w.tracef("node %d: grant of %s was not taken: %s", v.h.id, o.Resource, a.why)
			w.count("grant not taken")
			if o.Grant.Adding != 0 && a.lost {
				w.count("grant without an answer: a peer to be counted")
			} else if o.Grant.Adding != 0 {
				w.count("grant not taken: a peer is not counted")
			}
		} else if o.Grant.Adding != 0 {
			w.count("grant: a peer is counted again")
		}
		v.step(member.Answered{Resource: o.Resource, OK: a.ok, Lost: a.lost, Gone: a.gone})
	})
}
