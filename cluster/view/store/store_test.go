package store

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"hastd/cluster/view"
)

func sample(serial uint64) *view.State {
	v := &view.View{
		Stamp:     view.Stamp{Index: 3, Chain: 9},
		Members:   []view.Member{{ID: 0, Inc: 11}, {ID: 1, Inc: 12, Leaving: true}},
		Resources: []view.Resource{{Name: "disk0", Nodes: view.SetOf(0, 1), Owner: 0, InSync: view.SetOf(0, 1)}},
	}
	return &view.State{Node: 1, Inc: 12, Serial: serial, View: v, Prom: view.Round{Num: 4, Node: 0, Inc: 11}, Seen: []view.Seen{{Node: 0, Inc: 11, Serial: 5}}}
}

func TestFileKeepsTheLastState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "view")
	f := Open(path)
	if s, err := f.Load(); s != nil || err != nil {
		t.Fatalf("of no file: %v, %v", s, err)
	}
	for i := uint64(1); i <= 3; i++ {
		if err := f.Save(sample(i)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Open(path).Load()
	if err != nil || !reflect.DeepEqual(got, sample(3)) {
		t.Fatalf("read back %+v, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestFileAfterCrash: whatever part of the next state a crash left beside the file, the
// one before is read, and the next is written.
func TestFileAfterCrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "view")
	f := Open(path)
	if err := f.Save(sample(1)); err != nil {
		t.Fatal(err)
	}
	whole := view.AppendState(nil, sample(2))
	for n := 0; n <= len(whole); n++ {
		if err := os.WriteFile(f.next(), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path).Load()
		if err != nil || s.Serial != 1 {
			t.Fatalf("with %d bytes left over: %+v, %v", n, s, err)
		}
		if _, err := os.Stat(f.next()); !os.IsNotExist(err) {
			t.Fatalf("with %d bytes left over: they stay", n)
		}
	}
	if err := os.WriteFile(f.next(), whole[:9], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Save(sample(3)); err != nil {
		t.Fatal(err)
	}
	if s, err := f.Load(); err != nil || s.Serial != 3 {
		t.Fatalf("%+v, %v", s, err)
	}
}

// TestFileDamaged: no damaged file counts as no file.
func TestFileDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "view")
	f := Open(path)
	good := view.AppendState(nil, sample(1))
	try := func(what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := f.Load()
		if s != nil || err == nil {
			t.Fatalf("%s: read as %+v, %v", what, s, err)
		}
		if errors.Is(err, view.ErrDamaged) && !strings.Contains(err.Error(), "remove the file") {
			t.Fatalf("%s: no advice: %v", what, err)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != string(b) {
			t.Fatalf("%s: the file was changed", what)
		}
	}
	for n := range good {
		try("cut", good[:n])
		b := append([]byte(nil), good...)
		b[n] ^= 0x10
		try("flipped", b)
	}
	try("longer", append(append([]byte(nil), good...), 0))
	try("far too long", make([]byte, view.MaxStored+1))
}

// TestFileThatCannotBeWritten: an error, and the old state stays.
func TestFileThatCannotBeWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "view")
	f := Open(path)
	if err := f.Save(sample(1)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(f.next(), 0o700); err != nil { // also root cannot write to that
		t.Fatal(err)
	}
	if err := f.Save(sample(2)); err == nil || !strings.Contains(err.Error(), path) {
		t.Fatalf("saved where it cannot be: %v", err)
	}
	if err := os.Remove(f.next()); err != nil {
		t.Fatal(err)
	}
	if s, err := f.Load(); err != nil || s.Serial != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
}
