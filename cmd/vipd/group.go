package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hastd/carp"
	"hastd/carp/runner"
	"hastd/carp/vip"
	"hastd/cluster"
	crunner "hastd/cluster/runner"
	"hastd/cmd/internal/api"
	"hastd/cmd/internal/exit"
	"hastd/conf"
)

// group is one group on this node with everything it needs.
type group struct {
	s        *server
	conf     *conf.Group
	machine  *crunner.Group
	election *election // nil: there is none
	seat     *chair    // nil: the cluster's view does not decide
	watch    *crunner.Watch
	keeper   *vip.Keeper // nil: no addresses
	parts    int         // how many
	limit    time.Duration
	down     atomic.Bool // at the end: nothing is up that the others must know of
	moves    chan string // interfaces that the addresses are to move to

	heard   string    // who advertised last; of the election's goroutine
	heardAt time.Time // and was told to the machine then

	mu          sync.Mutex
	active      string // interface of the election
	elected     bool
	since       time.Time // of the group's state
	vipSince    time.Time
	last        api.Change
	transitions map[string]uint64
	restarts    map[string]uint64 // of services, by name
	violations  uint64
}

// watchEvery is the time between two looks at the replicas.
const watchEvery = 250 * time.Millisecond

func newGroup(s *server, g *conf.Group, st crunner.Storage) (*group, error) {
	u := &group{s: s, conf: g, since: time.Now(), vipSince: time.Now(), moves: make(chan string, 1), transitions: map[string]uint64{}, restarts: map[string]uint64{}}
	log := s.o.Log
	cfg := u.electionConfig()
	var decider crunner.Decider = person{}
	switch {
	case g.Election == conf.ElectionExternal:
	case g.Parallel:
		decider = everywhere{u.onElected}
	case s.quorum != nil:
		u.seat = newChair(u, s.quorum)
		decider = u.seat
		if len(g.Interfaces) == 0 || len(g.Addresses) == 0 {
			break // nobody needs to hear where it is
		}
		cfg.Appointed = true
		e, err := u.newElection(cfg)
		if err != nil {
			return nil, err
		}
		e.elected = func(bool, string) {}
		u.election = e
	default:
		e, err := u.newElection(cfg)
		if err != nil {
			return nil, err
		}
		u.election, decider = e, e
	}
	lifetime := time.Duration(carpDown(g, cfg))
	if s.quorum != nil {
		lifetime = s.lifetime()
	}
	if s.quorum != nil && u.seat == nil {
		st = acquiring{st, s.quorum}
	}
	var a *address
	if len(g.Addresses) > 0 {
		var prefixes []netip.Prefix
		for _, x := range g.Addresses {
			prefixes = append(prefixes, x.CIDR)
		}
		o := vip.Options{
			Group: g.Name, Addresses: prefixes, Interfaces: g.Interfaces, Log: log, Lifetime: lifetime,
			Lost: u.onAddressLost, Taken: u.onAddressTaken,
		}
		if u.election != nil {
			o.Ours, o.Rightful = u.election.ours, u.election.rightful
		}
		if u.seat != nil {
			o.Rightful, o.Until = nil, u.seat.left
		}
		u.keeper = vip.New(o)
		a = &address{keeper: u.keeper, interfaces: g.Interfaces, active: u.activeInterface, anyway: u.seat != nil}
	}
	list, drivers := parts(g, st, a)
	u.parts = len(list)
	for _, v := range g.Services {
		u.restarts[v.Name] = 0
	}
	u.limit = stopTimeout
	for _, p := range list {
		u.limit += time.Duration(p.DownLimit)
	}
	u.machine = crunner.New(crunner.Options{
		Config: cluster.Config{
			Name: g.Name, Parts: list, External: g.Election == conf.ElectionExternal, Parallel: g.Parallel, FailFast: g.Failfast,
			Node: s.Node(), Nodes: g.Nodes, MasterHold: cluster.Duration(lifetime),
		},
		Drivers: drivers, Decider: decider, Log: log, Changed: u.onGroup,
		Failed:  func(part, reason string) { s.event("part", part, "", "failed", reason) },
		Alarmed: u.onAlarm, Console: s.console,
		Fence: func(_, reason string) bool { return s.fence(g.Name, reason) },
	})
	u.watch = &crunner.Watch{
		Group: u.machine, Storage: st, Resources: g.Resources, Every: watchEvery, Silence: s.vipd.HastdTimeout, Log: log,
		Peer: func(resource string) string {
			if n, err := s.o.Conf.Peer(resource, s.Node()); err == nil {
				return n.Name
			}
			return ""
		},
	}
	return u, nil
}

func carpDown(g *conf.Group, cfg carp.Config) carp.Duration {
	if g.Election == conf.ElectionVRRP {
		return carp.NewVRRP(cfg).MasterDown()
	}
	return carp.NewCARP(cfg).MasterDown()
}

