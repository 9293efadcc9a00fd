package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hastd/cluster/beat"
	brunner "hastd/cluster/beat/runner"
	"hastd/cluster/member"
	mrunner "hastd/cluster/member/runner"
	crunner "hastd/cluster/runner"
	"hastd/cluster/view"
	"hastd/cluster/view/store"
	"hastd/cmd/internal/api"
	"hastd/cmd/internal/exit"
	"hastd/conf"
)

// Kinds of the heartbeats' bodies that the votes use.
const (
	kindView  = beat.FirstKind + 1
	kindLease = beat.FirstKind + 2
	kindAsk   = beat.FirstKind + 3
)

const (
	// storageEvery is the time between two questions to hastd what a resource needs of
	// the views.
	storageEvery = 100 * time.Millisecond
	// leavingLimit and leaveLimit bound how long an ending vipd waits for a view that
	// says so, before and after everything is down.
	leavingLimit = time.Second
	leaveLimit   = 3 * time.Second
	// viewFile is the stored view's, in the folder of the state.
	viewFile = "view"
)

// quorum is this node's vote, with quorum = "majority".
type quorum struct {
	s    *server
	self view.NodeID
	ids  map[string]view.NodeID
	send chan parcel
	asks chan ask
	opts mrunner.Options

	claims claims
	cur    atomic.Pointer[mrunner.Runner]
	silent atomic.Int64 // for how long the votes have not answered, as watch counts; ns

	forced chan view.Report // what came of a person's order; of one at a time

	mu      sync.Mutex
	began   time.Time          // of this life
	end     context.CancelFunc // nil: it takes no part
	wait    chan struct{}      // closed when everything has ended
	failed  error              // why it had to end
	refused map[string]ask     // by resource: why it is not given up where it is
}

// parcel is something for another node.
type parcel struct {
	to   view.NodeID
	kind byte
	body []byte
}

// maxParcels bounds what waits for the heartbeats; what is more is lost, and comes again.
const maxParcels = 256

func newQuorum(s *server) (*quorum, error) {
	c := s.o.Conf
	q := &quorum{
		s: s, self: view.NodeID(s.o.Node.ID), ids: map[string]view.NodeID{}, send: make(chan parcel, maxParcels), asks: make(chan ask, maxAsks),
		refused: map[string]ask{}, forced: make(chan view.Report, 1),
	}
	if err := os.MkdirAll(s.vipd.State, 0o755); err != nil {
		return nil, exit.New(exit.Config, "vipd.state names the folder", "the cluster's view cannot be stored: %w", err)
	}
	o := mrunner.Options{
		Config: member.Config{
			View:  view.Config{Self: q.self, Rejoin: view.Duration(c.Cluster.Rejoin), Round: max(view.DefaultRound, view.Duration(c.Cluster.Heartbeat.Trouble))},
			Lease: view.Duration(c.Cluster.Lease), Every: view.Duration(c.Cluster.Heartbeat.Interval),
		},
		Names: map[view.NodeID]string{}, Storage: grants{newStorage(s.hastd.Control), q}, Store: store.Open(filepath.Join(s.vipd.State, viewFile)),
		Now: func() view.Instant { return view.Instant(brunner.Boot()) }, Poll: storageEvery, Log: s.o.Log, Send: q.post, Reported: q.reported,
	}
	if c.Cluster.TOC != conf.TOCOff {
		o.Config.Watchdog = view.Duration(c.Cluster.WatchdogTimeout)
	}
	resources := map[string][]view.NodeID{}
	for _, n := range c.Nodes {
		id := view.NodeID(n.ID)
		q.ids[n.Name], o.Names[id] = id, n.Name
		o.Config.View.Nodes = append(o.Config.View.Nodes, view.NodeConfig{ID: id, Witness: n.Witness, Name: n.Name})
		for _, r := range c.ResourceOn(n.Name) {
			resources[r.Name] = append(resources[r.Name], id)
			if id == q.self {
				o.Resources = append(o.Resources, r.Name)
			}
		}
	}
	for _, r := range c.Resources {
		if nodes := resources[r.Name]; len(nodes) > 0 {
			o.Config.View.Resources = append(o.Config.View.Resources, view.ResourceConfig{Name: r.Name, Nodes: nodes})
		}
	}
	q.opts = o
	q.addClaims(c)
	return q, q.renew()
}

// renew makes a runner for another life of the node.
func (q *quorum) renew() error {
	var seed [8]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return fmt.Errorf("a random number: %w", err)
	}
	o := q.opts
	o.Config.View.Seed = binary.BigEndian.Uint64(seed[:])
	run, err := mrunner.New(o)
	if err != nil {
		return exit.New(exit.Config, "hastctl check tells more", "%w", err)
	}
	q.cur.Store(run)
	return nil
}

