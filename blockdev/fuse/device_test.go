package fuse

import (
	"sync"
	"testing"

	"hastd/blockdev"
)

// memory is a device that keeps its data in memory, counts what reaches it and
// holds requests back on demand.
type memory struct {
	info blockdev.DeviceInfo
	mu   sync.Mutex
	data []byte
	ops  map[blockdev.Op]int
	held []*blockdev.Request // under way, not answered
	most int                 // of held at once
	hold func(held int, r *blockdev.Request) bool
	fail func(r *blockdev.Request) error
	seen chan blockdev.Op // told of each request, as long as there is room

	queue chan []*blockdev.Request
	wg    sync.WaitGroup
}

func newMemory(t *testing.T, name string, size int64, sector int) *memory {
	m := &memory{
		info:  blockdev.DeviceInfo{Name: name, Size: size, SectorSize: sector},
		data:  make([]byte, size),
		ops:   map[blockdev.Op]int{},
		seen:  make(chan blockdev.Op, 1024),
		queue: make(chan []*blockdev.Request, 1024),
	}
	m.wg.Go(func() {
		for batch := range m.queue {
			m.take(batch)
		}
	})
	if t != nil {
		t.Cleanup(func() {
			m.release()
			close(m.queue)
			m.wg.Wait()
		})
	}
	return m
}

func (m *memory) Info() blockdev.DeviceInfo { return m.info }
func (m *memory) Alloc(n int) []byte        { return make([]byte, n) }
func (m *memory) Free([]byte)               {}
func (m *memory) Allocated(off, n int64) ([]blockdev.Run, error) {
	return []blockdev.Run{{Len: n}}, nil
}
func (m *memory) Submit(batch []*blockdev.Request) {
	m.queue <- append([]*blockdev.Request(nil), batch...)
}

func (m *memory) take(batch []*blockdev.Request) {
	m.mu.Lock()
	for _, r := range batch {
		m.ops[r.Op]++
		m.held = append(m.held, r)
		select {
		case m.seen <- r.Op:
		default:
		}
	}
	m.most = max(m.most, len(m.held))
	if m.hold != nil && m.hold(len(m.held), batch[len(batch)-1]) {
		m.mu.Unlock()
		return
	}
	done := m.finish()
	m.mu.Unlock()
	answerAll(done)
}

// release answers everything, and holds nothing back any more.
func (m *memory) release() {
	m.mu.Lock()
	m.hold = nil
	done := m.finish()
	m.mu.Unlock()
	answerAll(done)
}

func answerAll(done []*blockdev.Request) {
	for _, r := range done {
		r.Owner.Complete([]*blockdev.Request{r})
	}
}

func (m *memory) finish() []*blockdev.Request {
	for _, r := range m.held {
		if m.fail != nil {
			if r.Err = m.fail(r); r.Err != nil {
				continue
			}
		}
		switch r.Op {
		case blockdev.OpRead:
			copy(r.Buf, m.data[r.Off:])
		case blockdev.OpWrite:
			copy(m.data[r.Off:], r.Buf)
		case blockdev.OpTrim, blockdev.OpZero:
			clear(m.data[r.Off : r.Off+r.Len])
		}
	}
	done := m.held
	m.held = nil
	return done
}

func (m *memory) count(op blockdev.Op) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ops[op]
}

func (m *memory) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}
