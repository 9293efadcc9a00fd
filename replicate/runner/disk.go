package runner

import (
	"context"
	"errors"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hastd/blockdev"
	"hastd/metadata"
	"hastd/replicate"
)

// disk is an open component with its workers.
type disk struct {
	data  *blockdev.Component
	meta  *blockdev.Component // data itself unless the metadata stands elsewhere
	queue *blockdev.Queue
	pool  *pool
	image *metadata.Image

	commits     chan commitJob
	committed   chan struct{} // no commit is under way, nor will be
	commitStart atomic.Int64  // blockdev.Now() when the commit's operation began; 0: none is under way
	joined      []byte        // the commits' alone
	failed      atomic.Bool   // disk-timeout was told
	unwatch     context.CancelFunc
	watching    sync.WaitGroup
	pins        sync.WaitGroup // uses besides the queue's and the pool's
}

// silent is for how long the component has not answered its oldest operation.
func (d *disk) silent() time.Duration {
	s := max(d.queue.SlowestIssued(), d.pool.slowest())
	if at := d.commitStart.Load(); at != 0 {
		s = max(s, time.Duration(blockdev.Now()-at))
	}
	return s
}

// watch tells the machine when what stands at the component's path is no longer
// what was opened: a disk that was pulled, a file that was removed.
func (d *disk) watch(r *Resource) {
	ctx, cancel := context.WithCancel(context.Background())
	d.unwatch = cancel
	for _, path := range slices.Compact([]string{d.data.Path(), d.meta.Path()}) {
		d.watching.Go(func() {
			told := false
			err := blockdev.Watch(ctx, path, func(e blockdev.Event) {
				if told || e.Present && !e.Replaced {
					return
				}
				told = true
				what := " vanished"
				if e.Present {
					what = " was replaced by something else"
				}
				r.box.event(replicate.Event{Kind: replicate.EvDiskFailed, Text: path + what})
			})
			if err != nil {
				r.opts.Log.Warn("cannot watch the component: that it vanished will show with the next operation", "path", path, "error", err)
			}
		})
	}
}

// diskOp is an operation of the machine on the component's data. Pooled by the
// owner.
type diskOp struct {
	io     blockdev.IO
	id     replicate.OpID
	kind   replicate.DiskOp
	mem    *memory // where it reads to or writes from
	aux    *memory // hashes to compare with
	zeroes uint64
	seed   uint64

	// What a pool worker made of it.
	result uint64 // Event.Mask
	zero   uint64 // Event.Zeroes
	body   []byte // memory it allocated
	from   *blockdev.Arena
	hashes *windowHashes
}

// begin turns EffDisk into an operation. Plain ones are collected for one
// submission to the queue; those that allocate, hash or zero in pieces go to the
// pool. Owner only.
func (r *Resource) begin(e *replicate.Effect) {
	op := r.newOp()
	op.id, op.kind = e.Op, e.Disk
	op.io.Off, op.io.Len = e.Off, e.Len
	op.io.NoHole = e.Flags&replicate.NoHole != 0
	op.io.Mask = 0
	op.zeroes = e.Zeroes
	op.seed = r.hashSeed
	if e.Buf != 0 {
		op.mem = r.mem.get(e.Buf).hold()
	}
	if e.Aux != 0 {
		op.aux = r.mem.get(e.Aux).hold()
	}
	d := r.disk
	if d == nil {
		op.io.Err = errNoDisk
		r.failedOps = append(r.failedOps, &op.io)
		return
	}
	pooled := false
	switch e.Disk {
	case replicate.DiskRead:
		op.io.Kind = blockdev.IORead
		if pooled = op.mem == nil; !pooled {
			op.io.Buf = op.mem.buf[:e.Len]
		}
	case replicate.DiskWrite:
		op.io.Kind = blockdev.IOWrite
		op.io.Buf = op.mem.buf[:e.Len]
	case replicate.DiskZero:
		op.io.Kind = blockdev.IOZero
	case replicate.DiskFlush:
		op.io.Kind = blockdev.IOFlush
		op.io.Off, op.io.Len = 0, 0
	case replicate.DiskWriteMasked:
		op.io.Kind, op.io.Mask = blockdev.IOWrite, e.Mask
		op.io.Len = windowLen(e.Mask)
		if pooled = e.Zeroes&e.Mask != 0; !pooled {
			op.io.Buf = op.mem.buf[:op.io.Len]
		}
	default:
		pooled = true
		op.io.Mask, op.io.Len = e.Mask, windowLen(e.Mask)
	}
	if pooled {
		d.pool.submit(op)
	} else {
		r.ios = append(r.ios, &op.io)
	}
}

