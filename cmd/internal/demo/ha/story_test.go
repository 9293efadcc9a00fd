package ha

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hastd/cmd/internal/exit"
)

// The tests of this file run the story with real daemons.

var built string // the folder of programs, once there is one

var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "demo-ha-test-")
	if err != nil {
		return "", err
	}
	built = dir
	cmd := exec.Command("go", "build", "-o", dir, "hastd/cmd/hastctl", "hastd/cmd/hastd", "hastd/cmd/vipd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, errors.New(string(out))
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// telling is one run of hastctl demo ha.
type telling struct {
	t    *testing.T
	tmp  string // its TMPDIR: empty again at the end
	cmd  *exec.Cmd
	out  *output
	done chan error
}

// output can be waited for.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *output) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

func (w *output) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

func tell(t *testing.T, tmp string, args ...string) *telling {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	r := &telling{t: t, tmp: tmp, out: &output{}, done: make(chan error, 1)}
	r.cmd = exec.Command(filepath.Join(dir, "hastctl"), append([]string{"demo", "ha", "--quick", "--picture", filepath.Join(tmp, "picture.svg")}, args...)...)
	r.cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	r.cmd.Dir = "/"
	r.cmd.Stdout, r.cmd.Stderr = r.out, r.out
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	r.cmd.WaitDelay = 10 * time.Second
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { r.done <- r.cmd.Wait() }()
	return r
}

func need(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs two nodes for many seconds: not with -short")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes network namespaces and mounts")
	}
	if err := Missing(); err != nil {
		t.Skip(err)
	}
	t.Parallel()
}

// shortDir is one whose name leaves room for sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "t")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// await waits until it said something.
func (r *telling) await(words string) {
	r.t.Helper()
	limit := time.NewTimer(2 * time.Minute)
	defer limit.Stop()
	for !strings.Contains(r.out.String(), words) {
		select {
		case <-time.After(20 * time.Millisecond):
			continue
		case <-r.done:
		case <-limit.C:
			r.cmd.Process.Signal(syscall.SIGTERM)
			<-r.done
		}
		r.t.Fatalf("it never said %q\n%s", words, r.out)
	}
}

// end waits for its end and wants a status.
func (r *telling) end(status int) {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(2 * time.Minute):
		r.cmd.Process.Kill()
		r.t.Errorf("it does not end")
		<-r.done
	}
	if got := r.cmd.ProcessState.ExitCode(); got != status {
		r.t.Errorf("ended with %d, want %d\n%s", got, status, r.out)
	}
	if strings.Contains(r.out.String(), "Not everything") {
		r.t.Errorf("could not clean up\n%s", r.out)
	}
}

var folderName = regexp.MustCompile(folderPrefix + `\d+`)

// nothingLeft wants no folder, process, mount or loop device. The kernel may take a
// moment for what stood in a namespace.
func (r *telling) nothingLeft() {
	r.t.Helper()
	if left, _ := filepath.Glob(filepath.Join(r.tmp, folderPrefix+"*")); len(left) > 0 {
		r.t.Errorf("left behind: %v", left)
	}
	var left []string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if left = append(loops(folderName.FindString(r.out.String())), processes(r.tmp)...); len(left) == 0 {
			return
		}
	}
	r.t.Errorf("still there: %s\n%s", left, r.out)
}

// loops are the loop devices over a file of a folder, by the name that hastd notes.
func loops(folder string) []string {
	var found []string
	paths, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, p := range paths {
		dev := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(p)))
		f, err := os.Open(dev)
		if err != nil {
			continue
		}
		info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
		f.Close()
		if err == nil && folder != "" && bytes.Contains(info.File_name[:], []byte(folder)) {
			found = append(found, dev)
		}
	}
	return found
}

// processes are those that were started with a TMPDIR, or see a mount below it.
func processes(tmp string) []string {
	var found []string
	for file, text := range map[string]string{"environ": "TMPDIR=" + tmp + "\x00", "mountinfo": tmp + "/"} {
		paths, _ := filepath.Glob("/proc/[0-9]*/" + file)
		for _, p := range paths {
			if b, err := os.ReadFile(p); err == nil && bytes.Contains(b, []byte(text)) {
				name, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "cmdline"))
				found = append(found, p+" "+strings.ReplaceAll(string(name), "\x00", " "))
			}
		}
	}
	return found
}

// A minute suffices on a machine that does something else besides.
const storyLimit = "90s"

func TestServiceFailsOver(t *testing.T) {
	need(t)
	r := tell(t, shortDir(t), "--limit", storyLimit)
	r.end(int(exit.OK))
	for _, words := range []string{"switch by hand to bravo", "kill -9 of both daemons on bravo", "all are there", "OK: nothing that was acknowledged is lost"} {
		if !strings.Contains(r.out.String(), words) {
			t.Errorf("does not say %q\n%s", words, r.out)
		}
	}
	if b, err := os.ReadFile(filepath.Join(r.tmp, "picture.svg")); err != nil || bytes.Count(b, []byte("#fed7d7")) != 3 {
		t.Errorf("the picture does not show all pauses: %v", err)
	} else {
		wellFormed(t, b)
	}
	r.nothingLeft()
	t.Log(r.out)
}

// Ctrl-C while the daemons of the master are dead and the service on it is not.
func TestInterruptedFailoverLeavesNothing(t *testing.T) {
	need(t)
	r := tell(t, shortDir(t), "--limit", storyLimit)
	r.await("$ kill -9")
	r.cmd.Process.Signal(syscall.SIGINT)
	r.end(int(exit.Again))
	if !strings.Contains(r.out.String(), "interrupted") {
		t.Errorf("does not say why\n%s", r.out)
	}
	r.nothingLeft()
}

// What dies with everything standing is taken away by the next one.
func TestKilledDemonstrationIsSweptByTheNext(t *testing.T) {
	need(t)
	r := tell(t, shortDir(t), "--limit", storyLimit)
	r.await("group status")
	r.await("The client:")
	r.cmd.Process.Kill()
	r.end(-1)
	if left, _ := filepath.Glob(filepath.Join(r.tmp, folderPrefix+"*")); len(left) != 1 {
		t.Errorf("folders: %v", left)
	}
	next := tell(t, r.tmp, "--limit", "1ms")
	next.end(int(exit.Again))
	next.nothingLeft()
	r.nothingLeft()
}
