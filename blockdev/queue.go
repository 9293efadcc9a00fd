package blockdev

import (
	"errors"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// IOKind is what an IO asks of a component.
type IOKind uint8

// The operations a Queue carries out.
const (
	IORead IOKind = iota + 1
	IOWrite
	IOZero
	IOFlush
)

// IO is one component operation. Its submitter allocates it, keeps it in a free
// list and gets the same pointer back when it is done.
type IO struct {
	Kind   IOKind
	NoHole bool // IOZero: keep the space
	Off    int64
	Len    int64
	Buf    []byte // IORead, IOWrite: Len bytes
	// Mask, when not zero, picks MaskBlock-sized blocks: bit i is the block at
	// Off + i*MaskBlock, at the same distance in Buf. Off is then a multiple of
	// MaskWindow and Len at most that; a last block may be cut short by Len.
	Mask uint64
	Tag  uint64 // the submitter's own

	Issued int64 // Now() when the operation began
	Took   int64 // nanoseconds it took
	Err    error

	next *IO
}

// What a bit of IO.Mask stands for.
const (
	MaskBlock  = 4 << 10
	MaskWindow = 64 * MaskBlock
)

// ErrQueueClosed ends what was submitted too late to be started.
var ErrQueueClosed = errors.New("the component is being closed")

const (
	// queueFast is the time an operation takes below which waking a worker for
	// each would cost as much as the operations themselves.
	queueFast = 15 * time.Microsecond
	// queueSlow is when a worker that took several gives the rest back.
	queueSlow = 200 * time.Microsecond
	// queueShare is how many operations a worker takes at once from a fast disk.
	queueShare = 32
	// queueFastWorkers is how many workers a fast disk keeps busy: its cost is
	// copying, which more threads make no cheaper.
	queueFastWorkers = 2
	// queueMerge bounds how many adjacent operations become one, and
	// queueMergeBytes how large it gets.
	queueMerge      = 64
	queueMergeBytes = 1 << 20
	// queueZeroStep is how much is zeroed at once, so that a large request is
	// seen to make progress.
	queueZeroStep = 64 << 20
)

// store is what a queue does its I/O on; *Component outside of tests.
type store interface {
	ReadAt(buf []byte, off int64) error
	WriteAt(buf []byte, off int64) error
	Zero(off, n int64, noHole bool) error
	Flush() error
	vectored(write bool, off, n int64, iov []unix.Iovec) error
	usable(buf []byte) bool
}

// Queue carries out batches of operations on a fixed set of workers.
// Operations start in the order of submission and complete in any. A flush
// covers what had completed when it was submitted; it does not wait for what is
// under way, and what is submitted later does not wait for it.
//
// A worker takes several operations at a time while they take a few
// microseconds each (page cache, tmpfs), and one at a time, so that as many are
// under way as there are workers, when they take longer. Adjacent reads or
// writes are merged. Flushes waiting together are one flush.
type Queue struct {
	c    store
	done func([]*IO)

	mu       sync.Mutex
	wake     sync.Cond
	head     *IO // reads, writes, zeroes
	tail     *IO
	n        int
	flushes  *IO // newest first: the order among flushes does not matter
	flushing bool
	idle     int
	workers  []*worker
	closed   bool
	wg       sync.WaitGroup

	latency atomic.Int64 // ns an operation takes, by learn
}

type worker struct {
	q     *Queue
	start atomic.Int64 // when its present operation began; 0: none
	take  []*IO
	iov   []unix.Iovec
}

// NewQueue starts the workers. done is told of finished operations, called by
// several workers at once; it must not block for long and must not keep the
// slice.
func NewQueue(c *Component, workers int, done func(batch []*IO)) *Queue {
	return newQueue(c, workers, done)
}

func newQueue(c store, workers int, done func([]*IO)) *Queue {
	q := &Queue{c: c, done: done}
	q.wake.L = &q.mu
	q.latency.Store(int64(queueSlow)) // until it shows to be fast
	for range max(workers, 1) {
		w := &worker{q: q, take: make([]*IO, 0, queueMerge), iov: make([]unix.Iovec, 0, queueMerge)}
		q.workers = append(q.workers, w)
	}
	q.wg.Add(len(q.workers))
	for _, w := range q.workers {
		go w.run()
	}
	return q
}

var clockBase = time.Now()

// Now is the clock of IO.Issued: nanoseconds since some moment of this process.
func Now() int64 { return int64(time.Since(clockBase)) + 1 }

// Submit hands a batch over. It never waits, and does not keep the slice.
func (q *Queue) Submit(batch []*IO) {
	if len(batch) == 0 {
		return
	}
	var head, tail, flushes *IO
	n := 0
	for _, io := range batch {
		io.Err = nil
		if io.Kind == IOFlush {
			io.next, flushes = flushes, io
			continue
		}
		io.next = nil
		if tail == nil {
			head = io
		} else {
			tail.next = io
		}
		tail = io
		n++
	}
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		for _, io := range batch {
			io.Err = ErrQueueClosed
		}
		q.done(batch)
		return
	}
	if n > 0 {
		if q.tail == nil {
			q.head = head
		} else {
			q.tail.next = head
		}
		q.tail = tail
		q.n += n
	}
	for flushes != nil {
		io := flushes
		flushes = io.next
		io.next, q.flushes = q.flushes, io
	}
	q.call()
	q.mu.Unlock()
}

