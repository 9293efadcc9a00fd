package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// reference is what a disk must be: the content as read now, and for each sector
// the versions that may stand there after a power loss.
type reference struct {
	now      []byte
	possible [][][]byte // by sector: the flushed version and all later ones
}

func newReference(size int64) *reference {
	r := &reference{now: make([]byte, size), possible: make([][][]byte, size/SectorSize)}
	r.flush()
	return r
}

func (r *reference) write(p []byte, off int64) {
	copy(r.now[off:], p)
	for s := off / SectorSize; s*SectorSize < off+int64(len(p)); s++ {
		r.possible[s] = append(r.possible[s], bytes.Clone(r.now[s*SectorSize:(s+1)*SectorSize]))
	}
}

func (r *reference) flush() {
	for s := range r.possible {
		r.possible[s] = [][]byte{bytes.Clone(r.now[s*SectorSize : (s+1)*SectorSize])}
	}
}

// lost adopts what the disk came back with, after checking it.
func (r *reference) lost(got []byte) (dropped int, err error) {
	for s, versions := range r.possible {
		have := got[s*SectorSize : (s+1)*SectorSize]
		found := -1
		for i, v := range versions {
			if bytes.Equal(v, have) {
				found = i
			}
		}
		if found < 0 {
			return 0, fmt.Errorf("sector %d holds none of the %d versions it may hold", s, len(versions))
		}
		if found < len(versions)-1 {
			dropped++
		}
	}
	copy(r.now, got)
	r.flush()
	return dropped, nil
}

func readAll(t *testing.T, d *Disk) []byte {
	t.Helper()
	b := make([]byte, d.Size())
	if _, err := d.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// walk does random operations on a disk and on the reference.
func walk(t *testing.T, o Options, steps int) (dropped int) {
	t.Helper()
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ref := newReference(o.Size)
	rng := rand.New(rand.NewPCG(o.Seed, 1))
	sectors := o.Size / SectorSize
	for i := range steps {
		first := rng.Int64N(sectors)
		count := 1 + rng.Int64N(min(40, sectors-first))
		off, n := first*SectorSize, count*SectorSize
		switch k := rng.IntN(100); {
		case k < 60:
			p := make([]byte, n)
			for j := 0; j < len(p); j += 8 {
				binary.LittleEndian.PutUint64(p[j:], uint64(i+1)<<32|uint64(j))
			}
			if _, err := d.WriteAt(p, off); err != nil {
				t.Fatal(err)
			}
			ref.write(p, off)
		case k < 75:
			if k < 68 && n > 10 { // ends inside sectors
				off, n = off+3, n-7
			}
			if err := d.Zero(off, n); err != nil {
				t.Fatal(err)
			}
			from, to := off/SectorSize*SectorSize, roundUp(off+n, SectorSize)
			p := bytes.Clone(ref.now[from:to])
			clear(p[off-from : off-from+n])
			ref.write(p, from)
		case k < 90:
			b := make([]byte, n)
			if _, err := d.ReadAt(b, off); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, ref.now[off:off+n]) {
				t.Fatalf("step %d: read of %d bytes at %d differs from what was written", i, n, off)
			}
		case k < 95:
			if err := d.Flush(); err != nil {
				t.Fatal(err)
			}
			ref.flush()
		case k < 97:
			if err := d.PowerLoss(); err != nil {
				t.Fatal(err)
			}
			if _, err := d.ReadAt(make([]byte, 512), 0); err != syscall.EIO {
				t.Fatalf("read without power: %v, want EIO", err)
			}
			d.PowerUp()
			gone, err := ref.lost(readAll(t, d))
			if err != nil {
				t.Fatalf("step %d: after a power loss %v", i, err)
			}
			dropped += gone
		default:
			checkHoles(t, d, ref)
		}
	}
	if !bytes.Equal(readAll(t, d), ref.now) {
		t.Fatal("content differs at the end")
	}
	return dropped
}

func checkHoles(t *testing.T, d *Disk, ref *reference) {
	t.Helper()
	for off := int64(0); off < d.Size(); {
		data, err := d.NextData(off)
		if err != nil {
			t.Fatal(err)
		}
		if len(bytes.Trim(ref.now[off:data], "\x00")) != 0 {
			t.Fatalf("[%d, %d) is told as a hole and holds data", off, data)
		}
		if data >= d.Size() {
			return
		}
		hole, err := d.NextHole(data)
		if err != nil {
			t.Fatal(err)
		}
		if hole <= data {
			t.Fatalf("data at %d ends at %d", data, hole)
		}
		off = hole
	}
}

func TestModelPowerLossKeepsPossibleVersions(t *testing.T) {
	for seed := range uint64(3) {
		for _, o := range []Options{
			{Size: 128 << 10, KeepRandom: true},
			{Size: 128 << 10, Keep: 0},
			{Size: 128 << 10, Keep: 0.5, CacheLimit: 32 << 10},
			{Size: 128 << 10, Keep: 0.5, Atomic: 4096},
		} {
			o.Seed = seed
			dropped := walk(t, o, 600)
			if dropped == 0 {
				t.Errorf("%+v: no power loss lost anything: the test tests nothing", o)
			}
		}
	}
}