var errNoDisk = errors.New("the component is not open")

// windowLen is how much of a window its masked blocks reach into.
func windowLen(mask uint64) int64 { return int64(bits.Len64(mask)) * metadata.BlockSize }

// endedOp turns a finished operation into its event. Owner only.
func (r *Resource) endedOp(op *diskOp, evs []replicate.Event) []replicate.Event {
	ev := replicate.Event{Kind: replicate.EvDone, Op: op.id, Mask: op.result, Zeroes: op.zero}
	if err := op.io.Err; err != nil {
		ev.Err, ev.Text = replicate.ErrIO, err.Error()
		if errors.Is(err, blockdev.ErrQueueClosed) || errors.Is(err, errNoDisk) {
			ev.Err = replicate.ErrShut
		}
	} else if op.body != nil {
		m := r.mem.add(op.body, op.from)
		m.hashes, op.hashes = op.hashes, nil
		ev.Buf = m.handle
	}
	r.metrics.local(op)
	r.mem.drop(op.mem)
	r.mem.drop(op.aux)
	slot := op.io.Tag
	*op = diskOp{}
	op.io.Tag = slot
	r.idleOps = append(r.idleOps, op)
	return append(evs, ev)
}

func (r *Resource) newOp() *diskOp {
	if n := len(r.idleOps); n > 0 {
		op := r.idleOps[n-1]
		r.idleOps = r.idleOps[:n-1]
		return op
	}
	op := new(diskOp)
	op.io.Tag = uint64(len(r.ops))
	r.ops = append(r.ops, op)
	return op
}

// ioDone is told by the queue's workers.
func (r *Resource) ioDone(batch []*blockdev.IO) {
	if h := r.holes.Load(); h != nil {
		for _, io := range batch {
			if io.Kind == blockdev.IOWrite {
				h.spoil(io.Off, io.Len)
			}
		}
	}
	r.box.postIOs(batch)
}

// pool carries out the operations of sync: reading and hashing windows, writing
// blocks of which some are zeroes. Its queue is bounded by the machine, which has
// a limited number of windows under way.
type pool struct {
	r     *Resource
	d     *disk
	holes *holeCache

	mu      sync.Mutex
	wake    sync.Cond
	queue   []*diskOp
	stopped bool
	started [syncWorkers]atomic.Int64
	wg      sync.WaitGroup
}

func newPool(r *Resource, d *disk) *pool {
	p := &pool{r: r, d: d, holes: newHoleCache(d.data)}
	p.wake.L = &p.mu
	r.holes.Store(p.holes)
	for i := range syncWorkers {
		p.wg.Go(func() { p.work(i) })
	}
	return p
}

func (p *pool) submit(op *diskOp) {
	p.mu.Lock()
	p.queue = append(p.queue, op)
	p.mu.Unlock()
	p.wake.Signal()
}

func (p *pool) stopping() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopped
}

// stop ends the workers; what they have not begun is answered.
func (p *pool) stop() {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.wake.Broadcast()
}

