package runner

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hastd/carp"
)

// Protocol is CARP or VRRP.
type Protocol uint8

const (
	CARP Protocol = iota
	VRRP
)

func (p Protocol) String() string { return [...]string{"carp", "vrrp"}[p] }

// Options describe one node's part in one election.
type Options struct {
	Group     string // its name, for the log
	Protocol  Protocol
	ID        uint8        // vhid or VRID
	Password  []byte       // CARP's
	Addresses []netip.Addr // of the service, or none: signed by CARP, listed by VRRP
	// Interfaces are used in this order: packets go out on the first that has a
	// link, and are listened to on all.
	Interfaces []string
	// Peers are who packets are sent to and taken from; none: the multicast group.
	Peers []netip.Addr
	// Nodes are addresses of the cluster's other nodes on these networks, for Ours:
	// those whose adverts were heard need not be named.
	Nodes    []netip.Addr
	Election carp.Config
	Log      *slog.Logger

	// Changed and Announce are told on the runner's own goroutine: they must not
	// block, nor call back.
	Changed  func(from, to carp.State, reason string)
	Announce func(reason string)
	// Heard is told of every good packet of another node, before the election knows of
	// it and on the same goroutine as Changed: it must not block, nor call back.
	Heard func(carp.Advert)
	// Active is told which interface is used; "" when none has a link.
	Active func(name string)
}

// Stats count since the start.
type Stats struct {
	Sent     uint64
	Received uint64
	// Refused packets by what was wrong. Those of other groups are not among them:
	// the kernel drops them.
	Refused [carp.Faults]uint64
}

// Runner takes part in an election. Run it.
type Runner struct {
	o     Options
	key   *carp.CARPKey
	calls chan carp.Event
	asked chan struct{} // taken by the owner: it answers
	heard chan carp.Advert
	links chan linkState

	// The owner's.
	machine *carp.Machine
	counter uint64
	listens map[string][2]*listener // by interface; IPv4 and IPv6
	up      map[string]bool
	active  string
	self    netip.Addr
	faults  map[string]string // what was said last of what cannot be done

	sightings sightings
	senders   senders
	selves    atomic.Pointer[[]netip.Addr]

	state    atomic.Uint32
	until    atomic.Int64 // the boot time until which the state may be believed
	sent     atomic.Uint64
	received atomic.Uint64
	refused  [carp.Faults]atomic.Uint64

	mu       sync.Mutex // over what follows
	saidAt   time.Time  // when a refused packet was last logged
	silenced int        // how many were not since
}

const (
	// maxHeard bounds good packets that wait for the owner; more than a second's
	// worth of those of a large network.
	maxHeard = 256
	// sayEvery bounds what bad packets may write into the log.
	sayEvery = 10 * time.Second
	// retryLinks is how often sockets that could not be opened are tried again.
	retryLinks = time.Second
)

// New makes a runner; it does nothing yet.
func New(o Options) *Runner {
	r := &Runner{
		o:     o,
		calls: make(chan carp.Event), asked: make(chan struct{}), heard: make(chan carp.Advert, maxHeard), links: make(chan linkState),
		listens: map[string][2]*listener{}, up: map[string]bool{}, faults: map[string]string{},
	}
	if o.Protocol == CARP {
		r.key = r.newKey()
		r.machine = carp.NewCARP(o.Election)
		// Far from those of every other start, with room to count on.
		r.counter = rand.Uint64() >> 1
	} else {
		r.machine = carp.NewVRRP(o.Election)
	}
	return r
}

// newKey makes a key for one goroutine.
func (r *Runner) newKey() *carp.CARPKey {
	if r.o.Protocol != CARP {
		return nil
	}
	return carp.NewCARPKey(r.o.ID, r.o.Password, r.o.Addresses)
}

// State is what this node is, as far as its runner got to know.
func (r *Runner) State() carp.State { return carp.State(r.state.Load()) }

// Rightful says whether this node is master and its runner was on time: one that
// stood still (a stopped process, a paused host) may have been replaced although
// its state does not say so yet. One that is appointed is rightful to the end of its
// appointment at most.
func (r *Runner) Rightful() bool {
	return r.State() == carp.Master && int64(boot()) < r.until.Load()
}

// Stats are the counts so far.
func (r *Runner) Stats() Stats {
	s := Stats{Sent: r.sent.Load(), Received: r.received.Load()}
	for i := range s.Refused {
		s.Refused[i] = r.refused[i].Load()
	}
	return s
}

