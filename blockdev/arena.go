package blockdev

import (
	"fmt"
	"log/slog"
	"math/bits"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Arena is a fixed amount of page-aligned memory outside the Go heap, handed out
// in powers of two from 4 KiB on. What a resource may hold of application data at
// once is bounded by it, and memory reclaim that waits for this very device finds
// the memory already there.
//
// Buffers are meant to be short-lived: whoever waits for a large one is served
// before everybody who came later, once its neighbours have come back.
//
// Invariant: every page belongs to exactly one block; order[first page of a
// block] is its size, with arenaFree set while it is on a free list and
// arenaCached while it waits on a quick list.
type Arena struct {
	mu      sync.Mutex
	mem     []byte
	base    uintptr
	order   []uint8 // by page; arenaInside for pages that start no block
	next    []int32 // by page: links of the free lists
	prev    []int32
	free    [arenaOrders]int32
	quick   [arenaQuickOrders][]int32 // freed and not merged yet: the usual sizes come straight back
	freed   int64                     // bytes free, quick lists included
	size    int64
	maxOrd  int
	waiting waiterList
	closed  bool
	locked  bool
}

const (
	arenaOrders      = 14          // 4 KiB << 13 = 32 MiB = MaxTransfer
	arenaQuickOrders = 7           // up to 256 KiB
	arenaQuickMax    = 64          // blocks kept unmerged of each order
	arenaAsk         = time.Second // how often those who wait are asked whether they still want it

	arenaFree   = 0x80
	arenaCached = 0x40
	arenaInside = 0x3f
	arenaNone   = -1
)

// ArenaOptions says how much memory an arena has.
type ArenaOptions struct {
	Size     int64 // bytes; rounded up to whole pages, at least MaxAlloc
	MaxAlloc int   // largest buffer, a power of two; 0: MaxTransfer
	Log      *slog.Logger
}

var warnMlock sync.Once

// NewArena maps and locks the memory. Where locking is not allowed it goes on
// without and logs so once in the process's life.
func NewArena(opts ArenaOptions) (*Arena, error) {
	if opts.MaxAlloc == 0 {
		opts.MaxAlloc = MaxTransfer
	}
	if opts.MaxAlloc < pageSize || opts.MaxAlloc > MaxTransfer || opts.MaxAlloc&(opts.MaxAlloc-1) != 0 {
		return nil, fmt.Errorf("buffer memory: largest buffer of %d bytes is not a power of two from %d to %d", opts.MaxAlloc, pageSize, MaxTransfer)
	}
	size := (max(opts.Size, int64(opts.MaxAlloc)) + pageSize - 1) &^ (pageSize - 1)
	mem, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("buffer memory of %d bytes: %w", size, err)
	}
	a := &Arena{mem: mem, base: uintptr(unsafe.Pointer(&mem[0])), size: size, maxOrd: orderOf(opts.MaxAlloc)}
	if err := unix.Mlock(mem); err == nil {
		a.locked = true
	} else {
		warnMlock.Do(func() {
			log := opts.Log
			if log == nil {
				log = slog.Default()
			}
			log.Warn("buffer memory is not locked: under memory pressure the kernel may swap it out and then wait for this very device. Raise the limit for locked memory (LimitMEMLOCK) or grant CAP_IPC_LOCK", "error", err)
		})
	}
	pages := int(size / pageSize)
	a.order = make([]uint8, pages)
	a.next = make([]int32, pages)
	a.prev = make([]int32, pages)
	for i := range a.order {
		a.order[i] = arenaInside
	}
	for i := range a.free {
		a.free[i] = arenaNone
	}
	for i := range a.quick {
		a.quick[i] = make([]int32, 0, arenaQuickMax)
	}
	for p := 0; p < pages; {
		o := a.maxOrd
		for p&(1<<o-1) != 0 || p+1<<o > pages {
			o--
		}
		a.push(int32(p), o)
		p += 1 << o
	}
	a.freed = size
	return a, nil
}

// orderOf is the power of two of pages that holds n bytes.
func orderOf(n int) int { return bits.Len(uint(n-1) >> 12) }

