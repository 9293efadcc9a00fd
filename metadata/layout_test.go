package metadata

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
)

// size draws a size between 1 MiB and 64 TiB, every magnitude as often.
func drawSize(r *rand.Rand) int64 {
	n := int64(math.Exp2(20 + 26*r.Float64()))
	switch r.IntN(3) {
	case 0:
		n = n / BlockSize * BlockSize
	case 1: // around the edges of map pages
		n = n/(blocksPerPage*BlockSize)*(blocksPerPage*BlockSize) + (r.Int64N(5)-2)*BlockSize
	}
	return max(n, 1<<20)
}

func checkLayout(t *testing.T, what string, l Layout, size int64) {
	t.Helper()
	areas := []struct {
		name     string
		off, len int64
	}{
		{"map", l.Map, l.MapPages * PageSize},
		{"superblock A", l.Super[0], SuperblockSize},
		{"log A", l.Log[0], LogSize},
		{"log B", l.Log[1], LogSize},
		{"superblock B", l.Super[1], SuperblockSize},
	}
	end := l.Start
	for _, a := range areas {
		if a.off%PageSize != 0 || a.len%PageSize != 0 {
			t.Fatalf("%s of %d: %s is not aligned: %d+%d", what, size, a.name, a.off, a.len)
		}
		if a.off < end {
			t.Fatalf("%s of %d: %s at %d overlaps what ends at %d", what, size, a.name, a.off, end)
		}
		end = a.off + a.len
	}
	if l.Start < 0 || end > l.End || l.End > size || l.End-l.Super[0] != TailSize {
		t.Fatalf("%s of %d: %+v is not inside", what, size, l)
	}
	if l.DataSize%BlockSize != 0 || l.DataSize < BlockSize || l.MapPages*blocksPerPage < l.DataSize/BlockSize {
		t.Fatalf("%s of %d: the map has no room for %d bytes: %+v", what, size, l.DataSize, l)
	}
}

func TestLayoutInternal(t *testing.T) {
	r := testRand(10)
	for range 8000 {
		size := drawSize(r)
		l, err := Internal(size)
		if err != nil {
			var small *TooSmallError
			if !errors.As(err, &small) || size >= small.Need || small.Need != ComponentSize(BlockSize) {
				t.Fatalf("%d: %v", size, err)
			}
			continue
		}
		checkLayout(t, "internal", l, size)
		if l.DataSize > l.Start {
			t.Fatalf("internal of %d: data of %d bytes reaches into the metadata at %d", size, l.DataSize, l.Start)
		}
		if lost := l.Start - l.DataSize + size - l.End + (l.MapPages-mapPages(l.DataSize))*PageSize; lost > 2*PageSize {
			t.Fatalf("internal of %d: %d bytes are nobody's", size, lost)
		}
	}
}

func TestLayoutComponentSizeIsTheInverse(t *testing.T) {
	r := testRand(11)
	for range 8000 {
		data := drawSize(r)
		size := ComponentSize(data)
		rounded := (data + BlockSize - 1) / BlockSize * BlockSize
		l, err := Internal(size)
		if err != nil || l.DataSize != rounded {
			t.Fatalf("%d bytes of data: a component of %d holds %d, %v", data, size, l.DataSize, err)
		}
		if l, err := Internal(size - 1); err == nil && l.DataSize >= data {
			t.Fatalf("%d bytes of data fit in less than %d", data, size)
		}
	}
}

func TestLayoutExternal(t *testing.T) {
	r := testRand(12)
	for range 8000 {
		data := drawSize(r)
		need := ExternalSize(data / BlockSize * BlockSize)
		l, err := External(need, data)
		if err != nil || l.DataSize != data/BlockSize*BlockSize {
			t.Fatalf("%d bytes of data: %+v, %v", data, l, err)
		}
		checkLayout(t, "external", l, need)
		larger := need + r.Int64N(1<<22)
		if l, err = External(larger, data); err != nil {
			t.Fatal(err)
		}
		checkLayout(t, "external", l, larger)
		var small *TooSmallError
		if _, err := External(need-1, data); !errors.As(err, &small) || small.Need != need {
			t.Fatalf("%d bytes of data on %d: %v", data, need-1, err)
		}
	}
	if _, err := External(1<<30, BlockSize-1); err == nil {
		t.Error("data of less than a block was accepted")
	}
}

func TestLayoutTooSmallIsAnErrorForEverySizeBelow(t *testing.T) {
	need := ComponentSize(BlockSize)
	for size := int64(0); size < need; size += 511 {
		var small *TooSmallError
		if _, err := Internal(size); !errors.As(err, &small) || small.Need != need {
			t.Fatalf("%d: %v", size, err)
		}
	}
}
