// Package signature recognises what already lies on a disk or in a file:
// filesystems, partition tables, swap, volume managers. hastctl create asks it
// before it writes metadata, so that nobody loses a filesystem whose end reaches
// into the metadata area.
//
// It only reads, believes no number it reads further than the component's size,
// and knows nothing of HAST.
package signature

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Source is what is looked at. ReadAt fills buf or fails; offset and length are
// multiples of 4096 or end at Size.
type Source interface {
	ReadAt(buf []byte, off int64) error
	Size() int64
}

// Kind is a family of signatures as far as shrinking goes.
type Kind string

// The kinds.
const (
	Ext   Kind = "ext"
	XFS   Kind = "xfs"
	Btrfs Kind = "btrfs"
	FAT   Kind = "vfat"
	ExFAT Kind = "exfat"
	NTFS  Kind = "ntfs"
	F2FS  Kind = "f2fs"
	Swap  Kind = "swap"
	LUKS  Kind = "luks"
	LVM   Kind = "lvm"
	MD    Kind = "md"
	GPT   Kind = "gpt"
	MBR   Kind = "mbr"
)

// Found is one thing that lies on a component.
type Found struct {
	Kind Kind
	What string // for people: "ext4 filesystem", "partition 2"
	// End is the first byte behind it, from the start of the component.
	End int64
}

const blockMask = 4096 - 1

// headSize covers every signature that stands at the start.
const headSize = 128 << 10

// tailSize covers the md superblocks that stand at the end.
const tailSize = 128 << 10

// Probe lists what lies on s, the furthest reaching first.
func Probe(s Source) ([]Found, error) {
	size := s.Size()
	head := make([]byte, headSize)
	n := min(size, headSize)
	if err := s.ReadAt(head[:n], 0); err != nil {
		return nil, fmt.Errorf("look for filesystems: %w", err)
	}
	var found []Found
	for _, p := range probes {
		found = append(found, p(head, size)...)
	}
	if size > tailSize {
		tail := make([]byte, tailSize)
		from := (size - tailSize) &^ blockMask
		k := min(size-from, tailSize)
		if err := s.ReadAt(tail[:k], from); err != nil {
			return nil, fmt.Errorf("look for filesystems: %w", err)
		}
		found = append(found, mdAtEnd(tail[:k], from, size)...)
	}
	slices.SortStableFunc(found, func(a, b Found) int {
		switch {
		case a.End > b.End:
			return -1
		case a.End < b.End:
			return 1
		}
		return 0
	})
	return found, nil
}

var probes = []func(b []byte, size int64) []Found{ext, xfs, btrfs, boot, f2fs, swap, luks, lvm, mdAtStart, gpt}

var (
	le = binary.LittleEndian
	be = binary.BigEndian
)

// end is count units as bytes. A product beyond all sense counts as reaching to
// the component's end: it is damaged or means a larger disk, and either is a
// reason to stop.
func end(count, unit uint64, size int64) int64 {
	if unit == 0 || count > 1<<62/unit {
		return size
	}
	return int64(count * unit)
}

func ext(b []byte, size int64) []Found {
	sb := b[1024:]
	if le.Uint16(sb[0x38:]) != 0xEF53 {
		return nil
	}
	blocks := uint64(le.Uint32(sb[4:]))
	compat, incompat := le.Uint32(sb[0x5C:]), le.Uint32(sb[0x60:])
	const has64bit, hasJournal, extents = 0x80, 4, 0x40
	if incompat&has64bit != 0 {
		blocks |= uint64(le.Uint32(sb[0x150:])) << 32
	}
	name := "ext2"
	switch {
	case incompat&(extents|has64bit) != 0:
		name = "ext4"
	case compat&hasJournal != 0:
		name = "ext3"
	}
	shift := le.Uint32(sb[0x18:])
	if shift > 6 {
		return []Found{{Ext, name + " filesystem (its superblock looks damaged)", size}}
	}
	return []Found{{Ext, name + " filesystem", end(blocks, 1024<<shift, size)}}
}

func xfs(b []byte, size int64) []Found {
	if string(b[:4]) != "XFSB" {
		return nil
	}
	return []Found{{XFS, "XFS filesystem", end(be.Uint64(b[8:]), uint64(be.Uint32(b[4:])), size)}}
}

func btrfs(b []byte, size int64) []Found {
	sb := b[64<<10:]
	if string(sb[0x40:0x48]) != "_BHRfS_M" {
		return nil
	}
	const devItem = 0xC9
	return []Found{{Btrfs, "btrfs filesystem", end(le.Uint64(sb[devItem+8:]), 1, size)}}
}

func f2fs(b []byte, size int64) []Found {
	sb := b[1024:]
	if le.Uint32(sb) != 0xF2F52010 {
		return nil
	}
	shift := le.Uint32(sb[16:])
	if shift > 16 {
		return []Found{{F2FS, "F2FS filesystem (its superblock looks damaged)", size}}
	}
	return []Found{{F2FS, "F2FS filesystem", end(le.Uint64(sb[36:]), 1<<shift, size)}}
}

func swap(b []byte, size int64) []Found {
	for _, page := range []int{4096, 16384, 65536} {
		if s := string(b[page-10 : page]); s != "SWAPSPACE2" && s != "SWAP-SPACE" {
			continue
		}
		return []Found{{Swap, "swap space", end(uint64(le.Uint32(b[1028:]))+1, uint64(page), size)}}
	}
	return nil
}

func luks(b []byte, size int64) []Found {
	if string(b[:6]) != "LUKS\xba\xbe" {
		return nil
	}
	return []Found{{LUKS, "LUKS encrypted volume", size}} // it means all of its device
}

func lvm(b []byte, size int64) []Found {
	for sector := 0; sector < 4; sector++ {
		label := b[512*sector:]
		if string(label[:8]) != "LABELONE" || string(label[24:32]) != "LVM2 001" {
			continue
		}
		at := le.Uint32(label[20:])
		if at > 512-40 {
			return []Found{{LVM, "LVM physical volume", size}}
		}
		return []Found{{LVM, "LVM physical volume", end(le.Uint64(label[at+32:]), 1, size)}}
	}
	return nil
}

const mdMagic = 0xa92b4efc

func mdAtStart(b []byte, size int64) []Found {
	if le.Uint32(b) == mdMagic || le.Uint32(b[4096:]) == mdMagic {
		return []Found{{MD, "member of a RAID array", size}}
	}
	return nil
}

// mdAtEnd finds the formats 0.90 (64 KiB aligned) and 1.0 (8 KiB before the end).
func mdAtEnd(b []byte, from, size int64) []Found {
	for _, at := range []int64{size&^(64<<10-1) - 64<<10, (size/512*512 - 8<<10) &^ blockMask} {
		if i := at - from; i >= 0 && i+4 <= int64(len(b)) && le.Uint32(b[i:]) == mdMagic {
			return []Found{{MD, "member of a RAID array", size}}
		}
	}
	return nil
}
