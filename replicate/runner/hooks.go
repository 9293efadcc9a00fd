package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"hastd/replicate"
)

// hooks runs the program of `exec`, one call after the other, each with a time
// limit after which its whole process group is killed.
type hooks struct {
	o      *Options
	queue  chan []string
	stop   context.CancelFunc
	ctx    context.Context
	done   chan struct{}
	failed bool // the queue overflowed and this was told
}

// hookOutput is how much of a hook's output reaches the log.
const hookOutput = 4 << 10

func newHooks(o *Options) *hooks {
	h := &hooks{o: o, queue: make(chan []string, hookQueue), done: make(chan struct{})}
	h.ctx, h.stop = context.WithCancel(context.Background())
	go h.loop()
	return h
}

// args are what the program is called with, nil if a report has no hook.
func hookArgs(name string, rep *replicate.Report) []string {
	switch rep.Kind {
	case replicate.ReportRole:
		return []string{"role", name, rep.Old, rep.New}
	case replicate.ReportConnected:
		return []string{"connect", name}
	case replicate.ReportDisconnected:
		return []string{"disconnect", name}
	case replicate.ReportSyncStart:
		return []string{"syncstart", name}
	case replicate.ReportSyncDone:
		return []string{"syncdone", name}
	case replicate.ReportSyncStopped:
		return []string{"syncintr", name}
	case replicate.ReportSplitBrain:
		return []string{"split-brain", name}
	}
	return nil
}

// run queues a call. It never waits. Called by the observer only.
func (h *hooks) run(rep *replicate.Report) {
	args := hookArgs(h.o.Resource, rep)
	if args == nil || h.o.Exec == "" {
		return
	}
	select {
	case h.queue <- args:
		h.failed = false
	default:
		if !h.failed {
			h.o.Log.Error("hooks are not run fast enough: some are left out", "path", h.o.Exec, "waiting", hookQueue)
		}
		h.failed = true
	}
}

// close lets the hooks that wait run, as long as the first time limit lasts.
func (h *hooks) close() {
	close(h.queue)
	t := time.AfterFunc(h.o.HookTimeout, h.stop)
	<-h.done
	t.Stop()
	h.stop()
}

func (h *hooks) loop() {
	defer close(h.done)
	for args := range h.queue {
		if h.ctx.Err() == nil {
			h.call(args)
		}
	}
}

func (h *hooks) call(args []string) {
	ctx, cancel := context.WithTimeout(h.ctx, h.o.HookTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.o.Exec, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // a child that kept our pipe is not waited for
	out := &limited{left: hookOutput}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Start()
	if err == nil {
		// hastd may be spared when memory runs out (OOMScoreAdjust): what a hook starts is not.
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", cmd.Process.Pid), []byte("0"), 0)
		err = cmd.Wait()
	}
	log := h.o.Log.With("path", h.o.Exec, "args", args)
	if out.Len() > 0 {
		log = log.With("output", out.String())
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		log.Error("hook was killed: it ran for longer than its time limit", "limit", h.o.HookTimeout)
	case errors.Is(err, exec.ErrWaitDelay): // it ended well; what it started keeps our pipe
		log.Debug("hook done, and left something running")
	case err != nil:
		log.Error("hook failed", "error", err)
	default:
		log.Debug("hook done")
	}
}

// limited keeps the beginning of what is written to it.
type limited struct {
	bytes.Buffer
	left int
}

func (l *limited) Write(b []byte) (int, error) {
	n := min(len(b), l.left)
	l.left -= n
	l.Buffer.Write(b[:n])
	return len(b), nil
}
