package signature

import "fmt"

// boot tells apart what shares the boot sector's mark: FAT, exFAT, NTFS and the
// partition table of a PC.
func boot(b []byte, size int64) []Found {
	if string(b[3:11]) == "EXFAT   " {
		return []Found{{ExFAT, "exFAT filesystem", end(le.Uint64(b[72:]), 1<<min(b[108], 12), size)}}
	}
	if string(b[3:11]) == "NTFS    " {
		return []Found{{NTFS, "NTFS filesystem", end(le.Uint64(b[40:])+1, uint64(le.Uint16(b[11:])), size)}}
	}
	if le.Uint16(b[510:]) != 0xAA55 {
		return nil
	}
	if string(b[54:57]) == "FAT" || string(b[82:87]) == "FAT32" {
		sectors := uint64(le.Uint16(b[19:]))
		if sectors == 0 {
			sectors = uint64(le.Uint32(b[32:]))
		}
		return []Found{{FAT, "FAT filesystem", end(sectors, uint64(le.Uint16(b[11:])), size)}}
	}
	return mbr(b, size)
}

const protective = 0xEE // the one partition by which GPT keeps old tools away

func mbr(b []byte, size int64) []Found {
	var found []Found
	for i := range 4 {
		p := b[446+16*i:]
		start, count := uint64(le.Uint32(p[8:])), uint64(le.Uint32(p[12:]))
		if p[4] == 0 || count == 0 || p[0]&0x7f != 0 {
			continue
		}
		if p[4] == protective {
			return nil
		}
		found = append(found, Found{MBR, fmt.Sprintf("partition %d of an MBR table", i+1), end(start+count, 512, size)})
	}
	return found
}

// Bounds of a GPT that is believed.
const (
	maxEntries = 128
	minEntry   = 128 // bytes
)

// gpt tells of each partition, and of the table's copy in the last sectors: GPT
// always reaches to the end of its disk.
func gpt(b []byte, size int64) []Found {
	for _, sector := range []uint64{512, 4096} {
		h := b[sector:]
		if string(h[:8]) != "EFI PART" {
			continue
		}
		found := []Found{{GPT, "GPT partition table, whose second copy is its end", end(le.Uint64(h[32:])+1, sector, size)}}
		at, n, each := le.Uint64(h[72:]), le.Uint32(h[80:]), le.Uint32(h[84:])
		if each < minEntry || at > headSize/sector {
			return found
		}
		for i := range min(n, maxEntries) {
			off := at*sector + uint64(i)*uint64(each)
			if off+minEntry > headSize {
				break
			}
			e := b[off:]
			if le.Uint64(e) == 0 && le.Uint64(e[8:]) == 0 {
				continue
			}
			found = append(found, Found{GPT, fmt.Sprintf("partition %d of a GPT", i+1), end(le.Uint64(e[40:])+1, sector, size)})
		}
		return found
	}
	return nil
}