// Get gives n bytes, page-aligned; their content is arbitrary. It waits while
// there is no room, in the order of arrival, and returns nil once the arena is
// closed. n must be from 1 to MaxAlloc.
func (a *Arena) Get(n int) []byte { return a.GetWhile(n, nil) }

// GetWhile is Get that gives up, and returns nil, once still says false; it is asked
// about once a second while there is no room. Nil means Get.
func (a *Arena) GetWhile(n int, still func() bool) []byte {
	o := a.checkSize(n)
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return nil
	}
	if a.waiting.head == nil {
		if p := a.take(o); p != arenaNone {
			a.mu.Unlock()
			return a.slice(p, o, n)
		}
	}
	w := waiterPool.Get().(*waiter)
	w.order, w.page = o, arenaNone
	a.waiting.push(w)
	a.mu.Unlock()
	a.await(w, still)
	p := w.page
	waiterPool.Put(w)
	if p == arenaNone {
		return nil
	}
	return a.slice(p, o, n)
}

// await returns once w was served, or has left the queue.
func (a *Arena) await(w *waiter, still func() bool) {
	if still == nil {
		<-w.ready
		return
	}
	w.ask.Reset(arenaAsk)
	defer w.ask.Stop()
	for {
		select {
		case <-w.ready:
			return
		case <-w.ask.C:
			if !still() && a.leave(w) {
				return
			}
			w.ask.Reset(arenaAsk)
		}
	}
}

// leave takes w out of the queue; false when it has been served meanwhile.
func (a *Arena) leave(w *waiter) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.waiting.remove(w) {
		return false
	}
	a.serve() // those behind it may want less
	return true
}

// TryGet is Get that returns nil instead of waiting. It does not overtake those
// who wait.
func (a *Arena) TryGet(n int) []byte {
	o := a.checkSize(n)
	a.mu.Lock()
	p := int32(arenaNone)
	if !a.closed && a.waiting.head == nil {
		p = a.take(o)
	}
	a.mu.Unlock()
	if p == arenaNone {
		return nil
	}
	return a.slice(p, o, n)
}

func (a *Arena) checkSize(n int) int {
	if n > 0 {
		if o := orderOf(n); o <= a.maxOrd {
			return o
		}
	}
	panic(fmt.Sprintf("blockdev: a buffer of %d bytes was asked of an arena that gives at most %d", n, pageSize<<a.maxOrd))
}

func (a *Arena) slice(p int32, o, n int) []byte {
	off := int(p) * pageSize
	return a.mem[off : off+n : off+pageSize<<o]
}

// Put gives a buffer back: what Get returned, or a slice of it that starts at the
// same byte. Nil is allowed.
func (a *Arena) Put(buf []byte) {
	if buf == nil {
		return
	}
	off := uintptr(unsafe.Pointer(unsafe.SliceData(buf))) - a.base
	p := int32(off / pageSize)
	a.mu.Lock()
	if off >= uintptr(a.size) || off%pageSize != 0 || a.order[p] >= arenaInside {
		a.mu.Unlock()
		panic("blockdev: a buffer was given back twice, or to an arena that it is not from")
	}
	o := int(a.order[p])
	a.freed += pageSize << o
	if o < arenaQuickOrders && len(a.quick[o]) < arenaQuickMax && a.waiting.head == nil {
		a.order[p] |= arenaCached
		a.quick[o] = append(a.quick[o], p)
	} else {
		a.merge(p, o)
		if a.waiting.head != nil {
			a.serve()
		}
	}
	if a.closed && a.freed == a.size {
		a.unmap()
	}
	a.mu.Unlock()
}

// serve hands room to waiters, strictly in order.
func (a *Arena) serve() {
	for w := a.waiting.head; w != nil; w = a.waiting.head {
		p := a.take(w.order)
		if p == arenaNone {
			return
		}
		a.waiting.pop()
		w.page = p
		w.ready <- struct{}{}
	}
}

