package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"hastd/cluster"
)

type unixStat = syscall.Stat_t

// maxOutput bounds what is kept of a program's words.
const maxOutput = 4 << 10

// killWait is how long the output of a program that was killed is waited for:
// something it started may hold it open.
const killWait = time.Second

// run runs a program in a process group of its own, and kills the whole group when
// ctx ends. The error has the last of what it said.
func run(ctx context.Context, argv, env []string) (status int, err error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killWait
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return exit.ExitCode(), fmt.Errorf("%s: exit status %d%s", strings.Join(argv, " "), exit.ExitCode(), out.said())
	}
	if err != nil {
		return -1, fmt.Errorf("%s: %w%s", strings.Join(argv, " "), err, out.said())
	}
	return 0, nil
}

// tail keeps the end of what is written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - maxOutput; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) said() string {
	line := bytes.TrimSpace(t.b)
	if i := bytes.LastIndexByte(line, '\n'); i >= 0 {
		line = line[i+1:]
	}
	if len(line) == 0 {
		return ""
	}
	return ": " + string(line)
}

// Service is a program of a group.
type Service struct {
	Name                 string
	StartArgs            []string
	StopArgs             []string
	MonitorArgs          []string
	StartLimit, StopWait time.Duration
}

// Exit statuses of a monitor.
const (
	monitorOnline  = 110
	monitorOffline = 100
)

// Probe runs the monitor. Without one nobody knows: it is stopped first.
func (d *Service) Probe(ctx context.Context) (bool, error) {
	if len(d.MonitorArgs) == 0 {
		return false, errors.New("it has no monitor, so it is stopped before it is started")
	}
	look, err := d.Look(ctx)
	if look == cluster.LookUnknown {
		return false, err
	}
	return look == cluster.LookOnline, nil
}

// Up starts it; if there is a monitor, it must say online before the limit.
func (d *Service) Up(ctx context.Context) error {
	if len(d.StartArgs) > 0 {
		if _, err := run(ctx, d.StartArgs, []string{"RESTART_COUNT=0"}); err != nil {
			return err
		}
	}
	if len(d.MonitorArgs) == 0 {
		return nil
	}
	for {
		look, err := d.Look(ctx)
		if look == cluster.LookOnline {
			return nil
		}
		if err == nil {
			err = errors.New("it was started, and its monitor still says offline")
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(monitorPause):
		}
	}
}

// monitorPause is the time between two looks at a service that is starting.
const monitorPause = 200 * time.Millisecond

// Down stops it.
func (d *Service) Down(ctx context.Context) error {
	if len(d.StopArgs) == 0 {
		return nil // only watched
	}
	_, err := run(ctx, d.StopArgs, nil)
	return err
}

// Look runs the monitor.
func (d *Service) Look(ctx context.Context) (cluster.Look, error) {
	status, err := run(ctx, d.MonitorArgs, nil)
	switch status {
	case monitorOnline:
		return cluster.LookOnline, nil
	case monitorOffline:
		return cluster.LookOffline, nil
	}
	if err == nil {
		err = fmt.Errorf("%s: exit status 0, which means neither online (%d) nor offline (%d)", strings.Join(d.MonitorArgs, " "), monitorOnline, monitorOffline)
	}
	return cluster.LookUnknown, err
}
