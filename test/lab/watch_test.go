package lab

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// writer is a process that dirties the page cache above a node's device.
type writer struct {
	testing.TB
	cmd   *exec.Cmd
	said  chan string // a line each; closed at its end
	ended chan error
	done  int64 // bytes it said
	last  string
}

// verified is the writer's last word, after it has read everything back.
const verified = "verified"

// writerProgram builds the writer, once for a test binary, and never with the race
// detector.
func writerProgram(t testing.TB) string {
	t.Helper()
	needPrograms(t)
	path := filepath.Join(programsDir, "labdirty")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	cmd := exec.Command("go", "build", "-o", path, "hastd/test/lab/cmd/labdirty")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the writer: %v\n%s", err, out)
	}
	return path
}

// startWriter lets a process write total bytes below dir, in a cgroup if there is
// one.
func startWriter(t testing.TB, c *Cgroup, dir string, total int64) *writer {
	t.Helper()
	argv := []string{writerProgram(t), dir, strconv.FormatInt(total, 10)}
	if c != nil {
		argv = c.Command(argv...)
	}
	w := &writer{TB: t, cmd: exec.Command(argv[0], argv[1:]...), said: make(chan string, 16), ended: make(chan error, 1)}
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := w.cmd.StdoutPipe()
	must(t, err)
	w.cmd.Stderr = w.cmd.Stdout
	must(t, w.cmd.Start())
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			w.said <- s.Text()
		}
		close(w.said)
		w.ended <- w.cmd.Wait()
	}()
	t.Cleanup(func() {
		w.cmd.Process.Kill()
		go func() {
			for range w.said {
			}
		}()
		select {
		case <-w.ended:
		case <-time.After(killLimit):
			t.Error("the writer is still there after SIGKILL")
		}
	})
	return w
}

// advance waits until the writer has written so much more, or has ended well when
// to is negative. It returns false when for a whole stallLimit neither the writer
// nor any of the disks got on.
func (w *writer) advance(to int64, disks ...string) bool {
	w.Helper()
	progress, before := time.Now(), ioCounts(disks)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for to < 0 || w.done < to {
		select {
		case s, ok := <-w.said:
			if !ok {
				err := <-w.ended
				w.ended <- nil
				if err != nil || w.last != verified {
					w.Fatalf("the writer ended after %d bytes: %v %q", w.done, err, w.last)
				}
				return true
			}
			progress, w.last = time.Now(), s
			if n, err := strconv.ParseInt(s, 10, 64); err == nil {
				w.done = n
			}
		case <-tick.C:
			if now := ioCounts(disks); now != before {
				progress, before = time.Now(), now
			}
			if time.Since(progress) > stallLimit {
				return false
			}
		}
	}
	return true
}

// stallLimit is how long nothing may get on: a deadlock, not a slow machine.
const stallLimit = 20 * time.Second

// ioCounts tells of each disk how much it has done.
func ioCounts(disks []string) string {
	var b strings.Builder
	for _, d := range disks {
		s, _ := os.ReadFile(filepath.Join("/sys/block", d, "stat"))
		// Without the number in flight and the times: they grow while it hangs.
		if f := strings.Fields(string(s)); len(f) > 6 {
			fmt.Fprintln(&b, f[0], f[2], f[4], f[6])
		}
	}
	return b.String()
}

// loopOf is the name of the loop device that a node's device is.
func (p *pair) loopOf(n *Node) string {
	p.Helper()
	to, err := os.Readlink(n.device())
	p.ok(err)
	return filepath.Base(to)
}

// stalled fails the test with all there is to know of a deadlock, and breaks it:
// nothing of it may outlive the test.
func (p *pair) stalled(w *writer, cgroups ...*Cgroup) {
	p.Helper()
	p.Errorf("nothing got on for %v after %d bytes were written", stallLimit, w.done)
	p.Logf("writer: %s", tasks(w.cmd.Process.Pid))
	for _, n := range p.Nodes {
		if n.cmd != nil {
			p.Logf("%v: %s", n.Side, tasks(n.PID()))
		}
	}
	for _, c := range cgroups {
		p.Log(c)
	}
	for _, n := range p.Nodes {
		if n.cmd == nil {
			continue
		}
		n.cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-n.ended:
		case <-time.After(quitLimit): // it cannot answer while it waits for memory
			n.abortFUSE()
		}
		log := n.trace()
		if i := strings.LastIndex(log, "SIGQUIT"); i >= 0 {
			log = log[i:]
		}
		p.Logf("goroutines of %v:\n%.20000s", n.Side, log)
		n.cmd = nil
	}
	p.FailNow()
}

// quitLimit is how long a daemon that hangs has to show its goroutines by itself.
const quitLimit = 3 * time.Second

// abortFUSE ends the requests of a node's provider with errors: a process that
// waits in one for memory cannot even be killed.
func (n *Node) abortFUSE() {
	left, _ := n.fuseMounts()
	loops, _ := n.loops()
	for _, l := range loops {
		toolErr("losetup", "--detach", l) // with its last user; afterwards nobody knows whose it was
	}
	for _, m := range left {
		within(quitLimit, func() (int, error) { return 0, syscall.Unmount(m, syscall.MNT_FORCE) })
		syscall.Unmount(m, syscall.MNT_DETACH)
	}
}

// tasks are the memory of a process, and its threads that wait in the kernel.
func tasks(pid int) string {
	var b strings.Builder
	for _, k := range []string{"State", "VmRSS", "VmHWM", "VmLck", "VmData", "Threads"} {
		fmt.Fprintf(&b, "%s %s, ", k, procStatus(pid, k))
	}
	b.WriteByte('\n')
	dirs, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, d := range dirs {
		s, _ := os.ReadFile(d + "/status")
		if !strings.Contains(string(s), "State:\tD") {
			continue
		}
		stack, _ := os.ReadFile(d + "/stack")
		var at []string
		for line := range strings.Lines(string(stack)) {
			_, where, _ := strings.Cut(strings.TrimSpace(line), "] ")
			at = append(at, where)
		}
		fmt.Fprintf(&b, "  thread %s in D: %s\n", filepath.Base(d), strings.Join(at, " < "))
	}
	return b.String()
}

// procStatus is a line of /proc/PID/status.
func procStatus(pid int, key string) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// procBytes is a line of /proc/PID/status that is in kB.
func procBytes(t testing.TB, pid int, key string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(strings.TrimSuffix(procStatus(pid, key), " kB"), 10, 64)
	if err != nil {
		t.Fatalf("%s of process %d: %q", key, pid, procStatus(pid, key))
	}
	return n << 10
}

// majorFaults is how often a process waited for a disk to get at its own memory.
func majorFaults(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	if f := strings.Fields(rest); len(f) > 9 {
		return f[9]
	}
	return "?"
}
