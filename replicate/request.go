package replicate

import "hastd/metadata"

// reqKind is what a request is. Requests of the application and of the sync exist
// on a primary, the others on a secondary; never both at a time.
type reqKind uint8

const (
	kRead  reqKind = iota + 1
	kWrite         // application
	kZero
	kRepair // a block read from the peer goes back to the local disk
	kSync   // a window being compared and copied

	kApplyWrite // secondary
	kApplyZero
	kApplySync
	kServeRead
	kCompare
	kPull
	kBarrier  // flush what came before
	kTakeOver // everything before is written
)

func (k reqKind) writes() bool {
	switch k {
	case kWrite, kZero, kRepair, kApplyWrite, kApplyZero, kApplySync:
		return true
	}
	return false
}

func (k reqKind) ofPrimary() bool { return k <= kSync }
func (k reqKind) logged() bool {
	return k == kWrite || k == kZero || k == kRepair || k == kApplyWrite || k == kApplyZero
}

type reqState uint8

const (
	rQueued   reqState = iota // waits for its turn
	rJournal                  // holds the range lock, waits for a commit
	rRunning                  // local and peer are at it
	rFlushing                 // done, but FUA: waits for a flush
	rAnswered                 // answered; the peer has not confirmed
)

// part is how far one replica is with a request.
type part uint8

const (
	none part = iota // this replica has no part in it
	asked
	inMemory // memsync: the peer received it
	done
	failed
)

// req is one request under way.
type req struct {
	kind   reqKind
	state  reqState
	flags  Flags
	local  part
	peer   part
	slot   int
	at     int // index in active
	id     ReqID
	buf    Handle // payload, or where a read goes; a body for the secondary
	data   Handle // memory of a sync window
	off    int64
	length int64
	mask   uint64
	zeroes uint64
	seq    uint64
	conn   uint32 // the agreement it was sent or received under
	moved  int64  // bytes of a sync window that travelled
	commit uint64
	op     OpID
	store  *metadata.Store // whose log it holds references in
	began  Instant
	asked  Instant
	orphan bool // its connection is gone; nobody waits for it
	broken bool // it was answered with an error
	landed bool // of a sync window: the peer's blocks came, and are being written
}

func (r *req) end() int64 { return r.off + r.length }

func (r *req) overlaps(s *req) bool { return r.off < s.end() && s.off < r.end() }

// conflicts says whether r must wait for s, which came earlier.
func (r *req) conflicts(s *req) bool {
	if r.kind == kBarrier || r.kind == kTakeOver {
		return s.kind.writes()
	}
	return (r.kind.writes() || s.kind.writes()) && r.overlaps(s)
}

func (m *Machine) newReq(kind reqKind) *req {
	var r *req
	if n := len(m.freeReqs); n > 0 {
		r = m.freeReqs[n-1]
		m.freeReqs = m.freeReqs[:n-1]
		*r = req{slot: r.slot}
	} else {
		r = &req{slot: len(m.reqs)}
		m.reqs = append(m.reqs, r)
	}
	r.kind, r.began, r.at = kind, m.now, -1
	return r
}

// enqueue lets a request wait for its turn.
func (m *Machine) enqueue(r *req) {
	r.state = rQueued
	m.queue = append(m.queue, r)
	m.retry = true
}

// lock makes a request hold its range.
func (m *Machine) lock(r *req) {
	r.at = len(m.active)
	m.active = append(m.active, r)
	m.held.add(r, 1)
}

// unlock lets go of the range.
func (m *Machine) unlock(r *req) {
	if r.at < 0 {
		return
	}
	last := len(m.active) - 1
	m.active[r.at] = m.active[last]
	m.active[r.at].at = r.at
	m.active = m.active[:last]
	r.at = -1
	m.held.add(r, ^uint16(0))
	m.retry = true
}

// free forgets a request: nothing refers to it any more.
func (m *Machine) free(r *req) {
	m.unlock(r)
	if r.store != nil && r.store == m.st {
		m.st.Release(r.off, r.length)
		m.retry = true
	}
	r.store, r.op = nil, 0
	m.freeReqs = append(m.freeReqs, r)
}