// Tell hands an event (a standing, an order, an appointment) to the machine. It waits
// for its turn. Instants are CLOCK_BOOTTIME.
func (r *Runner) Tell(ctx context.Context, ev carp.Event) error {
	select {
	case r.calls <- ev:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Alive says whether Run answers before ctx ends. The election does not notice: an
// event, even one of nothing but time, could overtake packets that wait.
func (r *Runner) Alive(ctx context.Context) bool {
	select {
	case r.asked <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// Run takes part until ctx ends, and says goodbye then.
func (r *Runner) Run(ctx context.Context) error {
	watching, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	if err := r.watchLinks(watching, &wg); err != nil {
		return err
	}
	defer r.closeAll()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	retry := time.NewTicker(retryLinks)
	defer retry.Stop()
	r.step(carp.Event{Kind: carp.EvStart})
	for {
		r.arm(timer)
		select {
		case <-ctx.Done():
			r.step(carp.Event{Kind: carp.EvStop})
			return nil
		case ev := <-r.calls:
			r.step(ev)
		case <-r.asked:
		case a := <-r.heard:
			r.onHeard(a)
		case l := <-r.links:
			r.onLink(l)
		case <-retry.C:
			r.lookAtLinks()
			r.choose()
		case <-timer.C:
			// What was heard before the time was over counts first.
			for n := len(r.heard); n > 0; n-- {
				r.onHeard(<-r.heard)
			}
			r.step(carp.Event{Kind: carp.EvTick})
		}
	}
}

func (r *Runner) onHeard(a carp.Advert) {
	if r.o.Heard != nil {
		r.o.Heard(a)
	}
	r.step(carp.Event{Kind: carp.EvHeard, Advert: a})
}

func (r *Runner) arm(t *time.Timer) {
	d := time.Hour
	if at, ok := r.machine.Deadline(); ok {
		d = max(time.Duration(at-r.now()), 0)
	}
	t.Reset(d)
}

func (r *Runner) step(ev carp.Event) {
	effects := r.machine.Step(r.now(), ev, nil)
	r.until.Store(int64(r.machine.Stands()))
	for _, e := range effects {
		switch e.Kind {
		case carp.EffSend:
			r.send(&e.Advert)
		case carp.EffState:
			r.state.Store(uint32(e.To))
			r.o.Changed(e.From, e.To, e.Reason)
		case carp.EffAnnounce:
			r.o.Announce(e.Reason)
		}
	}
}

// send sends an advert from the active interface, in every family of the service.
func (r *Runner) send(a *carp.Advert) {
	for i, l := range r.listens[r.active] {
		if l == nil {
			continue
		}
		s := l.s
		var failed error
		for _, to := range r.targets(families[i]) {
			var b []byte
			if r.o.Protocol == CARP {
				r.counter++
				r.sightings.sent(r.counter)
				p := carp.CARPPacket(a, r.o.ID, r.counter)
				b = p.Append(nil, r.key)
			} else {
				list := r.family(s.six)
				if len(list) == 0 {
					list = []netip.Addr{s.self} // a packet with none is no packet (RFC 9568, 5.2.5)
				}
				p := carp.VRRPPacket(a, r.o.ID, list)
				b = p.Append(nil, s.self, to)
			}
			if err := s.send(b, to); err != nil {
				failed = err
				continue
			}
			r.sent.Add(1)
		}
		r.complain("send", s.name, s.six, failed)
	}
}

// complain logs what cannot be done when it begins, changes and ends.
func (r *Runner) complain(what, name string, six bool, err error) {
	key, text := what+" "+name, ""
	if six {
		key += " 6"
	}
	if err != nil {
		text = err.Error()
	}
	if text == r.faults[key] {
		return
	}
	r.faults[key] = text
	if text != "" {
		r.o.Log.Warn("adverts cannot be sent or heard", "group", r.o.Group, "interface", name, "error", text)
		return
	}
	r.o.Log.Info("adverts can be sent and heard again", "group", r.o.Group, "interface", name)
}

func (r *Runner) family(six bool) (list []netip.Addr) {
	for _, a := range r.o.Addresses {
		if a.Is6() == six {
			list = append(list, a)
		}
	}
	return list
}

func (r *Runner) targets(six bool) []netip.Addr {
	if len(r.o.Peers) > 0 {
		var list []netip.Addr
		for _, a := range r.o.Peers {
			if a.Is6() == six {
				list = append(list, a)
			}
		}
		return list
	}
	if six {
		return []netip.Addr{carp.Group6}
	}
	return []netip.Addr{carp.Group4}
}

// parse believes a packet or says what is wrong with it.
func (r *Runner) parse(p *packet, key *carp.CARPKey) (carp.Advert, uint64, carp.Fault) {
	if p.ttl != carp.TTL {
		return carp.Advert{}, 0, carp.FaultTTL
	}
	if len(r.o.Peers) > 0 && !slices.Contains(r.o.Peers, p.from) {
		return carp.Advert{}, 0, carp.FaultContent
	}
	if r.o.Protocol == CARP {
		a, fault := carp.ParseCARP(p.payload, key)
		return a.Heard(p.from), a.Counter, fault
	}
	a, fault := carp.ParseVRRP(p.payload, r.o.ID, p.from, p.to)
	return a.Heard(p.from), 0, fault
}

// refuse counts a bad packet, and says so now and then.
func (r *Runner) refuse(p *packet, fault carp.Fault, on string) {
	r.refused[fault].Add(1)
	if fault == carp.FaultID {
		return // another group's: nothing is wrong
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.saidAt) >= sayEvery || r.saidAt.IsZero() {
		r.o.Log.Warn("an advert was refused", "group", r.o.Group, "from", p.from.String(), "interface", on,
			"cause", fault.String(), "hint", hints[fault], "refused-since", r.silenced)
		r.saidAt, r.silenced = now, 0
		return
	}
	r.silenced++
}

var hints = map[carp.Fault]string{
	carp.FaultAuth:     "its password, its vhid or its addresses differ from ours",
	carp.FaultReplay:   "a packet that was sent before was sent again: somebody records this network",
	carp.FaultTTL:      "it came over a router",
	carp.FaultVersion:  "another version of the protocol",
	carp.FaultChecksum: "it was damaged on the way, or a device between changes addresses",
	carp.FaultLength:   "it is too short or too long",
	carp.FaultContent:  "a field of it cannot be, or its sender is not among the peers",
}

func stopPipe() (read, write int, err error) {
	var p [2]int
	err = unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK)
	return p[0], p[1], err
}
