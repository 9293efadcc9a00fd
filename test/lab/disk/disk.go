// Package disk is the lab's disk: a block device of fixed size with a volatile
// write cache, whose power can be cut, and which errs, slows down and hangs on
// command. A process of the lab (cmd/labdisk) serves it as one file over FUSE,
// and hastd uses that file as its local component; tests may also use the Go API
// directly.
//
// Killing a daemon keeps the kernel's page cache, so a daemon that never flushed
// anything would pass every test made of kills. This disk is there so that it
// does not: what was not flushed when the power goes is gone, but for a random
// share of it, sector by sector.
//
// It never calls fsync on its own medium (the machine that runs the lab is not
// what fails here), and it is never part of the product.
package disk

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"
)

// SectorSize is what the medium writes at once: a sector is old or new after a
// power loss, never a mixture, unless Options.Atomic says 4096.
const SectorSize = 512

// DefaultCacheLimit bounds the volatile cache. What exceeds it goes to the
// medium in the order it came, as in a disk whose cache is full.
const DefaultCacheLimit = 64 << 20

// directZero is the length from which zeroing goes to the medium at once: a
// discard of the whole device must not become a cache entry a page.
const directZero = 16 << 20

// destageOneIn is how often overwriting a cached sector first lets the older
// version reach the medium: after a power loss a sector may hold any version
// since the last flush, not only the first or the last.
const destageOneIn = 8

// Options describe a disk.
type Options struct {
	Path       string // the medium: a sparse file, made if missing; "" keeps it in memory
	Size       int64  // bytes, a multiple of 4096
	Seed       uint64 // decides what survives a power loss
	Keep       float64
	KeepRandom bool  // draw the surviving share anew at each power loss; Keep is ignored
	Atomic     int   // 512 (default) or 4096: what is never torn
	CacheLimit int64 // bytes; 0 means DefaultCacheLimit
}

// Disk is safe for use by many goroutines. Its errors are syscall.Errno: EIO
// when the power is off, what a fault asks for, EINVAL for a range outside.
type Disk struct {
	size   int64
	atomic int64
	limit  int64
	keep   float64
	random bool

	gate gate // faults, delays, freezing: passed before mu is taken

	mu     sync.Mutex
	medium *medium
	cache  cache
	rng    *rand.Rand
	on     bool
	stats  Stats
	snaps  map[string]*medium
}

// Stats count what reached the disk, refused operations not included.
type Stats struct {
	Reads        int64 `json:"reads"`
	ReadBytes    int64 `json:"read_bytes"`
	Writes       int64 `json:"writes"`
	WrittenBytes int64 `json:"written_bytes"`
	Zeroes       int64 `json:"zeroes"`
	ZeroedBytes  int64 `json:"zeroed_bytes"`
	Flushes      int64 `json:"flushes"`
	Errors       int64 `json:"errors"`       // operations answered with an error
	CachedBytes  int64 `json:"cached_bytes"` // now in the volatile cache
	PowerLosses  int64 `json:"power_losses"`
	LostSectors  int64 `json:"lost_sectors"` // dropped at power losses
	KeptSectors  int64 `json:"kept_sectors"` // in the cache at a power loss, and on the medium after it
}

// New opens or makes the medium and turns the power on.
func New(o Options) (*Disk, error) {
	if o.Size <= 0 || o.Size%pageSize != 0 {
		return nil, fmt.Errorf("lab disk: size %d is not a positive multiple of %d", o.Size, pageSize)
	}
	if o.Atomic == 0 {
		o.Atomic = SectorSize
	}
	if o.Atomic != SectorSize && o.Atomic != pageSize {
		return nil, fmt.Errorf("lab disk: atomic unit %d is neither %d nor %d", o.Atomic, SectorSize, pageSize)
	}
	if o.CacheLimit == 0 {
		o.CacheLimit = DefaultCacheLimit
	}
	m, err := openMedium(o.Path, o.Size)
	if err != nil {
		return nil, err
	}
	d := &Disk{
		size: o.Size, atomic: int64(o.Atomic), limit: o.CacheLimit,
		keep: o.Keep, random: o.KeepRandom,
		medium: m, cache: newCache(),
		rng:   rand.New(rand.NewPCG(o.Seed, 0x6c616264)),
		on:    true,
		snaps: map[string]*medium{},
	}
	d.gate.init()
	return d, nil
}

