package chaos

import (
	"sync"
	"time"
)

// meter is the longest time that an application waited between two answers.
type meter struct {
	mu      sync.Mutex
	on      bool
	last    time.Time
	longest time.Duration
	marks   int64
}

// mark is an answer.
func (m *meter) mark() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gap()
	m.marks++
}

func (m *meter) gap() {
	now := time.Now()
	if m.on {
		m.longest = max(m.longest, now.Sub(m.last))
	}
	m.last = now
}

// start begins a measurement.
func (m *meter) start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.on, m.last, m.longest = true, time.Now(), 0
}

// stop ends it; a gap that is still open counts.
func (m *meter) stop() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gap()
	m.on = false
	return m.longest
}

// count is how many answers there were.
func (m *meter) count() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.marks
}
