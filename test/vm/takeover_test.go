package vm

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// TestTheOtherTakesOver: the vipd of the node that serves is killed, then the whole machine
// of the other stands still for a minute, then a vipd does, then a person ends everything
// at once on the node that serves. Each time the other serves, nothing that was
// acknowledged is lost, and who was disturbed comes back.
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
		{"aborted", s.abort},
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
	s.judge(on, other, at, serves, time.Time{})
	s.kept(other)
	on.m.Close()
	on.m = nil
	must(t, s.boot(on, false))
	booted := time.Now()
	must(t, on.await("secondary", "complete", backLimit))
	t.Logf("%s: booted within %s, in sync %s later", name, seconds(on.m.Boot), seconds(time.Since(booted)))
}

// abort has a person end everything at once on the node that serves. Nothing is left there
// that a watchdog would have to end: the machine goes on, and takes part when it is told to.
func (s *site) abort() {
	t := s.t
	t.Helper()
	on, other := s.serving(backLimit)
	_, err := on.client.first(time.Now(), enough, soon)
	must(t, err)
	at := time.Now()
	must(t, on.hastctl("node", "abort"))
	ended := time.Now()
	serves, err := other.client.first(at, enough, serveLimit)
	must(t, err)
	t.Logf("aborted: the order took %s, the last write on %s was acknowledged after %s, %s serves after %s", seconds(ended.Sub(at)), on.name,
		seconds(on.client.last(serves.Add(time.Hour)).Sub(at)), other.name, seconds(serves.Sub(at)))
	do(t, on.m, Order{Op: "sleep", Number: int(countdown.Milliseconds() * 5 / 4)}) // by its own clock
	s.judge(on, other, at, serves, time.Time{})
	s.kept(other)
	must(t, on.hastctl("node", "start"))
	must(t, on.await("secondary", "complete", backLimit))
}

// judge wants that nothing was acknowledged where it was, once the other began. What a
// machine had when it stood still, it may answer when it goes on: no clock of it tells. A
// write under way then is at the other node, which confirmed it before it began (kept looks
// for each). A read that came while it stood still, too, is answered with what it had.
func (s *site) judge(was, is *vmNode, at, serves, goes time.Time) {
	s.t.Helper()
	late, old := 0, 0
	for _, r := range was.client.good(serves, write, advance) {
		if !goes.IsZero() && r.sent.Before(at) {
			late++
			continue
		}
		s.t.Errorf("%s acknowledged a %s %s after %s began to, sent %s before that", was.name, r.kind,
			seconds(r.answered.Sub(serves)), is.name, seconds(serves.Sub(r.sent)))
	}
	underWay := 0
	for _, r := range was.client.good(serves, look) {
		switch {
		case r.sent.Before(at):
			underWay++
			continue
		case r.sent.Before(goes):
			old++
			continue
		}
		s.t.Errorf("%s answered a read with %d %s after %s began, sent %s after it was disturbed; %d had been acknowledged before", was.name, r.value,
			seconds(r.answered.Sub(serves)), is.name, seconds(r.sent.Sub(at)), is.client.newest(r.sent))
	}
	s.t.Logf("%d reads and %d writes were answered on %s after %s began; they were sent before it was disturbed", underWay, late, was.name, is.name)
	if !goes.IsZero() {
		s.t.Logf("%d more reads, sent while it stood still", old)
	}
}

// pause has the whole machine stand still that serves.
func (s *site) pause() {
	t := s.t
	t.Helper()
	on, other := s.serving(backLimit)
	_, err := on.client.first(time.Now(), enough, soon)
	must(t, err)
	do(t, on.m, Order{Op: "reader", Args: []string{on.address + ":10809", "data"}})
	time.Sleep(calm) // it reads
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
	newest := other.client.newest(time.Now())
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
	s.told(on, goes, newest)
	s.judge(on, other, at, serves, goes)
	s.kept(other)
}

// told says what an application read on a node after it had stood still. That its lease
// is over a node only knows once it has heard from somebody: until then it answers reads
// with what it has. Nothing can be wanted of that but that it ends soon.
func (s *site) told(n *vmNode, since time.Time, newest uint64) {
	s.t.Helper()
	a, err := n.m.Do(Order{Op: "readings", Args: []string{fmt.Sprint(since.Unix())}})
	if err != nil {
		s.t.Logf("what was read on %s is not known: %v", n.name, err)
		return
	}
	var first, last, old int64
	var count, all int
	for line := range strings.Lines(a.Text) {
		var boot int64
		var value uint64
		k, _ := fmt.Sscan(line, &boot, &value)
		all++
		if k != 2 || value >= newest {
			continue
		}
		if count++; first == 0 {
			first = boot
		}
		last, old = boot, int64(newest-value)
	}
	s.t.Logf("%d of %d reads by an application on %s, after it went on, were answered with what was no longer so (%d writes ago), over %s of its time",
		count, all, n.name, old, time.Duration(last-first))
	if d := time.Duration(last - first); d > staleLimit {
		s.t.Errorf("that took longer than %s", staleLimit)
	}
}
