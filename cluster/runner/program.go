package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxOutput bounds what is kept of a program's words.
	maxOutput = 4 << 10
	// killWait is how long a program that was killed may take to be gone. One that
	// hangs in the kernel is left behind then.
	killWait = time.Second
	// lastWords is how long the last words of a program that ended may be on their
	// way.
	lastWords = 50 * time.Millisecond
	// outletSize is what a program's output may hold that nobody has read yet: what it
	// left running is not waited for any more, and may say much at once.
	outletSize = 1 << 20
)

// run runs a program in a process group of its own, and kills the whole group when
// ctx ends. The error has the last of what it said.
func run(ctx context.Context, argv, env []string) (status int, err error) {
	name := strings.Join(argv, " ")
	if ctx.Err() != nil {
		return -1, fmt.Errorf("%s: not run: %w", name, ctx.Err())
	}
	r, w, err := outlet()
	if err != nil {
		return -1, fmt.Errorf("%s: a pipe for its output: %w", name, err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stdout, cmd.Stderr = w, w
	if err = cmd.Start(); err != nil {
		w.Close()
		r.Close()
		return -1, fmt.Errorf("%s: %w", name, err)
	}
	// This process may be one that is spared when memory runs out (OOMScoreAdjust): what
	// it starts is not.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", cmd.Process.Pid), []byte("0"), 0)
	// What a program leaves running may keep its output: it is read for as long as it is
	// open.
	out, silent := &tail{}, make(chan struct{})
	go func() {
		io.Copy(out, r)
		r.Close()
		close(silent)
	}()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
		leave(w)
	case <-ctx.Done():
		leave(w)
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		select {
		case <-ended:
			return -1, fmt.Errorf("%s: killed with all it started%s", name, out.said())
		case <-time.After(killWait):
			return -1, fmt.Errorf("%s: killed, but process %d hangs in the kernel%s", name, cmd.Process.Pid, out.said())
		}
	}
	select {
	case <-silent:
	case <-time.After(lastWords):
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return exit.ExitCode(), fmt.Errorf("%s: exit status %d%s", name, exit.ExitCode(), out.said())
	}
	if err != nil {
		return -1, fmt.Errorf("%s: %w%s", name, err, out.said())
	}
	return 0, nil
}

// outlet is a pipe for what a program says. The program has both its ends: what it leaves
// running outlives this process, and must not meet a broken pipe then.
func outlet() (r, w *os.File, err error) {
	r, one, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer one.Close()
	both := fmt.Sprintf("/proc/self/fd/%d", one.Fd())
	fd, err := unix.Open(both, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		r.Close()
		return nil, nil, &os.PathError{Op: "open", Path: both, Err: err}
	}
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, outletSize)
	return r, os.NewFile(uintptr(fd), both), nil
}

// leave leaves a program's output to what it left running. The program waited for room in
// it. From now on what finds none is lost: once this process is gone nobody reads it, and a
// service would wait for ever.
func leave(w *os.File) {
	_ = unix.SetNonblock(int(w.Fd()), true)
	w.Close()
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - maxOutput; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

// said is the last line, after a colon. What is indented goes on with the line before:
// mount(8) says below its reason where there may be more about it.
func (t *tail) said() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := ""
	for line := range bytes.Lines(bytes.TrimSpace(t.b)) {
		if text := bytes.TrimSpace(line); len(text) > 0 && (last == "" || line[0] != ' ' && line[0] != '\t') {
			last = ": " + string(text)
		}
	}
	return last
}
