package runner

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hastd/replicate"
)

// syncBuffer is a log that is written and read at once.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestObserverSpeaksTheWordsOfHAST(t *testing.T) {
	log := new(syncBuffer)
	o := &Options{Resource: "data", Node: "alpha", Peer: "bravo", Log: slog.New(slog.NewTextHandler(log, nil)).With("resource", "data"), HookTimeout: time.Second}
	w := newObserver(o)
	r := &Resource{watch: w}
	events, cancel := r.Subscribe()
	defer cancel()
	w.peerAddress("10.0.0.2:8457")
	for _, rep := range []replicate.Report{
		{Kind: replicate.ReportRole, Old: "init", New: "primary"},
		{Kind: replicate.ReportConnected},
		{Kind: replicate.ReportSyncStart, New: "to-peer", Bytes: 1258291},
		{Kind: replicate.ReportSyncDone, Bytes: 1258291, Duration: 3 * replicate.Second},
		{Kind: replicate.ReportDisconnected, Reason: "the peer is silent"},
		{Kind: replicate.ReportSplitBrain, Reason: "1/0 1/0"},
	} {
		w.tell(rep, 3)
	}
	w.close()
	text := log.String()
	for _, want := range []string{
		"Role changed to primary.", "old=init", "new=primary", "epoch=3", "resource=data", "peer=bravo",
		"Connected to bravo (10.0.0.2:8457).", "Synchronization started. 1.2MB to go.",
		"Synchronization complete. 1.2MB synchronized in 3s (409.6KB/s).",
		"Disconnected from bravo", `reason="the peer is silent"`, "level=ERROR msg=\"Split-brain detected.\"",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %q:\n%s", want, text)
		}
	}
	if n := strings.Count(text, "\n"); n != 6 {
		t.Errorf("%d lines for 6 reports", n)
	}
	var kinds []string
	for e := range events {
		kinds = append(kinds, e.Kind)
		if e.Node != "alpha" || e.Name != "data" || e.Time.IsZero() {
			t.Errorf("%+v", e)
		}
	}
	if got := strings.Join(kinds, " "); got != "role connect syncstart syncdone disconnect split-brain" {
		t.Error(got)
	}
}

func TestObserverDropsASlowReader(t *testing.T) {
	w := newObserver(&Options{Resource: "data", Log: slog.New(slog.DiscardHandler), HookTimeout: time.Second})
	r := &Resource{watch: w}
	events, cancel := r.Subscribe()
	for range subscriberRing + 5 {
		w.tell(replicate.Report{Kind: replicate.ReportResumed}, 0)
	}
	w.close()
	n, last := 0, Event{}
	for e := range events {
		n, last = n+1, e
	}
	if n != subscriberRing+1 || last.Kind != "dropped" || last.Reason == "" {
		t.Errorf("%d events, the last %+v", n, last)
	}
	cancel()
	if _, open := <-func() <-chan Event { c, _ := r.Subscribe(); return c }(); open {
		t.Error("a closed observer takes subscribers")
	}
}

func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHooksRunInOrderOneAtATime(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	o := &Options{Resource: "data", Log: slog.New(slog.DiscardHandler), HookTimeout: 10 * time.Second,
		Exec: script(t, "echo begin $* >> "+out+"; sleep 0.02; echo end $* >> "+out)}
	h := newHooks(o)
	for _, rep := range []replicate.Report{
		{Kind: replicate.ReportRole, Old: "init", New: "secondary"},
		{Kind: replicate.ReportStatus, New: "complete"}, // has no hook
		{Kind: replicate.ReportConnected},
		{Kind: replicate.ReportSyncStart}, {Kind: replicate.ReportSyncStopped}, {Kind: replicate.ReportSyncDone},
		{Kind: replicate.ReportDisconnected}, {Kind: replicate.ReportSplitBrain},
	} {
		h.run(&rep)
	}
	h.close()
	b, _ := os.ReadFile(out)
	want := ""
	for _, s := range []string{"role data init secondary", "connect data", "syncstart data", "syncintr data", "syncdone data", "disconnect data", "split-brain data"} {
		want += "begin " + s + "\nend " + s + "\n"
	}
	if string(b) != want {
		t.Errorf("%s", b)
	}
}

// A hook is neither spared nor preferred when memory runs out, whatever holds for hastd.
func TestHookIsNotSparedWhenMemoryRunsOut(t *testing.T) {
	const own = "/proc/self/oom_score_adj"
	was, err := os.ReadFile(own)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(own, []byte("300"), 0); err != nil { // less than it has would need a right
		t.Fatal(err)
	}
	defer os.WriteFile(own, was, 0)
	log := new(syncBuffer)
	o := &Options{Resource: "data", Log: slog.New(slog.NewTextHandler(log, nil)), HookTimeout: 5 * time.Second,
		Exec: script(t, "until read a </proc/$$/oom_score_adj && test $a = 0; do sleep 0.01; done")}
	h := newHooks(o)
	h.run(&replicate.Report{Kind: replicate.ReportConnected})
	h.close()
	if s := log.String(); s != "" {
		t.Errorf("told: %s", s)
	}
}

func TestHookThatLeavesSomethingRunningSucceeds(t *testing.T) {
	log := new(syncBuffer)
	o := &Options{Resource: "data", Log: slog.New(slog.NewTextHandler(log, nil)), HookTimeout: 10 * time.Second, Exec: script(t, "sleep 2 &")}
	h := newHooks(o)
	h.run(&replicate.Report{Kind: replicate.ReportConnected})
	h.close()
	if s := log.String(); s != "" {
		t.Errorf("told: %s", s)
	}
}

func TestHookThatHangsIsKilledWithItsChildren(t *testing.T) {
	log := new(syncBuffer)
	pid := filepath.Join(t.TempDir(), "pid")
	o := &Options{Resource: "data", Log: slog.New(slog.NewTextHandler(log, nil)), HookTimeout: 200 * time.Millisecond,
		Exec: script(t, "sleep 60 & echo $! > "+pid+"; echo working; wait")}
	h := newHooks(o)
	start := time.Now()
	h.run(&replicate.Report{Kind: replicate.ReportConnected})
	h.close()
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("took %v", d)
	}
	if s := log.String(); !strings.Contains(s, "killed") || !strings.Contains(s, "working") {
		t.Errorf("log: %s", s)
	}
	b, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	// The kernel ends it soon after the signal.
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		st, err := os.ReadFile("/proc/" + strings.TrimSpace(string(b)) + "/stat")
		if err != nil || strings.Contains(string(st), ") Z ") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("its child lives: %s", st)
		}
	}
}
