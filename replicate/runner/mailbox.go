package runner

import (
	"sync"

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

// mailbox is how everybody reaches the owner: one lock for a batch, one wake-up
// for as many as come while the owner is busy.
type mailbox struct {
	mu     sync.Mutex
	wake   sync.Cond
	in     word
	asleep bool
	closed bool
}

func newMailbox() *mailbox {
	b := &mailbox{}
	b.wake.L = &b.mu
	return b
}

// kick wakes the owner if it sleeps. Called with the lock, which it gives up.
func (b *mailbox) kick() {
	wake := b.asleep
	b.asleep = false
	b.mu.Unlock()
	if wake {
		b.wake.Signal()
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

// take waits for word and swaps it with the empty one given; false once the
// mailbox is closed and empty.
func (b *mailbox) take(empty *word) bool {
	b.mu.Lock()
	for b.in.empty() {
		if b.closed {
			b.mu.Unlock()
			return false
		}
		b.asleep = true
		b.wake.Wait()
	}
	b.in, *empty = *empty, b.in
	b.mu.Unlock()
	return true
}

func (b *mailbox) close() {
	b.mu.Lock()
	b.closed = true
	b.kick()
}
