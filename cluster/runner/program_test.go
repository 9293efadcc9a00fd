package runner

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"hastd/cluster"
)

func TestMain(m *testing.M) {
	if script := os.Getenv(runAndDie); script != "" {
		_, err := run(context.Background(), sh(script), nil)
		fmt.Print(err)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// runAndDie has this program run a script, and end at once when that has ended.
const runAndDie = "TEST_RUN_AND_DIE"

// soon is how long a loaded machine may take for what takes milliseconds.
const soon = 5 * time.Second

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(soon); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v still not: %s", soon, what)
		}
	}
}

func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

func TestHangingProgramIsKilledWithAllItStarted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	began := time.Now()
	_, err := run(within(t, 300*time.Millisecond), sh("sleep 60 & echo $! >"+file+"; echo trying hard; wait"), nil)
	if err == nil || !strings.Contains(err.Error(), "killed") || !strings.Contains(err.Error(), "trying hard") {
		t.Errorf("it ended with: %v", err)
	}
	if d := time.Since(began); d > soon {
		t.Errorf("it took %v", d)
	}
	var child int
	b, _ := os.ReadFile(file)
	if fmt.Sscan(string(b), &child); child == 0 {
		t.Fatal("the program had no time to start its child")
	}
	eventually(t, "the child of a killed program is gone", func() bool { return gone(child) })
}

// What a start program leaves behind holds its output open; that is no reason to
// wait, and it must be able to go on writing.
func TestProgramMayLeaveSomethingRunning(t *testing.T) {
	file := filepath.Join(t.TempDir(), "alive")
	began := time.Now()
	status, err := run(within(t, soon), sh("(sleep 1.5; echo late; echo later; touch "+file+") & exit 0"), nil)
	if status != 0 || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
	if d := time.Since(began); d > 1400*time.Millisecond {
		t.Errorf("it was waited for: %v", d)
	}
	eventually(t, "what was left behind goes on writing", func() bool { _, err := os.Stat(file); return err == nil })
}

// Who started it dies, or puts another process in its place: what was left behind goes on
// writing, and does not wait for ever for somebody to read it.
func TestWhatWasLeftRunningOutlivesWhoStartedIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "alive")
	dies := exec.CommandContext(within(t, soon), os.Args[0])
	dies.Env = append(os.Environ(), runAndDie+"=(sleep 0.5; echo late; head -c 3000000 /dev/zero; touch "+file+") & exit 0")
	if out, err := dies.Output(); err != nil || string(out) != "<nil>" {
		t.Fatal(string(out), err)
	}
	eventually(t, "what was left behind goes on", func() bool { _, err := os.Stat(file); return err == nil })
}

// A program that says much at once is waited for, and loses nothing by it.
func TestProgramThatSaysMuchIsRead(t *testing.T) {
	if status, err := run(within(t, soon), sh("head -c 20000000 /dev/zero"), nil); status != 0 || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
}

// What is started is neither spared nor preferred when memory runs out, whatever holds for
// who starts it.
func TestProgramIsNotSparedWhenMemoryRunsOut(t *testing.T) {
	const own = "/proc/self/oom_score_adj"
	was, err := os.ReadFile(own)
	must(t, err)
	must(t, os.WriteFile(own, []byte("300"), 0)) // less than it has would need a right
	defer os.WriteFile(own, was, 0)
	if _, err := run(within(t, soon), sh("until read a </proc/$$/oom_score_adj && test $a = 0; do sleep 0.01; done"), nil); err != nil {
		t.Error(err)
	}
}

func TestFailingProgramSaysWhy(t *testing.T) {
	status, err := run(t.Context(), sh("echo first; echo no disk >&2; exit 3"), nil)
	if status != 3 || err == nil || !strings.Contains(err.Error(), "exit status 3: no disk") {
		t.Errorf("status %d, %v", status, err)
	}
	_, err = run(t.Context(), sh(`printf 'try\nmount: /srv: bad superblock\n       dmesg(1) may have more\n\n'; exit 32`), nil)
	if err == nil || !strings.HasSuffix(err.Error(), "exit status 32: mount: /srv: bad superblock") {
		t.Error(err)
	}
	if _, err := run(t.Context(), []string{"/nowhere/program"}, nil); err == nil || !strings.Contains(err.Error(), "/nowhere/program") {
		t.Error(err)
	}
	if status, err := run(t.Context(), sh("test $RESTART_COUNT = 7"), []string{"RESTART_COUNT=7"}); status != 0 || err != nil {
		t.Errorf("its environment: status %d, %v", status, err)
	}
}

func TestMonitorsAreRead(t *testing.T) {
	for script, want := range map[string]cluster.Look{
		"exit 110": cluster.LookOnline, "exit 100": cluster.LookOffline,
		"exit 0": cluster.LookUnknown, "exit 1": cluster.LookUnknown, "kill -9 $$": cluster.LookUnknown, "sleep 60": cluster.LookUnknown,
	} {
		s := &Service{MonitorArgs: sh(script), MonitorLimit: 500 * time.Millisecond}
		look, err := s.Look(t.Context())
		if look != want || (err == nil) == (want == cluster.LookUnknown) {
			t.Errorf("%q: %v, %v", script, look, err)
		}
	}
}

