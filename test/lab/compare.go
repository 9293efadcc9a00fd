package lab

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/zeebo/xxh3"
)

// BlockSize is the unit of a comparison, in bytes.
const BlockSize = 4096

// Diff is a block in which two replicas differ.
type Diff struct {
	Block int64
	Hash  [2]uint64
}

// maxDiffs bounds how many blocks a comparison lists; all are counted.
const maxDiffs = 50

// Differences is the outcome of a comparison.
type Differences struct {
	Blocks int64 // compared
	Differ int64
	Listed []Diff
}

// Err is nil when nothing differs.
func (d *Differences) Err() error {
	if d.Differ == 0 {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "lab: replicas differ in %d of %d blocks:", d.Differ, d.Blocks)
	for _, x := range d.Listed {
		fmt.Fprintf(&b, " %d (%016x %016x)", x.Block, x.Hash[0], x.Hash[1])
	}
	return fmt.Errorf("%s", b.String())
}

// Compare compares the first size bytes of two files by block.
func Compare(a, b io.ReaderAt, size int64) (*Differences, error) {
	d := &Differences{}
	const chunk = 1 << 20
	bufA, bufB := make([]byte, chunk), make([]byte, chunk)
	for off := int64(0); off < size; off += chunk {
		n := min(chunk, size-off)
		if _, err := a.ReadAt(bufA[:n], off); err != nil {
			return nil, fmt.Errorf("lab: compare: first replica at %d: %w", off, err)
		}
		if _, err := b.ReadAt(bufB[:n], off); err != nil {
			return nil, fmt.Errorf("lab: compare: second replica at %d: %w", off, err)
		}
		d.Blocks += (n + BlockSize - 1) / BlockSize
		if bytes.Equal(bufA[:n], bufB[:n]) {
			continue
		}
		for i := int64(0); i < n; i += BlockSize {
			x, y := bufA[i:min(i+BlockSize, n)], bufB[i:min(i+BlockSize, n)]
			if bytes.Equal(x, y) {
				continue
			}
			d.Differ++
			if len(d.Listed) < maxDiffs {
				d.Listed = append(d.Listed, Diff{(off + i) / BlockSize, [2]uint64{xxh3.Hash(x), xxh3.Hash(y)}})
			}
		}
	}
	return d, nil
}

// CompareFiles compares the first size bytes of two files.
func CompareFiles(a, b string, size int64) (*Differences, error) {
	f, err := os.Open(a)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	g, err := os.Open(b)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	return Compare(f, g, size)
}

// CompareReplicas compares the data areas of both nodes' disks as they read now,
// and then, for disks with a volatile cache, what their media hold: call it when
// all is in sync and flushed. size is the provider's.
func (l *Lab) CompareReplicas(size int64) error { return l.CompareResource(Resource, size) }

// CompareResource does so for a resource.
func (l *Lab) CompareResource(name string, size int64) error {
	a, b := l.Nodes[Alpha].Replica(name), l.Nodes[Bravo].Replica(name)
	d, err := CompareFiles(a.Local(), b.Local(), size)
	if err == nil {
		err = d.Err()
	}
	if err != nil || l.o.Plain {
		return err
	}
	if d, err = CompareFiles(a.Disk().Medium(), b.Disk().Medium(), size); err == nil {
		err = d.Err()
	}
	if err != nil {
		return fmt.Errorf("on the media, behind the volatile caches: %w", err)
	}
	return nil
}
