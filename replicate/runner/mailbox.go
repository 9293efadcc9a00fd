package runner

import (
	"sync"
	"time"

	"hastd/blockdev"
	"hastd/replicate"
)

// item is one thing that happened, other than the two frequent kinds that have
// lists of their own.
type item struct {
	ev   replicate.Event
	body []byte          // of a message, or what an operation read; the owner names it
	from *blockdev.Arena // where body goes back
	op   *diskOp         // a masked operation ended
	seqs [2]int          // of a message: its part of word.seqs
	call func()          // something to run on the owner, after the step
	// What an event is about, where the owner needs it.
	session  *peerSession      // EvSessionUp
	disk     *disk             // EvOpened
	answer   chan error        // EvCommand
	provider blockdev.Provider // EvProviderUp
}

// word is what was left in the mailbox since the owner last looked.
type word struct {
	ios   []*blockdev.IO
	reqs  []arrival
	items []item
	seqs  []uint64 // of messages, copied: their bodies go back at once
}

// arrival is an application request and when it came.
type arrival struct {
	req *blockdev.Request
	at  replicate.Instant
}

func (w *word) empty() bool { return len(w.ios) == 0 && len(w.reqs) == 0 && len(w.items) == 0 }

func (w *word) reset() {
	clear(w.ios)
	clear(w.reqs)
	clear(w.items)
	w.ios, w.reqs, w.items, w.seqs = w.ios[:0], w.reqs[:0], w.items[:0], w.seqs[:0]
}

// mailbox is how everybody reaches the owner. The owner is not one goroutine but
// one at a time: whoever leaves word while nobody is the owner becomes it, for a
// few turns, and so saves two switches of goroutines for each hop of a request. If
// word keeps coming, it hands over to the standby goroutine and goes back to its
// own work.
//
// So nobody may leave word while holding a lock that a turn takes: those of a
// session, a queue, an arena, the link, or the reply path of a front end.
type mailbox struct {
	mu     sync.Mutex
	in     word
	turn   func(*word) // of the owner; nil: word is only collected (tests)
	spare  word        // the owner's, swapped with in
	owned  bool        // somebody is the owner
	closed bool
	handed bool      // the standby is to be the owner
	wake   sync.Cond // of the standby
}

// maxTurns is how many turns a passer-by takes before it hands over.
const maxTurns = 2

func newMailbox(turn func(*word)) *mailbox {
	b := &mailbox{turn: turn}
	b.wake.L = &b.mu
	return b
}

// kick makes sure that what came is taken. Called with the lock, which it gives
// up.
func (b *mailbox) kick() {
	if b.owned || b.turn == nil {
		b.mu.Unlock()
		return
	}
	b.owned = true
	b.turns(maxTurns)
}

// turns takes turns as the owner, until nothing is left or n are taken: then the
// standby goes on. Called with the lock, which it gives up.
func (b *mailbox) turns(n int) {
	for !b.in.empty() {
		if n == 0 {
			b.handed = true
			b.mu.Unlock()
			b.wake.Signal()
			return
		}
		n--
		b.in, b.spare = b.spare, b.in
		b.mu.Unlock()
		b.turn(&b.spare)
		b.spare.reset()
		b.mu.Lock()
	}
	b.owned = false
	closed := b.closed
	b.mu.Unlock()
	if closed {
		b.wake.Signal()
	}
}

// standby takes over from owners that hand over. It returns once the mailbox is
// closed, empty and not owned.
func (b *mailbox) standby() {
	b.mu.Lock()
	for {
		switch {
		case b.handed:
			b.handed = false
			b.turns(-1)
			b.mu.Lock()
		case b.closed && !b.owned:
			b.mu.Unlock()
			return
		default:
			b.wake.Wait()
		}
	}
}

func (b *mailbox) postIOs(ios []*blockdev.IO) {
	b.mu.Lock()
	b.in.ios = append(b.in.ios, ios...)
	b.kick()
}

func (b *mailbox) postRequests(reqs []*blockdev.Request, at replicate.Instant) {
	b.mu.Lock()
	for _, q := range reqs {
		b.in.reqs = append(b.in.reqs, arrival{q, at})
	}
	b.kick()
}

// post says whether anybody will read it.
func (b *mailbox) post(it item) bool {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return false
	}
	b.in.items = append(b.in.items, it)
	b.kick()
	return true
}

// postAll leaves messages whose numbers stand in seqs.
func (b *mailbox) postAll(items []item, seqs []uint64) {
	b.mu.Lock()
	n := len(b.in.seqs)
	b.in.seqs = append(b.in.seqs, seqs...)
	for _, it := range items {
		it.seqs[0] += n
		it.seqs[1] += n
		b.in.items = append(b.in.items, it)
	}
	b.kick()
}

func (b *mailbox) event(ev replicate.Event) bool { return b.post(item{ev: ev}) }

// take waits for word and swaps it with the empty one given (tests).
func (b *mailbox) take(empty *word) {
	for {
		b.mu.Lock()
		if !b.in.empty() {
			b.in, *empty = *empty, b.in
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		time.Sleep(50 * time.Microsecond)
	}
}

func (b *mailbox) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.wake.Signal()
}
