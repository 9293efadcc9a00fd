package runner

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"hastd/replicate"
)

// Event is one line of `hastctl events`.
type Event struct {
	Time   time.Time `json:"time"`
	Node   string    `json:"node"`
	Kind   string    `json:"kind"`
	Name   string    `json:"name"`
	Old    string    `json:"old"`
	New    string    `json:"new"`
	Reason string    `json:"reason"`
}

// Bounds of the observer's queues.
const (
	reportQueue    = 1024
	subscriberRing = 256
	hookQueue      = 256
)

// telling is a report on its way to people.
type telling struct {
	replicate.Report
	at    time.Time
	epoch uint64
	peer  string // address
}

// observer turns what the machine reports into log lines, events and hooks, on a
// goroutine of its own: a log that is not read must not hold up a write.
type observer struct {
	o     *Options
	in    chan telling
	lost  atomic.Uint64
	peer  string // owner's
	hooks *hooks
	done  chan struct{}

	mu     sync.Mutex
	subs   map[*subscriber]struct{}
	closed bool
}

type subscriber struct{ c chan Event }

func newObserver(o *Options) *observer {
	w := &observer{o: o, in: make(chan telling, reportQueue), done: make(chan struct{}), subs: make(map[*subscriber]struct{})}
	w.hooks = newHooks(o)
	go w.run()
	return w
}

// peerAddress is remembered for the next word about the connection. Owner only.
func (w *observer) peerAddress(a string) { w.peer = a }

// tell never waits. Owner only.
func (w *observer) tell(rep replicate.Report, epoch uint64) {
	select {
	case w.in <- telling{rep, time.Now(), epoch, w.peer}:
	default:
		w.lost.Add(1)
	}
}

// close ends it once everything was told. After the owner has stopped.
func (w *observer) close() {
	close(w.in)
	<-w.done
	w.mu.Lock()
	w.closed = true
	for s := range w.subs {
		close(s.c)
		delete(w.subs, s)
	}
	w.mu.Unlock()
	w.hooks.close()
}

func (w *observer) run() {
	defer close(w.done)
	for t := range w.in {
		if n := w.lost.Swap(0); n > 0 {
			w.o.Log.Warn("reports were lost: the log is not taken off fast enough", "count", n)
		}
		if t.Kind == replicate.ReportVerdict {
			w.o.Log.Debug("verdict", "new", t.New, "reason", t.Reason)
			continue
		}
		kind, level, text, attrs := w.words(&t)
		w.o.Log.LogAttrs(context.Background(), level, text, attrs...)
		w.publish(Event{Time: t.at, Node: w.o.Node, Kind: kind, Name: w.o.Resource, Old: t.Old, New: t.New, Reason: w.reason(&t)})
		w.hooks.run(&t.Report)
	}
}

// reason is the sentence of an event, with the amounts where the report has them.
func (w *observer) reason(t *telling) string {
	switch t.Kind {
	case replicate.ReportSyncStart:
		return amount(t.Bytes) + " to synchronize"
	case replicate.ReportSyncDone:
		return synchronized(t)
	case replicate.ReportRepaired:
		return fmt.Sprintf("%d bytes at offset %d were mended from the peer", t.Bytes, t.Off)
	case replicate.ReportConnected:
		return t.peer
	}
	return t.Reason
}

