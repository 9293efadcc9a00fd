package cluster

import "strings"

// watching says whether parts are looked at now.
func (g *Group) watching() bool { return !g.frozen && g.wanted() }

// aside says whether nothing of the group is to be up here, and nothing is under way.
func (g *Group) aside() bool {
	return g.op == 0 && !g.wanted() && !g.held && !g.ending && g.Probed()
}

// due says whether the next look at a part has a time.
func (g *Group) due(p *part) bool {
	switch {
	case p.look != 0:
		return false
	case p.is == up:
		return p.Interval > 0 && g.watching()
	case p.is == down:
		return p.OffInterval > 0 && g.aside()
	}
	return false
}

// monitor begins the looks that are due.
func (g *Group) monitor() {
	for i := range g.parts {
		p := &g.parts[i]
		if g.due(p) && g.now >= p.lookAt {
			g.lastOp++
			p.look = g.lastOp
			kind := EffLook
			if p.is == down {
				kind = EffSeek
			}
			g.emit(Effect{Kind: kind, Part: i, Op: p.look})
		}
	}
}

// onLooked takes what a monitor saw. One that could not tell changes nothing.
func (g *Group) onLooked(ev *Event) {
	for i := range g.parts {
		p := &g.parts[i]
		if p.look == 0 || p.look != ev.Op {
			continue
		}
		if p.look = 0; p.is == down {
			p.lookAt = g.now.add(p.OffInterval)
			g.seen(i, ev.Look)
			return
		}
		p.lookAt = g.now.add(p.Interval)
		switch ev.Look {
		case LookOffline:
			g.lost(i, "its monitor found it offline")
		case LookUnknown:
			g.emit(Effect{Kind: EffReport, Part: i, Reason: "its monitor could not tell: " + ev.Err})
		}
		return
	}
}

func (g *Group) onOrder(ev *Event) {
	answer := func(err string) { g.emit(Effect{Kind: EffAnswer, ID: ev.ID, Err: err}) }
	if len(g.orders) >= maxOrders {
		answer("too many orders are under way: try again")
		return
	}
	waiting := false
	switch ev.Order {
	case OrderFreeze:
		g.frozen = true
	case OrderUnfreeze:
		g.frozen = false
	case OrderClear:
		g.fault, g.violated, g.jeopardy, g.backoff = "", false, "", firstBackoff
		for i := range g.parts {
			if p := &g.parts[i]; p.is == failed {
				p.is, p.tries = down, 0
			}
		}
	default:
		if g.frozen {
			answer("the group is frozen: unfreeze it first")
			return
		}
		waiting = true
	}
	switch ev.Order {
	case OrderOnline:
		if on := g.elsewhere(); g.cfg.External && len(on) > 0 {
			answer("it is online on " + strings.Join(on, " ") + ", and may be on one node only")
			return
		}
		g.offline = false
		if waiting = g.cfg.External; waiting {
			g.master, g.fault, g.violated = true, "", false
		}
	case OrderTake:
		if g.fault != "" {
			answer("it is faulted here: " + g.fault)
			return
		}
		if !g.facts.Fit {
			answer(g.facts.Reason)
			return
		}
		g.offline = false
		if g.cfg.External {
			g.master = true
		} else {
			g.emit(Effect{Kind: EffTake})
		}
	case OrderOffline:
		g.offline = true
		g.resign("taken offline by order")
	case OrderSwitch:
		if g.cfg.Parallel {
			answer("a parallel group does not move: take it offline here instead")
			return
		}
		if g.state != Online && g.state != Partial && g.state != Starting {
			answer("it is not online on this node")
			return
		}
		g.resign("switched by order")
	}
	if waiting {
		g.orders = append(g.orders, order{ev.ID, ev.Order})
	} else {
		answer("")
	}
}