// call wakes a worker if one more is worth it. Each that wakes calls the next,
// so that the submitter pays for one at most.
func (q *Queue) call() {
	if q.idle == 0 {
		return
	}
	busy := len(q.workers) - q.idle
	if q.flushing {
		busy-- // a flush takes its time on any disk
	}
	switch {
	case q.flushes != nil && !q.flushing:
	case q.n == 0:
		return
	case q.fast() && (busy >= queueFastWorkers || busy > 0 && q.n < queueShare) && !q.stuck():
		return
	}
	q.idle--
	q.wake.Signal()
}

// learn takes in how long an operation took. On a busy machine the clock shows how
// long the worker waited for a processor, which says nothing of the disk, and one
// worker an operation would make it wait all the more. So the short times count:
// the estimate follows them at once and the long ones by small steps. A disk that
// is slow shows no short times. One that was fast and took very long just now is
// taken for slow until the next operation.
func (q *Queue) learn(took int64) {
	old := q.latency.Load()
	switch {
	case took < old:
		old -= (old - took) / 4
	case took > int64(queueSlow):
		old = max(old, int64(queueFast)) + int64(queueFast)/16
	default:
		old += min(took-old, int64(queueFast)/16)
	}
	q.latency.Store(min(old, int64(queueSlow)))
}

func (q *Queue) fast() bool { return q.latency.Load() < int64(queueFast) }

// stuck says whether a worker is in an operation for longer than a fast disk
// should take.
func (q *Queue) stuck() bool {
	since, ok := q.oldest()
	return ok && since > queueSlow
}

// SlowestIssued is the age of the oldest operation under way, 0 if there is none.
// Age counts from when the disk was last seen to make progress with it. Asked now
// and then, it also sees to it that what queued up behind an operation that hangs
// on a fast disk is taken by other workers.
func (q *Queue) SlowestIssued() time.Duration {
	d, _ := q.oldest()
	if d > queueSlow {
		q.mu.Lock()
		q.call()
		q.mu.Unlock()
	}
	return d
}

func (q *Queue) oldest() (time.Duration, bool) {
	first := int64(0)
	for _, w := range q.workers {
		if s := w.start.Load(); s != 0 && (first == 0 || s < first) {
			first = s
		}
	}
	if first == 0 {
		return 0, false
	}
	return time.Duration(Now() - first), true
}

// Stop ends what was not started yet with ErrQueueClosed and takes nothing new.
// It does not wait.
func (q *Queue) Stop() {
	q.mu.Lock()
	q.closed = true
	rest, flushes := q.head, q.flushes
	q.head, q.tail, q.n, q.flushes = nil, nil, 0, nil
	q.idle = 0
	q.wake.Broadcast()
	q.mu.Unlock()
	for _, list := range []*IO{rest, flushes} {
		var batch []*IO
		for io := list; io != nil; io = io.next {
			io.Err = ErrQueueClosed
			batch = append(batch, io)
		}
		if len(batch) > 0 {
			q.done(batch)
		}
	}
}

// Wait waits until nothing is under way after Stop, or for the limit, and says
// which: a hung disk keeps its operations, and their buffers, for as long as it
// hangs. A limit of 0 is none.
func (q *Queue) Wait(limit time.Duration) bool {
	if limit == 0 {
		q.wg.Wait()
		return true
	}
	gone := make(chan struct{})
	go func() { q.wg.Wait(); close(gone) }()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-gone:
		return true
	case <-t.C:
		return false
	}
}

// Close takes nothing new, carries out what was submitted and returns when all of
// it is done.
func (q *Queue) Close() {
	q.mu.Lock()
	q.closed = true
	q.idle = 0
	q.wake.Broadcast()
	q.mu.Unlock()
	q.wg.Wait()
}

func (w *worker) run() {
	q := w.q
	defer q.wg.Done()
	q.mu.Lock()
	for {
		switch {
		case q.flushes != nil && !q.flushing:
			w.flush()
		case q.head != nil:
			w.work()
		case q.closed:
			q.mu.Unlock()
			return
		default:
			q.idle++
			q.wake.Wait() // whoever signals has taken us off idle
		}
	}
}

// flush carries out all waiting flushes as one. Called and returns with the lock.
func (w *worker) flush() {
	q := w.q
	w.take = w.take[:0]
	for io := q.flushes; io != nil; io = io.next {
		w.take = append(w.take, io)
	}
	q.flushes = nil
	q.flushing = true
	q.call()
	q.mu.Unlock()
	now := Now()
	w.start.Store(now)
	err := q.c.Flush()
	took := Now() - now
	w.start.Store(0)
	for _, io := range w.take {
		io.next, io.Issued, io.Took, io.Err = nil, now, took, err
	}
	q.mu.Lock()
	q.flushing = false
	q.call()
	q.mu.Unlock()
	q.done(w.take)
	q.mu.Lock()
}

