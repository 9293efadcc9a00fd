package blockdev

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// image makes a sparse file and lets a program write on it.
func image(t *testing.T, size int64, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("needs %s", name)
	}
	path := filepath.Join(t.TempDir(), "image")
	if err := CreateFileComponent(path, size); err != nil {
		t.Fatal(err)
	}
	run(t, name, append(args, path)...)
	return path
}

func probe(t *testing.T, path string) Probed {
	t.Helper()
	p, err := Probe(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func expect(t *testing.T, path string, want ...Found) {
	t.Helper()
	got := probe(t, path).Found
	ok := len(got) == len(want)
	for i := 0; ok && i < len(got); i++ {
		ok = got[i] == want[i]
	}
	if !ok {
		t.Errorf("found %+v, want %+v", got, want)
	}
}

func TestProbeRealFilesystems(t *testing.T) {
	t.Run("empty", func(t *testing.T) { expect(t, image(t, 1<<20, "true")) })
	t.Run("tiny", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "tiny")
		for n := range 600 {
			if err := os.WriteFile(path, []byte(strings.Repeat("x", n)), 0o600); err != nil {
				t.Fatal(err)
			}
			expect(t, path)
		}
	})
	t.Run("ext4", func(t *testing.T) {
		expect(t, image(t, 64<<20, "mkfs.ext4", "-q"), Found{What: "ext4", End: 64 << 20})
	})
	t.Run("ext4 smaller than its device", func(t *testing.T) {
		path := image(t, 64<<20, "mkfs.ext4", "-q")
		run(t, "resize2fs", path, "48M")
		expect(t, path, Found{What: "ext4", End: 48 << 20})
		p := probe(t, path)
		if len(p.Reaching(48<<20)) != 0 || len(p.Reaching(48<<20-4096)) != 1 {
			t.Error("Reaching does not tell where the filesystem ends")
		}
	})
	t.Run("ext3", func(t *testing.T) {
		expect(t, image(t, 64<<20, "mkfs.ext3", "-q"), Found{What: "ext3", End: 64 << 20})
	})
	t.Run("ext2 with blocks of 1 KiB", func(t *testing.T) {
		expect(t, image(t, 16<<20, "mkfs.ext2", "-q", "-b", "1024"), Found{What: "ext2", End: 16 << 20})
	})
	t.Run("xfs", func(t *testing.T) {
		expect(t, image(t, 320<<20, "mkfs.xfs", "-q", "-d", "size=310m"), Found{What: "xfs", End: 310 << 20})
	})
	t.Run("swap", func(t *testing.T) {
		expect(t, image(t, 16<<20, "mkswap"), Found{What: "swap", End: 16 << 20})
	})
}

func sfdisk(t *testing.T, size int64, script string) string {
	t.Helper()
	path := image(t, size, "true")
	if _, err := exec.LookPath("sfdisk"); err != nil {
		t.Skip("needs sfdisk")
	}
	cmd := exec.Command("sfdisk", "--quiet", path)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	return path
}

func TestProbePartitionTables(t *testing.T) {
	mbr := sfdisk(t, 64<<20, "label: dos\nstart=2048, size=20480\nstart=30720, size=2048\n")
	expect(t, mbr, Found{What: "MBR partition table", End: 32768 * 512})
	gpt := sfdisk(t, 64<<20, "label: gpt\nstart=2048, size=20480\nstart=30720, size=2048\n")
	expect(t, gpt,
		Found{What: "GPT partition table", End: 32768 * 512},
		Found{What: "GPT backup header", Start: 64<<20 - 512, End: 64 << 20})
}

