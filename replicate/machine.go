package replicate

import (
	"fmt"

	"hastd/metadata"
)

// Machine is one resource on one node. Its parts, each in a file of its own:
//
//	roles.go      what an administrator orders, one order at a time
//	component.go  opening, failing and closing the component; waiting for commits
//	request.go    the life of a request: order, log, local write, peer, answer
//	primary.go    application requests
//	flush.go      flushes of both replicas
//	secondary.go  what a primary asks of this node
//	agree.go      the agreement at the start of a connection
//	link.go       a connection's begin and end; going on alone
//	sync.go       copying what differs
//	takeover.go   going on without a disk
//	report.go     what people are told
type Machine struct {
	cfg Config
	now Instant
	out []Effect
	ops uint64

	role metadata.Role
	job  *job // the order being carried out

	// Component.
	disk     diskState
	diskText string // why it is not open
	ioText   string // of the operation that failed last
	st       *metadata.Store
	instance metadata.ID
	commitOp OpID
	waiters  []waiter
	flights  map[OpID]flight // rare operations: open, close, provider, state mark
	soundAt  uint64          // the commit that made the replica sound
	unclean  bool            // opened after an unclean stop as secondary, peer not met since
	diskOps  int             // operations on the data under way
	inShell  bool            // the shell has it open
	openThen func(*Refusal)  // who waits for the component to be ready
	marking  int             // marks on their way to the state directory
	markOp   OpID            // the last commit of a failing component
	markThen func(ok bool)

	// Requests, on either role.
	reqs      []*req
	freeReqs  []*req
	queue     []*req // not started, in order of arrival
	active    []*req // started; hold the range lock
	held      ranges // where they are
	journal   int    // active ones that wait for a commit
	blockedBy blockage
	retry     bool // something changed that may let queued requests start

	// Connection.
	wanted      bool // keep trying to reach the peer
	word        connWord
	wordReason  string
	wordHint    string
	session     SessionID
	linkedOn    SessionID // the newest session on which data flowed
	conn        uint32    // number of the agreement within the session
	phase       phase
	step        step
	deadline    Instant // of the agreement
	awakeAt     Instant // when this node was last seen not to stand still
	sleptAt     Instant // when it woke from having stood still
	askUntil    Instant // … and for how long the peer is asked before going on alone
	checkAt     Instant // when to look for answers that are late
	helloRole   metadata.Role
	peer        Facts // as told, kept up to date while linked
	peerKnown   bool
	mine        Facts // as told
	verdict     Verdict
	begin       Begin
	downSince   Instant // since when the peer has been out of reach
	heard       bool    // an answer to a probe
	peerAnswers bool    // it refused the last attempt, so it is alive
	peerDisk    string

	// Primary.
	provider     providerState
	opened       bool           // the application asked for something since promotion
	alone        bool           // since promotion, read or acknowledged from the own replica alone
	agreed       metadata.Epoch // of the last agreement
	raiseAt      uint64         // the commit that makes the raise durable
	markAt       uint64         // the commit that makes crashed-primary durable
	unbacked     bool           // the peer may lack, or hold unflushed, what this replica shows
	peerOnly     bool           // … and this replica is no good copy of it
	peerOnlyOld  bool           // … but a flush under way covers it
	peerInstance metadata.ID
	lossy        bool // what only the peer had is gone: the next flush must fail
	resumed      bool // the operator ended the suspension by going on alone
	failing      bool // … by failing what waits
	halted       bool // it was ordered to answer nothing
	suspended    string
	grant        Grant  // what the cluster's view allows
	syncedPeer   uint64 // the peer's incarnation, if its replica holds all that was acknowledged
	overtaken    bool   // the peer is primary too, and has newer data
	owed         bool   // writes were acknowledged that the peer, in sync by the view, had only received
	taking       bool   // the peer is taking over the record
	badDisk      bool   // this disk failed while the peer's replica was good
	marked       bool   // … and that is recorded
	unmarked     bool   // … or cannot be
	seq          uint64
	bySeq        map[uint64]*req
	round        round
	rounds       uint64 // flushes begun
	roundsDone   uint64 // the newest of both replicas that ended well
	flushQueue   []*req
	scratch      []*req

	// Secondary.
	recent   [recentWrites]recentWrite
	keeper   bool // the primary has no disk: every write is a difference
	spilled  bool // bits were set for room in the log since the link came up
	received []uint64
	wrote    []uint64
	applying int

	sync syncState

	latency  Instant // of application requests, smoothed
	lastReq  Instant
	counters Counters
	told     told
}

// connWord is the connection as the status contract names it.
type connWord uint8

const (
	standalone connWord = iota
	connecting
	connected
	wordSplit
	wordRefused
)

var connWords = [...]string{"standalone", "connecting", "connected", "split-brain", "refused"}

// New makes a machine in role init.
func New(cfg Config) *Machine {
	return &Machine{
		cfg:      cfg,
		flights:  map[OpID]flight{},
		bySeq:    map[uint64]*req{},
		peerDisk: "unknown",
	}
}

// Step takes what happened, in order, and appends what must be done.
func (m *Machine) Step(now Instant, batch []Event, out []Effect) []Effect {
	m.now, m.out = now, out
	m.awake()
	m.clearAcks()
	for i := range batch {
		m.handle(&batch[i])
	}
	m.settle()
	out, m.out = m.out, nil
	return out
}