// electionConfig is the node's part in the election.
func (u *group) electionConfig() carp.Config {
	g := u.conf
	skew := g.AdvSkew[u.s.o.Node.Name]
	return carp.Config{
		Advbase: uint8(g.AdvBase), Advskew: uint8(skew), Priority: uint8(254 - skew), Interval: carp.Duration(g.AdvertInterval),
		DeadRatio: g.DeadRatio, Preempt: g.Preempt, PreemptDelay: carp.Duration(g.PreemptDelay), StartDelay: carp.Duration(g.StartDelay),
	}
}

func (u *group) newElection(cfg carp.Config) (*election, error) {
	g, log := u.conf, u.s.o.Log
	e := newElection()
	e.log = log
	e.o = runner.Options{
		Group: g.Name, Protocol: runner.CARP, ID: uint8(g.VHID), Interfaces: g.Interfaces, Election: cfg, Log: log,
		Announce: func(reason string) {
			log.Warn("announcing the addresses again", "group", g.Name, "reason", reason)
			if u.keeper != nil {
				u.keeper.Announce()
			}
		},
		Active: u.onActive, Heard: u.onAdvert,
	}
	// The slowest of the nodes may be the one that is master.
	slowest := 0
	for _, skew := range g.AdvSkew {
		slowest = max(slowest, skew)
	}
	e.listen = time.Duration(carp.CARPEvery(uint8(g.AdvBase), uint8(slowest))) + listenSlack
	if g.Election == conf.ElectionVRRP {
		e.o.Protocol = runner.VRRP
		e.listen = g.AdvertInterval + listenSlack
	} else {
		pass, err := readPassword(g.PassFile)
		if err != nil {
			return nil, err
		}
		e.o.Password = pass
	}
	for _, x := range g.Addresses {
		e.o.Addresses = append(e.o.Addresses, x.CIDR.Addr())
	}
	for _, name := range g.Nodes {
		n, err := u.s.o.Conf.Node(name)
		if err != nil || name == u.s.Node() {
			continue
		}
		e.o.Nodes = append(e.o.Nodes, n.Addresses...)
		if g.Unicast {
			e.o.Peers = append(e.o.Peers, n.Addresses[0])
		}
	}
	e.changed = u.onElection
	e.elected = u.onElected
	return e, nil
}

// onElected hands on who is master.
func (u *group) onElected(master bool, reason string) {
	u.mu.Lock()
	u.elected = master
	u.mu.Unlock()
	u.machine.Tell(electedEvent(master, reason))
}

// maxPassFile bounds the file of CARP's password, in bytes.
const maxPassFile = 4 << 10

func readPassword(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, exit.New(exit.Config, "write the same line into it on every node, and make it readable by root alone: chmod 600 "+path, "pass-file: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() > maxPassFile {
		return nil, exit.New(exit.Config, "it has one line, the password", "pass-file %s is no small regular file", path)
	}
	if mode := st.Mode().Perm(); mode&0o077 != 0 {
		return nil, exit.New(exit.Config, "run: chmod 600 "+path, "pass-file %s: others than its owner may use it (mode %04o)", path, mode)
	}
	b := make([]byte, st.Size())
	n, err := f.Read(b)
	if err != nil || len(strings.TrimSpace(string(b[:n]))) == 0 {
		return nil, exit.New(exit.Config, "write a password into it, the same on every node", "pass-file %s is empty", path)
	}
	return []byte(strings.TrimSpace(string(b[:n]))), nil
}

// run works until ctx ends, and has everything down then.
func (u *group) run(ctx context.Context) {
	// What serves the group ends after it: its adverts say goodbye, its storage is
	// asked until the end.
	serve, end := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	if len(u.conf.Resources) > 0 {
		wg.Go(func() { u.watch.Run(serve) })
	} else {
		u.machine.Tell(cluster.Event{Kind: cluster.EvStanding, Fit: true, Reason: "it has no resources"})
	}
	if u.election != nil {
		wg.Go(func() { u.election.Run(serve) })
	}
	if u.seat != nil {
		wg.Go(func() { u.seat.run(serve) })
	}
	if u.keeper != nil {
		wg.Go(func() { u.move(serve) })
	}
	down := u.machine.Run(ctx, u.limit)
	// With votes the others would start what is still up here, if they were told that
	// nothing is; a parallel group is another one on each node.
	u.down.Store(down || u.machine.Status().Frozen && (u.s.quorum == nil || u.conf.Parallel))
	end()
	wg.Wait()
	if u.keeper != nil {
		u.keeper.Abandon() // of a frozen group, or one that is stuck: the kernel takes them
	}
}

func (u *group) activeInterface() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.active
}

// onActive is told by the election which interface has a link.
func (u *group) onActive(name string) {
	u.mu.Lock()
	was := u.active
	u.active = name
	u.mu.Unlock()
	u.s.event("interface", u.conf.Name, was, name, "")
	if name == "" {
		return // the election is lost with it
	}
	select {
	case <-u.moves:
	default:
	}
	u.moves <- name
}

