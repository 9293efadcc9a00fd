package main

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hastd/cluster/fence"
	"hastd/conf"
)

// leases are resources whose leases a test ends.
type leases struct {
	mu   sync.Mutex
	over map[string]time.Duration
	down []string
}

func (l *leases) set(over map[string]time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = over
}

// watch looks at them.
func (l *leases) watch(grace time.Duration) *leaseWatch {
	return &leaseWatch{
		grace: grace,
		over: func(context.Context) map[string]time.Duration {
			l.mu.Lock()
			defer l.mu.Unlock()
			return maps.Clone(l.over)
		},
		down: func(name string) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.down = append(l.down, name)
		},
	}
}

func (l *leases) fell() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.down)
}

func TestLeaseThatStaysOverTakesTheMachineDown(t *testing.T) {
	l := &leases{}
	w := l.watch(3 * leaseEvery)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.run(ctx)
	}()
	defer func() { cancel(); <-ended }()
	// One that is taken down in time, or renewed, harms nobody, however often.
	for range 4 {
		l.set(map[string]time.Duration{"data": 1})
		time.Sleep(2 * leaseEvery)
		l.set(nil)
		time.Sleep(2 * leaseEvery)
	}
	if down := l.fell(); len(down) > 0 {
		t.Fatalf("%v: it was down in time", down)
	}
	began := time.Now()
	l.set(map[string]time.Duration{"data": 1})
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the machine stays")
	}
	if down := l.fell(); len(down) != 1 || down[0] != "data" || time.Since(began) < w.grace-leaseEvery {
		t.Errorf("%v after %v", down, time.Since(began))
	}
}

// A lease that ended while this process stood still has been over all that time: the
// others have waited for its end, and not for this process.
func TestLeaseThatEndedLongAgoTakesTheMachineDownSoon(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute/2)
	defer cancel()
	l := &leases{over: map[string]time.Duration{"data": time.Hour}}
	began := time.Now()
	l.watch(time.Minute).run(ctx)
	if down := l.fell(); len(down) != 1 || down[0] != "data" {
		t.Errorf("%v went down", down)
	}
	if took := time.Since(began); took < leaseNews {
		t.Errorf("after %v: vipd had no time to say that it has a lease", took)
	}
}

// machine is a host that only says what it was told.
type machine struct {
	lines []string
	how   fence.Mode
	err   error
}

func (m *machine) Warn(line string) error { m.lines = append(m.lines, line); return m.err }

func (m *machine) Reset(how fence.Mode) error { m.how = how; return m.err }

func TestTOCSaysWhyOnTheConsole(t *testing.T) {
	for _, err := range []error{nil, errors.New("broken")} {
		log := &safeBuffer{}
		d := &server{log: slog.New(slog.NewTextHandler(log, nil)), node: &conf.Node{Name: "alpha"}}
		m := &machine{err: err}
		d.toc(m, fence.Crash, "data")
		if len(m.lines) != 1 || !strings.Contains(m.lines[0], "hastd: node alpha: the lease of resource data is over") || !strings.HasSuffix(m.lines[0], "performing TOC to ensure data integrity") || m.how != fence.Crash {
			t.Errorf("%v, %v", m.lines, m.how)
		}
		if strings.Contains(log.String(), "could not be made to go down") != (err != nil) {
			t.Error(log.String())
		}
	}
}
