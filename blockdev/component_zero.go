package blockdev

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// zeroPage is what is written where the kernel cannot zero by itself.
var zeroPage = alignedBuf(bounceSize)

// Zero makes [off, off+n) read as zeroes. Without noHole the space may be given
// back. It never discards: a discarded block may read as anything.
func (c *Component) Zero(off, n int64, noHole bool) error {
	if err := c.checkWrite("zero", off, n); err != nil {
		return err
	}
	// The kernel zeroes whole blocks; the odd ends are written.
	start := (off + pageSize - 1) &^ (pageSize - 1)
	end := (off + n) &^ (pageSize - 1)
	if start >= end {
		return c.writeZeroes(off, n)
	}
	if err := c.writeZeroes(off, start-off); err != nil {
		return err
	}
	if err := c.zeroBlocks(start, end-start, noHole); err != nil {
		return err
	}
	return c.writeZeroes(end, off+n-end)
}

// zeroBlocks tries, from the cheapest on: a hole, zeroing by the kernel with the
// space kept, plain writes. For devices fallocate with PUNCH_HOLE unmaps only
// where zeroes are guaranteed afterwards, unlike BLKDISCARD.
func (c *Component) zeroBlocks(off, n int64, noHole bool) error {
	if !noHole && !c.noPunch.Load() {
		err := c.fallocate(unix.FALLOC_FL_PUNCH_HOLE, off, n)
		if !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		c.noPunch.Store(true)
	}
	if c.device {
		err := c.zeroOut(off, n)
		if !errors.Is(err, unix.ENOTTY) && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	} else if !c.noZeroRange.Load() {
		err := c.fallocate(unix.FALLOC_FL_ZERO_RANGE, off, n)
		if !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		c.noZeroRange.Store(true)
	}
	return c.writeZeroes(off, n)
}

func (c *Component) fallocate(mode uint32, off, n int64) error {
	for {
		err := unix.Fallocate(c.fd, mode|unix.FALLOC_FL_KEEP_SIZE, off, n)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("zero %s at %d: %w", c.path, off, err)
		}
		return nil
	}
}

func (c *Component) zeroOut(off, n int64) error {
	arg := [2]uint64{uint64(off), uint64(n)}
	for {
		err := ioctlPtr(c.fd, unix.BLKZEROOUT, unsafe.Pointer(&arg))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("zero %s at %d: %w", c.path, off, err)
		}
		return nil
	}
}

func (c *Component) writeZeroes(off, n int64) error {
	for n > 0 {
		k := min(n, int64(len(zeroPage)))
		if err := c.write(zeroPage[:k], off); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// maxRuns bounds what one call of Holes describes; the rest is called data.
const maxRuns = 1 << 16

// Holes describes [off, off+n) as runs that are data or known to read as zeroes.
// Files know their holes; a device is all data.
func (c *Component) Holes(off, n int64) ([]Run, error) {
	if err := c.check("find holes of", off, n); err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, nil
	}
	if c.device {
		return []Run{{Len: n}}, nil
	}
	var runs []Run
	add := func(to int64, hole bool) {
		if to <= off {
			return
		}
		if k := len(runs); k > 0 && runs[k-1].Hole == hole {
			runs[k-1].Len += to - off
		} else {
			runs = append(runs, Run{Len: to - off, Hole: hole})
		}
		n -= to - off
		off = to
	}
	mask := int64(c.sector - 1)
	for n > 0 {
		end := off + n
		if len(runs) >= maxRuns {
			add(end, false)
			break
		}
		data, err := unix.Seek(c.fd, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // no data from here on
			add(end, true)
			break
		}
		if err != nil {
			if errors.Is(err, unix.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
				add(end, false) // the filesystem cannot tell
				break
			}
			return nil, fmt.Errorf("find holes of %s at %d: %w", c.path, off, err)
		}
		add(min(data&^mask, end), true)
		if off >= end {
			break
		}
		hole, err := unix.Seek(c.fd, max(data, off), unix.SEEK_HOLE)
		if err != nil {
			return nil, fmt.Errorf("find holes of %s at %d: %w", c.path, off, err)
		}
		add(min((hole+mask)&^mask, end), false)
	}
	return runs, nil
}
