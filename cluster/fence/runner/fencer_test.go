package runner

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hastd/cluster/fence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// soon is how long a loaded machine may take for what takes milliseconds.
const soon = 10 * time.Second

// box is a machine with a watchdog that notes what is done to it.
type box struct {
	mu sync.Mutex
	notes
}

type notes struct {
	feeds    int
	disarmed int
	lines    []string
	resets   []fence.Mode
	order    []string
	counts   time.Duration
	refuses  error // to be reset
	starved  error // what Feed says
}

func (b *box) do(f func()) { b.mu.Lock(); defer b.mu.Unlock(); f() }

func (b *box) Counts() time.Duration { return b.counts }

func (b *box) Feed() error { b.mu.Lock(); defer b.mu.Unlock(); b.feeds++; return b.starved }

func (b *box) Disarm() error { b.do(func() { b.disarmed++ }); return nil }

func (b *box) Warn(line string) error {
	b.do(func() { b.lines, b.order = append(b.lines, line), append(b.order, "line") })
	return errors.New("nobody reads it")
}

func (b *box) Reset(how fence.Mode) error {
	b.do(func() { b.resets, b.order = append(b.resets, how), append(b.order, "reset") })
	return b.refuses
}

func (b *box) seen() (s notes) {
	b.do(func() { s = b.notes })
	return s
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(soon); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// hung is a part that can be made not to answer.
type hung struct{ on atomic.Bool }

func (h *hung) Alive(ctx context.Context) bool {
	if h.on.Load() {
		<-ctx.Done()
		return false
	}
	return true
}

func begin(t *testing.T, b *box, mode fence.Mode, parts ...Part) *Fencer {
	f, err := Start(Options{Mode: mode, Program: "vipd", Node: "alpha", Timeout: 40 * time.Millisecond, Parts: parts, Watchdog: b, Host: b, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	return f
}

func TestFeedingEndsCleanly(t *testing.T) {
	b, h := &box{}, &hung{}
	f := begin(t, b, fence.Reset, Part{"group data", soon, h.Alive})
	wait(t, "it is fed", func() bool { return b.seen().feeds > 3 })
	if st := f.Status(); st.State != fence.Fed || st.Feeds < 3 {
		t.Errorf("%+v", st)
	}
	f.Stop()
	end := b.seen()
	if end.disarmed != 1 || len(end.resets)+len(end.lines) != 0 {
		t.Errorf("%+v", end)
	}
	// What comes after the end does nothing.
	f.Order("data", "late")
	f.Stop()
	time.Sleep(50 * time.Millisecond)
	if s := b.seen(); s.feeds != end.feeds || s.disarmed != 1 || len(s.resets) != 0 {
		t.Errorf("after the end: %+v", s)
	}
	if st := f.Status(); st.State != fence.Disarmed {
		t.Errorf("%+v", st)
	}
}

func TestAbandonedWatchdogGoesHungry(t *testing.T) {
	b, h := &box{}, &hung{}
	f := begin(t, b, fence.Reset, Part{"group data", soon, h.Alive})
	wait(t, "it is fed", func() bool { return b.seen().feeds > 3 })
	f.Abandon()
	end := b.seen()
	time.Sleep(50 * time.Millisecond)
	if s := b.seen(); s.feeds != end.feeds || s.disarmed != 0 || len(s.resets) != 0 || len(s.lines) != 1 {
		t.Errorf("%+v", s)
	}
}

// A driver whose time is fixed may count less than it was asked for.
func TestWatchdogThatCountsLessIsFedInTime(t *testing.T) {
	b := &box{notes: notes{counts: 40 * time.Millisecond}}
	f, err := Start(Options{Mode: fence.Reset, Timeout: time.Hour, Watchdog: b, Host: b, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	wait(t, "it is fed", func() bool { return b.seen().feeds > 3 })
}

func TestPartThatHangsIsToldAndKeepsTheWatchdogHungry(t *testing.T) {
	b, good, bad := &box{}, &hung{}, &hung{}
	f := begin(t, b, fence.Reset, Part{"group good", soon, good.Alive}, Part{"group bad", 500 * time.Millisecond, bad.Alive})
	wait(t, "it is fed", func() bool { return b.seen().feeds > 3 })
	bad.on.Store(true)
	wait(t, "feeding ends", func() bool { return f.Status().State == fence.Withheld })
	n := b.seen().feeds
	time.Sleep(200 * time.Millisecond)
	s := b.seen()
	if s.feeds != n || len(s.lines) != 1 || !strings.Contains(s.lines[0], "group bad has not answered for 0.5s") || len(s.resets) != 0 {
		t.Errorf("fed %d times, then %d; %q", n, s.feeds, s.lines)
	}
	bad.on.Store(false)
	wait(t, "it is fed again", func() bool { return b.seen().feeds > n })
	if st := f.Status(); st.Withheld != 1 {
		t.Errorf("%+v", st)
	}
}

func TestOrderResetsAtOnce(t *testing.T) {
	for _, mode := range []fence.Mode{fence.Reset, fence.Crash} {
		b := &box{notes: notes{refuses: errors.New("sysrq is not there")}}
		f := begin(t, b, mode, Part{"group data", soon, (&hung{}).Alive})
		wait(t, "it is fed", func() bool { return b.seen().feeds > 1 })
		f.Order("data", "data/service/db: it is offline")
		wait(t, "it goes down", func() bool { return len(b.seen().resets) > 0 })
		n := b.seen().feeds
		f.LeaseEnded("data")
		time.Sleep(100 * time.Millisecond)
		f.Stop()
		s := b.seen()
		if s.feeds != n || s.disarmed != 0 || len(s.resets) != 1 || s.resets[0] != mode || strings.Join(s.order, " ") != "line reset" {
			t.Errorf("%+v", s)
		}
		if want := "vipd: node alpha, group data: data/service/db: it is offline: performing TOC to ensure data integrity"; s.lines[0] != want {
			t.Errorf("%q", s.lines[0])
		}
	}
}

func TestRefusedFeedIsTriedAgain(t *testing.T) {
	b := &box{notes: notes{starved: errors.New("gone")}}
	f := begin(t, b, fence.Reset)
	wait(t, "it is tried again", func() bool { return b.seen().feeds > 3 })
	if st := f.Status(); st.Feeds != 0 {
		t.Errorf("%+v", st)
	}
	b.do(func() { b.starved = nil })
	wait(t, "it is fed", func() bool { return f.Status().Feeds > 0 })
}

func TestNowSaysItFirst(t *testing.T) {
	b := &box{notes: notes{refuses: errors.New("no")}}
	if err := Now(b, fence.Reset, fence.Words("hastd", "alpha", "data", "the lease is over")); !errors.Is(err, b.refuses) {
		t.Error(err)
	}
	if strings.Join(b.order, " ") != "line reset" || b.resets[0] != fence.Reset || !strings.HasPrefix(b.lines[0], "hastd: ") {
		t.Errorf("%+v", b.seen())
	}
}

func TestWatchdogThatIsNone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "watchdog")
	for _, path := range []string{file, os.DevNull + "/x", t.TempDir()} {
		_, err := OpenWatchdog(path, 5*time.Second)
		var e *WatchdogError
		if !errors.As(err, &e) || !strings.Contains(e.Advice, "modprobe softdog") || !strings.Contains(e.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	// A device that counts nothing.
	var e *WatchdogError
	if d, err := OpenWatchdog(os.DevNull, 5*time.Second); !errors.As(err, &e) || !strings.Contains(e.Problem, "timeout") || d != nil {
		t.Errorf("%v", err)
	}
}

// TestWhatTheDeviceIsTold: the bytes that feed it and end its countdown.
func TestWhatTheDeviceIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "watchdog")
	open := func() *Device {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fd, err := dup(f)
		if err != nil {
			t.Fatal(err)
		}
		return &Device{fd: fd, path: path, Wayout: true}
	}
	d := open()
	for range 3 {
		if err := d.Feed(); err != nil {
			t.Error(err)
		}
	}
	if b, _ := os.ReadFile(path); len(b) != 3 || strings.Contains(string(b), "V") {
		t.Errorf("feeding wrote %q", b)
	}
	if err := d.Disarm(); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(path); len(b) != 4 || b[3] != 'V' {
		t.Errorf("the end is %q", b)
	}
	if d.Feed() == nil {
		t.Error("it can be fed after its end")
	}
	d = open()
	d.Wayout = false
	if err := d.Disarm(); err == nil || !strings.Contains(err.Error(), "nowayout") {
		t.Error(err)
	}
}

// TestSystemPressesTheKeys: with files in the places of the kernel's.
func TestSystemPressesTheKeys(t *testing.T) {
	dir, boots := t.TempDir(), 0
	at := func(name string) int {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fd, err := dup(f)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	s := &System{log: at("log"), key: at("key"), restart: func() error { boots++; return errors.New("restart was refused") }}
	if err := s.Warn("one\ntwo"); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		how   fence.Mode
		keys  string
		boots int
	}{{fence.Off, "", 0}, {fence.Reset, "b", 1}, {fence.Crash, "bcb", 2}} {
		if err := s.Reset(c.how); err == nil || c.boots > 0 && !strings.Contains(err.Error(), "refused") {
			t.Error(err)
		}
		if b, _ := os.ReadFile(filepath.Join(dir, "key")); string(b) != c.keys || boots != c.boots {
			t.Errorf("%s: keys %q, and %d restarts", c.how, b, boots)
		}
	}
	s.Close()
	if s.Warn("x") == nil || s.press(keyBoot) == nil {
		t.Error("a closed one still works")
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "log")); string(b) != "<0>one two\n" {
		t.Errorf("%q", b)
	}
}