// words are the event's kind and the log line.
func (w *observer) words(t *telling) (kind string, level slog.Level, text string, attrs []slog.Attr) {
	level = slog.LevelInfo
	add := func(k, v string) {
		if v != "" {
			attrs = append(attrs, slog.String(k, v))
		}
	}
	peer := w.o.Peer
	if t.peer != "" {
		peer += " (" + t.peer + ")"
	}
	switch t.Kind {
	case replicate.ReportRole:
		kind, text = "role", "Role changed to "+t.New+"."
		attrs = append(attrs, slog.Uint64("epoch", t.epoch))
	case replicate.ReportConnected:
		kind, text = "connect", "Connected to "+peer+"."
		attrs = append(attrs, slog.Uint64("epoch", t.epoch))
	case replicate.ReportDisconnected:
		kind, text = "disconnect", "Disconnected from "+peer+"."
		level = slog.LevelWarn
	case replicate.ReportRefused:
		kind, text, level = "refused", "Connection refused.", slog.LevelWarn
	case replicate.ReportSplitBrain:
		kind, text, level = "split-brain", "Split-brain detected.", slog.LevelError
	case replicate.ReportSyncStart:
		kind, text = "syncstart", "Synchronization started. "+amount(t.Bytes)+" to go."
	case replicate.ReportSyncDone:
		kind, text = "syncdone", "Synchronization complete. "+synchronized(t)
	case replicate.ReportSyncStopped:
		kind, text, level = "syncintr", "Synchronization interrupted.", slog.LevelWarn
	case replicate.ReportStatus:
		kind, text = "status", "Status changed to "+t.New+"."
	case replicate.ReportDisk:
		kind, text = "disk", "Local disk is "+t.New+"."
		if t.New == "failed" {
			level = slog.LevelError
		}
	case replicate.ReportPeerDisk:
		kind, text = "peer-disk", "The peer's disk is "+t.New+"."
	case replicate.ReportSuspended:
		kind, text, level = "suspended", "I/O suspended: "+t.New+".", slog.LevelWarn
	case replicate.ReportResumed:
		kind, text = "resumed", "I/O resumed."
	case replicate.ReportRepaired:
		kind, text, level = "repaired", "A block that could not be read was mended from the peer.", slog.LevelWarn
		attrs = append(attrs, slog.Int64("offset", t.Off), slog.Int64("bytes", t.Bytes))
	case replicate.ReportDataLoss:
		kind, text, level = "data-loss", "Data is lost.", slog.LevelError
	case replicate.ReportForced:
		kind, text, level = "forced", "Promoted against advice.", slog.LevelWarn
	case replicate.ReportWarning:
		kind, text, level = "warning", "Warning.", slog.LevelWarn
		if t.Reason != "" {
			text = t.Reason
			add("peer", w.o.Peer)
			return kind, level, text, attrs
		}
	default:
		kind, text = fmt.Sprintf("report-%d", t.Kind), "Something was reported."
	}
	add("old", t.Old)
	add("new", t.New)
	add("reason", t.Reason)
	add("peer", w.o.Peer)
	return kind, level, text, attrs
}

// synchronized is HAST's sentence: 1.2MB synchronized in 3s (400KB/s).
func synchronized(t *telling) string {
	d := time.Duration(t.Duration)
	rate := t.Bytes
	if s := d.Seconds(); s > 0 {
		rate = int64(float64(t.Bytes) / s)
	}
	round := time.Second
	if d < 10*time.Second {
		round = time.Millisecond
	}
	return fmt.Sprintf("%s synchronized in %v (%s/s).", amount(t.Bytes), d.Round(round), amount(rate))
}

// amount writes bytes as people read them.
func amount(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%dB", n)
	}
	f, u := float64(n)/1024, 0
	for f >= 1024 && u < len(units)-1 {
		f /= 1024
		u++
	}
	return fmt.Sprintf("%.1f%cB", f, units[u])
}

// publish gives an event to every subscriber. One that does not keep up is told
// and let go.
func (w *observer) publish(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.subs {
		if len(s.c) < cap(s.c)-1 {
			s.c <- e
			continue
		}
		e := e
		e.Kind, e.Old, e.New = "dropped", "", ""
		e.Reason = "events were not read fast enough: the stream ends here"
		s.c <- e
		close(s.c)
		delete(w.subs, s)
	}
}

// Subscribe streams events until cancel is called, the resource is closed or the
// reader falls behind (the last event then has kind "dropped").
func (r *Resource) Subscribe() (<-chan Event, func()) {
	w := r.watch
	s := &subscriber{c: make(chan Event, subscriberRing+1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		close(s.c)
		return s.c, func() {}
	}
	w.subs[s] = struct{}{}
	return s.c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if _, ok := w.subs[s]; ok {
			delete(w.subs, s)
			close(s.c)
		}
	}
}
