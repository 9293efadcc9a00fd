package runner

import (
	"context"
	"os"
	"testing"

	"go.uber.org/goleak"

	"hastd/blockdev"
	"hastd/replicate"
	labdisk "hastd/test/lab/disk"
)

// The test binary is also the process of the lab's disk.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "--dir" {
		ctx, cancel := context.WithCancel(context.Background())
		go func() { // ends with the process
			_, _ = os.Stdin.Read(make([]byte, 1))
			cancel()
		}()
		if err := labdisk.Main(ctx, os.Args[2], labdisk.Options{Size: labDiskSize, Seed: 1}, os.Stdout); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const labDiskSize = 32 << 20

func testArena(t testing.TB, size int64) *blockdev.Arena {
	t.Helper()
	a, err := blockdev.NewArena(blockdev.ArenaOptions{Size: size})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func TestMemoryGoesBackWithTheLastUse(t *testing.T) {
	a := testArena(t, 32<<20)
	table := newMemories(a)
	m := table.add(a.Get(4096), a)
	h := m.handle
	table.get(h).hold() // a disk operation
	table.drop(m)       // the machine's EffRelease
	if a.Free() == a.Size() {
		t.Fatal("memory went back while an operation used it")
	}
	table.drop(m)
	if a.Free() != a.Size() {
		t.Fatal("memory did not go back")
	}
	if again := table.add(a.Get(4096), a); again.handle != h {
		t.Errorf("the handle was not used again: %d, %d", h, again.handle)
	} else {
		table.drop(again)
	}
}

func TestMemoryOfAFrontEndOutlivesItsRequest(t *testing.T) {
	a := testArena(t, 32<<20)
	table := newMemories(a)
	buf := a.Get(8192)
	m := table.add(buf, nil)
	m.app = true
	p := table.part(m, 4096, 8192)
	p.hold()        // the bytes are still being sent
	table.drop(p)   // the part was answered
	table.settle(m) // and so was the request
	table.free(buf) // the front end is done
	if a.Free() == a.Size() {
		t.Fatal("memory went back while it was being sent")
	}
	table.drop(p)
	if a.Free() != a.Size() || table.lending.Load() != 0 || len(table.lent) != 0 {
		t.Fatal("memory did not go back")
	}
	// The other way round: sent before the front end frees.
	buf = a.Get(4096)
	m = table.add(buf, nil)
	m.app = true
	m.hold()
	table.settle(m)
	table.drop(m)
	if a.Free() == a.Size() {
		t.Fatal("memory went back under its owner")
	}
	table.free(buf)
	if a.Free() != a.Size() {
		t.Fatal("memory did not go back")
	}
}

func TestMemoryRefusesAHandleThatNamesNothing(t *testing.T) {
	table := newMemories(nil)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	table.get(replicate.Handle(3))
}
