package view

import (
	"fmt"
	"slices"
	"strings"
)

// Instant is a reading of a monotonic clock; Duration is a span of it. Both count
// nanoseconds.
type (
	Instant  int64
	Duration int64
)

// Spans of time.
const (
	Millisecond Duration = 1e6
	Second               = 1000 * Millisecond
)

func (i Instant) add(d Duration) Instant { return i + Instant(d) }

// NodeConfig is a configured node. Its name is for what people are told, and for
// nothing else.
type NodeConfig struct {
	ID      NodeID
	Witness bool
	Name    string
}

// ResourceConfig is a configured resource. First are the nodes whose replica is good
// when the resource first enters a view; none: that is not known yet, and only who is
// told (Good) lets the resource enter.
type ResourceConfig struct {
	Name  string
	Nodes []NodeID // one or two, none a witness
	First Set
}

// Config is a machine's. All nodes must have the same, but for Self and Seed. A resource
// that is no longer configured stays in the views, which know no other history of it.
type Config struct {
	Self      NodeID
	Nodes     []NodeConfig
	Resources []ResourceConfig
	Rejoin    Duration // how long an excluded node must be heard by every member; 0: DefaultRejoin
	Round     Duration // how long those who are heard have to promise; 0: DefaultRound
	Seed      uint64   // drawn at random by the shell at each start: incarnations and back-off
}

// Times of a round. None of them guards anything.
const (
	DefaultRejoin = 5 * Second
	resendEvery   = 200 * Millisecond // one lost message does not cost a round
	DefaultRound  = 1 * Second        // five tries; a node that is silent as long is not there
	stagger       = 150 * Millisecond // from one possible asker to the next: a round usually ends within
	undecided     = 2                 // rounds; then a stored proposal of which nothing more is heard is proposed again
	linkGrace     = 1 * Second        // a node that restarts, and is heard, has as long to say whom it hears
	startGrace    = 1 * Second        // a node that starts waits as long for members that it does not hear yet
	backoffFirst  = 200 * Millisecond
	backoffMost   = 3200 * Millisecond // four doublings: eight askers then rarely meet
)

// phase is where a round stands.
type phase uint8

const (
	idle        phase = iota
	asking            // promises are awaited
	holding           // the storage daemon is asked to hold; nobody heard of the proposal
	toLeader          // the proposal is at the proposed view's leader, at nobody else
	storing           // the proposal is at all members
	notYetStart       // before Start
)

// vote is what a node promised with.
type vote struct {
	inc     Incarnation
	leaving bool
}

// stake is what this node knows of a resource it may own.
type stake struct {
	primary bool        // by a view learned since the start
	hold    bool        // the peer is in sync, in that view or in a proposal of our own since
	synced  Incarnation // of the peer's replica that has everything acknowledged
	drop    bool        // the storage daemon wants the peer out
	stuck   bool        // the storage daemon holds for whoever it was once asked to
	awaited bool        // Held is
	given   bool        // this node gave it up, and serves it no more by this view
}

// other is what is known of another node.
type other struct {
	id     NodeID
	inc    Incarnation
	stamp  Stamp
	hears  Set
	links  Set
	ready  Set
	told   bool    // something is known at all
	since  Instant // since when each hears the other; 0: not now
	missed Instant // since when it is heard and does not hear this node; 0: it does
	apart  Stamp   // its chain was reported as a conflict
}

// Machine is one node's part.
type Machine struct {
	cfg   Config
	all   Set // configured
	now   Instant
	out   []Effect
	st    State
	made  bool // st changed, its serial is counted up
	stale bool // what is stored is not st
	up    bool // a view that names this node was learned since the start
	began Instant
	rand  uint64

	ph     phase
	round  Round
	want   Set // whom the round asks
	votes  map[NodeID]vote
	best   *Proposal // the highest told
	prop   *View     // what is proposed
	acks   Set
	ends   Instant // the round's
	resend Instant
	force  *Force // the round serves this order

	holds   map[string]*stake
	others  [MaxNodeID + 1]*other // by id
	list    []*other              // the same
	heard   Set
	guards  [MaxNodeID + 1]Instant // until when nothing is taken from a node
	leaving bool
	first   map[string]Set // by resource: whose replica is good, as far as is known
	moves   map[string]Move
	groups  map[string]string
	askAt   Instant // when a standing reason leads to a round; 0: no reason stands
	tries   int     // rounds that failed since the last view
	accAt   Instant // when the stored proposal was stored, or found at the start
	waits   string  // the last Waiting
	asked   string  // the last Asks
}