// run is the runner of this life.
func (q *quorum) run() *mrunner.Runner { return q.cur.Load() }

// start begins to take part, over the heartbeats.
func (q *quorum) start() {
	ctx, cancel := context.WithCancel(context.Background())
	ended, wait := make(chan struct{}), make(chan struct{})
	q.mu.Lock()
	q.end, q.wait, q.failed, q.began = cancel, wait, nil, time.Now()
	q.mu.Unlock()
	run := q.run()
	go func() {
		defer close(ended)
		if err := run.Run(ctx); err != nil {
			q.mu.Lock()
			q.failed = err
			q.mu.Unlock()
			q.s.o.Log.Error("this node takes no part in the cluster any more and serves nothing: mend what vipd.state stands on, then start vipd again", "reason", err)
		}
	}()
	answering, watching := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(answering)
		q.answers(ctx)
	}()
	go func() {
		defer close(watching)
		q.watch(run.Alive, ended)
	}()
	go func() {
		defer close(wait)
		q.carry(ctx)
		<-answering
		<-ended
		<-watching
	}()
}

// watch counts for how long the votes do not answer, until they have ended. It adds up
// intervals that it waited itself, and asks no clock: one in which the whole process stood
// still is one interval, and nobody's fault.
func (q *quorum) watch(alive func(context.Context) bool, ended <-chan struct{}) {
	every := time.Duration(q.opts.Config.Every)
	tick := time.NewTicker(every)
	defer tick.Stop()
	defer q.silent.Store(0)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), every)
		if alive(ctx) {
			q.silent.Store(0)
		} else {
			q.silent.Add(int64(every))
		}
		cancel()
		select {
		case <-ended:
			return
		case <-tick.C:
		}
	}
}

// mute says why this node must not be heard, "" if it may: whose vote cannot be had, for
// its disk hangs or failed, would be waited for by the others as long as they hear it.
func (q *quorum) mute() string {
	if q == nil {
		return ""
	}
	if _, failed := q.takesPart(); failed != nil {
		return "this node takes no part in the cluster any more"
	}
	// Not before its lease is over, if it had one: until then a slow disk does no harm. They
	// may have renewed it while they were asked for the first time in vain.
	c := &q.s.o.Conf.Cluster
	if time.Duration(q.silent.Load()) > max(c.Heartbeat.Timeout, c.Lease)+c.Heartbeat.Interval {
		return "its votes do not answer: does the disk under vipd.state?"
	}
	return ""
}

// alive says whether the votes' owner answers before ctx ends. Votes that do not run have
// none.
func (q *quorum) alive(ctx context.Context) bool {
	if on, _ := q.takesPart(); !on {
		return true
	}
	if q.run().Alive(ctx) {
		return true
	}
	on, _ := q.takesPart()
	return !on
}

// stop ends it: what the others are to know was said before.
func (q *quorum) stop() {
	if q == nil {
		return
	}
	q.mu.Lock()
	end, wait := q.end, q.wait
	q.end = nil
	q.mu.Unlock()
	if end != nil {
		end()
		<-wait
	}
}

// takesPart says whether it was started and not stopped, and why it ended all the same.
func (q *quorum) takesPart() (bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.end != nil && q.failed == nil, q.failed
}

// leaving tells the others that this node is about to go, before anything is taken down:
// a stop that takes long must not be in their way.
func (q *quorum) leaving() {
	q.say(member.Leaving{}, leavingLimit, func(st *mrunner.Status) bool { return q.isLeaving(st.View) })
}

// parting tells them once more, at the end of a vipd that leaves something up.
func (q *quorum) parting() {
	q.say(member.Leaving{}, leavingLimit, func(st *mrunner.Status) bool { return q.isLeaving(st.View) && agreed(st) })
}

// agreed says whether the others have heard of the view: whoever had only stored it would
// wait for this node, which alone knows that it was committed.
func agreed(st *mrunner.Status) bool { return st.View.Set()&st.Heard&^st.Agreed == 0 }

// leave tells them that it has nothing left.
func (q *quorum) leave() {
	q.say(member.Leave{}, leaveLimit, func(st *mrunner.Status) bool {
		v := st.View
		for i := range v.Resources {
			if v.Resources[i].Owner == q.self {
				return false
			}
		}
		return q.isLeaving(v) && agreed(st)
	})
}

func (q *quorum) isLeaving(v *view.View) bool {
	m := v.Member(q.self)
	return m == nil || m.Leaving
}

// say tells the others something, and waits until a view says it, too.
func (q *quorum) say(ev member.Event, limit time.Duration, done func(*mrunner.Status) bool) {
	if q == nil {
		return
	}
	if on, _ := q.takesPart(); !on {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	r := q.run()
	if r.Do(ctx, ev) != nil {
		return
	}
	for {
		changed, st := r.Changed(), r.Status()
		if st.View == nil || !st.Up || done(&st) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			q.s.o.Log.Warn("the others could not be told that this node leaves: they find out by its silence")
			return
		}
	}
}