// take removes a block of order o from what is free, or returns arenaNone.
func (a *Arena) take(o int) int32 {
	if o < arenaQuickOrders {
		if k := len(a.quick[o]); k > 0 {
			p := a.quick[o][k-1]
			a.quick[o] = a.quick[o][:k-1]
			a.order[p] = uint8(o)
			a.freed -= pageSize << o
			return p
		}
	}
	if int64(pageSize)<<o > a.freed {
		return arenaNone
	}
	p := a.split(o)
	if p == arenaNone {
		// What the quick lists hold may be the missing neighbours.
		for q := range a.quick {
			for _, c := range a.quick[q] {
				a.merge(c, q)
			}
			a.quick[q] = a.quick[q][:0]
		}
		if p = a.split(o); p == arenaNone {
			return arenaNone
		}
	}
	a.order[p] = uint8(o)
	a.freed -= pageSize << o
	return p
}

func (a *Arena) split(o int) int32 {
	from := o
	for from <= a.maxOrd && a.free[from] == arenaNone {
		from++
	}
	if from > a.maxOrd {
		return arenaNone
	}
	p := a.free[from]
	a.unlink(p, from)
	for from > o {
		from--
		a.push(p+1<<from, from)
	}
	return p
}

// merge puts a block on the free lists, joined with its buddies.
func (a *Arena) merge(p int32, o int) {
	for o < a.maxOrd {
		buddy := p ^ 1<<o
		if int(buddy) >= len(a.order) || a.order[buddy] != uint8(o)|arenaFree {
			break
		}
		a.unlink(buddy, o)
		a.order[max(p, buddy)] = arenaInside
		p = min(p, buddy)
		o++
	}
	a.push(p, o)
}

func (a *Arena) push(p int32, o int) {
	a.order[p] = uint8(o) | arenaFree
	a.prev[p] = arenaNone
	a.next[p] = a.free[o]
	if a.free[o] != arenaNone {
		a.prev[a.free[o]] = p
	}
	a.free[o] = p
}

func (a *Arena) unlink(p int32, o int) {
	if a.prev[p] == arenaNone {
		a.free[o] = a.next[p]
	} else {
		a.next[a.prev[p]] = a.next[p]
	}
	if a.next[p] != arenaNone {
		a.prev[a.next[p]] = a.prev[p]
	}
}

// Free is how many bytes are not handed out.
func (a *Arena) Free() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.freed
}

// Size is how many bytes the arena has.
func (a *Arena) Size() int64 { return a.size }

// Locked says whether the memory is locked.
func (a *Arena) Locked() bool { return a.locked }

// Close wakes those who wait with nil and lets nobody in any more. The memory
// goes back to the system with the last buffer: a hung disk may still write to
// it.
func (a *Arena) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	a.closed = true
	for w := a.waiting.head; w != nil; w = a.waiting.head {
		a.waiting.pop()
		w.ready <- struct{}{}
	}
	if a.freed == a.size {
		a.unmap()
	}
}

func (a *Arena) unmap() {
	// Nothing can be done about an error here, and none is possible for a
	// mapping of our own.
	_ = unix.Munmap(a.mem)
	a.mem = nil
}

// waiter is one who waits in Get. Pooled with its channel and timer: waiting is the steady
// state of a saturated front end.
type waiter struct {
	order int
	page  int32
	next  *waiter
	ready chan struct{}
	ask   *time.Timer
}

var waiterPool = sync.Pool{New: func() any {
	w := &waiter{ready: make(chan struct{}, 1), ask: time.NewTimer(arenaAsk)}
	w.ask.Stop()
	return w
}}

type waiterList struct{ head, tail *waiter }

func (l *waiterList) push(w *waiter) {
	w.next = nil
	if l.tail == nil {
		l.head = w
	} else {
		l.tail.next = w
	}
	l.tail = w
}

func (l *waiterList) pop() {
	w := l.head
	l.head = w.next
	if l.head == nil {
		l.tail = nil
	}
	w.next = nil
}

// remove takes w out, wherever it stands; false when it is not there.
func (l *waiterList) remove(w *waiter) bool {
	var before *waiter
	for at := l.head; at != w; at = at.next {
		if at == nil {
			return false
		}
		before = at
	}
	if before == nil {
		l.pop()
		return true
	}
	before.next = w.next
	if l.tail == w {
		l.tail = before
	}
	w.next = nil
	return true
}