// New makes a machine; Start begins it.
func New(cfg Config) (*Machine, error) {
	m := &Machine{cfg: cfg, rand: cfg.Seed, ph: notYetStart, holds: map[string]*stake{}, first: map[string]Set{}, moves: map[string]Move{}, groups: map[string]string{}}
	if m.cfg.Rejoin == 0 {
		m.cfg.Rejoin = DefaultRejoin
	}
	if m.cfg.Round == 0 {
		m.cfg.Round = DefaultRound
	}
	if len(cfg.Nodes) > MaxNodes || len(cfg.Resources) > MaxResources {
		return nil, fmt.Errorf("%d nodes and %d resources: at most %d and %d are possible", len(cfg.Nodes), len(cfg.Resources), MaxNodes, MaxResources)
	}
	var data Set
	for _, n := range cfg.Nodes {
		if n.ID > MaxNodeID || m.all.Has(n.ID) {
			return nil, fmt.Errorf("node id %d: ids are 0 to %d, each once", n.ID, MaxNodeID)
		}
		m.all |= SetOf(n.ID)
		if !n.Witness {
			data |= SetOf(n.ID)
		}
		if n.ID != cfg.Self {
			o := &other{id: n.ID}
			m.others[n.ID], m.list = o, append(m.list, o)
		}
	}
	if !m.all.Has(cfg.Self) {
		return nil, fmt.Errorf("this node, id %d, is not among the nodes", cfg.Self)
	}
	for i, r := range cfg.Resources {
		nodes := SetOf(r.Nodes...)
		m.first[r.Name] = r.First
		switch {
		case r.Name == "" || len(r.Name) > MaxName:
			return nil, fmt.Errorf("resource name %q: 1 to %d bytes are possible", r.Name, MaxName)
		case slices.ContainsFunc(cfg.Resources[:i], func(o ResourceConfig) bool { return o.Name == r.Name }):
			return nil, fmt.Errorf("resource %s stands there twice", r.Name)
		case nodes&^data != 0 || nodes.Len() < 1 || nodes.Len() > 2 || r.First&^nodes != 0:
			return nil, fmt.Errorf("resource %s on nodes %v, good on %v: one or two nodes that are no witnesses are possible", r.Name, r.Nodes, r.First)
		}
	}
	return m, nil
}

// Step handles one event and returns what to do, in order.
func (m *Machine) Step(now Instant, ev Event) []Effect {
	m.now = max(m.now, now)
	m.out = nil
	if s, ok := ev.(Start); ok {
		if m.ph != notYetStart {
			panic("view: started twice")
		}
		m.start(s)
	} else if m.ph == notYetStart {
		panic("view: an event before Start")
	}
	switch ev := ev.(type) {
	case Received:
		m.receive(ev.Msg)
	case Heard:
		m.heard = ev.Nodes & m.all &^ SetOf(m.cfg.Self)
	case Storage:
		m.recall()
	case Good:
		for _, c := range m.cfg.Resources {
			if c.Name == ev.Resource {
				m.first[c.Name] = ev.Nodes & SetOf(c.Nodes...)
			}
		}
	case Synced:
		h := m.stake(ev.Resource)
		h.synced, h.drop = ev.Inc, false
	case Alone:
		m.stake(ev.Resource).synced = 0
	case Drop:
		// Of a peer that is out already the wish was fulfilled while it was said.
		if h := m.stake(ev.Resource); h.primary && (h.hold || h.stuck) {
			h.drop = true
		}
	case Held:
		m.held(ev)
	case Holds:
		if h := m.stake(ev.Resource); h.primary && !h.hold && !h.awaited {
			h.stuck = true
		}
	case Move:
		m.wishMove(ev)
	case SetGroup:
		m.wishGroup(ev.Group)
	case Leave:
		m.leaving = ev.On
		for _, h := range m.holds {
			h.given = h.given || h.primary && ev.On && ev.Gave
		}
	case Force:
		m.order(ev)
	}
	m.meet()
	m.advance()
	m.steer()
	m.settle()
	return m.out
}

// Deadline is when the machine wants a Tick, if at all.
func (m *Machine) Deadline() (Instant, bool) {
	switch {
	case m.ph != idle:
		return min(m.ends, m.resend), true
	case m.askAt != 0:
		return m.askAt, true
	}
	return 0, false
}