// runQueue starts what may start, in order of arrival. A request waits for every
// earlier one, started or not, that it conflicts with.
func (m *Machine) runQueue() {
	for again := true; again && m.retry; {
		m.retry, again = false, false
		m.blockedBy = 0
		kept := m.queue[:0:cap(m.queue)]
		queue := m.queue
		for i, r := range queue {
			if m.mayStart(r) && !m.conflicting(r, kept) && m.start(r) {
				again = true
				continue
			}
			kept = append(kept, queue[i])
		}
		clear(queue[len(kept):])
		m.queue = kept
	}
}

func (m *Machine) conflicting(r *req, earlier []*req) bool {
	if m.held.near(r) {
		for _, s := range m.active {
			if r.conflicts(s) {
				return true
			}
		}
	}
	for _, s := range earlier {
		if r.conflicts(s) {
			return true
		}
	}
	return false
}

// ranges counts, by hashed stretches of the device, the requests that hold the
// range lock: most of the time a look at one counter tells that nothing is near.
type ranges struct {
	count [rangeSlots]uint16
	wide  int // requests too long to be counted by stretches
}

const (
	rangeSlots   = 8192
	rangeStretch = metadata.BlockSize // bytes
	rangeMany    = 256                // a request over more stretches is not counted but looked for
)

func (g *ranges) each(r *req, f func(n *uint16)) (all bool) {
	first, last := r.off/rangeStretch, (r.end()-1)/rangeStretch
	if last-first >= rangeMany {
		return false
	}
	for i := first; i <= last; i++ {
		f(&g.count[i%rangeSlots])
	}
	return true
}

// add counts a request in (n = 1) or out (n = -1).
func (g *ranges) add(r *req, n uint16) {
	if !g.each(r, func(c *uint16) { *c += n }) {
		g.wide += int(int16(n))
	}
}

// near says whether a request that holds the lock may overlap r.
func (g *ranges) near(r *req) bool {
	if g.wide > 0 || r.kind == kBarrier || r.kind == kTakeOver {
		return true
	}
	found := false
	return !g.each(r, func(c *uint16) { found = found || *c > 0 }) || found
}

// blockage is what keeps whole kinds of requests from starting in this pass.
type blockage uint8

const blockedByLog blockage = 1

// mayStart is the gate before the range lock.
func (m *Machine) mayStart(r *req) bool {
	switch r.kind {
	case kRead:
		return m.readable(r) != none
	case kWrite, kZero:
		return m.blockedBy == 0 && m.mayWrite()
	case kRepair:
		return m.blockedBy == 0 && m.phase != agreeing
	case kSync:
		return true
	}
	return m.blockedBy == 0 || !r.kind.logged()
}

// start begins a request; false if it has to stay in the queue after all.
func (m *Machine) start(r *req) bool {
	if r.kind.logged() && !m.admit(r) {
		m.blockedBy |= blockedByLog
		return false
	}
	m.lock(r)
	if r.commit != 0 && !m.st.Durable(r.commit) {
		r.state = rJournal
		m.journal++
		return true
	}
	m.issue(r)
	return true
}

// admit takes a request's extents in the activity log and notes what it will
// change. False if the log has no room now.
func (m *Machine) admit(r *req) bool {
	if m.disk != diskOpen {
		return true // goes to the peer alone
	}
	if !r.kind.ofPrimary() && !m.st.Fits(r.off, r.length) {
		// The primary's log is larger than ours: the map takes it instead.
		first, n := metadata.Touched(r.off, r.length)
		m.st.Dirty.Set(first, n)
		r.commit, m.spilled = m.st.Persist(r.off, r.length), true
		m.unbacked = true
		return true
	}
	commit, ok := m.st.Acquire(r.off, r.length)
	if !ok {
		m.makeRoom()
		return false
	}
	r.store, r.commit = m.st, commit
	switch {
	case m.phase != linked: // a primary alone, or what a secondary still owes a lost one
		first, n := metadata.Touched(r.off, r.length)
		m.st.Dirty.Set(first, n)
		// Who sent it may have lost it since; one of our own may end in an error, and be
		// read all the same.
		m.unbacked = true
	default:
		m.st.Mark(r.off, r.length)
		if m.keeper && !r.kind.ofPrimary() {
			first, n := metadata.Touched(r.off, r.length)
			m.st.Dirty.Set(first, n)
		}
	}
	if m.role == metadata.Primary && r.kind.ofPrimary() {
		r.commit = max(r.commit, m.markCrashed())
	}
	return true
}