func TestModelSameSeedSameLoss(t *testing.T) {
	content := func() []byte {
		d, err := New(Options{Size: 1 << 20, Seed: 7, Keep: 0.5})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		p := bytes.Repeat([]byte{1}, 64<<10)
		for off := int64(0); off < d.Size(); off += int64(len(p)) {
			if _, err := d.WriteAt(p, off); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.PowerLoss(); err != nil {
			t.Fatal(err)
		}
		d.PowerUp()
		return readAll(t, d)
	}
	a, b := content(), content()
	if !bytes.Equal(a, b) {
		t.Fatal("two runs of one seed lost different sectors")
	}
	ones := bytes.Count(a, []byte{1})
	if share := float64(ones) / float64(len(a)); share < 0.4 || share > 0.6 {
		t.Fatalf("%.2f of the cache survived, want about a half", share)
	}
}

func TestModelTearsWrites(t *testing.T) {
	torn := 0
	for seed := range uint64(20) {
		d, err := New(Options{Size: 64 << 10, Seed: seed, Keep: 0.5})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.WriteAt(bytes.Repeat([]byte{9}, 4096), 0); err != nil {
			t.Fatal(err)
		}
		d.PowerLoss()
		d.PowerUp()
		n := bytes.Count(readAll(t, d)[:4096], []byte{9})
		if n%SectorSize != 0 {
			t.Fatalf("%d bytes survived: torn inside a sector", n)
		}
		if n > 0 && n < 4096 {
			torn++
		}
		d.Close()
	}
	if torn < 15 {
		t.Fatalf("%d of 20 writes were torn between sectors", torn)
	}
}

func TestFaults(t *testing.T) {
	newDisk := func() *Disk {
		d, err := New(Options{Size: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	sector := make([]byte, SectorSize)
	write := func(d *Disk, off int64) error { _, err := d.WriteAt(sector, off); return err }
	read := func(d *Disk, off int64) error { _, err := d.ReadAt(sector, off); return err }

	t.Run("kind", func(t *testing.T) {
		d := newDisk()
		defer d.Close()
		d.Fail(Fault{Op: OpWrite})
		if write(d, 0) != syscall.EIO || read(d, 0) != nil || d.Flush() != nil {
			t.Fatal("a fault of writes concerns writes and nothing else")
		}
		d.Heal()
		if err := write(d, 0); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("range", func(t *testing.T) {
		d := newDisk()
		defer d.Close()
		d.Fail(Fault{Op: OpAny, From: 4096, To: 8192})
		if write(d, 4096) != syscall.EIO || write(d, 7680) != syscall.EIO || write(d, 8192) != nil || write(d, 3584) != nil {
			t.Fatal("the fault is for [4096, 8192)")
		}
	})
	t.Run("nth", func(t *testing.T) {
		d := newDisk()
		defer d.Close()
		d.Fail(Fault{Op: OpFlush, After: 2, Count: 1, Errno: syscall.ENOSPC})
		var got []error
		for range 4 {
			got = append(got, d.Flush())
		}
		if got[0] != nil || got[1] != nil || got[2] != syscall.ENOSPC || got[3] != nil {
			t.Fatalf("flushes gave %v, want only the third to fail", got)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		d := newDisk()
		defer d.Close()
		if d.Fail(Fault{Op: "trim"}) == nil {
			t.Fatal("an unknown kind was taken")
		}
	})
	t.Run("outside", func(t *testing.T) {
		d := newDisk()
		defer d.Close()
		if write(d, 1<<20) != syscall.EINVAL || read(d, -512) != syscall.EINVAL {
			t.Fatal("a range outside the disk was served")
		}
	})
}

func TestFreezeEndsWithThawOrPowerLoss(t *testing.T) {
	for _, end := range []struct {
		name string
		do   func(*Disk)
		want error
	}{
		{"thaw", (*Disk).Thaw, nil},
		{"power loss", func(d *Disk) { d.PowerLoss() }, syscall.EIO},
	} {
		t.Run(end.name, func(t *testing.T) {
			d, err := New(Options{Size: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			d.Freeze()
			done := make(chan error, 1)
			go func() { done <- d.Flush() }()
			select {
			case <-done:
				t.Fatal("a frozen disk answered")
			case <-time.After(50 * time.Millisecond): // absence of an answer has no event
			}
			end.do(d)
			if err := <-done; err != end.want {
				t.Fatalf("got %v, want %v", err, end.want)
			}
		})
	}
}

func TestSnapshotRestore(t *testing.T) {
	d, err := New(Options{Size: 1 << 20, Path: filepath.Join(t.TempDir(), "medium")})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	one, two := bytes.Repeat([]byte{1}, 8192), bytes.Repeat([]byte{2}, 8192)
	d.WriteAt(one, 65536)
	d.Flush()
	if err := d.Snapshot("a"); err != nil {
		t.Fatal(err)
	}
	d.WriteAt(two, 65536)
	d.WriteAt(two, 0)
	d.Flush()
	if err := d.Restore("a"); err != nil {
		t.Fatal(err)
	}
	got := readAll(t, d)
	want := make([]byte, 1<<20)
	copy(want[65536:], one)
	if !bytes.Equal(got, want) {
		t.Fatal("restored content is not the snapshot's")
	}
	if data, _ := d.NextData(0); data != 65536 {
		t.Fatalf("first data at %d after restoring, want 65536: holes are kept", data)
	}
	if d.Restore("b") == nil {
		t.Fatal("a snapshot that was never made was restored")
	}
}

func TestLargeZeroReachesMediumAtOnce(t *testing.T) {
	d, err := New(Options{Size: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.WriteAt(bytes.Repeat([]byte{5}, 1<<20), 0)
	d.WriteAt(bytes.Repeat([]byte{5}, 1<<20), 40<<20)
	if err := d.Zero(100, 50<<20); err != nil {
		t.Fatal(err)
	}
	b := readAll(t, d)
	if bytes.Count(b, []byte{5}) != 100 {
		t.Fatal("a large discard leaves other than its first unaligned bytes")
	}
	if s := d.Stats(); s.CachedBytes > 64<<10 {
		t.Fatalf("a discard of 50 MiB holds %d bytes of cache", s.CachedBytes)
	}
}
