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
)

// run runs a program in a process group of its own, and kills the whole group when
// ctx ends. The error has the last of what it said.
func run(ctx context.Context, argv, env []string) (status int, err error) {
	name := strings.Join(argv, " ")
	if ctx.Err() != nil {
		return -1, fmt.Errorf("%s: not run: %w", name, ctx.Err())
	}
	r, w, err := os.Pipe()
	if err != nil {
		return -1, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return -1, fmt.Errorf("%s: %w", name, err)
	}
	// What a program leaves running may keep its output, and must not meet a broken
	// pipe: it is read for as long as it is open.
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
	case <-ctx.Done():
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

// said is the last line, after a colon.
func (t *tail) said() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	line := bytes.TrimSpace(t.b)
	if i := bytes.LastIndexByte(line, '\n'); i >= 0 {
		line = line[i+1:]
	}
	if len(line) == 0 {
		return ""
	}
	return ": " + string(line)
}
