// Package ledger is the outside judge of the lab: it records every write and
// flush that a client issued and how it ended, and afterwards decides for each
// sector of the device which writes may stand there. It knows nothing of
// replication; it knows only what a disk promises to those who write to it.
//
// The promise, for a sector:
//
//   - an acknowledged write is there, or one issued later, or one that was still
//     under way when it was issued;
//   - after PowerLost, that holds only for writes that an acknowledged flush
//     covers (issued after the write's acknowledgement) or that carried FUA; the
//     others may be there or not;
//   - a write that failed or was never answered may be there or not, but does not
//     come back once a later one is firm;
//   - nothing else is ever there: no data of others, no mixture inside a sector.
//
// Load writes and records; Check judges. The package never talks to a daemon's
// control socket and never decides what fault happens.
package ledger

import (
	"fmt"
	"sync"
)

// SectorSize is the unit of judgement, in bytes.
const SectorSize = 512

// ID names a write; 0 is the device's initial content, all zeroes.
type ID uint32

// Kind is what a write leaves behind.
type Kind uint8

// Data leaves stamped sectors, Zeroes zero ones (TRIM and WRITE ZEROES).
const (
	Data Kind = iota
	Zeroes
)

// write is one write and what became of it. Times are sequence numbers of the
// ledger; 0 is "not yet".
type write struct {
	issued uint64
	ended  uint64 // answered, or known never to have an effect any more
	epoch  uint32 // count of power losses when it was acknowledged
	first  uint32 // sector
	count  uint32
	kind   Kind
	fua    bool
	acked  bool
}

// Options describe the device that is judged.
type Options struct {
	Size int64  // bytes; what lies beyond is not judged
	Seed uint64 // marks this ledger's data
}

// Ledger is safe for use by many goroutines.
type Ledger struct {
	size int64
	seed uint64

	mu     sync.Mutex
	now    uint64
	writes []write // by ID; [0] is the initial content
	// sectors holds, for each sector, the writes that may stand there, in the
	// order of issue. nil is {0}.
	sectors [][]ID
	open    map[ID]struct{} // unanswered and not settled
	// flushed is, by epoch, the issue time of the newest acknowledged flush.
	flushed []uint64
	epoch   uint32

	acked, failed, unanswered, flushes int64
}

// New starts a ledger for a device that is all zeroes.
func New(o Options) *Ledger {
	return &Ledger{
		size: o.Size, seed: o.Seed,
		writes:  []write{{}},
		sectors: make([][]ID, o.Size/SectorSize),
		open:    map[ID]struct{}{},
		flushed: []uint64{0},
	}
}

// Size is the device's size in bytes.
func (l *Ledger) Size() int64 { return l.size }

func (l *Ledger) tick() uint64 {
	l.now++
	return l.now
}

// Begin records that a write is about to be issued. off and n are multiples of
// SectorSize.
func (l *Ledger) Begin(kind Kind, off, n int64, fua bool) ID {
	if off%SectorSize != 0 || n%SectorSize != 0 || off < 0 || n <= 0 || off+n > l.size {
		panic(fmt.Sprintf("ledger: write [%d, +%d) on a device of %d", off, n, l.size))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	id := ID(len(l.writes))
	w := write{issued: l.tick(), first: uint32(off / SectorSize), count: uint32(n / SectorSize), kind: kind, fua: fua}
	l.writes = append(l.writes, w)
	l.open[id] = struct{}{}
	for s := w.first; s < w.first+w.count; s++ {
		if l.sectors[s] == nil {
			l.sectors[s] = append(make([]ID, 0, 4), 0)
		}
		if len(l.sectors[s]) >= pruneAt {
			l.prune(s)
		}
		l.sectors[s] = append(l.sectors[s], id)
	}
	return id
}

// pruneAt is how many versions of a sector are kept before those that can never
// be permitted again are looked for.
const pruneAt = 8

// prune forgets versions that a write which can no longer be lost has replaced.
func (l *Ledger) prune(s uint32) {
	list := l.sectors[s]
	var newest uint64
	for _, id := range list {
		if w := &l.writes[id]; l.covered(w) {
			newest = max(newest, w.issued)
		}
	}
	kept := list[:0]
	for _, id := range list {
		if w := &l.writes[id]; !l.endedBefore(id, w, newest) {
			kept = append(kept, id)
		}
	}
	l.sectors[s] = kept
}

// endedBefore says that a version was complete when time came: what was issued
// then replaces it.
func (l *Ledger) endedBefore(id ID, w *write, time uint64) bool {
	if id == 0 {
		return time > 0
	}
	return w.ended != 0 && w.ended < time
}

// covered says that a write is on stable storage by what was promised.
func (l *Ledger) covered(w *write) bool {
	return w.acked && (w.fua || w.ended < l.flushed[w.epoch])
}

// firm says that a write must not be missing.
func (l *Ledger) firm(w *write) bool {
	return w.acked && (w.epoch == l.epoch || l.covered(w))
}

func (l *Ledger) end(id ID, acked bool) *write {
	w := &l.writes[id]
	if w.ended != 0 {
		panic(fmt.Sprintf("ledger: write %d ended twice", id))
	}
	delete(l.open, id)
	w.ended, w.epoch, w.acked = l.tick(), l.epoch, acked
	return w
}

// Acked records a write's acknowledgement.
func (l *Ledger) Acked(id ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(id, true)
	l.acked++
}

// Failed records that a write was answered with an error.
func (l *Ledger) Failed(id ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(id, false)
	l.failed++
}

// Unanswered records that a write's connection ended. It may still be carried
// out, until Settle says that this is over.
func (l *Ledger) Unanswered(id ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unanswered++
}

// Settle records that no write which was not answered so far is under way any
// more: the daemon that had them is dead, or another promotion has happened. No
// write may be in flight when it is called.
func (l *Ledger) Settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tick()
	for id := range l.open {
		l.writes[id].ended = t
	}
	clear(l.open)
}

// PowerLost records that acknowledged writes which no flush covers may be gone:
// every volatile cache that had them lost its power. No write may be in flight;
// what was answered before must have been recorded.
func (l *Ledger) PowerLost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tick()
	l.epoch++
	l.flushed = append(l.flushed, 0)
}

// FlushID names a flush under way.
type FlushID struct {
	issued uint64
	epoch  uint32
}

// BeginFlush records that a flush is about to be issued.
func (l *Ledger) BeginFlush() FlushID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return FlushID{l.tick(), l.epoch}
}

// FlushAcked records a flush's acknowledgement. Flushes that end otherwise
// promise nothing and are not recorded.
func (l *Ledger) FlushAcked(f FlushID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tick()
	l.flushed[f.epoch] = max(l.flushed[f.epoch], f.issued)
	l.flushes++
}

// Counts are what happened so far.
type Counts struct{ Issued, Acked, Failed, Unanswered, Flushes int64 }

// Counts are the totals since New.
func (l *Ledger) Counts() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Counts{int64(len(l.writes) - 1), l.acked, l.failed, l.unanswered, l.flushes}
}

// Sub is the difference of two counts.
func (c Counts) Sub(o Counts) Counts {
	return Counts{c.Issued - o.Issued, c.Acked - o.Acked, c.Failed - o.Failed, c.Unanswered - o.Unanswered, c.Flushes - o.Flushes}
}
