package disk

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The test binary is also the disk's process.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "--dir" {
		ctx, cancel := context.WithCancel(context.Background())
		go func() { // ends with the process
			os.Stdin.Read(make([]byte, 1))
			cancel()
		}()
		o := Options{Size: 64 << 20, Seed: 11, Keep: 0.5}
		if err := Main(ctx, os.Args[2], o, os.Stdout); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func startProcess(t *testing.T) *Process {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	var log bytes.Buffer
	p, err := Start(os.Args[0], t.TempDir(), Options{}, &log)
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Errorf("stop: %v\n%s", err, log.String())
		}
		if b, _ := os.ReadFile("/proc/mounts"); bytes.Contains(b, []byte(p.dir)) {
			t.Error("the mount is still there")
		}
	})
	return p
}

func aligned(n int) []byte {
	b := make([]byte, n+pageSize)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & (pageSize - 1)
	return b[skip : skip+n]
}

func openDirect(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestProcessIsARegularFile(t *testing.T) {
	p := startProcess(t)
	f := openDirect(t, p.Path())
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() != 64<<20 {
		t.Fatalf("stat: %v %v", st, err)
	}
	// Two openers never share it.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatalf("flock: %v", err)
	}
	g := openDirect(t, p.Path())
	if err := unix.Flock(int(g.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
		t.Fatalf("second flock: %v, want EWOULDBLOCK", err)
	}
	b := aligned(1 << 20)
	for i := range b {
		b[i] = byte(i * 7)
	}
	if _, err := f.WriteAt(b, 4096); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	got := aligned(1 << 20)
	if _, err := f.ReadAt(got, 4096); err != nil || !bytes.Equal(got, b) {
		t.Fatalf("read back: %v", err)
	}
	if at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA); err != nil || at != 4096 {
		t.Fatalf("SEEK_DATA: %d, %v", at, err)
	}
	for _, mode := range []uint32{unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE} {
		if err := unix.Fallocate(int(f.Fd()), mode, 8192, 4096); err != nil {
			t.Fatalf("fallocate %#x: %v", mode, err)
		}
	}
	if _, err := f.ReadAt(got[:4096], 8192); err != nil || len(bytes.Trim(got[:4096], "\x00")) != 0 {
		t.Fatalf("after punching: %v", err)
	}
	if err := f.Truncate(1 << 20); err == nil {
		t.Fatal("a disk was truncated")
	}
	s, err := p.Stats()
	if err != nil || s.Writes < 1 || s.WrittenBytes != 1<<20 || s.Flushes != 1 || s.Zeroes != 2 {
		t.Fatalf("stats %+v, %v", s, err)
	}
}

func TestProcessPowerLoss(t *testing.T) {
	p := startProcess(t)
	f := openDirect(t, p.Path())
	b := aligned(1 << 20)
	for i := range b {
		b[i] = 1
	}
	f.WriteAt(b, 0)
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	for i := range b {
		b[i] = 2
	}
	f.WriteAt(b, 0)
	f.WriteAt(b, 1<<20)
	if err := p.PowerLoss(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, 0); !errors.Is(err, syscall.EIO) {
		t.Fatalf("write without power: %v", err)
	}
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("fsync without power: %v", err)
	}
	if err := p.PowerUp(); err != nil {
		t.Fatal(err)
	}
	got := aligned(2 << 20)
	if _, err := f.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	first, second := got[:1<<20], got[1<<20:]
	if bytes.IndexByte(first, 0) >= 0 {
		t.Fatal("flushed data was lost")
	}
	if n := bytes.Count(second, []byte{2}); n == 0 || n == len(second) {
		t.Fatalf("%d of %d unflushed bytes survived, want a share", n, len(second))
	}
}

func TestProcessFreezeAndKill(t *testing.T) {
	p := startProcess(t)
	if err := p.Freeze(); err != nil {
		t.Fatal(err)
	}
	dd := exec.Command("dd", "if=/dev/zero", "of="+p.Path(), "bs=4096", "count=1", "oflag=direct", "conv=notrunc")
	if err := dd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- dd.Wait() }()
	select {
	case err := <-done:
		t.Fatalf("a writer of a frozen disk ended: %v", err)
	case <-time.After(100 * time.Millisecond): // absence of an end has no event
	}
	if err := p.PowerLoss(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Fatal("a write into the power loss was acknowledged")
	}
}

// Many requests are in flight at once: 32 writers with a delay of 20 ms each take
// far less than one after the other, on a busy machine too.
func TestProcessServesRequestsTogether(t *testing.T) {
	p := startProcess(t)
	f := openDirect(t, p.Path())
	const writers, each, delay = 32, 10, 20 * time.Millisecond
	if err := p.Delay(delay); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			b := aligned(4096)
			rng := rand.New(rand.NewPCG(uint64(w), 0))
			for range each {
				if _, err := f.WriteAt(b, rng.Int64N(1000)*4096); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took > writers*each*delay/4 {
		t.Fatalf("%d writes of %v took %v: they were served one by one", writers*each, delay, took)
	}
}

func TestProcessEndsWithItsParent(t *testing.T) {
	p := startProcess(t)
	p.stdin.Close()
	<-p.ended
	if _, err := os.Stat(filepath.Join(p.dir, "mnt", FileName)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the disk outlives its process: %v", err)
	}
}
