package daemon

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// logLines is how many lines may wait to be written.
	logLines = 4096
	// logGrace is how long the end of the daemon waits for its last lines.
	logGrace = 2 * time.Second
)

// AsideLog writes the log on a goroutine of its own. Where the log goes may hang:
// a full pipe, a filesystem that looks for memory, which may have to wait for
// dirty pages of our own device. I/O must not wait for it then; lines that find no
// place are counted and lost.
type AsideLog struct {
	name  string // of the program
	to    io.Writer
	lines chan []byte
	lost  atomic.Int64
	quit  chan struct{}
	once  sync.Once
	ended chan struct{}
}

// NewAsideLog makes a log of the named program. Close it.
func NewAsideLog(name string, to io.Writer) *AsideLog {
	l := &AsideLog{name: name, to: to, lines: make(chan []byte, logLines), quit: make(chan struct{}), ended: make(chan struct{})}
	go l.run()
	return l
}

// Write takes one line of the log. It never waits and never fails; after Close
// nobody may read it any more.
func (l *AsideLog) Write(line []byte) (int, error) {
	select {
	case l.lines <- append([]byte(nil), line...):
	default:
		l.lost.Add(1)
	}
	return len(line), nil
}

func (l *AsideLog) run() {
	defer close(l.ended)
	for {
		select {
		case line := <-l.lines:
			l.put(line)
			continue
		case <-l.quit:
		}
		for {
			select {
			case line := <-l.lines:
				l.put(line)
				continue
			default:
			}
			return
		}
	}
}

func (l *AsideLog) put(line []byte) {
	if n := l.lost.Swap(0); n > 0 {
		fmt.Fprintf(l.to, "%s: %d lines of the log were lost before this one: the log was not written fast enough\n", l.name, n)
	}
	_, _ = l.to.Write(line) // there is nowhere to tell of an error
}

// Close waits for the lines that are left, as long as logGrace.
func (l *AsideLog) Close() {
	l.once.Do(func() { close(l.quit) })
	select {
	case <-l.ended:
	case <-time.After(logGrace):
	}
}
