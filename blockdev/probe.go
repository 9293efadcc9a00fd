package blockdev

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sort"

	"golang.org/x/sys/unix"
)

// Found is something Probe recognised on a component.
type Found struct {
	// What is its name as people know it: "ext4", "xfs", "btrfs", "swap", "LUKS",
	// "LVM physical volume", "md raid member", "MBR partition table", "GPT
	// partition table", "GPT backup header", "DRBD metadata", "ZFS", those of magics.
	What string
	// End is the first byte behind what it uses, or 0 when that is not known
	// (then it must be taken to use everything).
	End int64
	// Start is where it begins; not 0 only for what stands at the end.
	Start int64
}

func (f Found) String() string {
	if f.End == 0 {
		return f.What
	}
	return fmt.Sprintf("%s, up to byte %d", f.What, f.End)
}

// Probed is what Probe found.
type Probed struct {
	Size  int64 // bytes of the device or file
	Found []Found
}

// Reaching returns what uses, or may use, bytes from limit on: what stands in the
// way of metadata that starts there.
func (p Probed) Reaching(limit int64) []Found {
	var in []Found
	for _, f := range p.Found {
		if f.End > limit || f.End == 0 && p.Size > limit {
			in = append(in, f)
		}
	}
	return in
}

// probeSpan is how much of the beginning and of the end is looked at. btrfs has
// its superblock furthest in, at 64 KiB; md raid 0.90 up to 128 KiB before the
// end.
const probeSpan = 256 << 10

// Probe says what a block device or file holds, judged by the signatures at its
// beginning and end. It only reads, and does not ask whether somebody uses it.
func Probe(path string) (Probed, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return Probed{}, fmt.Errorf("look at what is on it: %w", err)
	}
	if !fi.Mode().IsRegular() && (fi.Mode()&fs.ModeDevice == 0 || fi.Mode()&fs.ModeCharDevice != 0) {
		return Probed{}, fmt.Errorf("look at what is on %s: it is neither a block device nor a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return Probed{}, fmt.Errorf("look at what is on it: %w", err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return Probed{}, fmt.Errorf("look at what is on %s: %w", path, err)
	}
	sector := int64(512)
	if s, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET); err == nil && s == 4096 {
		sector = 4096
	}
	head := make([]byte, min(size, probeSpan))
	tail := make([]byte, min(size, probeSpan))
	for off, buf := range map[int64][]byte{0: head, size - int64(len(tail)): tail} {
		if _, err := f.ReadAt(buf, off); err != nil && !errors.Is(err, io.EOF) {
			return Probed{}, fmt.Errorf("look at what is on %s: %w", path, err)
		}
	}
	p := Probed{Size: size}
	for _, probe := range probes {
		p.Found = append(p.Found, probe(area{head, tail, size, sector})...)
	}
	sort.SliceStable(p.Found, func(i, k int) bool { return p.Found[i].Start < p.Found[k].Start })
	return p, nil
}

// area is the beginning and the end of what is probed.
type area struct {
	head, tail []byte
	size       int64
	sector     int64
}

// at returns n bytes at off, from whichever part has them, or nil.
func (a area) at(off, n int64) []byte {
	if off >= 0 && off+n <= int64(len(a.head)) {
		return a.head[off : off+n]
	}
	start := a.size - int64(len(a.tail))
	if off >= start && off+n <= a.size {
		return a.tail[off-start : off-start+n]
	}
	return nil
}

func (a area) has(off int64, magic string) bool {
	return string(a.at(off, int64(len(magic)))) == magic
}

var probes = []func(area) []Found{probeExt, probeXFS, probeBtrfs, probeSwap, probeLUKS, probeLVM, probeMD, probeDRBD, probeZFS, probeMagics, probeTable}