// Size is the disk's size in bytes.
func (d *Disk) Size() int64 { return d.size }

// Close releases the medium, and operations that hang. The cache is dropped.
func (d *Disk) Close() error {
	d.gate.powerOff()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.on = false
	for _, s := range d.snaps {
		s.close()
	}
	return d.medium.close()
}

func (d *Disk) inside(off, n int64) bool {
	return off >= 0 && n >= 0 && off <= d.size && n <= d.size-off
}

// enter passes the gate and takes the lock; the caller unlocks it when err is nil.
func (d *Disk) enter(op Op, off, n int64) error {
	if !d.inside(off, n) {
		return syscall.EINVAL
	}
	err := d.gate.pass(op, off, n)
	d.mu.Lock()
	if err == nil && !d.on {
		err = syscall.EIO
	}
	if err != nil {
		d.stats.Errors++
		d.mu.Unlock()
	}
	return err
}

// ReadAt reads what was last written, flushed or not.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	if err := d.enter(OpRead, off, int64(len(p))); err != nil {
		return 0, err
	}
	defer d.mu.Unlock()
	if err := d.medium.readAt(p, off); err != nil {
		return 0, err
	}
	d.cache.overlay(p, off)
	d.stats.Reads++
	d.stats.ReadBytes += int64(len(p))
	return len(p), nil
}

// WriteAt puts p into the cache. Offset and length are multiples of SectorSize.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	if off%SectorSize != 0 || len(p)%SectorSize != 0 {
		return 0, syscall.EINVAL
	}
	if err := d.enter(OpWrite, off, int64(len(p))); err != nil {
		return 0, err
	}
	defer d.mu.Unlock()
	if err := d.destageSome(off, int64(len(p))); err != nil {
		return 0, err
	}
	d.cache.write(p, off)
	d.stats.Writes++
	d.stats.WrittenBytes += int64(len(p))
	return len(p), d.shrinkCache()
}

// Zero makes a range read as zeroes, giving the space back. Ends that do not
// fill a sector are zeroed by reading and writing it.
func (d *Disk) Zero(off, n int64) error {
	if err := d.enter(OpZero, off, n); err != nil {
		return err
	}
	defer d.mu.Unlock()
	d.stats.Zeroes++
	d.stats.ZeroedBytes += n
	if n >= directZero {
		// Reaching the medium early is what a disk may do; the cached versions
		// below are older, so they go.
		head, tail := roundUp(off, pageSize), (off+n)/pageSize*pageSize
		d.cache.drop(head, tail-head)
		if err := d.medium.zero(head, tail-head); err != nil {
			return err
		}
		if err := d.zeroCached(off, head-off); err != nil {
			return err
		}
		return d.zeroCached(tail, off+n-tail)
	}
	return d.zeroCached(off, n)
}

func (d *Disk) zeroCached(off, n int64) error {
	if n == 0 {
		return nil
	}
	if err := d.destageSome(off, n); err != nil {
		return err
	}
	var zeroes [pageSize]byte
	for n > 0 {
		in := off % pageSize
		m := min(n, pageSize-in)
		switch {
		case m == pageSize:
			d.cache.zeroPage(off / pageSize)
		case off%SectorSize == 0 && m%SectorSize == 0:
			d.cache.write(zeroes[:m], off)
		default:
			first := off / SectorSize * SectorSize
			last := roundUp(off+m, SectorSize)
			buf := make([]byte, last-first)
			if err := d.medium.readAt(buf, first); err != nil {
				return err
			}
			d.cache.overlay(buf, first)
			clear(buf[off-first : off-first+m])
			d.cache.write(buf, first)
		}
		off, n = off+m, n-m
	}
	return d.shrinkCache()
}

