package nbd

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"hastd/blockdev"
)

// memDevice is a resource in memory: one goroutine works on what was submitted and
// completes it in batches, in a random order if told so.
type memDevice struct {
	info    blockdev.DeviceInfo
	null    bool // keep nothing, answer at once
	shuffle bool
	fail    func(*blockdev.Request) error // nil, or decides how a request ends

	mu      sync.Mutex
	change  sync.Cond
	queue   []*blockdev.Request
	held    bool // requests wait until it is cleared
	closing bool
	data    []byte
	alloced []bool // per sector
	dirty   map[int64]bool
	stable  int // flushes that ended
	seen    int // requests submitted

	poolMu   sync.Mutex
	poolRoom sync.Cond
	room     int
	buffers  map[int][][]byte
	live     int
	waiting  int // callers inside Alloc that wait

	done chan struct{}
}

func newMemDevice(t testing.TB, size int64, sector, pool int) *memDevice {
	d := &memDevice{
		info:    blockdev.DeviceInfo{Name: "data", Size: size, SectorSize: sector},
		data:    make([]byte, size),
		alloced: make([]bool, size/int64(sector)),
		dirty:   make(map[int64]bool),
		room:    pool,
		buffers: make(map[int][][]byte),
		done:    make(chan struct{}),
	}
	d.change.L = &d.mu
	d.poolRoom.L = &d.poolMu
	go d.work()
	t.Cleanup(func() {
		d.set(func() { d.held = false })
		d.shutPool()
		d.set(func() { d.closing = true })
		<-d.done
		if n := d.liveBuffers(); n != 0 {
			t.Errorf("%d buffers were never given back", n)
		}
	})
	return d
}

func (d *memDevice) set(f func()) {
	d.mu.Lock()
	f()
	d.mu.Unlock()
	d.change.Broadcast()
}

// await returns once ok, which is called with the device locked, says so.
func (d *memDevice) await(ok func() bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for !ok() {
		d.change.Wait()
	}
}

func (d *memDevice) awaitPool(ok func() bool) {
	d.poolMu.Lock()
	defer d.poolMu.Unlock()
	for !ok() {
		d.poolRoom.Wait()
	}
}

func (d *memDevice) liveBuffers() int {
	d.poolMu.Lock()
	defer d.poolMu.Unlock()
	return d.live
}

func (d *memDevice) shutPool() {
	d.poolMu.Lock()
	d.room = -1 << 40
	d.poolMu.Unlock()
	d.poolRoom.Broadcast()
}

func (d *memDevice) Info() blockdev.DeviceInfo { return d.info }

func (d *memDevice) Alloc(n int) []byte {
	return d.alloc(n, func() bool { d.poolRoom.Wait(); return true })
}

func (d *memDevice) TryAlloc(n int) []byte {
	return d.alloc(n, func() bool { return false })
}

func (d *memDevice) AllocWhile(n int, still func() bool) []byte {
	return d.alloc(n, func() bool {
		d.poolMu.Unlock()
		time.Sleep(time.Millisecond)
		wanted := still()
		d.poolMu.Lock()
		return wanted
	})
}

// alloc calls wait, which may unlock, for as long as there is no room.
func (d *memDevice) alloc(n int, wait func() bool) []byte {
	d.poolMu.Lock()
	defer d.poolMu.Unlock()
	for d.room >= 0 && d.room < n {
		d.waiting++
		d.poolRoom.Broadcast()
		wanted := wait()
		d.waiting--
		if !wanted {
			return nil
		}
	}
	if d.room < 0 {
		return nil
	}
	d.room -= n
	d.live++
	if l := d.buffers[n]; len(l) > 0 {
		b := l[len(l)-1]
		d.buffers[n] = l[:len(l)-1]
		return b
	}
	b := make([]byte, n+4096)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & 4095
	return b[skip : skip+n : skip+n]
}

func (d *memDevice) Free(b []byte) {
	d.poolMu.Lock()
	d.buffers[len(b)] = append(d.buffers[len(b)], b)
	d.room += len(b)
	d.live--
	if d.live < 0 {
		panic("a buffer was given back twice")
	}
	d.poolMu.Unlock()
	d.poolRoom.Broadcast()
}

func (d *memDevice) Submit(batch []*blockdev.Request) {
	d.mu.Lock()
	d.queue = append(d.queue, batch...)
	d.seen += len(batch)
	d.mu.Unlock()
	d.change.Broadcast()
}

func (d *memDevice) Allocated(off, n int64) ([]blockdev.Run, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var runs []blockdev.Run
	s := int64(d.info.SectorSize)
	for ; n > 0; off, n = off+s, n-s {
		hole := !d.alloced[off/s]
		if l := len(runs); l > 0 && runs[l-1].Hole == hole {
			runs[l-1].Len += s
		} else {
			runs = append(runs, blockdev.Run{Len: s, Hole: hole})
		}
	}
	return runs, nil
}

func (d *memDevice) work() {
	defer close(d.done)
	var batch, mine []*blockdev.Request
	for {
		d.mu.Lock()
		for len(d.queue) == 0 && !d.closing || d.held && len(d.queue) > 0 {
			d.change.Wait()
		}
		if len(d.queue) == 0 {
			d.mu.Unlock()
			return
		}
		batch, d.queue = d.queue, batch[:0]
		for _, r := range batch {
			r.Err = nil
			if d.fail != nil {
				r.Err = d.fail(r)
			}
			if r.Err == nil && !d.null {
				d.do(r)
			}
		}
		d.mu.Unlock()
		if d.shuffle {
			rand.Shuffle(len(batch), func(i, j int) { batch[i], batch[j] = batch[j], batch[i] })
		}
		for len(batch) > 0 { // one call for each owner
			owner := batch[0].Owner
			mine = mine[:0]
			rest := batch[:0]
			for _, r := range batch {
				if r.Owner == owner {
					mine = append(mine, r)
				} else {
					rest = append(rest, r)
				}
			}
			batch = rest
			owner.Complete(mine)
		}
	}
}

func (d *memDevice) do(r *blockdev.Request) {
	s := int64(d.info.SectorSize)
	if r.Off%s != 0 || r.Len%s != 0 || r.Off < 0 || r.Off+r.Len > d.info.Size {
		panic("the device got a request that it should never see")
	}
	area := d.data[r.Off : r.Off+r.Len]
	mark := func(alloced bool) {
		for i := r.Off / s; i < (r.Off+r.Len)/s; i++ {
			d.alloced[i] = alloced
			if !r.FUA {
				d.dirty[i] = true
			}
		}
	}
	switch r.Op {
	case blockdev.OpRead:
		copy(r.Buf, area)
	case blockdev.OpWrite:
		copy(area, r.Buf)
		mark(true)
	case blockdev.OpZero:
		clear(area)
		mark(r.NoHole)
	case blockdev.OpTrim:
		clear(area)
		mark(false)
	case blockdev.OpFlush:
		clear(d.dirty)
		d.stable++
	default:
		panic("the device got an operation that does not exist")
	}
}

// content is what the device holds.
func (d *memDevice) content() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.data)
}

// flushed tells whether there was a flush and nothing was written after it.
func (d *memDevice) flushed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stable > 0 && len(d.dirty) == 0
}

// failOp makes a device that fails one kind of operation.
func failOp(err error, ops ...blockdev.Op) func(*blockdev.Request) error {
	return func(r *blockdev.Request) error {
		if slices.Contains(ops, r.Op) {
			return err
		}
		return nil
	}
}
