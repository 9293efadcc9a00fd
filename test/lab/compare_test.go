package lab

import (
	"bytes"
	"strings"
	"testing"
)

func TestCompare(t *testing.T) {
	const size = 3<<20 + 8192
	a := bytes.Repeat([]byte{1, 2, 3, 4}, size/4)
	for _, c := range []struct {
		name string
		at   []int64 // bytes to change
		want []int64 // blocks that differ
	}{
		{"equal", nil, nil},
		{"first byte", []int64{0}, []int64{0}},
		{"last byte", []int64{size - 1}, []int64{size/BlockSize - 1}},
		{"two in one block, one in another", []int64{1 << 20, 1<<20 + 4095, 2 << 20}, []int64{256, 512}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := bytes.Clone(a)
			for _, at := range c.at {
				b[at] ^= 0xff
			}
			d, err := Compare(bytes.NewReader(a), bytes.NewReader(b), size)
			must(t, err)
			if d.Differ != int64(len(c.want)) || d.Blocks != size/BlockSize {
				t.Fatalf("%d of %d blocks differ, want %v", d.Differ, d.Blocks, c.want)
			}
			for i, w := range c.want {
				if d.Listed[i].Block != w || d.Listed[i].Hash[0] == d.Listed[i].Hash[1] {
					t.Fatalf("listed %+v, want block %d", d.Listed[i], w)
				}
			}
			if (d.Err() == nil) != (len(c.want) == 0) {
				t.Fatal(d.Err())
			}
		})
	}
	many := make([]byte, size)
	d, err := Compare(bytes.NewReader(a), bytes.NewReader(many), size)
	must(t, err)
	if d.Differ != size/BlockSize || len(d.Listed) != maxDiffs || !strings.Contains(d.Err().Error(), "differ in") {
		t.Fatalf("%d differ, %d listed", d.Differ, len(d.Listed))
	}
}
