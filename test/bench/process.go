package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	startLimit = 20 * time.Second // until a server takes connections
	stopLimit  = 10 * time.Second // from SIGTERM to SIGKILL
	pollEvery  = 20 * time.Millisecond
)

// process is one server that the bench started.
type process struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// start runs a server; its output goes to a file that errors show.
func start(log string, argv ...string) (*process, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), log: log, ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	go func() { _ = p.cmd.Wait(); close(p.ended) }()
	return p, nil
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(stopLimit):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// wrong wraps an error with what the server said last.
func (p *process) wrong(err error) error {
	out, _ := os.ReadFile(p.log)
	return fmt.Errorf("%s: %w\n%s", filepath.Base(p.cmd.Path), err, bytes.TrimSpace(out[max(0, len(out)-2000):]))
}

// await asks until the answer is yes or the server is gone.
func (p *process) await(ctx context.Context, limit time.Duration, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		ok, err := ask()
		if ok {
			return nil
		}
		select {
		case <-p.ended:
			return p.wrong(errors.New("it ended by itself"))
		case <-ctx.Done():
			return p.wrong(errors.Join(ctx.Err(), err))
		case <-time.After(pollEvery):
		}
	}
}

// listening waits for a Unix socket that takes connections.
func (p *process) listening(ctx context.Context, path string) error {
	return p.await(ctx, startLimit, func() (bool, error) {
		c, err := net.Dial("unix", path)
		if err != nil {
			return false, err
		}
		return true, c.Close()
	})
}

// processorTime is what a process has used, in user and in kernel mode, with all
// its threads: fields 14 and 15 of /proc/PID/stat, in the kernel's fixed 100 Hz.
func (p *process) processorTime() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // the name may hold blanks
	const utime, stime, tick = 14 - 3, 15 - 3, 10 * time.Millisecond
	if len(fields) <= stime {
		return 0, fmt.Errorf("/proc/%d/stat is too short", p.cmd.Process.Pid)
	}
	u, err1 := strconv.ParseInt(string(fields[utime]), 10, 64)
	s, err2 := strconv.ParseInt(string(fields[stime]), 10, 64)
	return time.Duration(u+s) * tick, errors.Join(err1, err2)
}
