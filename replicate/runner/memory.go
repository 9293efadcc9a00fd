package runner

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"hastd/blockdev"
	"hastd/replicate"
)

// memory is what a replicate.Handle names. It is held by the machine (or by the
// application request it belongs to) and by each operation in progress that uses
// it; the bytes go back when the last of them lets go.
type memory struct {
	handle replicate.Handle
	buf    []byte
	arena  *blockdev.Arena // where buf goes back; nil: not ours to give back
	parent *memory         // whose memory buf is a part of
	hashes *windowHashes   // of the blocks in buf, after a read for sync
	mask   uint64          // of a message: which blocks its body is about
	app    bool            // belongs to a front end, which frees it
	freed  bool            // the front end has freed it; under memories.mu
	refs   atomic.Int32
}

// memories is the table of handles. Only the owner makes, looks up and takes
// references; anybody may drop one.
type memories struct {
	all []*memory // by handle - 1; owner only
	app *blockdev.Arena

	mu   sync.Mutex
	idle []*memory
	// lent are buffers of completed requests that an operation in progress still
	// uses: the bytes of an asynchronous write that did not leave yet, a disk
	// that hangs. By first byte; freed by whoever is last.
	lent map[*byte]*memory
	// spare is memory outside the arena that a front end was given instead of its
	// own: no more bytes than the requests under way have.
	spare   map[*byte]struct{}
	lending atomic.Int32 // how many both have
}

func newMemories(app *blockdev.Arena) *memories {
	return &memories{app: app, lent: make(map[*byte]*memory), spare: make(map[*byte]struct{})}
}

// add names memory, with one reference for the caller. Owner only.
func (t *memories) add(buf []byte, arena *blockdev.Arena) *memory {
	t.mu.Lock()
	var m *memory
	if n := len(t.idle); n > 0 {
		m = t.idle[n-1]
		t.idle = t.idle[:n-1]
	}
	t.mu.Unlock()
	if m == nil {
		m = &memory{handle: replicate.Handle(len(t.all) + 1)}
		t.all = append(t.all, m)
	}
	m.buf, m.arena = buf, arena
	m.refs.Store(1)
	return m
}

// part names a piece of m and holds m as long as it lives. Owner only.
func (t *memories) part(m *memory, from, to int64) *memory {
	p := t.add(m.buf[from:to:to], nil)
	p.parent = m
	m.refs.Add(1)
	return p
}

// get finds what a handle names. A handle of the machine that names nothing is a
// broken invariant.
func (t *memories) get(h replicate.Handle) *memory {
	if h == 0 {
		return nil
	}
	if int(h) > len(t.all) || t.all[h-1].refs.Load() <= 0 {
		panic("runner: the machine used memory that it does not have")
	}
	return t.all[h-1]
}

// hold takes a reference for an operation. Owner only, while another is held.
func (m *memory) hold() *memory {
	if m != nil {
		m.refs.Add(1)
	}
	return m
}

// drop lets go of a reference, and of the bytes with the last one.
func (t *memories) drop(m *memory) {
	for m != nil {
		switch n := m.refs.Add(-1); {
		case n > 0:
			return
		case n < 0:
			panic("runner: memory was given back twice")
		}
		parent := m.parent
		t.mu.Lock()
		freed := false
		if m.app {
			delete(t.lent, unsafe.SliceData(m.buf))
			t.lending.Add(-1)
			freed = m.freed
		}
		t.mu.Unlock()
		if freed {
			t.app.Put(m.buf)
		} else if m.arena != nil {
			m.arena.Put(m.buf)
		}
		t.recycle(m)
		m = parent
	}
}

// settle ends a front end's memory with its request: the front end will free it.
// It must be called before the front end is told. Owner only.
func (t *memories) settle(m *memory) {
	if m.refs.Load() == 1 {
		m.refs.Store(0)
		t.recycle(m)
		return
	}
	t.mu.Lock()
	t.lent[unsafe.SliceData(m.buf)] = m
	t.lending.Add(1)
	t.mu.Unlock()
	t.drop(m)
}

// replace gives a front end other memory instead of m, which the caller gives up: an
// operation in progress may still write into that. The new memory holds nothing yet.
// Owner only.
func (t *memories) replace(m *memory) *memory {
	buf := make([]byte, len(m.buf))
	t.mu.Lock()
	t.spare[unsafe.SliceData(buf)] = struct{}{}
	t.lending.Add(1)
	t.mu.Unlock()
	old := m.buf
	t.settle(m)
	t.free(old)
	n := t.add(buf, nil)
	n.app = true
	return n
}

// free is the front end's: buf goes back to the application arena, now or as soon
// as nothing uses it.
func (t *memories) free(buf []byte) {
	if t.lending.Load() > 0 && t.freeLater(buf) {
		return
	}
	t.app.Put(buf)
}

// freeLater says whether buf is not to go back to the arena now.
func (t *memories) freeLater(buf []byte) bool {
	at := unsafe.SliceData(buf)
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.lent[at]
	if m != nil {
		m.freed = true
		return true
	}
	_, spare := t.spare[at]
	if spare {
		delete(t.spare, at)
		t.lending.Add(-1)
	}
	return spare
}

func (t *memories) recycle(m *memory) {
	if m.hashes != nil {
		hashPool.Put(m.hashes)
	}
	m.buf, m.arena, m.parent, m.hashes, m.mask, m.app, m.freed = nil, nil, nil, nil, 0, false, false
	t.mu.Lock()
	t.idle = append(t.idle, m)
	t.mu.Unlock()
}
