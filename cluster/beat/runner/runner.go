package runner

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"hastd/cluster/beat"
)

// Node is a node of the cluster as its configuration has it.
type Node struct {
	ID        int
	Name      string
	Addresses []netip.Addr // one for each link
	Serial    string       // device of the heartbeat line, "" for none
}

// Options describe one node's part in a cluster.
type Options struct {
	Cluster string // its name
	Key     []byte // its key; none: insecure
	Self    Node
	Peers   []Node
	Port    int // UDP, on every link

	Interval, Trouble, Timeout time.Duration

	Shared beat.Shared // the configuration that all must have
	Baud   int         // of the serial line; 0: DefaultBaud
	Log    *slog.Logger

	// Mute says why this node is to be taken for gone, "" if it is not, or nil: as long as
	// there is a reason nothing is sent. It is asked before every packet, on the runner's
	// own goroutine, and must not block.
	Mute func() string
	// Tell is told what the machine says (links, nodes, pairs, views, bodies), on the
	// runner's own goroutine: it must not block, nor call back.
	Tell func(beat.Effect)
}

// Stats count since the start.
type Stats struct {
	Sent     uint64
	Received uint64 // and believed so far that the machine saw them
	Refused  [beat.Faults]uint64
	Dropped  uint64 // good packets that came faster than they were looked at
	Noise    uint64 // damaged frames on the serial line
}

// Runner hears and is heard. Run it.
type Runner struct {
	o       Options
	names   map[beat.NodeID]string
	codec   *beat.Codec // the owner's, for what is sent
	machine *beat.Machine
	buf     []byte

	heard chan received
	calls chan beat.Event
	asks  chan chan<- []beat.NodeStatus

	links    []*udpLink // by number
	line     *line      // nil without
	faults   map[string]string
	carriers carriers
	muted    string // why nothing was sent last
	lateSaid time.Time

	sent, received, dropped, noise atomic.Uint64
	refused                        [beat.Faults]atomic.Uint64
	limit                          logLimit
}

// received is a packet that passed a gate.
type received struct {
	packet beat.Packet
	on     beat.LinkID
}

const (
	// maxHeard bounds packets that wait for the owner: more than two whole messages
	// from each of several nodes at once.
	maxHeard = 512
	// look is how often sockets, routes and carriers are looked at.
	look = time.Second
)

// New makes a runner; it does nothing yet.
func New(o Options) (*Runner, error) {
	if o.Baud == 0 {
		o.Baud = DefaultBaud
	}
	r := &Runner{
		o: o, names: map[beat.NodeID]string{}, codec: beat.NewCodec(o.Cluster, o.Key),
		heard: make(chan received, maxHeard), calls: make(chan beat.Event), asks: make(chan chan<- []beat.NodeStatus),
		faults: map[string]string{}, limit: logLimit{log: o.Log},
	}
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, fmt.Errorf("an incarnation for heartbeats: %w", err)
	}
	cfg := beat.Config{
		Self: beat.NodeID(o.Self.ID), Incarnation: binary.BigEndian.Uint64(random[:]) | 1, Shared: o.Shared,
		Interval: beat.Duration(o.Interval), Trouble: beat.Duration(o.Trouble), Timeout: beat.Duration(o.Timeout),
	}
	r.names[cfg.Self] = o.Self.Name
	lines := 0
	for _, p := range o.Peers {
		q := beat.Peer{ID: beat.NodeID(p.ID), Name: p.Name}
		for i := range min(len(p.Addresses), len(o.Self.Addresses)) {
			if p.Addresses[i].Is4() == o.Self.Addresses[i].Is4() {
				q.Links = append(q.Links, beat.LinkID(i))
			}
		}
		if o.Self.Serial != "" && p.Serial != "" {
			q.Links = append(q.Links, beat.Serial)
			lines++
		}
		cfg.Peers = append(cfg.Peers, q)
		r.names[q.ID] = p.Name
	}
	cfg.SerialInterval = serialInterval(o, lines)
	var err error
	if r.machine, err = beat.New(cfg); err != nil {
		return nil, err
	}
	for i := range o.Self.Addresses {
		r.links = append(r.links, r.newLink(i))
	}
	if lines > 0 {
		r.line = r.newLine()
	}
	return r, nil
}

// Stats are the counts so far.
func (r *Runner) Stats() Stats {
	s := Stats{Sent: r.sent.Load(), Received: r.received.Load(), Dropped: r.dropped.Load(), Noise: r.noise.Load()}
	for i := range s.Refused {
		s.Refused[i] = r.refused[i].Load()
	}
	return s
}