func TestServiceIsUpOnceItsMonitorSaysSo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "up")
	s := &Service{
		StartArgs: sh("(sleep 0.5; touch " + file + ") &"), StopArgs: sh("rm " + file),
		MonitorArgs: sh("test -e " + file + " && exit 110; exit 100"), MonitorLimit: soon,
	}
	if up, err := s.Probe(t.Context()); up || err != nil {
		t.Errorf("before: %v, %v", up, err)
	}
	if err := s.Up(within(t, soon), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error("it was believed before its monitor said online")
	}
	if up, err := s.Probe(t.Context()); !up || err != nil {
		t.Errorf("while up: %v, %v", up, err)
	}
	if err := s.Down(within(t, soon)); err != nil {
		t.Error(err)
	}
	s.StartArgs = sh("exit 0")
	if err := s.Up(within(t, 500*time.Millisecond), 0); err == nil || !strings.Contains(err.Error(), "offline") {
		t.Errorf("one that never comes up: %v", err)
	}
	if _, err := (&Service{StartArgs: sh("exit 0")}).Probe(t.Context()); err == nil {
		t.Error("nobody can tell whether a service without a monitor is up")
	}
}

func TestMountOfARealFilesystem(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it mounts filesystems over loop devices")
	}
	tmp := t.TempDir()
	dir := filepath.Join(tmp, "a dir") // with what mountinfo writes as an escape
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var loops []string
	for _, name := range []string{"one", "two"} {
		image := filepath.Join(tmp, name)
		must(t, os.WriteFile(image, nil, 0o600))
		must(t, os.Truncate(image, 16<<20))
		must(t, first(run(t.Context(), []string{"mkfs.ext4", "-q", image}, nil)))
		// Not run: it says which device.
		out := filepath.Join(tmp, name+".loop")
		must(t, first(run(t.Context(), sh("losetup --find --show "+image+" >"+out), nil)))
		b, _ := os.ReadFile(out)
		loop := strings.TrimSpace(string(b))
		t.Cleanup(func() { run(context.Background(), []string{"losetup", "--detach", loop}, nil) })
		loops = append(loops, loop)
	}
	d := &Mount{Device: loops[0], Dir: dir, Type: "ext4", Options: "noatime"}
	t.Cleanup(func() {
		for unix.Unmount(dir, unix.MNT_DETACH) == nil {
		}
	})
	probe := func(want bool) {
		t.Helper()
		if up, err := d.Probe(t.Context()); up != want || err != nil {
			t.Errorf("probed: %v, %v", up, err)
		}
	}
	probe(false)
	must(t, d.Down(within(t, soon)))
	must(t, d.Up(within(t, soon), 0))
	probe(true)
	if err := d.Up(within(t, soon), 0); err != nil {
		t.Errorf("up again: %v", err)
	}
	if err := (&Mount{Device: loops[1], Dir: dir, Type: "ext4"}).Up(within(t, soon), 0); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("another device's filesystem is there: %v", err)
	}
	// Who is in it is named.
	f, err := os.Create(filepath.Join(dir, "open"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Down(within(t, 500*time.Millisecond)); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("(%d)", os.Getpid())) {
		t.Errorf("in use by this test: %v", err)
	}
	probe(true)
	f.Close()
	must(t, d.Down(within(t, soon)))
	probe(false)
	// Mounted elsewhere by hand it is found, and taken away with the group.
	other := filepath.Join(tmp, "other")
	must(t, os.Mkdir(other, 0o755))
	seek := func(want cluster.Look) {
		t.Helper()
		if look, err := d.Seek(t.Context()); look != want || err != nil {
			t.Errorf("sought: %v, %v", look, err)
		}
	}
	seek(cluster.LookOffline)
	must(t, first(run(t.Context(), []string{"mount", loops[0], other}, nil)))
	probe(false)
	seek(cluster.LookOnline)
	must(t, d.Down(within(t, soon)))
	seek(cluster.LookOffline)
	must(t, first(run(t.Context(), []string{"mount", loops[1], dir}, nil)))
	seek(cluster.LookOnline)
	must(t, d.Down(within(t, soon)))
	d.Dir = filepath.Join(tmp, "missing")
	probe(false)
	if err := d.Up(within(t, soon), 0); err == nil || !strings.Contains(err.Error(), "create it") {
		t.Errorf("no directory: %v", err)
	}
}

// btrfs shows a device number of its own, as a tmpfs does, and the device as its source.
func TestMountThatShowsNoDeviceNumber(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it mounts filesystems")
	}
	const device = "/dev/null" // any device has a number
	tmp := t.TempDir()
	dir, other := filepath.Join(tmp, "dir"), filepath.Join(tmp, "other")
	d := &Mount{Device: device, Dir: dir}
	for _, at := range []string{dir, other} {
		must(t, os.Mkdir(at, 0o755))
		t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	}
	must(t, unix.Mount("/dev/zero", dir, "tmpfs", 0, ""))
	if err := d.Up(within(t, soon), 0); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("another device's filesystem is there: %v", err)
	}
	must(t, unix.Unmount(dir, 0))
	must(t, unix.Mount(device, dir, "tmpfs", 0, ""))
	if err := d.Up(within(t, soon), 0); err != nil {
		t.Errorf("up again: %v", err)
	}
	must(t, unix.Mount(device, other, "tmpfs", 0, ""))
	must(t, d.Down(within(t, soon)))
	if left, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(left), tmp) {
		t.Errorf("still mounted, here or elsewhere: %s, %v", left, err)
	}
}

func first(_ int, err error) error { return err }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