func (p *pool) work(i int) {
	for {
		p.mu.Lock()
		for len(p.queue) == 0 && !p.stopped {
			p.wake.Wait()
		}
		if len(p.queue) == 0 {
			p.mu.Unlock()
			return
		}
		op := p.queue[0]
		p.queue = append(p.queue[:0], p.queue[1:]...)
		p.mu.Unlock()
		if p.stopping() {
			op.io.Err = blockdev.ErrQueueClosed
		} else {
			op.io.Err = p.carryOut(op, &p.started[i])
		}
		p.started[i].Store(0)
		if op.io.Err != nil {
			op.discard()
		}
		p.r.box.post(item{op: op})
	}
}

// slowest is the age of the oldest operation under way, memory once obtained.
func (p *pool) slowest() time.Duration {
	first := int64(0)
	for i := range p.started {
		if s := p.started[i].Load(); s != 0 && (first == 0 || s < first) {
			first = s
		}
	}
	if first == 0 {
		return 0
	}
	return time.Duration(blockdev.Now() - first)
}

func (op *diskOp) discard() {
	if op.from != nil {
		op.from.Put(op.body)
	}
	if op.hashes != nil {
		hashPool.Put(op.hashes)
	}
	op.body, op.from, op.hashes = nil, nil, nil
}

func (p *pool) carryOut(op *diskOp, started *atomic.Int64) error {
	switch op.kind {
	case replicate.DiskRead:
		if op.body = p.r.peerMem.Get(int(op.io.Len)); op.body == nil {
			return blockdev.ErrQueueClosed
		}
		op.from = p.r.peerMem
		started.Store(blockdev.Now())
		return p.d.data.ReadAt(op.body, op.io.Off)
	case replicate.DiskWriteMasked:
		started.Store(blockdev.Now())
		return p.writeMasked(op)
	case replicate.DiskReadHash, replicate.DiskCompare:
		return p.readHash(op, started)
	}
	return errors.New("unknown operation")
}

func (p *pool) readHash(op *diskOp, started *atomic.Int64) error {
	mask := op.io.Mask
	zeroes := uint64(0)
	if p.holes.is(op.io.Off) {
		op.body, zeroes = zeroWindow, mask
	} else {
		if op.body = p.r.syncMem.Get(replicate.WindowSize); op.body == nil {
			return blockdev.ErrQueueClosed
		}
		op.from = p.r.syncMem
		started.Store(blockdev.Now())
		if err := runs(mask, func(first, n int) error {
			from, to := int64(first)*metadata.BlockSize, int64(first+n)*metadata.BlockSize
			return p.d.data.ReadAt(op.body[from:to], op.io.Off+from)
		}); err != nil {
			return err
		}
		started.Store(0) // from here on it is the processor's time
	}
	op.hashes = hashPool.Get().(*windowHashes)
	zeroes = hashBlocks(op.hashes, op.body, mask, zeroes, op.seed)
	if op.kind == replicate.DiskReadHash {
		op.result, op.zero = zeroes, zeroes
		return nil
	}
	if op.result = mask; op.aux != nil { // without hashes, all differ
		op.result = op.hashes.differ(mask, op.aux.buf, op.aux.mask)
	}
	op.zero = zeroes & op.result
	return nil
}

// zeroRun is how many blocks of zeroes in a row are worth a call of their own;
// fewer are written.
const zeroRun = 16

func (p *pool) writeMasked(op *diskOp) error {
	off := op.io.Off
	defer p.holes.spoil(off, replicate.WindowSize)
	if err := runs(op.io.Mask&^op.zeroes, func(first, n int) error {
		from, to := int64(first)*metadata.BlockSize, int64(first+n)*metadata.BlockSize
		return p.d.data.WriteAt(op.mem.buf[from:to], off+from)
	}); err != nil {
		return err
	}
	return runs(op.io.Mask&op.zeroes, func(first, n int) error {
		from, l := int64(first)*metadata.BlockSize, int64(n)*metadata.BlockSize
		if n >= zeroRun {
			return p.d.data.Zero(off+from, l, op.io.NoHole)
		}
		return p.d.data.WriteAt(zeroWindow[:l], off+from)
	})
}
