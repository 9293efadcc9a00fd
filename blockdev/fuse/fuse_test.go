package fuse

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hastd/blockdev"
)

const helperEnv = "HAST_FUSE_TEST_HELPER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperEnv); dir != "" {
		helper(dir)
		return
	}
	os.Exit(m.Run())
}

// helper serves a device until it is killed.
func helper(dir string) {
	_, err := Serve(Options{Device: newMemory(nil, "killed", 32<<20, 4096), Dir: filepath.Join(dir, "run"), Path: filepath.Join(dir, "dev", "killed")})
	// A hook program that outlives the daemon must not keep the device alive. It
	// ends with the test: its standard input is a pipe of the test's.
	hook := exec.Command("cat")
	hook.Stdin = os.Stdin
	if err == nil {
		err = hook.Start()
	}
	fmt.Println(err)
	select {}
}

func need(t *testing.T, programs ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, path := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(path); err != nil {
			t.Skip("needs " + path)
		}
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip("needs " + p)
		}
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func serve(t *testing.T, m *memory) (*Provider, string) {
	t.Helper()
	dir := t.TempDir()
	p, err := Serve(Options{Device: m, Dir: filepath.Join(dir, "run"), Path: filepath.Join(dir, "dev", m.info.Name), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(true); err != nil {
			t.Error(err)
		}
		nothingLeft(t, dir)
	})
	return p, dir
}

// nothingLeft checks mounts, loop devices and files below dir.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), dir+"/run") {
		t.Errorf("a mount is left: %v\n%s", err, mounts)
	}
	if loops := append(loopsOf(dir+"/run/data"), loopsOf(dir+"/run/killed")...); len(loops) > 0 {
		t.Errorf("loop devices are left: %v\n%s", loops, run(t, "losetup", "-a"))
	}
	links, _ := filepath.Glob(dir + "/dev/*")
	folders, _ := filepath.Glob(dir + "/run/*")
	if len(links)+len(folders) > 0 {
		t.Errorf("files are left: %v %v", links, folders)
	}
}

