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
// one. One that is merely not there is none of this.

// hastdEvery is the time between two questions whether hastd answers; each waits as long.
const hastdEvery = time.Second

// guardHastd kills a hastd that is silent, until ctx ends.
func (s *server) guardHastd(ctx context.Context) {
	client := api.NewClient(s.hastd.Control, hastdEvery/2)
	var since, last time.Time // when the silence began; the last question
	tick := time.NewTicker(hastdEvery)
	defer tick.Stop()
	for {
		began := time.Now()
		if began.Sub(last) > s.vipd.HastdTimeout/2+hastdEvery {
			since = time.Time{} // this process stood still itself
		}
		last = began
		_, err := client.Version(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil || exit.CodeOf(err) != exit.Again: // it answers, or there is none
			since = time.Time{}
		case since.IsZero():
			since = began
		}
		if !since.IsZero() && time.Since(since) >= s.vipd.HastdTimeout {
			since = time.Time{}
			s.killHastd()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// killHastd ends whoever listens on hastd's socket and does not answer.
func (s *server) killHastd() {
	pid, err := listener(s.hastd.Control)
	if err == nil {
		err = unix.Kill(pid, unix.SIGKILL)
	}
	if err != nil {
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