// work carries out a share of the queue. Called and returns with the lock.
func (w *worker) work() {
	q := w.q
	w.pick()
	q.call()
	q.mu.Unlock()
	now, i := Now(), 0
	for i < len(w.take) {
		k := w.merged(w.take[i:])
		w.start.Store(now)
		w.issue(w.take[i:i+k], now)
		end := Now()
		for _, io := range w.take[i : i+k] {
			io.Issued, io.Took = now, end-now
		}
		slow := end-now > int64(queueSlow)
		q.learn(end - now)
		i, now = i+k, end
		if slow && i < len(w.take) {
			w.giveBack(i)
		}
	}
	w.start.Store(0)
	q.done(w.take)
	q.mu.Lock()
}

// pick takes this worker's share off the queue.
func (w *worker) pick() {
	q := w.q
	w.take = w.take[:0]
	share := 1
	if q.fast() {
		share = min(queueShare, q.n)
		if q.n >= queueShare && q.idle > 0 {
			share = max(queueShare/2, min(queueShare, q.n/2)) // leave half to another
		}
	}
	bytes := int64(0)
	for io := q.head; io != nil; io = q.head {
		if k := len(w.take); k >= share {
			// Beyond its share only what rides along in the same operation.
			if k >= queueMerge || !adjacent(w.take[k-1], io) || bytes+io.Len > queueMergeBytes {
				break
			}
		}
		q.head = io.next
		q.n--
		io.next = nil
		w.take = append(w.take, io)
		bytes += io.Len
	}
	if q.head == nil {
		q.tail = nil
	}
}

// giveBack returns what was not started to the front of the queue: the disk has
// become slow, others should take it.
func (w *worker) giveBack(from int) {
	q := w.q
	rest := w.take[from:]
	w.take = w.take[:from]
	q.mu.Lock()
	for i := len(rest) - 1; i >= 0; i-- {
		rest[i].next = q.head
		q.head = rest[i]
		if q.tail == nil {
			q.tail = rest[i]
		}
		q.n++
	}
	q.call()
	q.mu.Unlock()
}

func adjacent(a, b *IO) bool {
	return a.Kind == b.Kind && (a.Kind == IORead || a.Kind == IOWrite) &&
		a.Mask == 0 && b.Mask == 0 && a.Off+a.Len == b.Off
}

// merged says how many of the first operations are one to the disk.
func (w *worker) merged(ios []*IO) int {
	n, bytes := 1, ios[0].Len
	if len(ios) == 1 || !w.q.c.usable(ios[0].Buf) {
		return 1
	}
	for n < len(ios) && n < queueMerge && adjacent(ios[n-1], ios[n]) &&
		bytes+ios[n].Len <= queueMergeBytes && w.q.c.usable(ios[n].Buf) {
		bytes += ios[n].Len
		n++
	}
	return n
}

func (w *worker) issue(ios []*IO, now int64) {
	if len(ios) > 1 {
		w.iov = w.iov[:0]
		bytes := int64(0)
		for _, io := range ios {
			v := unix.Iovec{Base: unsafe.SliceData(io.Buf)}
			v.SetLen(int(io.Len))
			w.iov = append(w.iov, v)
			bytes += io.Len
		}
		err := w.q.c.vectored(ios[0].Kind == IOWrite, ios[0].Off, bytes, w.iov)
		clear(w.iov)
		if err == nil {
			return // Submit has set Err to nil
		}
		// Each by itself, so that only those fail that touch the bad spot.
	}
	for _, io := range ios {
		io.Err = w.one(io)
		if len(ios) > 1 {
			w.start.Store(Now())
		}
	}
}

func (w *worker) one(io *IO) error {
	if io.Mask == 0 {
		return w.piece(io, 0, io.Len)
	}
	if io.Off%MaskWindow != 0 || io.Len > MaskWindow {
		return unix.EINVAL
	}
	for m := io.Mask; m != 0; {
		from := bits.TrailingZeros64(m)
		n := bits.TrailingZeros64(^(m >> from))
		start := int64(from) * MaskBlock
		end := min(start+int64(n)*MaskBlock, io.Len)
		if start >= end {
			break
		}
		if err := w.piece(io, start, end); err != nil {
			return err
		}
		if from+n == 64 {
			break
		}
		m &^= 1<<(from+n) - 1
	}
	return nil
}

// piece carries out the part [start, end) of an operation.
func (w *worker) piece(io *IO, start, end int64) error {
	c := w.q.c
	switch io.Kind {
	case IORead:
		return c.ReadAt(io.Buf[start:end], io.Off+start)
	case IOWrite:
		return c.WriteAt(io.Buf[start:end], io.Off+start)
	case IOZero:
		for start < end {
			k := min(end-start, queueZeroStep)
			if err := c.Zero(io.Off+start, k, io.NoHole); err != nil {
				return err
			}
			start += k
			w.start.Store(Now())
		}
		return nil
	}
	return unix.EINVAL
}