// move takes the addresses along when the election moves to another interface.
func (u *group) move(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case name := <-u.moves:
			was := u.keeper.On()
			if was == "" || was == name {
				continue
			}
			if err := u.keeper.Up(ctx, name); err != nil {
				u.s.o.Log.Error("the addresses could not be moved", "group", u.conf.Name, "from", was, "to", name, "reason", err)
				u.machine.Tell(cluster.Event{Kind: cluster.EvLost, Part: u.parts - 1, Err: err.Error()})
				continue
			}
			u.s.o.Log.Info("addresses moved", "group", u.conf.Name, "from", was, "to", name)
		}
	}
}

// onElection tells people of a transition, in the words they know.
func (u *group) onElection(from, to carp.State, reason string) {
	if u.seat != nil {
		u.seat.poke()
	}
	now := time.Now()
	u.mu.Lock()
	took := now.Sub(u.vipSince)
	u.vipSince = now
	u.last = api.Change{Time: now, Old: strings.ToLower(from.String()), New: strings.ToLower(to.String()), Reason: reason}
	u.transitions[u.last.New]++
	u.mu.Unlock()
	u.s.o.Log.Info(fmt.Sprintf("%s %s: %v -> %v (%s)", u.conf.Election, u.conf.Name, from, to, reason), "group", u.conf.Name, "after", took.Round(time.Millisecond).String())
	u.s.event("vip", u.conf.Name, u.last.Old, u.last.New, reason)
}

// onGroup tells people of a change of the group's state.
func (u *group) onGroup(from, to cluster.State, reason string) {
	if u.seat != nil {
		u.seat.poke() // what went down may be handed over
	}
	now := time.Now()
	u.mu.Lock()
	took := now.Sub(u.since)
	u.since = now
	u.mu.Unlock()
	attrs := []any{"group", u.conf.Name, "after", took.Round(time.Millisecond).String()}
	if reason != "" {
		attrs = append(attrs, "reason", reason)
	}
	u.s.o.Log.Info(fmt.Sprintf("group %s: %v -> %v", u.conf.Name, from, to), attrs...)
	u.s.event("group", u.conf.Name, strings.ToLower(from.String()), strings.ToLower(to.String()), reason)
}

// status is the group as people see it.
func (u *group) status() api.Group {
	st := u.machine.Status()
	u.mu.Lock()
	defer u.mu.Unlock()
	g := api.Group{
		Name: u.conf.Name, State: strings.ToLower(st.State.String()), Since: u.since, Election: string(u.conf.Election), Elected: u.elected,
		Nodes: slices.Clone(u.conf.Nodes), Fit: st.Fit, Standing: st.Standing, Frozen: st.Frozen, Disabled: st.Disabled,
		Probed: st.Probed, AutoDisabled: st.AutoDisabled, Count: len(st.Hosts), Hosts: slices.Clone(st.Hosts), Fault: st.Fault, Parts: []api.Part{},
	}
	switch {
	case st.State == cluster.Online:
		g.Online = u.s.Node()
	default:
		g.Online = u.watch.PeerPrimary()
		if g.Online == "" && len(st.Hosts) > 0 {
			g.Online = st.Hosts[0]
		}
	}
	if g.Hosts == nil {
		g.Hosts = []string{}
	}
	for i, p := range st.Parts {
		x := api.Part{Name: p.Name, Kind: p.Kind.String(), State: p.State, Reason: p.Reason}
		x.Restarts = p.Restarts
		if p.Stray {
			x.State = "stray"
		}
		if n := i - (len(st.Parts) - len(u.conf.Addresses)); n >= 0 {
			x.Address = u.conf.Addresses[n].CIDR.Addr().String()
		}
		g.Parts = append(g.Parts, x)
		if g.Reason == "" && p.Reason != "" {
			g.Reason = p.Name + ": " + p.Reason
		}
	}
	switch {
	case st.Frozen:
		g.Reason = "frozen by order"
	case st.Disabled:
		g.Reason = "taken offline by order"
	case st.Fault != "":
		g.Reason = st.Fault
	case st.Held:
		g.Reason = "it was found up: listening for another master"
	case g.Reason == "" && st.State == cluster.Offline && !st.Fit:
		g.Reason = st.Standing
	}
	return g
}

// vip is the group's election as people see it.
func (u *group) vip() api.VIP {
	v := api.VIP{Group: u.conf.Name, Protocol: string(u.conf.Election), Addresses: []string{}, Adverts: api.Adverts{Refused: map[string]uint64{}}}
	for _, a := range u.conf.Addresses {
		v.Addresses = append(v.Addresses, a.CIDR.String())
	}
	if u.election != nil {
		state, stats := u.election.state()
		v.ID, v.State = u.conf.VHID, strings.ToLower(state.String())
		v.Adverts.Sent, v.Adverts.Received = stats.Sent, stats.Received
		for i, n := range stats.Refused {
			if carp.Fault(i) != carp.FaultNone {
				v.Adverts.Refused[carp.Fault(i).String()] = n
			}
		}
	}
	if u.keeper != nil {
		v.Interface = u.keeper.On()
		v.Held = v.Interface != ""
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if v.Interface == "" {
		v.Interface = u.active
	}
	v.Since, v.Last = u.vipSince, u.last
	return v
}
