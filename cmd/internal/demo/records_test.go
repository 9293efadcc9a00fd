package demo

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// memory is a raw device that can be cut off in the middle of a write.
type memory struct {
	b     []byte
	allow int // bytes that may still be written; below 0: all
}

func (m *memory) readAt(p []byte, off int64) error { copy(p, m.b[off:]); return nil }
func (m *memory) writeAt(p []byte, off int64) error {
	if m.allow >= 0 {
		n := min(m.allow, len(p))
		copy(m.b[off:], p[:n])
		m.allow -= n
		if n < len(p) {
			return errors.New("dead")
		}
		return nil
	}
	copy(m.b[off:], p)
	return nil
}
func (m *memory) flush() error { return nil }
func (m *memory) close() error { return nil }
func (m *memory) abandon()     {}

func reopen(t *testing.T, m *memory) *recordStore {
	t.Helper()
	s, err := openRecords(m, int64(len(m.b)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func store1(t *testing.T, s *recordStore, f file) {
	t.Helper()
	if err := errors.Join(s.write(f.name, f.data), s.sync(f.name)); err != nil {
		t.Fatal(err)
	}
}

func wantFile(t *testing.T, s *recordStore, f file) {
	t.Helper()
	if got, err := s.read(f.name); err != nil || !bytes.Equal(got, f.data) {
		t.Errorf("%s: %d bytes, %v", f.name, len(got), err)
	}
}

func TestRecordsAreThereAfterSyncOnly(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	m := &memory{b: make([]byte, 1<<20), allow: -1}
	s := reopen(t, m)
	one, two, again := inventFile(random, "one"), inventFile(random, "two"), inventFile(random, "one")
	store1(t, s, one)
	if err := s.write(two.name, two.data); err != nil {
		t.Fatal(err)
	}
	after := reopen(t, m)
	wantFile(t, after, one)
	if _, err := after.read("two"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("two was never synced, and is there: %v", err)
	}
	store1(t, after, again)
	store1(t, after, file{"empty", nil})
	wantFile(t, reopen(t, m), again)
	wantFile(t, reopen(t, m), file{"empty", nil})
}

// A torn record and those of an older life behind it are no files.
func TestRecordsEndAtATornOne(t *testing.T) {
	random := rand.New(rand.NewPCG(2, 1))
	m := &memory{b: make([]byte, 4<<20), allow: -1}
	old := reopen(t, m)
	for _, name := range []string{"old1", "old2", "old3"} {
		store1(t, old, inventFile(random, name))
	}
	copy(m.b, make([]byte, blockSize)) // a new life begins: the first header is gone
	s := reopen(t, m)
	keep := inventFile(random, "keep")
	keep.data = append(keep.data, make([]byte, inventMax)...)[:old.files["old1"].size] // so that old2 stands right behind it
	store1(t, s, keep)
	if again := reopen(t, m); len(again.files) != 1 {
		t.Errorf("%d files, want one: those of the older life are back", len(again.files))
	}
	m.allow = 100 // not even its header
	if err := errors.Join(s.write("torn", keep.data), s.sync("torn")); err == nil {
		t.Fatal("a device that died took a record")
	}
	m.allow = -1
	after := reopen(t, m)
	wantFile(t, after, keep)
	if len(after.files) != 1 {
		t.Errorf("%d files, want one", len(after.files))
	}
}

func TestRecordsTellWhenTheDeviceIsFull(t *testing.T) {
	m := &memory{b: make([]byte, 4*blockSize), allow: -1}
	s := reopen(t, m)
	store1(t, s, file{"fits", make([]byte, blockSize)})
	if err := errors.Join(s.write("no", make([]byte, 2*blockSize)), s.sync("no")); err == nil {
		t.Error("a full device took a record")
	}
}

func TestComparisonFindsOneBit(t *testing.T) {
	const size = 3<<20 + 2*blockSize
	dir := t.TempDir()
	data := make([]byte, size+blockSize) // behind size stands metadata, which may differ
	copy(data[5*blockSize:], "something")
	paths := [2]string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	put := func(path string, at int) {
		t.Helper()
		b := bytes.Clone(data)
		if at >= 0 {
			b[at] ^= 1
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(paths[0], -1)
	for _, c := range []struct {
		at               int
		different, first int64
	}{{-1, 0, 0}, {0, 1, 0}, {2<<20 + 7, 1, 2 << 20}, {size - 1, 1, size - blockSize}, {size, 0, 0}} {
		put(paths[1], c.at)
		got, err := compareReplicas(t.Context(), paths, size, func(int64) {})
		if err != nil || got.different != c.different || got.first != c.first || got.blocks != size/blockSize || got.full != 1 {
			t.Errorf("bit at %d: %+v, %v", c.at, got, err)
		}
		if (got.sums[0] == got.sums[1]) != (c.different == 0) {
			t.Errorf("bit at %d: hashes do not tell", c.at)
		}
	}
}
