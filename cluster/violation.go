package cluster

import (
	"fmt"
	"slices"
	"strings"
)

// A failover group is up on one node at most: CurrentCount, the number of nodes where it
// is online or partial, is 1. This file finds out when it is not, from what the peers
// report, from who advertises as master, and from what was put up here by somebody else;
// it says so, and takes down what is in violation here.
//
// What the controllers themselves ordered up on two nodes (a cut without a quorum) is
// told alike, but ends by the election: one of them steps down.

const (
	// peerHold is for how long a report counts. They come several times a second.
	peerHold = 10 * Second
	// peerDoubt is for how long two nodes must say that they have the group by order: a
	// report may be from before a switch.
	peerDoubt = 2 * Second
	// strayed is said of a part that is up although nobody here ordered that.
	strayed = "it is up, and nobody here ordered that"
)

// peer is another node of the group, or somebody who advertises and is none.
type peer struct {
	name     string
	stranger bool
	report   *GroupReport
	until    Instant // the report counts until then
	master   Instant // it is taken for a master until then
	active   bool    // it was up at the last look
	since    Instant // and has been from then on
	found    uint8   // its violations that were told here
	known    bool    // it is known how many were before
}

// fresh says whether the peer's report counts.
func (g *Group) fresh(p *peer) bool { return p.report != nil && g.now < p.until }

// activeOn says whether the group is online or partial on a peer.
func (g *Group) activeOn(p *peer) bool {
	if g.fresh(p) {
		return p.report.State == Online || p.report.State == Partial
	}
	return g.now < p.master
}

func (g *Group) onPeer(ev *Event) {
	for i := range g.peers {
		p := &g.peers[i]
		if p.name != ev.Node || p.stranger {
			continue
		}
		if p.report, p.until = ev.Peer, g.now.add(peerHold); ev.Peer == nil {
			p.master, p.known = 0, false
			continue
		}
		if n := ev.Peer.Violations; n != p.found {
			told := !p.known || n == 0 // before it was heard; or it was started again
			p.found = n
			if !told {
				g.foundAt(p)
			}
		}
		p.known = true
	}
}

// foundAt tells what another node found with itself. It may be over by now.
func (g *Group) foundAt(p *peer) {
	parts := p.report.names(func(x *PartReport) bool { return x.Found })
	hosts := append([]string{p.name}, slices.DeleteFunc(g.Hosts(), func(h string) bool { return h == p.name })...)
	g.alarm = g.alarmKey(p.name, parts)
	g.emit(Effect{Kind: EffViolation, Part: -1, Lines: violationLines(g.cfg.Name, p.name, parts, hosts)})
}

// onMaster takes note of who advertises. Of those that are no node of the group only
// the last is remembered: anybody may send such packets.
func (g *Group) onMaster(ev *Event) {
	until := Instant(0)
	if ev.Up {
		until = g.now.add(g.cfg.MasterHold)
	}
	for i := range g.peers {
		if p := &g.peers[i]; p.name == ev.Node || p.stranger {
			p.name, p.master = ev.Node, until
			return
		}
	}
	g.peers = append(g.peers, peer{name: ev.Node, stranger: true, master: until})
}

func (g *Group) masterless() {
	for i := range g.peers {
		g.peers[i].master = 0
	}
}

// silence is when what is believed of the peers changes although nothing is heard.
func (g *Group) silence() (at Instant, ok bool) {
	for i := range g.peers {
		p := &g.peers[i]
		if !p.active {
			continue
		}
		t := p.master
		if g.fresh(p) {
			t = p.until
		}
		if t > g.now && (!ok || t < at) {
			at, ok = t, true
		}
	}
	if g.doubtful != 0 && g.alarm == "" {
		if t := g.doubtful.add(peerDoubt); t > g.now && (!ok || t < at) {
			at, ok = t, true
		}
	}
	return at, ok
}

