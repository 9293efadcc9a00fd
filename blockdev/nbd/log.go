package nbd

import (
	"log/slog"
	"sync"
	"time"
)

const logInterval = 10 * time.Second

// limitedLog writes one line per cause and interval, so that a hostile client
// cannot fill a disk. Causes are words of this package, so there are few of them.
type limitedLog struct {
	out *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	causes map[string]*lastLine
}

type lastLine struct {
	at      time.Time
	skipped int
}

func newLimitedLog(out *slog.Logger) *limitedLog {
	return &limitedLog{out: out, now: time.Now, causes: make(map[string]*lastLine)}
}

// Error logs msg unless this cause was logged within the interval; the next line
// then says how many were left out.
func (l *limitedLog) Error(cause, msg string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := l.causes[cause]
	now := l.now()
	if last != nil && now.Sub(last.at) < logInterval {
		last.skipped++
		return
	}
	if last == nil {
		last = &lastLine{}
		l.causes[cause] = last
	}
	if last.skipped > 0 {
		args = append(args, "alike", last.skipped)
	}
	last.at, last.skipped = now, 0
	l.out.Error(msg, args...)
}
