package demo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
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

// The tests of this file run the whole story with real daemons.

var built string // the folder of programs, once there is one

// programs builds hastctl and hastd where every user may run them.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "demo-test-")
	if err != nil {
		return "", err
	}
	built = dir
	if err := os.Chmod(dir, 0o755); err != nil {
		return dir, err
	}
	cmd := exec.Command("go", "build", "-o", dir, "hastd/cmd/hastctl", "hastd/cmd/hastd")
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

const nobody = 65534

// telling is one run of hastctl demo.
type telling struct {
	t   *testing.T
	tmp string // its TMPDIR: empty again at the end
	cmd *exec.Cmd
	out *watched
}

// watched is output that can be waited for.
type watched struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	want string
	seen chan struct{}
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p)
	if w.want != "" && strings.Contains(w.buf.String(), w.want) {
		close(w.seen)
		w.want = ""
	}
	return len(p), nil
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// tell starts a demonstration as a user; want is output to be waited for.
func tell(t *testing.T, uid int, want string, args ...string) *telling {
	t.Helper()
	r := ready(t, uid, want, args...)
	r.start()
	return r
}

// ready makes everything for a demonstration, which is yet to be started.
func ready(t *testing.T, uid int, want string, args ...string) *telling {
	t.Helper()
	if testing.Short() {
		t.Skip("runs two daemons for many seconds: not with -short")
	}
	if uid != os.Getuid() && os.Getuid() != 0 {
		t.Skip("needs root: it changes to another user")
	}
	if uid == 0 && os.Getuid() != 0 {
		t.Skip("needs root: it mounts a filesystem")
	}
	t.Parallel()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	r := &telling{t: t, out: &watched{want: want, seen: make(chan struct{})}}
	if r.tmp, err = os.MkdirTemp(dir, "t"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(r.tmp, uid, uid); err != nil {
		t.Fatal(err)
	}
	r.cmd = exec.Command(filepath.Join(dir, "hastctl"), append([]string{"demo", "--quick", "--limit", "2m"}, args...)...)
	r.cmd.Env = append(os.Environ(), "TMPDIR="+r.tmp)
	r.cmd.Dir = "/"
	r.cmd.Stdout, r.cmd.Stderr = r.out, r.out
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if uid != os.Getuid() {
		r.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	return r
}

func (r *telling) start() {
	r.t.Helper()
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
}

// end waits for its end, wants a status and words in its output, and nothing of
// it left.
func (r *telling) end(status exit.Code, words ...string) {
	r.t.Helper()
	err := r.cmd.Wait()
	if got := r.cmd.ProcessState.ExitCode(); got != int(status) {
		r.t.Errorf("ended with %d (%v), want %d\n%s", got, err, status, r.out)
	}
	for _, w := range words {
		if !strings.Contains(r.out.String(), w) {
			r.t.Errorf("does not say %q\n%s", w, r.out)
		}
	}
	r.nothingLeft()
}

func (r *telling) nothingLeft() {
	r.t.Helper()
	if left, _ := filepath.Glob(filepath.Join(r.tmp, "*")); len(left) > 0 {
		r.t.Errorf("left behind: %v", left)
	}
	if left, err := mountsBelow(r.tmp); err != nil || len(left) > 0 {
		r.t.Errorf("still mounted: %v, %v", left, err)
	}
	if left := loopsBelow(r.tmp); len(left) > 0 {
		r.t.Errorf("loop devices left: %v", left)
	}
	// Once its FUSE mount is gone, a loop device tells only that it was over a disk.
	for _, dev := range regexp.MustCompile(`/dev/loop\d+`).FindAllString(r.out.String(), -1) {
		if b, err := os.ReadFile("/sys/block/" + filepath.Base(dev) + "/loop/backing_file"); err == nil && string(b) == "/disk\n" {
			r.t.Errorf("%s is left without its file", dev)
		}
	}
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, l := range lines {
		if b, err := os.ReadFile(l); err == nil && bytes.Contains(b, []byte(r.tmp+"/")) {
			r.t.Errorf("process left: %s %q", l, b)
		}
	}
}

// lostNothing is how every good story ends.
const lostNothing = "Nothing that was acknowledged is lost, and both replicas are equal"

func TestStoryOnADevice(t *testing.T) {
	needDevice(t)
	tell(t, 0, "", "--provider", FUSE).end(exit.OK, "mkfs.ext4", "kill -9", "split-brain", lostNothing)
}

func TestStoryOfAnOrdinaryUser(t *testing.T) {
	uid := nobody
	if os.Getuid() != 0 {
		uid = os.Getuid()
	}
	tell(t, uid, "").end(exit.OK, "over the NBD socket", "kill -9", "split-brain", lostNothing)
}

func TestSabotageIsFound(t *testing.T) {
	for _, c := range []struct{ provider, sabotage, finding string }{
		{FUSE, EarlyAck, "LOST: of"},
		{NBD, Flip, "NOT EQUAL: 1 of"},
		{NBD, EarlyAck, "LOST: of"},
	} {
		t.Run(c.provider+" "+c.sabotage, func(t *testing.T) {
			if c.provider == FUSE {
				needDevice(t)
			}
			r := tell(t, os.Getuid(), "", "--provider", c.provider, "--sabotage", c.sabotage)
			r.end(exit.IO, "SABOTAGE", "hastctl: error: "+c.finding, "broke it on purpose", "The last lines of its log")
			if strings.Contains(r.out.String(), lostNothing) {
				t.Errorf("praises itself all the same:\n%s", r.out)
			}
		})
	}
}

// Ctrl-C in the middle, with a dead mount of the killed primary around.
func TestInterruptedStoryLeavesNothing(t *testing.T) {
	needDevice(t)
	r := tell(t, 0, "$ kill -9", "--provider", FUSE)
	interrupt(r)
	r.end(exit.Again, "interrupted")
}

// hastctl demo | head must not leave anything either.
func TestStoryWithoutAReaderLeavesNothing(t *testing.T) {
	r := ready(t, os.Getuid(), "", "--provider", NBD)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stdout = out
	r.start()
	out.Close()
	lines := bufio.NewScanner(in)
	for lines.Scan() && !strings.Contains(lines.Text(), "role primary") {
	}
	in.Close()
	r.end(exit.IO, "cannot be written")
}

// A demonstration that is killed itself is cleaned up by the next one.
func TestKilledStoryIsSweptByTheNext(t *testing.T) {
	needDevice(t)
	r := tell(t, 0, "$ kill -9", "--provider", FUSE)
	select {
	case <-r.out.seen:
	case <-time.After(time.Minute):
	}
	r.cmd.Process.Kill()
	r.cmd.Wait()
	left, _ := filepath.Glob(filepath.Join(r.tmp, folderPrefix+"*"))
	if len(left) != 1 {
		t.Fatalf("a killed demonstration leaves %v: this test proves nothing", left)
	}
	// Without time to do anything: the sweeping comes first.
	next := exec.Command(r.cmd.Path, "demo", "--limit", "1ns")
	next.Env = r.cmd.Env
	if out, err := next.CombinedOutput(); err == nil {
		t.Errorf("done within a nanosecond:\n%s", out)
	}
	r.nothingLeft()
}

func interrupt(r *telling) {
	select {
	case <-r.out.seen:
	case <-time.After(time.Minute):
		r.t.Error("does not come to that point")
	}
	r.cmd.Process.Signal(unix.SIGINT)
}

func TestUnusableOptions(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	good := Options{Hastctl: self, Hastd: self, Size: DefaultSize, Provider: Auto, Limit: time.Minute}
	if err := good.check(); err != nil {
		t.Fatalf("good options: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*Options)
		code   exit.Code
	}{
		"too small":        {func(o *Options) { o.Size = 1 << 20 }, exit.Usage},
		"too large":        {func(o *Options) { o.Size = 1 << 50 }, exit.Usage},
		"odd size":         {func(o *Options) { o.Size++ }, exit.Usage},
		"unknown provider": {func(o *Options) { o.Provider = "ublk" }, exit.Usage},
		"unknown sabotage": {func(o *Options) { o.Sabotage = "fire" }, exit.Usage},
		"no time":          {func(o *Options) { o.Limit = 0 }, exit.Usage},
		"no daemon":        {func(o *Options) { o.Hastd = "/nowhere/hastd" }, exit.CantCreate},
	} {
		o := good
		c.change(&o)
		if err := Run(context.Background(), o); exit.CodeOf(err) != c.code || exit.HintOf(err) == "" {
			t.Errorf("%s: %v (code %d), want code %d and a hint", name, err, exit.CodeOf(err), c.code)
		}
	}
}

// needDevice skips where the story falls back to the socket.
func needDevice(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs two daemons for many seconds: not with -short")
	}
	d := &demo{dir: t.TempDir()}
	if err := d.tryDevice(t.Context()); err != nil {
		t.Skipf("no ext4 on a device here: %v", err)
	}
}

func TestLedgerFindsWhatIsMissingOrWrong(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	var l ledger
	files := map[string][]byte{}
	for _, name := range []string{"a", "b", "c"} {
		f := inventFile(random, name)
		l.add(f.name, f.data)
		files[name] = f.data
	}
	read := func(name string) ([]byte, error) {
		if b, ok := files[name]; ok {
			return b, nil
		}
		return nil, fs.ErrNotExist
	}
	if err := l.examine(read, func(int, int) {}); err != nil {
		t.Fatal(err)
	}
	files["b"] = append([]byte("x"), files["b"][1:]...)
	delete(files, "c")
	err := l.examine(read, func(int, int) {})
	if exit.CodeOf(err) != exit.IO || !strings.Contains(err.Error(), "of 3 acknowledged files 1 are missing and 1 have another content") {
		t.Errorf("got %v", err)
	}
	l.forget([]string{"b", "c"})
	if err := l.examine(read, func(int, int) {}); err != nil || l.bytes != int64(len(files["a"])) {
		t.Errorf("after forgetting: %v, %d bytes", err, l.bytes)
	}
}
