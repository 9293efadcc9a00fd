package disk

import (
	"fmt"
	"sync"
	"syscall"
	"time"
)

// Op names a kind of operation for faults.
type Op string

// The kinds. OpAny, in a Fault, is every kind.
const (
	OpAny   Op = "any"
	OpRead  Op = "read"
	OpWrite Op = "write"
	OpZero  Op = "zero"
	OpFlush Op = "flush"
)

// Fault makes operations fail.
type Fault struct {
	Op    Op            `json:"op"`              // "" means any
	From  int64         `json:"from,omitempty"`  // only operations that touch [From, To);
	To    int64         `json:"to,omitempty"`    // 0 means the whole disk. Flushes touch everything
	After int           `json:"after,omitempty"` // let so many matching operations pass first
	Count int           `json:"count,omitempty"` // then fail so many; 0 means all
	Errno syscall.Errno `json:"errno,omitempty"` // 0 means EIO
}

func (f *Fault) matches(op Op, off, n int64) bool {
	if f.Op != OpAny && f.Op != op {
		return false
	}
	if f.To == 0 || op == OpFlush {
		return true
	}
	return off < f.To && off+n > f.From
}

// gate is what each operation passes before it touches the disk.
type gate struct {
	mu     sync.Mutex
	change *sync.Cond // frozen or off changed
	frozen bool
	off    bool
	delay  time.Duration
	faults []Fault
}

func (g *gate) init() { g.change = sync.NewCond(&g.mu) }

// pass waits out a freeze and the delay, and says whether the operation fails.
func (g *gate) pass(op Op, off, n int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if d := g.delay; d > 0 && !g.off {
		g.mu.Unlock()
		time.Sleep(d) // the delay itself is what was asked for
		g.mu.Lock()
	}
	for g.frozen && !g.off {
		g.change.Wait()
	}
	if g.off {
		return syscall.EIO
	}
	for i := range g.faults {
		f := &g.faults[i]
		if !f.matches(op, off, n) {
			continue
		}
		if f.After > 0 {
			f.After--
			continue
		}
		errno := f.Errno
		if f.Count > 0 {
			if f.Count--; f.Count == 0 {
				g.faults = append(g.faults[:i], g.faults[i+1:]...)
			}
		}
		return errno
	}
	return nil
}

func (g *gate) fail(f Fault) error {
	switch f.Op {
	case "":
		f.Op = OpAny
	case OpAny, OpRead, OpWrite, OpZero, OpFlush:
	default:
		return fmt.Errorf("lab disk: unknown operation %q (any, read, write, zero, flush)", f.Op)
	}
	if f.Errno == 0 {
		f.Errno = syscall.EIO
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.faults = append(g.faults, f)
	return nil
}

func (g *gate) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
	g.change.Broadcast()
}

func (g *gate) heal()                    { g.set(func() { g.faults, g.delay = nil, 0 }) }
func (g *gate) setDelay(d time.Duration) { g.set(func() { g.delay = d }) }
func (g *gate) freeze()                  { g.set(func() { g.frozen = true }) }
func (g *gate) thaw()                    { g.set(func() { g.frozen = false }) }
func (g *gate) powerOff()                { g.set(func() { g.off = true }) }
func (g *gate) powerOn() {
	g.set(func() { g.off, g.frozen, g.delay, g.faults = false, false, 0, nil })
}