func (m *Machine) handle(ev *Event) {
	switch ev.Kind {
	case EvRequest:
		m.onRequest(ev)
	case EvDone:
		m.onDone(ev)
	case EvCommitted:
		m.onCommitted(ev)
	case EvOpened, EvClosed, EvProviderUp, EvProviderDown, EvMarked:
		m.land(ev)
	case EvDiskFailed:
		m.diskFailed(ev.Text)
	case EvSessionUp:
		m.onSessionUp(ev)
	case EvSessionDown:
		if ev.Session == m.session {
			m.linkLost(ev.Text)
		}
	case EvUnreachable:
		m.onUnreachable(ev)
	case EvMessage:
		m.onMessage(ev)
	case EvCommand:
		m.onCommand(ev.Command)
	case EvTick:
	default:
		panic(fmt.Sprintf("replicate: unknown event %d", ev.Kind))
	}
}

// settle does, once for a batch, what any of its events may have made possible.
func (m *Machine) settle() {
	m.checkTimes()
	m.advanceAgreement()
	m.advanceJob()
	m.suspension()
	if m.failing && m.suspended != "" {
		m.failHeld() // what was still under way here when that was ordered
	}
	m.steerSync()
	m.pumpSync()
	m.runQueue()
	m.startRound()
	for m.retry && len(m.queue) > 0 { // a flush that was refused let go of ranges
		m.runQueue()
		m.startRound()
	}
	m.advanceJob() // what ended just now may have been the last it waited for
	m.flushAcks()
	if m.st != nil && m.disk.usable() && !m.st.Busy() && m.st.Pending() {
		m.commitOp = m.nextOp(opCommit, 0)
		if ws := m.st.Prepare(); ws != nil {
			for _, w := range ws {
				if w.Offset == m.st.Layout.Log[0] || w.Offset == m.st.Layout.Log[1] {
					m.counters.LogWrites++
				}
			}
			m.emit(Effect{Kind: EffCommit, Op: m.commitOp, Writes: ws})
		}
	}
	m.countPeer()
	m.observe()
}

func (m *Machine) emit(e Effect) {
	if e.Kind == EffDisk {
		m.diskOps++
	}
	m.out = append(m.out, e)
}

// Operation ids: what it was for, a slot, and a number that is never used twice.
type opKind uint8

const (
	opRare opKind = iota
	opCommit
	opReq
	opRound
)

// nextOp draws an operation id. slot tells which request it is for.
func (m *Machine) nextOp(kind opKind, slot int) OpID {
	m.ops++
	return OpID(m.ops)<<24 | OpID(slot&0xfffff)<<4 | OpID(kind)
}

func (op OpID) kind() opKind { return opKind(op & 15) }
func (op OpID) slot() int    { return int(op >> 4 & 0xfffff) }

func (m *Machine) onDone(ev *Event) {
	m.diskOps--
	switch ev.Op.kind() {
	case opReq:
		m.reqDone(ev)
	case opRound:
		m.roundFlushed(ev)
	case opRare:
		m.land(ev)
	default:
		panic("replicate: an operation ended that was never asked for")
	}
}

// flight is a rare operation under way.
type flight func(ev *Event)

// fly asks for a rare operation; then is called with its answer.
func (m *Machine) fly(e Effect, then flight) {
	e.Op = m.nextOp(opRare, 0)
	m.flights[e.Op] = then
	m.emit(e)
}

func (m *Machine) land(ev *Event) {
	then, ok := m.flights[ev.Op]
	if !ok {
		panic("replicate: an operation ended that was never asked for")
	}
	delete(m.flights, ev.Op)
	then(ev)
}

// Deadline says when the machine wants an EvTick at the latest.
func (m *Machine) Deadline() (Instant, bool) {
	var d Instant
	sooner := func(t Instant) {
		if t != 0 && (d == 0 || t < d) {
			d = t
		}
	}
	sooner(m.deadline)
	sooner(m.askUntil)
	if m.role == metadata.Primary && m.leased() {
		sooner(m.grant.Until)
	}
	if m.awakeAt != 0 {
		sooner(m.awakeAt + awakeEvery)
	}
	if m.job != nil {
		sooner(m.job.until)
	}
	if m.phase == linked && m.role == metadata.Primary && (len(m.bySeq) > 0 || m.round.peer || m.sync.ending()) {
		sooner(m.checkAt)
	}
	if m.sync.phase == syncCopying && m.role == metadata.Primary {
		sooner(m.sync.steered + steerEvery)
	}
	return d, d != 0
}

// checkTimes ends what has waited too long.
func (m *Machine) checkTimes() {
	if m.deadline != 0 && m.now >= m.deadline {
		m.deadline = 0
		if m.phase == lingering {
			m.hangUp("the agreement is over")
		} else {
			m.hangUp("no agreement was reached in time")
		}
	}
	if m.askUntil != 0 && m.now >= m.askUntil {
		m.endAsking()
	}
	if m.now >= m.checkAt {
		m.checkAt = m.now + Second
		if t := m.oldestAsked(); m.phase == linked && t != 0 && m.now-t > m.cfg.Timeout+m.cfg.DiskTimeout {
			m.hangUp("a request was not answered in time")
		}
	}
}