func TestProbeSignatures(t *testing.T) {
	write := func(size int64, at int64, data string) string {
		path := image(t, size, "true")
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte(data), at); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const size = 8 << 20
	expect(t, write(size, 0, "LUKS\xba\xbe\x00\x02"), Found{What: "LUKS"})
	expect(t, write(size, 512, "LABELONE"+strings.Repeat("\x00", 12)+"\x20\x00\x00\x00LVM2 001"+strings.Repeat("u", 32)+"\x00\x00\x70\x00\x00\x00\x00\x00"),
		Found{What: "LVM physical volume", End: 7 << 20})
	expect(t, write(size, 64<<10+0x40, "_BHRfS_M"), Found{What: "btrfs"})
	expect(t, write(size, 4096, "\xfc\x4e\x2b\xa9\x01\x00\x00\x00"), Found{What: "md raid member"})
	expect(t, write(size, size-8192, "\xfc\x4e\x2b\xa9\x01\x00\x00\x00"), Found{What: "md raid member", Start: size - 8192, End: size})
	expect(t, write(size, size-64<<10, "\xfc\x4e\x2b\xa9"), Found{What: "md raid member", Start: size - 64<<10, End: size})
	expect(t, write(size, size-4096+60, "\x83\x74\x02\x6d"), Found{What: "DRBD metadata", Start: size - 4096, End: size})
	expect(t, write(size+4096, size+60, "\x83\x74\x02\x6b"), Found{What: "DRBD metadata", Start: size, End: size + 4096})
	expect(t, write(size, 128<<10+7<<10, "\x0c\xb1\xba\x00\x00\x00\x00\x00"), Found{What: "ZFS"})
	expect(t, write(size, 4096+24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"), Found{What: "bcachefs"})
	expect(t, write(size, 1024, "\x10\x20\xf5\xf2"), Found{What: "f2fs"})
	expect(t, write(size, 32<<10, "JFS1"), Found{What: "JFS"})
	expect(t, write(size, 64<<10+52, "ReIsEr2Fs"), Found{What: "reiserfs"})
	if p := probe(t, write(size, 32<<10, "JFS1")); len(p.Reaching(size-4096)) != 1 || len(p.Reaching(size)) != 0 {
		t.Error("what may use everything does not reach up to the end, or beyond it")
	}
	// A boot sector looks like a partition table that has no partition.
	boot := func(at int, name string) string {
		b := make([]byte, 512)
		copy(b[at:], name)
		b[510], b[511] = 0x55, 0xaa
		return string(b)
	}
	expect(t, write(size, 0, boot(3, "NTFS    ")), Found{What: "NTFS"})
	expect(t, write(size, 0, boot(3, "EXFAT   ")), Found{What: "exFAT"})
	expect(t, write(size, 0, boot(54, "FAT16   ")), Found{What: "FAT"})
	expect(t, write(size, 0, boot(82, "FAT32   ")), Found{What: "FAT"})
	expect(t, write(size, 0, boot(0, "")), Found{What: "MBR partition table", End: 512})
}

// FuzzProbe: whatever stands on a device of whatever size, what is recognised lies on
// it, its beginning and its end are in order, and looking changes nothing.
func FuzzProbe(f *testing.F) {
	f.Add([]byte("XFSB"), []byte("EFI PART"), int64(0), int64(512), uint32(128<<10))
	f.Add([]byte("EFI PART"), []byte{}, int64(512), int64(0), uint32(600))
	f.Add([]byte("_BHRfS_M"), []byte{}, int64(64<<10+0x40), int64(0), uint32(64<<10+0x40+8))
	f.Add([]byte("\xfc\x4e\x2b\xa9"), []byte("SWAPSPACE2"), int64(600<<10-8192), int64(4086), uint32(600<<10))
	f.Add([]byte("LABELONE\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x20\x00\x00\x00LVM2 001"), []byte("LUKS\xba\xbe"), int64(512), int64(0), uint32(2000))
	f.Fuzz(func(t *testing.T, a, b []byte, atA, atB int64, size uint32) {
		disk := make([]byte, size%(3*probeSpan))
		if len(disk) > 0 {
			copy(disk[uint64(atA)%uint64(len(disk)):], a)
			copy(disk[uint64(atB)%uint64(len(disk)):], b)
		}
		before := bytes.Clone(disk)
		n := min(len(disk), probeSpan)
		for _, sector := range []int64{512, 4096} {
			var all []Found
			for _, p := range probes {
				all = append(all, p(area{disk[:n], disk[len(disk)-n:], int64(len(disk)), sector})...)
			}
			for _, found := range all {
				if found.What == "" || found.Start < 0 || found.Start > 0 && found.Start >= int64(len(disk)) || found.End < 0 || found.End != 0 && found.End <= found.Start {
					t.Fatalf("%+v on a device of %d bytes", found, len(disk))
				}
			}
			if in := (Probed{int64(len(disk)), all}).Reaching(0); len(in) != len(all) {
				t.Fatalf("%v reaches beyond the beginning, %v was found", in, all)
			}
		}
		if !bytes.Equal(disk, before) {
			t.Fatal("looking changed what was looked at")
		}
	})
}