// Order hands an event (a message, a view, another configuration) to the machine. It
// waits for its turn.
func (r *Runner) Order(ctx context.Context, ev beat.Event) error {
	select {
	case r.calls <- ev:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Status is what is known of the other nodes.
func (r *Runner) Status(ctx context.Context) ([]beat.NodeStatus, error) {
	answer := make(chan []beat.NodeStatus, 1)
	select {
	case r.asks <- answer:
		return <-answer, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ErrBack is the cause to cancel Run's context with where this host is back at once: it
// ends without a goodbye, and nobody calls it silent before its time.
var ErrBack = errors.New("it is back at once")

// Run takes part until ctx ends, and says goodbye then, unless the cause is ErrBack.
func (r *Runner) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	watching, stop := context.WithCancel(context.WithoutCancel(ctx)) // it says goodbye first
	defer stop()
	r.watchCarriers(watching, &wg)
	if r.line != nil {
		wg.Go(func() { r.line.run(watching) })
	}
	defer r.closeLinks()
	r.lookAtLinks()
	timer := time.NewTimer(0)
	defer timer.Stop()
	looking := time.NewTicker(look)
	defer looking.Stop()
	r.step(beat.Event{Kind: beat.EvTick})
	for {
		if at, ok := r.machine.Deadline(); ok {
			timer.Reset(max(time.Duration(at-boot()), 0))
		}
		select {
		case <-ctx.Done():
			if context.Cause(ctx) == ErrBack {
				return nil
			}
			r.step(beat.Event{Kind: beat.EvLeave})
			if r.line != nil {
				r.line.flush()
			}
			return nil
		case x := <-r.heard:
			r.hear(x)
		case ev := <-r.calls:
			r.step(ev)
		case answer := <-r.asks:
			answer <- r.machine.Status(boot())
		case <-r.carriers.changed:
			r.carry()
		case <-looking.C:
			r.lookAtLinks()
		case <-timer.C:
			// What came before the time was over counts first.
			for n := len(r.heard); n > 0; n-- {
				r.hear(<-r.heard)
			}
			r.step(beat.Event{Kind: beat.EvTick})
		}
	}
}

func (r *Runner) hear(x received) {
	r.received.Add(1)
	r.step(beat.Event{Kind: beat.EvPacket, Link: x.on, Packet: &x.packet})
}

func (r *Runner) step(ev beat.Event) {
	ev.Wall = wall()
	for _, e := range r.machine.Step(boot(), ev, nil) {
		switch e.Kind {
		case beat.EffSend:
			r.send(&e)
		case beat.EffRefused:
			r.refuse(e.Fault, e.Link, e.Node, netip.AddrPort{})
		default:
			r.say(&e)
			if r.o.Tell != nil {
				r.o.Tell(e)
			}
		}
	}
}

// send sends a packet. What cannot be sent now is lost, as it may be on any network.
func (r *Runner) send(e *beat.Effect) {
	if r.mute() {
		return
	}
	r.buf = r.codec.Seal(r.buf[:0], &e.Packet)
	if e.Link == beat.Serial {
		r.line.send(r.buf, e.Packet.Kind == beat.KindBeat)
		r.sent.Add(1)
		return
	}
	l := r.links[e.Link]
	if l.conn == nil {
		return
	}
	err := l.send(r.buf, l.peers[e.Node])
	if err == nil {
		r.sent.Add(1)
	}
	r.complain(fmt.Sprintf("send to %s over %v", r.names[e.Node], e.Link), err)
}

// mute says whether nothing may be sent.
func (r *Runner) mute() bool {
	why := ""
	if r.o.Mute != nil {
		why = r.o.Mute()
	}
	if was := r.muted; was != why {
		r.muted = why
		if why == "" {
			r.o.Log.Warn("heartbeats: this node is to be heard again")
		} else {
			r.o.Log.Error("heartbeats: this node falls silent, for the others to go on without it", "reason", why)
		}
	}
	return why != ""
}

// complain logs what cannot be done when it begins, changes and ends.
func (r *Runner) complain(what string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == r.faults[what] {
		return
	}
	r.faults[what] = text
	if text != "" {
		r.o.Log.Warn("heartbeats: cannot "+what, "error", text)
		return
	}
	r.o.Log.Info("heartbeats: can " + what + " again")
}