// post hands something to the heartbeats. It never waits.
func (q *quorum) post(to view.NodeID, kind mrunner.Kind, body []byte) {
	k := kindView
	if kind == mrunner.KindLease {
		k = kindLease
	}
	q.parcel(to, k, body)
}

func (q *quorum) parcel(to view.NodeID, kind byte, body []byte) {
	select {
	case q.send <- parcel{to, kind, body}:
	default:
	}
}

// carry sends what was posted, in order.
func (q *quorum) carry(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-q.send:
			ev := beat.Event{Kind: beat.EvSend, To: beat.SetOf(beat.NodeID(p.to)), Body: beat.Body{Kind: p.kind, Data: p.body}}
			ev.OnSerial = len(p.body) <= beat.MaxSerialBody
			if b := q.s.beats.Load(); b != nil && b.run.Order(ctx, ev) != nil {
				return
			}
		}
	}
}

// hear takes what the heartbeats tell. It never waits.
func (q *quorum) hear(e beat.Effect) {
	id := view.NodeID(e.Node)
	switch {
	case e.Kind == beat.EffNode:
		q.run().Node(id, e.Up)
	case e.Kind == beat.EffDeliver && e.Body.Kind == kindView:
		q.run().Deliver(id, mrunner.KindView, e.Body.Data)
	case e.Kind == beat.EffDeliver && e.Body.Kind == kindLease:
		q.run().Deliver(id, mrunner.KindLease, e.Body.Data)
	case e.Kind == beat.EffDeliver && e.Body.Kind == kindAsk:
		if a, err := readAsk(id, e.Body.Data); err == nil {
			select {
			case q.asks <- a:
			default:
			}
		}
	}
}

func (q *quorum) name(id view.NodeID) string {
	for name, x := range q.ids {
		if x == id {
			return name
		}
	}
	return fmt.Sprintf("node %d", id)
}

// grants is hastd as the votes need it.
type grants struct {
	*storage
	q *quorum
}

// order passes on what a view allows.
func (g grants) order(ctx context.Context, resource string, x member.Grant) error {
	_, err := g.ask.Command(ctx, resource, "grant", api.GrantRequest{
		Generation: x.Generation, Incarnation: uint64(x.Incarnation), Peer: uint64(x.Peer), Owner: x.Owner, PeerOwner: x.PeerOwner,
		Hold: x.Hold, Adding: uint64(x.Adding), LeaseEnd: int64(x.Until),
	})
	if err != nil && g.Gone(err) {
		return fmt.Errorf("%w: %w", mrunner.ErrGone, err)
	}
	return err
}

// replica is what hastd says of a resource.
func (g grants) replica(ctx context.Context, resource string) (member.Storage, error) {
	r, err := g.ask.Resource(ctx, resource)
	if err != nil {
		return member.Storage{}, err
	}
	s := member.Storage{Resource: resource}
	if r.Quorum == nil {
		return s, fmt.Errorf("hastd runs with quorum off")
	}
	s.Told, s.Synced, s.Holds = r.Quorum.Generation, view.Incarnation(r.Quorum.Synced), r.Quorum.Hold
	// One whose own disk failed must not shut out the only good replica.
	s.Waits = r.IO.Suspended && r.IO.Reason == "reconfiguration" && r.Disk == "uptodate"
	if n, err := g.q.s.o.Conf.Peer(resource, g.q.s.Node()); err == nil {
		if r.Disk == "uptodate" && r.Connection == "connected" {
			s.Good = view.SetOf(g.q.self)
			// Of two that are new the one that gives the data its name is good; the other
			// one follows as soon as it has that.
			if r.Peer.Disk == "uptodate" && strings.Trim(r.Resuid, "0") != "" {
				s.Good |= view.SetOf(view.NodeID(n.ID))
			}
		}
	} else if r.Disk == "uptodate" {
		s.Good = view.SetOf(g.q.self) // it has no peer
	}
	return s, nil
}

// acquiring is hastd for a group that a person orders up: this node asks for what it
// does not own yet.
type acquiring struct {
	crunner.Storage
	q *quorum
}

// Role switches a role, once this node may.
func (a acquiring) Role(ctx context.Context, resource, role string, force bool) error {
	if role == "primary" {
		if err := a.q.acquire(ctx, resource, false); err != nil {
			return err
		}
	}
	return a.Storage.Role(ctx, resource, role, force)
}

// lifetime is how long an address lives without a word, in whole seconds.
func (s *server) lifetime() time.Duration {
	return (s.o.Conf.Cluster.Lease + time.Second - 1).Truncate(time.Second)
}

func (s *server) majority() bool { return s.o.Conf.Cluster.Quorum == conf.QuorumMajority }