// markCrashed sets the mark of a primary that may crash, with its first write.
func (m *Machine) markCrashed() uint64 {
	if !m.marks().Has(metadata.CrashedPrimary) {
		m.markAt = m.st.Update(func(sb *metadata.Superblock) { sb.Marks |= metadata.CrashedPrimary })
	}
	if m.st.Durable(m.markAt) {
		return 0
	}
	return m.markAt
}

// makeRoom lets extents leave the log: a flush of both replicas while the peer is
// there and this node leads, else their bits go to the map.
func (m *Machine) makeRoom() {
	if m.role == metadata.Primary && m.phase == linked && !m.taking {
		m.round.wanted = true
		return
	}
	if m.st.Busy() || m.st.Pending() {
		return // try again once it is durable
	}
	if m.role == metadata.Primary && m.phase == agreeing {
		return // the map must not change now
	}
	if _, ok := m.st.Spill(max(1, m.st.Log.Capacity()/4)); ok {
		m.spilled = true
		m.unbacked = m.unbacked || m.role != metadata.Primary // the log's marks went with the extents
	}
}

// issueJournalled starts what waited for a commit that is durable now.
func (m *Machine) issueJournalled() {
	if m.journal == 0 {
		return
	}
	// issue may end a request and so move the last active one into its place.
	for i := 0; i < len(m.active); {
		r := m.active[i]
		if r.state == rJournal && m.st.Durable(r.commit) {
			m.journal--
			m.issue(r)
			if i < len(m.active) && m.active[i] != r {
				continue
			}
		}
		i++
	}
}

// issue starts a request on the replicas that take part in it.
func (m *Machine) issue(r *req) {
	r.state = rRunning
	switch r.kind {
	case kRead:
		m.issueRead(r)
	case kWrite, kZero:
		m.issueWrite(r)
	case kRepair:
		if m.disk != diskOpen {
			m.release(r.buf)
			m.free(r)
			return
		}
		m.onDisk(r, Effect{Disk: DiskWrite, Buf: r.buf})
	case kSync:
		m.issueSync(r)
	default:
		m.issueApply(r)
	}
}

// onDisk gives the local part of a request to the component.
func (m *Machine) onDisk(r *req, e Effect) {
	r.local = asked
	r.op = m.nextOp(opReq, r.slot)
	e.Kind, e.Op, e.Flags = EffDisk, r.op, r.flags&NoHole
	if e.Off == 0 && e.Len == 0 && e.Disk != DiskFlush {
		e.Off, e.Len = r.off, r.length
	}
	m.emit(e)
}

// reqDone takes the end of a local part.
func (m *Machine) reqDone(ev *Event) {
	slot := ev.Op.slot()
	if slot >= len(m.reqs) || m.reqs[slot].op != ev.Op {
		m.release(ev.Buf) // of a request that ended without it
		return
	}
	r := m.reqs[slot]
	r.op = 0
	r.local = done
	if ev.Err != OK {
		r.local = failed
		m.ioText = ev.Text
	}
	switch r.kind {
	case kRead:
		m.readDone(r)
	case kWrite, kZero:
		m.wroteLocally(r)
	case kRepair:
		m.repaired(r)
	case kSync:
		m.syncRead(r, ev)
	default:
		m.applied(r, ev)
	}
}

func (m *Machine) release(h Handle) {
	if h != 0 {
		m.emit(Effect{Kind: EffRelease, Buf: h})
	}
}

// send gives a message to the peer under the present agreement.
func (m *Machine) send(msg Msg) {
	msg.Conn = m.conn
	m.emit(Effect{Kind: EffSend, Session: m.session, Msg: msg})
}

// ask sends a message that the peer answers by its number.
func (m *Machine) ask(r *req, msg Msg) {
	m.seq++
	r.seq, r.conn, r.peer, r.asked = m.seq, m.conn, asked, m.now
	m.bySeq[m.seq] = r
	msg.Seq = m.seq
	m.send(msg)
}

// oldestAsked is when the longest unanswered message was sent; 0 if none is.
func (m *Machine) oldestAsked() Instant {
	var t Instant
	if m.round.peer {
		t = m.round.began
	}
	if len(m.bySeq) == 0 {
		return t
	}
	for _, r := range m.bySeq {
		if r.peer != none && (t == 0 || r.asked < t) {
			t = r.asked
		}
	}
	return t
}