func TestFUSECarriesARealFilesystem(t *testing.T) {
	need(t, "mkfs.ext4", "mount", "fstrim", "blockdev")
	m := newMemory(t, "data", 64<<20, 4096)
	p, dir := serve(t, m)
	if p.Kind() != "fuse" || p.Path() != filepath.Join(dir, "dev", "data") {
		t.Error(p.Kind(), p.Path())
	}
	if got := strings.Fields(run(t, "blockdev", "--getsize64", "--getss", p.Path())); len(got) != 2 || got[0] != "67108864" || got[1] != "4096" {
		t.Errorf("size and sector size: %v", got)
	}
	if got := strings.TrimSpace(run(t, "losetup", "--noheadings", "--output", "DIO", p.LoopDevice())); got != "1" {
		t.Errorf("direct mode: %q", got)
	}
	run(t, "mkfs.ext4", "-q", p.Path())
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", p.Path(), mnt)
	mounted := true
	defer func() {
		if mounted {
			_ = unix.Unmount(mnt, unix.MNT_DETACH)
		}
	}()
	content := bytes.Repeat([]byte("all that was written\n"), 100_000)
	flushes := m.count(blockdev.OpFlush)
	f, err := os.Create(filepath.Join(mnt, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if m.count(blockdev.OpFlush) == flushes {
		t.Error("fsync did not arrive as a flush")
	}
	var inUse *blockdev.InUseError
	if err := p.Close(false); !errors.As(err, &inUse) || !strings.Contains(err.Error(), "the mount on "+mnt) {
		t.Errorf("closing a mounted device: %v", err)
	}
	if err := os.Remove(filepath.Join(mnt, "file")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(mnt, "kept"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "sync", "-f", mnt)
	trims := m.count(blockdev.OpTrim)
	run(t, "fstrim", mnt)
	if m.count(blockdev.OpTrim) == trims {
		t.Error("fstrim did not arrive as a trim")
	}
	run(t, "umount", mnt)
	run(t, "mount", "-o", "ro", p.Path(), mnt)
	got, err := os.ReadFile(filepath.Join(mnt, "kept"))
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("read back: %d bytes, %v", len(got), err)
	}
	run(t, "umount", mnt)
	mounted = false
	run(t, "fsck.ext4", "-fn", p.Path())
	if err := p.Close(false); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, dir)
}

func TestFUSEKeepsWriteZeroesAllocated(t *testing.T) {
	need(t, "fallocate", "blkdiscard")
	m := newMemory(t, "data", 8<<20, 512)
	p, _ := serve(t, m)
	noHole := make(chan bool, 16)
	m.set(func() {
		for i := range m.data {
			m.data[i] = 1
		}
		m.hold = func(_ int, r *blockdev.Request) bool {
			if r.Op == blockdev.OpZero {
				noHole <- r.NoHole
			}
			return false
		}
	})
	run(t, "blkdiscard", "--zeroout", "--offset", "1048576", "--length", "1048576", p.Path()) // BLKZEROOUT
	run(t, "blkdiscard", "--offset", "4194304", "--length", "1048576", p.Path())
	m.set(func() {
		for i, b := range m.data {
			want := byte(1)
			if i>>20 == 1 || i>>20 == 4 {
				want = 0
			}
			if b != want {
				t.Fatalf("byte %d is %d", i, b)
			}
		}
	})
	select {
	case ok := <-noHole:
		if !ok {
			t.Error("BLKZEROOUT may make holes")
		}
	default:
		t.Error("BLKZEROOUT did not arrive as a zero request")
	}
	if m.count(blockdev.OpTrim) == 0 {
		t.Error("BLKDISCARD did not arrive as a trim")
	}
}

func TestFUSEKeepsThirtyTwoRequestsInFlight(t *testing.T) {
	need(t, "fio")
	m := newMemory(t, "data", 64<<20, 512)
	p, _ := serve(t, m)
	// Nothing is answered until 32 wait, once.
	reached := make(chan bool)
	first := true
	m.set(func() {
		m.hold = func(held int, _ *blockdev.Request) bool {
			if !first {
				return false
			}
			if held < 32 {
				return true
			}
			first = false
			close(reached)
			return false
		}
	})
	cmd := exec.Command("fio", "--name=depth", "--filename="+p.Path(), "--ioengine=libaio", "--direct=1", "--rw=randwrite",
		"--bs=4k", "--iodepth=32", "--number_ios=512", "--size=64m", "--verify=crc32c", "--verify_state_save=0", "--randrepeat=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-reached:
	case <-time.After(10 * time.Second):
		t.Error("32 requests were never in flight at once")
		m.release()
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("fio: %v\n%s", err, out.String())
	}
	m.set(func() { t.Logf("most in flight: %d", m.most) })
}

func TestFUSEPassesErrorsOn(t *testing.T) {
	need(t)
	m := newMemory(t, "data", 8<<20, 512)
	p, _ := serve(t, m)
	m.set(func() {
		m.fail = func(r *blockdev.Request) error {
			if r.Op == blockdev.OpFlush || r.Op == blockdev.OpWrite && r.Off == 4096 {
				return unix.ENOSYS // the worst a device could say to a flush
			}
			return nil
		}
	})
	f, err := os.OpenFile(p.Path(), os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(buf)
	if _, err := f.WriteAt(buf, 4096); !errors.Is(err, unix.EIO) {
		t.Errorf("a failing write: %v", err)
	}
	if _, err := f.WriteAt(buf, 8192); err != nil {
		t.Errorf("a good write: %v", err)
	}
	for range 2 { // the kernel must not conclude that we know no flush
		n := m.count(blockdev.OpFlush)
		if err := f.Sync(); !errors.Is(err, unix.EIO) {
			t.Errorf("a failing flush: %v", err)
		}
		if m.count(blockdev.OpFlush) == n {
			t.Error("a flush did not reach the device")
		}
	}
	users, err := p.Users()
	if err != nil || len(users) != 1 || !strings.Contains(users[0], fmt.Sprintf("(pid %d)", os.Getpid())) {
		t.Errorf("users: %v, %v", users, err)
	}
}

func TestFUSEClosedByForceLetsAHungProcessGo(t *testing.T) {
	need(t, "dd")
	m := newMemory(t, "data", 8<<20, 512)
	p, dir := serve(t, m)
	m.set(func() {
		m.hold = func(_ int, r *blockdev.Request) bool { return r.Op == blockdev.OpWrite }
	})
	cmd := exec.Command("dd", "if=/dev/zero", "of="+p.Path(), "bs=1M", "count=4", "oflag=direct", "conv=notrunc")
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for op := range m.seen {
		if op == blockdev.OpWrite {
			break
		}
	}
	var inUse *blockdev.InUseError
	if err := p.Close(false); !errors.As(err, &inUse) || !strings.Contains(err.Error(), fmt.Sprintf("dd (pid %d)", cmd.Process.Pid)) {
		t.Errorf("closing a device in use: %v", err)
	}
	began := time.Now()
	if err := p.Close(true); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 3*stepLimit {
		t.Errorf("took %v", took)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "Input/output error") {
		t.Errorf("dd: %v, %s", err, out.String())
	}
	writes := m.count(blockdev.OpWrite)
	m.release()
	select {
	case <-p.served:
	case <-time.After(10 * time.Second):
		t.Error("the server's goroutines did not end with the device's answers")
	}
	if m.count(blockdev.OpWrite) != writes {
		t.Error("a write reached the device after Close")
	}
	nothingLeft(t, dir)
}

// soon fails, and lets the device answer all, if something hangs in the kernel.
func soon(t *testing.T, m *memory, what string, f func() error) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- f() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(3 * stepLimit):
		t.Errorf("%s hangs while flushes are held", what)
		m.release()
		return <-ended
	}
}

