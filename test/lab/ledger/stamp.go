package ledger

import "encoding/binary"

// A stamped sector: magic, seed, sector number and write in the first 32 bytes,
// then words that follow from those, so that a mixture of two writes inside a
// sector does not pass and that the data does not compress.
const (
	stampMagic  = 0x4c4544474552_0001 // "LEDGER", format 1
	headerBytes = 32
)

// splitmix is a step of the SplitMix64 generator (Steele, Lea, Flood 2014).
func splitmix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func stampSector(b []byte, seed, sector uint64, id ID) {
	binary.LittleEndian.PutUint64(b[0:], stampMagic)
	binary.LittleEndian.PutUint64(b[8:], seed)
	binary.LittleEndian.PutUint64(b[16:], sector)
	binary.LittleEndian.PutUint64(b[24:], uint64(id))
	x := splitmix(seed ^ splitmix(sector^splitmix(uint64(id))))
	for i := headerBytes; i < SectorSize; i += 8 {
		x = splitmix(x)
		binary.LittleEndian.PutUint64(b[i:], x)
	}
}

// Fill makes b the content of write id at off.
func (l *Ledger) Fill(b []byte, off int64, id ID) {
	for i := 0; i < len(b); i += SectorSize {
		stampSector(b[i:i+SectorSize], l.seed, uint64(off+int64(i))/SectorSize, id)
	}
}