// seen takes what a look at a part that is down here said.
func (g *Group) seen(i int, look Look) {
	p := &g.parts[i]
	was := p.stray
	switch look {
	case LookOnline:
		p.stray = true
	case LookOffline:
		p.stray = false
	}
	if p.stray && !was {
		p.strayAt = g.now
		g.emit(Effect{Kind: EffReport, Part: i, Reason: strayed})
	}
}

// Hosts are the nodes where the group is online or partial, as far as this node knows,
// in order of preference. Their number is CurrentCount.
func (g *Group) Hosts() []string {
	var list []string
	own := g.overall()
	add := func(name string) {
		if name == g.cfg.Node {
			if own == Online || own == Partial {
				list = append(list, name)
			}
			return
		}
		for i := range g.peers {
			if p := &g.peers[i]; p.name == name && !p.stranger && g.activeOn(p) {
				list = append(list, name)
			}
		}
	}
	for _, name := range g.cfg.Nodes {
		add(name)
	}
	for i := range g.peers {
		if p := &g.peers[i]; p.stranger && g.activeOn(p) {
			list = append(list, p.name)
		}
	}
	return list
}

// elsewhere are the other nodes where a failover group is up.
func (g *Group) elsewhere() (list []string) {
	for _, h := range g.Hosts() {
		if h != g.cfg.Node && !g.cfg.Parallel {
			list = append(list, h)
		}
	}
	return list
}

// judge finds a concurrency violation, tells of it once, and ends it if it is here.
func (g *Group) judge() {
	for i := range g.peers {
		p := &g.peers[i]
		is := g.activeOn(p)
		if is && !p.active {
			p.since = g.now
		}
		p.active = is
	}
	if g.cfg.Parallel || g.held || !g.Probed() {
		return
	}
	hosts := g.Hosts()
	if len(hosts) < 2 {
		g.alarm, g.doubtful = "", 0
		return
	}
	who, parts, sure := g.violator()
	if sure {
		g.doubtful = 0
	} else if g.doubtful == 0 {
		g.doubtful = g.now
	}
	if who == "" || !sure && g.now < g.doubtful.add(peerDoubt) {
		return
	}
	first := -1
	if who == g.cfg.Node {
		first = g.misplaced()[0]
	}
	if key := g.alarmKey(who, parts); key != g.alarm {
		if g.alarm = key; who == g.cfg.Node {
			if g.violations++; g.violations == 0 {
				g.violations = 1
			}
			g.found = g.misplaced()
		}
		g.emit(Effect{Kind: EffViolation, Part: first, Lines: violationLines(g.cfg.Name, who, parts, hosts)})
		g.suspend(who)
	}
	if who == g.cfg.Node && !g.frozen {
		g.evict()
	}
}

// alarmKey names a violation; strangers are all alike, lest they fill the log.
func (g *Group) alarmKey(who string, parts []string) string {
	for i := range g.peers {
		if p := &g.peers[i]; p.stranger && p.name == who {
			return "a stranger"
		}
	}
	return who + " " + strings.Join(parts, " ")
}

// violationLines is what people are told, in the order that they know.
func violationLines(group, who string, parts, hosts []string) []string {
	var lines []string
	for _, name := range parts {
		lines = append(lines, fmt.Sprintf("Resource %s is online on %s", name, who))
	}
	ordered := []string{who}
	for _, h := range hosts {
		if h != who {
			ordered = append(ordered, h)
		}
	}
	return append(lines, "CurrentCount increased above 1 for failover group",
		fmt.Sprintf("WARNING: Concurrency violation!!! group=%q hosts=(%s)", group, strings.Join(ordered, " ")))
}

// strays are the parts that are up here outside the controller.
func (g *Group) strays() (list []int) {
	if g.wanted() {
		return nil // it is about to put them up itself
	}
	for i := range g.parts {
		if g.parts[i].stray {
			list = append(list, i)
		}
	}
	return list
}

