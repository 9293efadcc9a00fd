package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/exit"
)

// A hastd that says nothing for hastd-timeout is killed: the devices that hang on it end
// in errors, its peer hears that it is gone, and its supervisor (systemd) starts another
// one. One that is merely not there is none of this, nor one that has not answered yet:
// on a slow machine its start takes what it takes.

// hastdEvery is the time between two questions whether hastd answers; each waits as long.
const hastdEvery = time.Second

// silence is how long a hastd has not answered.
type silence struct {
	limit time.Duration
	pid   int       // who answered last; 0: nobody
	since time.Time // when the silence began; zero: there is none
	last  time.Time // the last question
}

// asked takes the end of a question, and says whether whoever listens is to be killed.
func (w *silence) asked(began, now time.Time, answered, gone bool, listens int) bool {
	if began.Sub(w.last) > w.limit/2+hastdEvery {
		w.since = time.Time{} // this process stood still itself
	}
	w.last = began
	switch {
	case answered:
		w.pid, w.since = listens, time.Time{}
		return false
	case gone, w.pid == 0, listens != w.pid:
		w.pid, w.since = 0, time.Time{}
		return false
	case w.since.IsZero():
		w.since = began
	}
	if now.Sub(w.since) < w.limit {
		return false
	}
	w.pid, w.since = 0, time.Time{}
	return true
}

// guardHastd kills a hastd that is silent, until ctx ends.
func (s *server) guardHastd(ctx context.Context) {
	client := api.NewClient(s.hastd.Control, hastdEvery/2)
	w := silence{limit: s.vipd.HastdTimeout}
	tick := time.NewTicker(hastdEvery)
	defer tick.Stop()
	for {
		began := time.Now()
		_, err := client.Version(ctx)
		if ctx.Err() != nil {
			return
		}
		pid, whose := listener(s.hastd.Control)
		if whose != nil {
			pid = 0
		}
		if w.asked(began, time.Now(), err == nil, exit.CodeOf(err) != exit.Again, pid) {
			s.killHastd(pid)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// killHastd ends the hastd that does not answer.
func (s *server) killHastd(pid int) {
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		s.o.Log.Error("hastd does not answer, and cannot be killed: kill it by hand", "for", s.vipd.HastdTimeout.String(), "reason", err)
		return
	}
	s.o.Log.Error("hastd did not answer, and was killed: its supervisor starts it again", "for", s.vipd.HastdTimeout.String(), "pid", pid)
	s.event("hastd", "", "", "killed", fmt.Sprintf("it did not answer for %v", s.vipd.HastdTimeout))
}

// listener is the process that listens on a socket. It must be a hastd.
func listener(socket string) (int, error) {
	c, err := net.DialTimeout("unix", socket, hastdEvery)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cred.Pid))
	if err != nil {
		return 0, err
	}
	if is := strings.TrimSpace(string(name)); is != "hastd" {
		return 0, fmt.Errorf("process %d (%s) listens on %s, and is no hastd", cred.Pid, is, socket)
	}
	return int(cred.Pid), nil
}