// A device that holds its flushes (I/O is suspended) keeps nobody of this process in the
// kernel, where it could not be killed.
func TestFUSEComesAndGoesWhileFlushesAreHeld(t *testing.T) {
	need(t)
	m := newMemory(t, "data", 8<<20, 512)
	m.hold = func(_ int, r *blockdev.Request) bool { return r.Op == blockdev.OpFlush }
	dir := t.TempDir()
	var p *Provider
	err := soon(t, m, "Serve", func() (err error) {
		p, err = Serve(Options{Device: m, Dir: filepath.Join(dir, "run"), Path: filepath.Join(dir, "dev", "data"), Log: slog.New(slog.DiscardHandler)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close(true) }()
	// The exception is Serve's own: what others ask reaches the device.
	before := m.count(blockdev.OpFlush)
	run(t, "dd", "if=/dev/zero", "of="+p.Path(), "bs=64k", "count=16", "conv=notrunc", "status=none")
	m.set(func() { m.hold = nil })
	run(t, "dd", "if=/dev/zero", "of="+p.Path(), "bs=64k", "count=1", "conv=notrunc,fsync", "status=none")
	if n := m.count(blockdev.OpFlush); n != before+1 {
		t.Errorf("%d flushes reached the device for one fsync", n-before)
	}
	m.set(func() {
		m.hold = func(_ int, r *blockdev.Request) bool { return r.Op == blockdev.OpFlush }
	})
	if err := soon(t, m, "Close", func() error { return p.Close(false) }); err != nil {
		t.Error(err)
	}
	nothingLeft(t, dir)
}

// What a killed process wrote waits for the device, and so does no thread of ours.
func TestFUSERefusesToCloseOverHeldWrites(t *testing.T) {
	need(t, "dd")
	m := newMemory(t, "data", 8<<20, 512)
	p, _ := serve(t, m)
	m.set(func() {
		m.data[0] = 1
		m.hold = func(_ int, r *blockdev.Request) bool { return r.Op == blockdev.OpWrite }
	})
	cmd := exec.Command("dd", "if=/dev/zero", "of="+p.Path(), "bs=64k", "count=4", "conv=notrunc")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for op := range m.seen {
		if op == blockdev.OpWrite {
			break // its close writes the page cache back
		}
	}
	var inUse *blockdev.InUseError
	if err := p.Close(false); err == nil || errors.As(err, &inUse) || errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("closing over writes that are held: %v", err)
	}
	m.release()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if err := p.Close(false); err != nil {
		t.Error(err)
	}
	m.set(func() {
		if m.data[0] != 0 {
			t.Error("what dd wrote did not arrive")
		}
	})
}

// What stands in the loop device's page cache is on the device when writeBack returns.
func TestFUSEWritesThePageCacheBack(t *testing.T) {
	need(t)
	m := newMemory(t, "data", 8<<20, 512)
	p, _ := serve(t, m)
	f, err := os.OpenFile(p.Path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := bytes.Repeat([]byte("dirty"), 100_000)
	if _, err := f.WriteAt(want, 1<<20); err != nil {
		t.Fatal(err)
	}
	flushes := m.count(blockdev.OpFlush)
	if err := writeBack(p.loop); err != nil {
		t.Fatal(err)
	}
	m.set(func() {
		if !bytes.Equal(m.data[1<<20:][:len(want)], want) {
			t.Error("what was written has not arrived")
		}
	})
	if m.count(blockdev.OpFlush) != flushes {
		t.Error("it asked for a flush")
	}
}

func TestFUSEKilledDaemonIsCleanedUp(t *testing.T) {
	need(t, "mkfs.ext4", "mount")
	for _, mounted := range []bool{false, true} {
		t.Run(fmt.Sprintf("mounted=%v", mounted), func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), helperEnv+"="+dir)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			in, alive, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer alive.Close()
			cmd.Stdin = in
			defer in.Close()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// The test may end before the kill that belongs to it.
			t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
			line := make([]byte, 256)
			n, _ := out.Read(line)
			if got := string(line[:n]); got != "<nil>\n" {
				t.Fatal(got)
			}
			path, mnt := filepath.Join(dir, "dev", "killed"), filepath.Join(dir, "mnt")
			loop, err := os.Readlink(path)
			if err != nil || len(loopsOf(dir+"/run/killed")) != 1 {
				t.Fatal(loop, err)
			}
			if mounted {
				run(t, "mkfs.ext4", "-q", path)
				if err := os.Mkdir(mnt, 0o755); err != nil {
					t.Fatal(err)
				}
				run(t, "mount", path, mnt)
				defer unix.Unmount(mnt, unix.MNT_DETACH)
			}
			// What somebody serves is left alone.
			if did, err := Cleanup(filepath.Join(dir, "run")); len(did) > 0 || err != nil {
				t.Fatalf("with the daemon alive: %v, %v", did, err)
			}
			_, err = Serve(Options{Device: newMemory(t, "killed", 1<<20, 512), Dir: filepath.Join(dir, "run"), Path: path})
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", cmd.Process.Pid)) {
				t.Fatalf("serving what another daemon serves: %v", err)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.ReadAt(make([]byte, 4096), 16<<20+8192); !errors.Is(err, unix.EIO) {
				t.Errorf("a read once the daemon is dead: %v", err)
			}
			f.Close()
			did, err := Cleanup(filepath.Join(dir, "run"))
			if err != nil {
				t.Fatal(err)
			}
			if mounted {
				if !strings.Contains(strings.Join(did, "\n"), "held by the mount on "+mnt) {
					t.Errorf("the mount that holds the device is not named: %q", did)
				}
				if len(loopsOf(dir+"/run/killed")) != 1 {
					t.Error("the loop device is no longer recognised once its file's mount is gone")
				}
				run(t, "umount", mnt)
			}
			nothingLeft(t, dir)
			if b, err := os.ReadFile("/sys/block/" + filepath.Base(loop) + "/loop/backing_file"); err == nil {
				t.Errorf("%s is still attached to %s", loop, b)
			}
			if did, err := Cleanup(filepath.Join(dir, "run")); len(did) > 0 || err != nil {
				t.Errorf("cleaning up twice: %v, %v", did, err)
			}
		})
	}
}

// What cannot be removed does not make a provider that is gone look as if it served.
func TestFUSEIsClosedAlthoughSomethingIsLeft(t *testing.T) {
	need(t)
	m := newMemory(t, "data", 8<<20, 512)
	p, dir := serve(t, m)
	stray := filepath.Join(dir, "run", "data", "note")
	if err := os.WriteFile(stray, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(false); err != nil {
		t.Errorf("closed with %v", err)
	}
	if err := os.Remove(stray); err != nil {
		t.Fatal(err)
	}
	if err := removeDir(filepath.Dir(stray)); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, dir)
}

func TestFUSERefusesAPathThatIsAFile(t *testing.T) {
	need(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Serve(Options{Device: newMemory(t, "data", 1<<20, 512), Dir: filepath.Join(dir, "run"), Path: path})
	if !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("the file was touched")
	}
	nothingLeft(t, dir)
}
