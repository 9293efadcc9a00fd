package blockdev

import (
	"bytes"
	"errors"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// loopDevice attaches a new file of size bytes.
func loopDevice(t testing.TB, size int64, sector int) string {
	t.Helper()
	needRoot(t)
	path := filepath.Join(t.TempDir(), "backing")
	if err := CreateFileComponent(path, size); err != nil {
		t.Fatal(err)
	}
	dev := run(t, "losetup", "--find", "--show", "--sector-size", strconv.Itoa(sector), path)
	t.Cleanup(func() { run(t, "losetup", "--detach", dev) })
	return dev
}

// places are components of every sort, by name.
var places = []struct {
	name   string
	sector int // 0: whatever the filesystem wants
	open   func(t *testing.T, size int64) *Component
}{
	{"file on disk", 0, func(t *testing.T, size int64) *Component { return fileComponent(t, t.TempDir(), size, false) }},
	{"file on tmpfs", 0, func(t *testing.T, size int64) *Component { return fileComponent(t, shmDir(t), size, false) }},
	{"file without O_DIRECT", 512, func(t *testing.T, size int64) *Component { return fileComponent(t, t.TempDir(), size, true) }},
	{"loop with sectors of 512", 512, func(t *testing.T, size int64) *Component { return openLoop(t, size, 512) }},
	{"loop with sectors of 4096", 4096, func(t *testing.T, size int64) *Component { return openLoop(t, size, 4096) }},
}

func openLoop(t *testing.T, size int64, sector int) *Component {
	t.Helper()
	c, err := OpenComponent(ComponentOptions{Path: loopDevice(t, size, sector)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestComponentReadsWritesAndZeroesLikeMemory(t *testing.T) {
	const size = 8 << 20
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			c := p.open(t, size)
			if c.Size() != size || p.sector != 0 && c.SectorSize() != p.sector {
				t.Fatalf("size %d, sectors of %d", c.Size(), c.SectorSize())
			}
			model := make([]byte, size)
			rng := rand.New(rand.NewPCG(3, 4))
			sectors := size / c.SectorSize()
			for i := range 200 {
				first := rng.IntN(sectors)
				n := 1 + rng.IntN(min(sectors-first, 1<<rng.IntN(11)))
				off, end := first*c.SectorSize(), (first+n)*c.SectorSize()
				switch i % 5 {
				case 0:
					if err := c.Zero(int64(off), int64(end-off), false); err != nil {
						t.Fatal(err)
					}
					clear(model[off:end])
				case 1:
					if err := c.Zero(int64(off), int64(end-off), true); err != nil {
						t.Fatal(err)
					}
					clear(model[off:end])
				default:
					for k := off; k < end; k += 8 {
						v := rng.Uint64()
						for j := range 8 {
							model[k+j] = byte(v >> (8 * j))
						}
					}
					buf := model[off:end]
					if i%2 == 0 { // memory that O_DIRECT does not take
						buf = append([]byte{0}, buf...)[1:]
					}
					if err := c.WriteAt(buf, int64(off)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := c.Flush(); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, size+1)[1:]
			if err := c.ReadAt(got, 0); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, model) {
				t.Fatal("the component does not hold what was written")
			}
		})
	}
}

func TestComponentRefusesWhatIsOutsideOrUnaligned(t *testing.T) {
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			c := p.open(t, 1<<20)
			s := int64(c.SectorSize())
			buf := alignedBuf(int(2 * s))
			for name, err := range map[string]error{
				"beyond":       c.WriteAt(buf, c.Size()-s),
				"negative":     c.WriteAt(buf, -s),
				"overflow":     c.Zero(s, math.MaxInt64&^4095, false),
				"odd offset":   c.ReadAt(buf[:s], 1),
				"odd length":   c.WriteAt(buf[:s+1], 0),
				"odd zero":     c.Zero(s/2, s, true),
				"beyond holes": holesErr(c, c.Size(), s),
			} {
				if !errors.Is(err, unix.EINVAL) {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

func holesErr(c *Component, off, n int64) error { _, err := c.Holes(off, n); return err }

func TestComponentIsNeverOpenTwice(t *testing.T) {
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			c := p.open(t, 1<<20)
			for _, ro := range []bool{false, true} {
				_, err := OpenComponent(ComponentOptions{Path: c.Path(), ReadOnly: ro})
				var busy *BusyError
				if !errors.As(err, &busy) {
					t.Fatalf("read-only %v: %v", ro, err)
				}
				if busy.PID != os.Getpid() || !strings.Contains(err.Error(), "(pid "+strconv.Itoa(os.Getpid())+")") {
					t.Errorf("who holds it: %v", err)
				}
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			again, err := OpenComponent(ComponentOptions{Path: c.Path()})
			if err != nil {
				t.Fatalf("once closed: %v", err)
			}
			again.Close()
		})
	}
}

func TestComponentInUseByTheKernelIsRefused(t *testing.T) {
	dev := loopDevice(t, 16<<20, 512)
	backing := run(t, "losetup", "--noheadings", "--output", "BACK-FILE", dev)
	_, err := OpenComponent(ComponentOptions{Path: backing})
	var busy *BusyError
	if !errors.As(err, &busy) || !strings.Contains(err.Error(), dev) {
		t.Errorf("the file below a loop device: %v", err)
	}
	run(t, "mkfs.ext4", "-q", dev)
	dir := t.TempDir()
	run(t, "mount", dev, dir)
	defer run(t, "umount", dir)
	_, err = OpenComponent(ComponentOptions{Path: dev})
	if !errors.As(err, &busy) || !strings.Contains(err.Error(), "the mount on "+dir) {
		t.Errorf("a mounted device: %v", err)
	}
}

// btrfs mounts have a number that is no device's. tmpfs does, too, under any name.
func TestMountWithANumberOfItsOwnIsFound(t *testing.T) {
	dev, other := loopDevice(t, 16<<20, 512), loopDevice(t, 16<<20, 512)
	dir := t.TempDir()
	run(t, "mount", "-t", "tmpfs", dev, dir)
	defer run(t, "umount", dir)
	users, err := Holders(dev)
	if err != nil || len(users) != 1 || users[0] != "the mount on "+dir {
		t.Errorf("users %q, %v", users, err)
	}
	if users, err := Holders(other); err != nil || len(users) != 0 {
		t.Errorf("of another device: %q, %v", users, err)
	}
}

func TestComponentThatIsNone(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenComponent(ComponentOptions{Path: filepath.Join(dir, "none")}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := OpenComponent(ComponentOptions{Path: dir}); err == nil {
		t.Error("a directory was opened")
	}
	if _, err := OpenComponent(ComponentOptions{Path: "/dev/null"}); err == nil {
		t.Error("a character device was opened")
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenComponent(ComponentOptions{Path: fifo}); err == nil {
		t.Error("a fifo was opened")
	}
}

func TestCreateFileComponent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c")
	if err := CreateFileComponent(path, 1<<30); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Size != 1<<30 || st.Blocks > 64 {
		t.Errorf("size %d, %d blocks, %v", st.Size, st.Blocks, err)
	}
	if err := CreateFileComponent(path, 1<<20); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over an existing file: %v", err)
	}
	if err := CreateFileComponent(path+"2", 1000); err == nil {
		t.Error("an odd size was taken")
	}
}

func TestComponentReadOnly(t *testing.T) {
	c := fileComponent(t, t.TempDir(), 1<<20, false)
	c.Close()
	r, err := OpenComponent(ComponentOptions{Path: c.Path(), ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b := alignedBuf(4096)
	if err := r.ReadAt(b, 0); err != nil {
		t.Error(err)
	}
	if err := r.WriteAt(b, 0); !errors.Is(err, unix.EROFS) {
		t.Error(err)
	}
	if err := r.Zero(0, 4096, false); !errors.Is(err, unix.EROFS) {
		t.Error(err)
	}
	if err := r.Flush(); err != nil {
		t.Error(err)
	}
}

func TestComponentKnowsItsHoles(t *testing.T) {
	for _, p := range places[:3] {
		t.Run(p.name, func(t *testing.T) {
			c := p.open(t, 4<<20)
			check := func(off, n int64, want ...Run) {
				t.Helper()
				got, err := c.Holes(off, n)
				if err != nil {
					t.Fatal(err)
				}
				if len(got) != len(want) {
					t.Fatalf("runs %v, want %v", got, want)
				}
				for i := range got {
					if got[i] != want[i] {
						t.Fatalf("runs %v, want %v", got, want)
					}
				}
			}
			check(0, 4<<20, Run{4 << 20, true})
			buf := bytes.Repeat([]byte{1}, 1<<20)
			if err := c.WriteAt(buf, 1<<20); err != nil {
				t.Fatal(err)
			}
			check(0, 4<<20, Run{1 << 20, true}, Run{1 << 20, false}, Run{2 << 20, true})
			check(1<<19, 1<<20, Run{1 << 19, true}, Run{1 << 19, false})
			if err := c.Zero(1<<20+1<<18, 1<<18, false); err != nil {
				t.Fatal(err)
			}
			check(1<<20, 1<<20, Run{1 << 18, false}, Run{1 << 18, true}, Run{1 << 19, false})
			if err := c.Zero(1<<20, 1<<20, true); err != nil {
				t.Fatal(err)
			}
			var st unix.Stat_t
			if err := unix.Fstat(c.fd, &st); err != nil || st.Blocks*512 < 1<<20 {
				t.Errorf("%d bytes are allocated after zeroing without holes (%v)", st.Blocks*512, err)
			}
		})
	}
	t.Run("device", func(t *testing.T) {
		c := openLoop(t, 1<<20, 512)
		got, err := c.Holes(4096, 8192)
		if err != nil || len(got) != 1 || got[0] != (Run{8192, false}) {
			t.Errorf("%v, %v", got, err)
		}
	})
}

func TestComponentZeroWithoutHelpFromTheKernel(t *testing.T) {
	c := fileComponent(t, t.TempDir(), 1<<20, false)
	c.noPunch.Store(true)
	c.noZeroRange.Store(true)
	if err := c.WriteAt(bytes.Repeat([]byte{1}, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	s := int64(c.SectorSize())
	if err := c.Zero(s, 1<<20-2*s, false); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1<<20)
	if err := c.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	for i, b := range got {
		want := byte(0)
		if int64(i) < s || int64(i) >= 1<<20-s {
			want = 1
		}
		if b != want {
			t.Fatalf("byte %d is %d", i, b)
		}
	}
}

func TestComponentFlushFailureIsForGood(t *testing.T) {
	c := fileComponent(t, t.TempDir(), 1<<20, false)
	// A descriptor that cannot be synced stands for a disk that fails once.
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	good := c.fd
	c.fd = int(null.Fd())
	err = c.Flush()
	c.fd = good
	var failed *FailedError
	if !errors.As(err, &failed) || !errors.Is(err, unix.EINVAL) {
		t.Fatalf("a failing flush: %v", err)
	}
	b := alignedBuf(4096)
	for name, err := range map[string]error{
		"flush": c.Flush(), "write": c.WriteAt(b, 0), "zero": c.Zero(0, 4096, false), "err": c.Err(),
	} {
		if !errors.As(err, &failed) {
			t.Errorf("%s afterwards: %v", name, err)
		}
	}
	if err := c.ReadAt(b, 0); err != nil {
		t.Errorf("a read afterwards: %v", err)
	}
}

// A lost write is told to one flush: another one ends only when it is known what that
// one was told.
func TestComponentFlushesOneAfterTheOther(t *testing.T) {
	c := fileComponent(t, t.TempDir(), 1<<20, false)
	c.flushing.Lock() // one is under way
	second := make(chan error, 1)
	go func() { second <- c.Flush() }()
	select {
	case err := <-second:
		t.Fatalf("the second flush did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	c.failed.Store(&FailedError{Path: c.path, Err: unix.EIO})
	c.flushing.Unlock()
	if err := <-second; !errors.Is(err, unix.EIO) {
		t.Errorf("after the first one failed: %v", err)
	}
}
