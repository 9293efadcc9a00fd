package runner

import (
	"sync"
	"sync/atomic"

	"hastd/blockdev"
	"hastd/replicate"
)

// holeSpan is how much of the component one look for holes covers.
const holeSpan = 1 << 30

const spanWindows = holeSpan / replicate.WindowSize

// holeCache remembers which windows of the stretch that sync is working on are
// holes, so that a sparse file is not asked about each of them. A write that ends
// spoils its windows, also while the question is under way: a window is believed
// to be a hole only if nothing was written to it since before the question.
type holeCache struct {
	c interface {
		Holes(off, n int64) ([]blockdev.Run, error)
		Size() int64
		IsDevice() bool
	}
	off bool // never knows any

	asking sync.Mutex // one question at a time

	used    atomic.Bool
	mu      sync.Mutex
	base    int64 // of the stretch; -1: none
	ready   bool
	hole    [spanWindows / 64]uint64
	spoiled [spanWindows / 64]uint64
}

func newHoleCache(c *blockdev.Component) *holeCache {
	return &holeCache{c: c, base: -1, off: c.IsDevice()}
}

// is says whether the window at off is known to be a hole as a whole.
func (h *holeCache) is(off int64) bool {
	if h.off {
		return false
	}
	base := off / holeSpan * holeSpan
	if hole, known := h.lookUp(base, off); known {
		return hole
	}
	h.asking.Lock()
	defer h.asking.Unlock()
	if hole, known := h.lookUp(base, off); known {
		return hole
	}
	h.mu.Lock()
	h.base, h.ready = base, false
	clear(h.hole[:])
	clear(h.spoiled[:])
	h.mu.Unlock()
	h.used.Store(true) // from here on writes spoil
	runs, err := h.c.Holes(base, min(holeSpan, h.c.Size()-base))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ready = true
	if err != nil {
		return false // all data, then
	}
	at := int64(0)
	for _, run := range runs {
		if run.Hole {
			first := (at + replicate.WindowSize - 1) / replicate.WindowSize
			for w := first; (w+1)*replicate.WindowSize <= at+run.Len; w++ {
				h.hole[w/64] |= 1 << (w % 64)
			}
		}
		at += run.Len
	}
	w := (off - base) / replicate.WindowSize
	return (h.hole[w/64]&^h.spoiled[w/64])>>(w%64)&1 != 0
}

func (h *holeCache) lookUp(base, off int64) (hole, known bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.base != base || !h.ready {
		return false, false
	}
	w := (off - base) / replicate.WindowSize
	return (h.hole[w/64]&^h.spoiled[w/64])>>(w%64)&1 != 0, true
}

// spoil says that something was written there. It must be called before anybody
// is told that the write ended.
func (h *holeCache) spoil(off, n int64) {
	if h.off || !h.used.Load() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.base < 0 {
		return
	}
	first := max(off-h.base, 0) / replicate.WindowSize
	last := min((off+n-1-h.base)/replicate.WindowSize, spanWindows-1)
	if off+n <= h.base {
		return
	}
	for w := first; w <= last; w++ {
		h.spoiled[w/64] |= 1 << (w % 64)
	}
}