// misplaced are the parts that are up here where nothing should be: those that came up
// outside the controller, or what was not taken down.
func (g *Group) misplaced() (list []int) {
	if list = g.strays(); len(list) > 0 {
		return list
	}
	for i := range g.parts {
		if p := &g.parts[i]; p.is != down && p.is != failed {
			list = append(list, i)
		}
	}
	return list
}

func (g *Group) names(list []int) (names []string) {
	for _, i := range list {
		names = append(names, g.parts[i].short())
	}
	return names
}

// violator is the node that is in the wrong, with what is up there: the one where it
// came up outside the controller, of two such the one that came second; or the one that
// is to have nothing up, and could not be taken down. Where the controllers ordered both
// up, it is the other one, seen from here. Not sure: it may be a report from before a
// switch.
func (g *Group) violator() (who string, parts []string, sure bool) {
	own := g.strays()
	var foreign *peer // up in violation
	var other *peer   // up
	for i := range g.peers {
		p := &g.peers[i]
		if !p.active {
			continue
		}
		if g.fresh(p) && p.report.Stray() {
			foreign = p
		} else if other == nil {
			other = p
		}
	}
	if len(own) > 0 && (other != nil || foreign != nil && foreign.since <= g.parts[own[0]].strayAt) {
		return g.cfg.Node, g.names(own), true
	}
	switch {
	case foreign != nil:
		// It says so itself, unless it does not hear us.
		return foreign.name, foreign.report.names(func(x *PartReport) bool { return x.Stray }), false
	case other == nil:
		return "", nil, false
	}
	if s := g.overall(); !g.wanted() && (s == Online || s == Partial) {
		list := g.misplaced()
		if len(list) == 0 {
			return "", nil, false
		}
		return g.cfg.Node, g.names(list), false
	}
	if g.fresh(other) {
		return other.name, other.report.up(), false
	}
	// Its adverts say no more than that it has the addresses.
	for i := range g.parts {
		if g.parts[i].Kind == Address {
			parts = append(parts, g.parts[i].short())
		}
	}
	if len(parts) == 0 && len(g.parts) > 0 {
		parts = append(parts, g.parts[len(g.parts)-1].short())
	}
	return other.name, parts, true
}

// evict has what came up here outside the controller taken down, in the order of going
// down; this node is out of the field until a person clears it. Storage is never
// demoted so: whoever promoted it may have written to it.
func (g *Group) evict() {
	why := fmt.Sprintf("it came up on %s outside the controller while the group was online on %s", g.cfg.Node, strings.Join(g.elsewhere(), " "))
	for _, i := range g.strays() {
		p := &g.parts[i]
		if !g.violated {
			g.leave(i, why)
			g.violated = true
		}
		if p.Kind != Resource {
			p.is, p.stray, p.reason = unknown, false, strayed
		}
	}
}

// suspend asks to hold the I/O of resources that are primary here and elsewhere, where
// that is wrong.
func (g *Group) suspend(who string) {
	if who != g.cfg.Node {
		return
	}
	for i := range g.parts {
		if p := &g.parts[i]; p.stray && p.Kind == Resource {
			g.emit(Effect{Kind: EffSuspend, Part: i, Reason: "it is primary here outside the controller, and the group is online elsewhere"})
		}
	}
}

// AutoDisabled says whether the group must not be taken over here: nobody knows yet
// what is up, or what a lost peer does.
func (g *Group) AutoDisabled() bool { return !g.Probed() || g.jeopardy != "" }

// tellCritical says once that the group is faulted on every node.
func (g *Group) tellCritical() {
	all := g.state == Faulted
	for i := range g.peers {
		if p := &g.peers[i]; !p.stranger {
			all = all && g.fresh(p) && p.report.State == Faulted
		}
	}
	if all && !g.critical {
		g.emit(Effect{Kind: EffCritical, Reason: "it is faulted on every node, and down until a person clears it; here: " + g.fault})
	}
	g.critical = all
}