func (g *Group) resign(why string) {
	if !g.cfg.External {
		g.emit(Effect{Kind: EffResign, Reason: why})
	}
	// A parallel group is to be up wherever it is not taken offline.
	g.master, g.held = g.master && g.cfg.Parallel && !g.cfg.External, false
}

// endOrders answers the orders of a kind.
func (g *Group) endOrders(kind Order, err string) {
	kept := g.orders[:0]
	for _, o := range g.orders {
		if o.kind == kind {
			g.emit(Effect{Kind: EffAnswer, ID: o.id, Err: err})
		} else {
			kept = append(kept, o)
		}
	}
	g.orders = kept
}

// tell says what changed: to the election, to people, to who ordered.
func (g *Group) tell() {
	s := Effect{Kind: EffStanding, Fit: g.facts.Fit, Demotion: g.facts.Demotion, Reason: g.facts.Reason}
	switch {
	case g.ending:
		s.Fit, s.Reason = false, "the controller ends"
	case g.offline:
		s.Fit, s.Reason = false, "taken offline by order"
	case g.fault != "":
		s.Fit, s.Reason = false, g.fault
	case g.frozen && !g.master:
		s.Fit, s.Reason = false, "frozen by order"
	case !g.Probed():
		s.Fit, s.Reason = false, "not looked at yet"
	case g.jeopardy != "" && !g.master:
		s.Fit, s.Reason = false, "autodisabled: "+g.jeopardy
	}
	if t := &g.told; s.Fit != t.Fit || s.Demotion != t.Demotion || s.Reason != t.Reason {
		g.told = s
		g.emit(s)
	}
	was := g.state
	if g.state = g.overall(); g.state != was {
		g.emit(Effect{Kind: EffState, From: was, To: g.state, Reason: g.reason()})
	}
	switch {
	case g.state == Online, g.state == Partial && g.served():
		g.endOrders(OrderOnline, "")
		g.endOrders(OrderTake, "")
	case g.allDown():
		g.endOrders(OrderOffline, "")
		g.endOrders(OrderSwitch, "")
	}
	g.tellCritical()
	if g.ending && g.op == 0 && (g.frozen || g.allDown() || g.anyStuck()) {
		g.emit(Effect{Kind: EffStopped})
	}
}

// overall is the state that the parts add up to.
func (g *Group) overall() State {
	ups, downs, strays, renewing, hopeless := 0, 0, 0, 0, false
	for i := range g.parts {
		switch p := &g.parts[i]; {
		case p.renew:
			renewing++
		case p.stray && !g.ending: // one that ends leaves it to who put it there
			strays++
		case p.is == up, p.is == goingUp && p.found: // the latter is only made sure of
			ups++
		case p.is == down:
			downs++
		case p.is == stuck, p.is == failed, p.is == goingDown && p.wedged:
			hopeless = true
		}
	}
	n := len(g.parts)
	switch {
	case !g.Probed():
		return Offline
	case ups == n && (n > 0 || g.wanted()):
		return Online
	case g.held, strays > 0 && strays+downs == n, renewing > 0 && g.served():
		return Partial
	case downs == n && g.fault != "":
		return Faulted
	case downs == n && !g.wanted():
		return Offline
	case hopeless && (g.op == 0 || g.parts[g.at].wedged), g.frozen && g.op == 0:
		return Partial
	case g.wanted():
		return Starting
	}
	return Stopping
}

// served says whether everything is up that can be: the rest was given up, or is put up
// again.
func (g *Group) served() bool {
	for i := range g.parts {
		if p := &g.parts[i]; p.is != up && p.is != failed && !p.renew {
			return false
		}
	}
	return g.wanted()
}

func (g *Group) reason() string {
	for i := range g.parts {
		switch p := &g.parts[i]; {
		case p.is == stuck, p.is == failed, p.wedged, p.renew && p.reason != "":
			return p.Name + ": " + p.reason
		case p.stray:
			return p.Name + ": " + strayed
		}
	}
	return g.fault
}
