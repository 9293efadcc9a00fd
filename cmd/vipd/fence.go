package main

import (
	"context"
	"errors"
	"time"

	"hastd/cluster/fence"
	frunner "hastd/cluster/fence/runner"
	crunner "hastd/cluster/runner"
	"hastd/cmd/internal/exit"
	"hastd/cmd/internal/metrics"
	"hastd/conf"
)

// outside is what vipd touches of its machine beside network and disks.
type outside struct {
	console  crunner.Console
	watchdog func(path string, timeout time.Duration) (frunner.Watchdog, error)
	host     frunner.Host
}

// thisMachine is the real one.
func thisMachine() outside {
	return outside{crunner.SystemConsole{}, func(path string, timeout time.Duration) (frunner.Watchdog, error) {
		d, err := frunner.OpenWatchdog(path, timeout)
		if err != nil {
			return nil, err // not a nil *Device in an interface
		}
		return d, nil
	}, nil}
}

// Limits of silence, after which the watchdog is not fed any more. What these parts do
// takes milliseconds: nothing in them waits for a program or the network, and only the
// votes wait for a disk, which store what they promise.
const (
	groupLimit    = 5 * time.Second  // the owner of a group's machine
	electionLimit = 5 * time.Second  // that of its election
	votesLimit    = 30 * time.Second // that of the votes: a disk is slow for long, and by then the lease is over
)

// arm starts to feed the watchdog if toc is on. The machine is reset from then on when
// vipd is killed, stopped, or does not answer.
func (s *server) arm(out outside) error {
	c := &s.o.Conf.Cluster
	if c.TOC == conf.TOCOff {
		return nil
	}
	if s.o.Node.Witness {
		s.o.Log.Info("toc has no effect on a witness: there is nothing to protect")
		return nil
	}
	if err := frunner.LockMemory(); err != nil {
		s.o.Log.Warn("memory is not locked: a machine that lacks it may be reset", "reason", err)
	}
	w, err := out.watchdog(c.Watchdog, c.WatchdogTimeout)
	var we *frunner.WatchdogError
	switch {
	case errors.As(err, &we):
		return &exit.Error{Code: exit.Config, Text: `toc = "` + string(c.TOC) + `": ` + we.Error(), Hint: we.Advice + `; or write toc = "off" in [cluster]`, Err: err}
	case err != nil:
		return err
	}
	if out.host == nil {
		out.host = frunner.OpenSystem() // open as long as the process
	}
	o := frunner.Options{
		Mode: fence.Mode(c.TOC), Program: about.Name, Node: s.Node(), Timeout: c.WatchdogTimeout,
		Parts: s.watched(), Watchdog: w, Host: out.host, Log: s.o.Log,
	}
	f, err := frunner.Start(o)
	if err != nil {
		return errors.Join(err, w.Disarm())
	}
	s.fencer.Store(f)
	attrs := []any{"toc", string(c.TOC), "watchdog", c.Watchdog, "timeout", c.WatchdogTimeout.String()}
	if d, ok := w.(*frunner.Device); ok {
		attrs = append(attrs, "driver", d.Identity, "counts", d.Timeout.String())
		if !d.Wayout {
			s.o.Log.Warn("the watchdog cannot be disarmed (nowayout): this machine is reset after every end of vipd")
		}
	}
	s.o.Log.Info("this machine is reset when vipd does not answer", attrs...)
	return nil
}

// watched are the parts that have to answer for the watchdog to be fed.
func (s *server) watched() (list []frunner.Part) {
	for _, u := range s.groups {
		list = append(list, frunner.Part{Name: "group " + u.conf.Name, Limit: groupLimit, Alive: u.machine.Alive})
		if u.election != nil {
			list = append(list, frunner.Part{Name: "the election of group " + u.conf.Name, Limit: electionLimit, Alive: u.election.alive})
		}
	}
	if s.quorum != nil {
		list = append(list, frunner.Part{Name: "the owner of the votes", Limit: votesLimit, Alive: s.quorum.alive})
	}
	return list
}

// disarm is for a clean end.
func (s *server) disarm() {
	if f := s.fencer.Load(); f != nil {
		f.Stop()
	}
}

// abandon is for an end that leaves something up: the next vipd may come in time.
func (s *server) abandon() {
	if f := s.fencer.Load(); f != nil {
		f.Abandon()
	}
}

// fence makes this machine go down, if toc is on.
func (s *server) fence(group, reason string) bool {
	f := s.fencer.Load()
	if f == nil {
		return false
	}
	f.Order(group, reason)
	return true
}

// Watchdog is for the metrics.
func (s *server) Watchdog() metrics.WatchdogSample {
	f := s.fencer.Load()
	if f == nil {
		return metrics.WatchdogSample{State: fence.Idle.String()}
	}
	st := f.Status()
	return metrics.WatchdogSample{State: st.State.String(), Feeds: st.Feeds, Withheld: st.Withheld}
}

// alive says whether the owner of the election's machine answers before ctx ends. One
// that has not begun, or waits to begin anew, has none.
func (e *election) alive(ctx context.Context) bool {
	if !e.runs.Load() {
		return true
	}
	return e.runner().Alive(ctx) || !e.runs.Load()
}