// magics are what is only told by its name: where it ends is not looked for, and nobody
// wants a replica to begin over it unawares.
var magics = []struct {
	what  string
	at    int64
	magic string
}{
	{"NTFS", 3, "NTFS    "},
	{"exFAT", 3, "EXFAT   "},
	{"FAT", 54, "FAT12   "},
	{"FAT", 54, "FAT16   "},
	{"FAT", 82, "FAT32   "},
	{"f2fs", 1024, "\x10\x20\xf5\xf2"},
	{"bcachefs", 4096 + 24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"},
	{"bcache", 4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"}, // older bcachefs, too
	{"JFS", 32 << 10, "JFS1"},
	{"reiserfs", 64<<10 + 52, "ReIsEr"},
}

func probeMagics(a area) []Found {
	for _, m := range magics {
		if a.has(m.at, m.magic) {
			return []Found{{What: m.what}}
		}
	}
	return nil
}

// bootSector says whether the first sector is a filesystem's: it bears the mark of a
// partition table, and often zeroes where that would be.
func bootSector(a area) bool {
	for _, m := range magics {
		if m.at < 512 && a.has(m.at, m.magic) {
			return true
		}
	}
	return false
}

// probeZFS looks for an uberblock, in either byte order, in the first label: half of it
// is a ring of them. The labels at the end stay when a disk is put to another use.
func probeZFS(a area) []Found {
	for at := int64(128 << 10); at < 256<<10; at += 1 << 10 {
		if a.has(at, "\x0c\xb1\xba\x00\x00\x00\x00\x00") || a.has(at, "\x00\x00\x00\x00\x00\xba\xb1\x0c") {
			return []Found{{What: "ZFS"}}
		}
	}
	return nil
}

// probeDRBD finds internal metadata of DRBD 8 and 9, whose superblock is the last page.
func probeDRBD(a area) []Found {
	at := a.size&^4095 - 4096
	for _, magic := range []string{"\x83\x74\x02\x6b", "\x83\x74\x02\x6c", "\x83\x74\x02\x6d"} {
		if at > 0 && a.has(at+60, magic) {
			return []Found{{What: "DRBD metadata", Start: at, End: a.size}}
		}
	}
	return nil
}

// span makes an end of a count and a unit read from the disk, 0 (unknown) when
// they make no sense.
func span(count, unit uint64) int64 {
	if unit == 0 || count == 0 || count > uint64(1<<62)/unit {
		return 0
	}
	return int64(count * unit)
}

func probeExt(a area) []Found {
	sb := a.at(1024, 1024)
	if sb == nil || binary.LittleEndian.Uint16(sb[0x38:]) != 0xef53 {
		return nil
	}
	le := binary.LittleEndian
	compat, incompat, roCompat := le.Uint32(sb[0x5c:]), le.Uint32(sb[0x60:]), le.Uint32(sb[0x64:])
	const (
		hasJournal = 0x4
		extents    = 0x40
		bit64      = 0x80
		flexBG     = 0x200
		hugeFile   = 0x8
		metaCsum   = 0x400
	)
	name := "ext2"
	if incompat&(extents|bit64|flexBG) != 0 || roCompat&(hugeFile|metaCsum) != 0 {
		name = "ext4"
	} else if compat&hasJournal != 0 {
		name = "ext3"
	}
	blocks := uint64(le.Uint32(sb[0x4:]))
	if incompat&bit64 != 0 {
		blocks |= uint64(le.Uint32(sb[0x150:])) << 32
	}
	end := int64(0)
	if logBlock := le.Uint32(sb[0x18:]); logBlock <= 6 {
		end = span(blocks, 1024<<logBlock)
	}
	return []Found{{What: name, End: end}}
}

func probeXFS(a area) []Found {
	sb := a.at(0, 512)
	if sb == nil || !a.has(0, "XFSB") {
		return nil
	}
	be := binary.BigEndian
	return []Found{{What: "xfs", End: span(be.Uint64(sb[8:]), uint64(be.Uint32(sb[4:])))}}
}

func probeBtrfs(a area) []Found {
	const sb = 64 << 10
	if !a.has(sb+0x40, "_BHRfS_M") {
		return nil
	}
	share := a.at(sb+0xc9+8, 8) // in dev_item; total_bytes counts all devices
	if share == nil {
		return []Found{{What: "btrfs"}} // cut off: how far it reaches is not known
	}
	return []Found{{What: "btrfs", End: span(binary.LittleEndian.Uint64(share), 1)}}
}

func probeSwap(a area) []Found {
	for _, page := range []int64{4 << 10, 8 << 10, 16 << 10, 64 << 10} {
		if a.has(page-10, "SWAPSPACE2") || a.has(page-10, "SWAP-SPACE") || a.has(page-10, "S1SUSPEND\x00") {
			end := int64(0)
			if b := a.at(1024, 8); b != nil && a.has(page-10, "SWAPSPACE2") {
				end = span(uint64(binary.LittleEndian.Uint32(b[4:]))+1, uint64(page))
			}
			return []Found{{What: "swap", End: end}}
		}
	}
	return nil
}

func probeLUKS(a area) []Found {
	if a.has(0, "LUKS\xba\xbe") {
		return []Found{{What: "LUKS"}} // uses all of whatever it stands on
	}
	return nil
}

func probeLVM(a area) []Found {
	for sector := int64(0); sector < 4; sector++ {
		label := a.at(sector*512, 512)
		if label == nil || string(label[:8]) != "LABELONE" || string(label[24:32]) != "LVM2 001" {
			continue
		}
		end := int64(0)
		if off := binary.LittleEndian.Uint32(label[20:]); off <= 512-40 {
			end = span(binary.LittleEndian.Uint64(label[off+32:]), 1) // behind the 32 bytes of UUID
		}
		return []Found{{What: "LVM physical volume", End: end}}
	}
	return nil
}

func probeMD(a area) []Found {
	const magic = "\xfc\x4e\x2b\xa9" // a92b4efc, little-endian
	md := func(at int64) []Found { return []Found{{What: "md raid member", Start: at, End: a.size}} }
	for _, at := range []int64{0, 4096} { // 1.1, 1.2
		if b := a.at(at, 8); b != nil && string(b[:4]) == magic && binary.LittleEndian.Uint32(b[4:]) == 1 {
			// Where it ends is told in data_offset and data_size, but bitmaps and
			// logs may lie behind: the whole component is the array's.
			return []Found{{What: "md raid member"}}
		}
	}
	if at := (a.size/512 - 16) &^ 7 * 512; a.size >= 8192 && a.has(at, magic) { // 1.0
		return md(at)
	}
	if at := a.size&^(64<<10-1) - 64<<10; a.size >= 64<<10 { // 0.90, in either byte order
		if a.has(at, magic) || a.has(at, "\xa9\x2b\x4e\xfc") {
			return md(at)
		}
	}
	return nil
}

func probeTable(a area) []Found {
	var found []Found
	sector := a.sector
	if !a.has(sector, "EFI PART") && a.has(4096+512-sector, "EFI PART") {
		sector = 4096 + 512 - sector // the table was made for the other sector size
	}
	gpt := a.has(sector, "EFI PART")
	if gpt {
		found = append(found, Found{What: "GPT partition table", End: gptEnd(a, sector)})
	}
	for _, s := range []int64{512, 4096} {
		if at := a.size/s*s - s; at > s && a.has(at, "EFI PART") {
			found = append(found, Found{What: "GPT backup header", Start: at, End: a.size})
			break
		}
	}
	if mbr := a.at(0, 512); !gpt && mbr != nil && !bootSector(a) && mbr[510] == 0x55 && mbr[511] == 0xaa {
		if end, ok := mbrEnd(mbr, a.sector); ok {
			found = append(found, Found{What: "MBR partition table", End: end})
		}
	}
	return found
}

// gptEnd is the end of the last partition, at least that of the table itself.
func gptEnd(a area, sector int64) int64 {
	h := a.at(sector, 92)
	if h == nil {
		return 0 // cut off
	}
	le := binary.LittleEndian
	table, count, entry := le.Uint64(h[72:]), le.Uint32(h[80:]), le.Uint32(h[84:])
	if table > uint64(probeSpan/sector) || entry < 128 || entry > 4096 || count > 1024 {
		return 0
	}
	end := int64(table)*sector + int64(count)*int64(entry)
	for i := range int64(count) {
		e := a.at(int64(table)*sector+i*int64(entry), 128)
		if e == nil {
			return 0
		}
		if bytes.Equal(e[:16], make([]byte, 16)) { // type of all zeroes: unused
			continue
		}
		last := span(le.Uint64(e[40:])+1, uint64(sector))
		if last == 0 {
			return 0
		}
		end = max(end, last)
	}
	return end
}

// mbrEnd is the end of the last primary or extended partition. False: the boot
// signature stands there, but there is no sensible table (the boot sector of a
// filesystem, for example).
func mbrEnd(mbr []byte, sector int64) (int64, bool) {
	end := int64(0)
	for i := range 4 {
		e := mbr[446+16*i:][:16]
		if e[0]&0x7f != 0 {
			return 0, false // neither active nor inactive
		}
		if e[4] == 0 {
			continue
		}
		first, n := binary.LittleEndian.Uint32(e[8:]), binary.LittleEndian.Uint32(e[12:])
		if first == 0 || n == 0 {
			return 0, false
		}
		end = max(end, (int64(first)+int64(n))*sector)
	}
	return max(end, 512), true
}