// changed notes that the stored state is another now.
func (m *Machine) changed() {
	m.stale = true
	if !m.made {
		m.made = true
		m.st.Serial++
	}
}

// settle puts a changed state before whatever comes next.
func (m *Machine) settle() {
	if m.stale {
		m.made, m.stale = false, false
		st := m.st
		st.Seen = slices.Clone(st.Seen)
		m.out = append(m.out, Persist{st})
	}
}

// emit is the only way out: nothing leaves before the state it stands on is stored.
func (m *Machine) emit(e Effect) {
	m.settle()
	m.out = append(m.out, e)
}

// send fills in who sends and what was seen of the receiver.
func (m *Machine) send(to NodeID, msg Message) {
	msg.From, msg.To = m.cfg.Self, to
	msg.Stamp = m.st.View.stamp()
	m.settle()
	msg.Inc, msg.Serial = m.st.Inc, m.st.Serial
	if s := m.seen(to); s != nil {
		msg.ToInc, msg.Seen = s.Inc, s.Serial
	}
	m.emit(Send{&msg})
}

// name and names are for people.
func (m *Machine) name(id NodeID) string {
	if id == Nobody {
		return "nobody"
	}
	for i := range m.cfg.Nodes {
		if n := &m.cfg.Nodes[i]; n.ID == id && n.Name != "" {
			return n.Name
		}
	}
	return fmt.Sprint(id)
}

func (m *Machine) names(s Set) string {
	if s == 0 {
		return "none"
	}
	var list []string
	for _, id := range s.IDs() {
		list = append(list, m.name(id))
	}
	return strings.Join(list, " ")
}

func (m *Machine) report(k ReportKind, node NodeID, format string, args ...any) {
	m.emit(Report{k, node, fmt.Sprintf(format, args...)})
}

// random draws the next number of a sequence that Seed alone decides (splitmix64).
func (m *Machine) random() uint64 {
	m.rand += 0x9e3779b97f4a7c15
	z := m.rand
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (m *Machine) stake(resource string) *stake {
	h := m.holds[resource]
	if h == nil {
		h = &stake{}
		if len(m.holds) < 2*MaxResources {
			m.holds[resource] = h
		}
	}
	return h
}

func (m *Machine) seen(of NodeID) *Seen {
	for i := range m.st.Seen {
		if m.st.Seen[i].Node == of {
			return &m.st.Seen[i]
		}
	}
	return nil
}

// saw notes a serial, durably, but as no change of the state: else two nodes would
// store each other's storing for ever.
func (m *Machine) saw(of NodeID, inc Incarnation, serial uint64) {
	s := m.seen(of)
	switch {
	case s == nil:
		m.st.Seen = append(m.st.Seen, Seen{of, inc, serial})
		slices.SortFunc(m.st.Seen, func(a, b Seen) int { return int(a.Node) - int(b.Node) })
	case s.Inc != inc:
		s.Inc, s.Serial = inc, serial
	case s.Serial < serial:
		s.Serial = serial
	default:
		return
	}
	m.stale = true
}

// LastSeen is the highest serial that was seen of a node in this incarnation.
func (m *Machine) LastSeen(of NodeID, inc Incarnation) uint64 {
	if s := m.seen(of); s != nil && s.Inc == inc {
		return s.Serial
	}
	return 0
}

// Inc is this life of the node.
func (m *Machine) Inc() Incarnation { return m.st.Inc }

// View is the newest committed view this node knows, or nil.
func (m *Machine) View() *View { return m.st.View }

// Up says whether a view that names this node was learned since the start.
func (m *Machine) Up() bool { return m.up }

// Owns says whether this node may be primary of a resource, and whether it waits for
// the peer's confirmation.
func (m *Machine) Owns(resource string) (primary, hold bool) {
	h := m.holds[resource]
	return h != nil && h.primary, h != nil && h.hold
}

// Gave says whether this node gave a resource up that it owns by its view: it serves it
// no more by this one.
func (m *Machine) Gave(resource string) bool {
	h := m.holds[resource]
	return h != nil && h.given
}

// Agreed are the other nodes that said last that they know this view, too.
func (m *Machine) Agreed() Set {
	var s Set
	for _, o := range m.list {
		if o.told && o.stamp == m.st.View.stamp() {
			s |= SetOf(o.id)
		}
	}
	return s
}

// Waits says what for, if there is a reason for another view and no quorum.
func (m *Machine) Waits() string { return m.waits }
