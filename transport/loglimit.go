package transport

import (
	"log/slog"
	"sync"
	"time"
)

// logEvery is how often one cause may reach the log, whatever strangers do.
const logEvery = 10 * time.Second

// logLimit passes one record per cause and logEvery and counts the rest. Causes
// are constants of this package, so the map is bounded.
type logLimit struct {
	log *slog.Logger

	mu   sync.Mutex
	seen map[string]*logged
}

type logged struct {
	last    time.Time
	dropped int
}

func (l *logLimit) warn(cause string, args ...any) {
	l.mu.Lock()
	if l.seen == nil {
		l.seen = make(map[string]*logged)
	}
	e := l.seen[cause]
	if e == nil {
		e = new(logged)
		l.seen[cause] = e
	}
	now := time.Now()
	if !e.last.IsZero() && now.Sub(e.last) < logEvery {
		e.dropped++
		l.mu.Unlock()
		return
	}
	n := e.dropped
	e.last, e.dropped = now, 0
	l.mu.Unlock()
	if n > 0 {
		args = append(args, "suppressed", n)
	}
	l.log.Warn(cause, args...)
}
