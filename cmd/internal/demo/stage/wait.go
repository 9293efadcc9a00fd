package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hastd/cmd/internal/exit"
)

// errStuck is told of what did not come back from the kernel.
var errStuck = errors.New("it does not come back from the kernel")

// Within gives up waiting for f after limit. Then f is left behind: a system call
// on a device cannot be taken back, only its device can be taken away.
func Within(limit time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
		return errStuck
	}
}

// OwnEnv is the environment without what a service manager told hastctl: it is
// not meant for the daemons of a demonstration.
func OwnEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(s string) bool {
		name, _, _ := strings.Cut(s, "=")
		return slices.Contains([]string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"}, name)
	})
}

// Poll waits until f says yes, asking it every so often. what is what is waited
// for; the last error of f is told with it.
func Poll(ctx context.Context, limit, every time.Duration, what string, f func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %v", limit))
	defer cancel()
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		ok, err := f()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return exit.New(exit.Again, "look at the logs", "waited for %s: %w", what, errors.Join(context.Cause(ctx), err))
		case <-t.C:
		}
	}
}

// Tool finds a program of the administrator's, whose folder is not in everybody's
// path.
func Tool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range strings.Fields("/usr/sbin /sbin") {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", name)
}

// tailRead is how much of a log's end is read.
const tailRead = 64 << 10

// Tail is the last lines of a log, set off.
func Tail(path string, lines int) string {
	f, err := os.Open(path)
	if err != nil {
		return "(" + err.Error() + ")"
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > tailRead {
		f.Seek(-tailRead, io.SeekEnd)
	}
	b, _ := io.ReadAll(f)
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return "  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}
