package vm

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// TestTheOtherTakesOver: the vipd of the node that serves is killed, then that of the
// other stands still, then the whole machine does for a minute. Each time the other
// serves, nothing that was acknowledged is lost, and who was disturbed comes back.
func TestTheOtherTakesOver(t *testing.T) {
	began := time.Now()
	s := newSite(t)
	on, other := s.serving(backLimit)
	t.Logf("up after %s, on %s; boots took %s and %s", seconds(time.Since(began)), on.name, seconds(on.m.Boot), seconds(other.m.Boot))
	for _, c := range []struct {
		name string
		play func()
	}{
		{"killed", func() { s.reset("killed", syscall.SIGKILL) }},
		{"paused", s.pause},
		{"stopped", func() { s.reset("stopped", syscall.SIGSTOP) }},
	} {
		from := time.Now()
		ok := t.Run(c.name, func(t *testing.T) {
			s.t = t
			c.play()
		})
		s.t = t
		t.Logf("%s took %s", c.name, seconds(time.Since(from)))
		if !ok {
			break
		}
	}
	t.Logf("all of it took %s", seconds(time.Since(began)))
}

// reset disturbs the vipd of the node that serves.
func (s *site) reset(name string, signal syscall.Signal) {
	t := s.t
	t.Helper()
	on, other := s.serving(backLimit)
	_, err := on.client.first(time.Now(), enough, soon)
	must(t, err)
	at := time.Now()
	do(t, on.m, Order{Op: "signal", Pid: on.vipd, Number: int(signal)})
	must(t, on.m.WaitReset(resetLimit))
	gone := time.Now()
	on.client.cut() // nobody is there to say that it is over
	serves, err := other.client.first(at, enough, serveLimit)
	must(t, err)
	if !strings.Contains(on.m.Console(), kernelResets) && !strings.Contains(on.m.Console(), performing) {
		t.Errorf("%s was reset without a word", on.name)
	}
	t.Logf("%s: the last write on %s was acknowledged after %s, it was reset after %s, %s serves after %s", name, on.name,
		seconds(on.client.last(serves.Add(time.Hour)).Sub(at)), seconds(gone.Sub(at)), other.name, seconds(serves.Sub(at)))
	s.judge(on, other, at, serves)
	s.kept(other)
	on.m.Close()
	on.m = nil
	must(t, s.boot(on, false))
	booted := time.Now()
	must(t, on.await("secondary", "complete", backLimit))
	t.Logf("%s: booted within %s, in sync %s later", name, seconds(on.m.Boot), seconds(time.Since(booted)))
}

// judge wants that nothing was acknowledged where it was, once the other began. A read
// that was under way when its node stood still may be answered when that goes on: it is
// of the time when it was asked.
func (s *site) judge(was, is *vmNode, at, serves time.Time) {
	s.t.Helper()
	for _, r := range was.client.good(serves, write, advance) {
		s.t.Errorf("%s acknowledged a %s %s after %s began to, sent %s before that", was.name, r.kind,
			seconds(r.answered.Sub(serves)), is.name, seconds(serves.Sub(r.sent)))
	}
	for _, r := range was.client.good(serves, look) {
		if r.sent.Before(at) {
			s.t.Logf("%s answered a read %s after %s began, sent before it was disturbed", was.name, seconds(r.answered.Sub(serves)), is.name)
			continue
		}
		s.t.Errorf("%s answered a read with %d %s after %s began, sent %s after it was disturbed; %d had been acknowledged before", was.name, r.value,
			seconds(r.answered.Sub(serves)), is.name, seconds(r.sent.Sub(at)), is.client.newest(r.sent))
	}
}

// pause has the whole machine stand still that serves.
func (s *site) pause() {
	t := s.t
	t.Helper()
	on, other := s.serving(backLimit)
	_, err := on.client.first(time.Now(), enough, soon)
	must(t, err)
	clock := do(t, on.m, Order{Op: "clocks"}).Text
	// Some of these are under way when it stands still, in each of their states.
	late := on.client.late(inFlight)
	time.Sleep(pause)
	must(t, on.m.Pause())
	at := time.Now()
	serves, err := other.client.first(at, enough, serveLimit)
	must(t, err)
	late += on.client.late(inFlight)
	t.Logf("paused: the last write on %s was acknowledged after %s, %s serves after %s; %d writes and as many reads were sent to %s just before it stood still and while it does",
		on.name, seconds(on.client.last(serves).Sub(at)), other.name, seconds(serves.Sub(at)), late, on.name)
	s.kept(other)
	time.Sleep(time.Until(at.Add(pausedFor)))
	must(t, on.m.Resume())
	goes := time.Now()
	if a, err := on.m.Do(Order{Op: "clocks"}); err == nil {
		t.Logf("paused: clocks before %s, after %s", clock, a.Text)
	}
	err = on.await("secondary", "complete", backLimit)
	select {
	case <-on.m.gone:
		must(t, on.m.WaitReset(soon))
		t.Logf("paused: its watchdog reset it")
		on.client.cut()
		on.m.Close()
		must(t, s.boot(on, false))
		err = on.await("secondary", "complete", backLimit)
	default:
	}
	must(t, err)
	t.Logf("paused: in sync again %s after it went on", seconds(time.Since(goes)))
	s.judge(on, other, at, serves)
	s.kept(other)
}