// Flush puts everything cached on the medium.
func (d *Disk) Flush() error {
	if err := d.enter(OpFlush, 0, 0); err != nil {
		return err
	}
	defer d.mu.Unlock()
	d.stats.Flushes++
	return d.cache.destageAll(d.medium)
}

// NextData is the first offset at or after off that may hold data, or d.Size().
func (d *Disk) NextData(off int64) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.on {
		return 0, syscall.EIO
	}
	m, err := d.medium.nextData(off)
	if err != nil {
		return 0, err
	}
	return min(m, d.cache.nextData(off, d.size)), nil
}

// NextHole is the first offset at or after off that is known to be a hole, or
// d.Size().
func (d *Disk) NextHole(off int64) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.on {
		return 0, syscall.EIO
	}
	for off < d.size {
		h, err := d.medium.nextHole(off)
		if err != nil {
			return 0, err
		}
		// A hole of the medium may be covered by cached data; then go on
		// behind that page.
		if h >= d.size || !d.cache.hasData(h/pageSize) {
			return min(h, d.size), nil
		}
		off = (h/pageSize + 1) * pageSize
	}
	return d.size, nil
}

// PowerLoss drops the cache, but for a random share of its sectors that had
// reached the medium in time. Until PowerUp every operation fails with EIO;
// hanging ones end so too.
func (d *Disk) PowerLoss() error {
	d.gate.powerOff()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.on {
		return nil
	}
	d.on = false
	keep := d.keep
	if d.random {
		// Mostly between the extremes, and often at them: all lost and nearly
		// nothing lost are the cases that find most.
		keep = [...]float64{0, 0.1, 0.5, 0.9, 1, d.rng.Float64()}[d.rng.IntN(6)]
	}
	kept, lost, err := d.cache.lose(d.medium, d.atomic, func() bool { return d.rng.Float64() < keep })
	d.stats.PowerLosses++
	d.stats.KeptSectors += kept
	d.stats.LostSectors += lost
	return err
}

// PowerUp lets the disk work again. Faults, delays and a freeze are gone.
func (d *Disk) PowerUp() {
	d.mu.Lock()
	d.on = true
	d.mu.Unlock()
	d.gate.powerOn()
}

// Fail adds a fault. Faults stay until they are used up, Heal or PowerUp.
func (d *Disk) Fail(f Fault) error { return d.gate.fail(f) }

// Heal removes all faults and delays.
func (d *Disk) Heal() { d.gate.heal() }

// Delay makes each operation take d longer from now on.
func (d *Disk) Delay(by time.Duration) { d.gate.setDelay(by) }

// Freeze makes operations hang until Thaw, PowerLoss or Close.
func (d *Disk) Freeze() { d.gate.freeze() }

// Thaw lets hanging operations go on.
func (d *Disk) Thaw() { d.gate.thaw() }

// Stats are the counts since New or ResetStats.
func (d *Disk) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	s.CachedBytes = d.cache.bytes()
	return s
}

// ResetStats begins counting from zero.
func (d *Disk) ResetStats() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats = Stats{}
}

// Snapshot keeps a copy of the medium (not of the cache) under a name.
func (d *Disk) Snapshot(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := d.medium.clone()
	if err != nil {
		return err
	}
	if old := d.snaps[name]; old != nil {
		old.close()
	}
	d.snaps[name] = c
	return nil
}

// Restore puts the medium back as it was at Snapshot; the cache is dropped.
func (d *Disk) Restore(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.snaps[name]
	if s == nil {
		return fmt.Errorf("lab disk: no snapshot %q", name)
	}
	d.cache.clear()
	return d.medium.copyFrom(s)
}

// destageSome lets some of the cached versions that are about to be overwritten
// reach the medium.
func (d *Disk) destageSome(off, n int64) error {
	return d.cache.destageOld(d.medium, off, n, d.atomic, func() bool { return d.rng.IntN(destageOneIn) == 0 })
}

func (d *Disk) shrinkCache() error {
	for d.cache.bytes() > d.limit {
		if err := d.cache.destageOldest(d.medium); err != nil {
			return err
		}
	}
	return nil
}

func roundUp(v, to int64) int64 { return (v + to - 1) / to * to }
