package metadata

import "hash/crc32"

const (
	pageMagic    = 0x50414d48 // "HMAP"
	wordsPerPage = blocksPerPage / 64
)

// encodePage writes one map page:
//
//	0 magic u32   4 CRC32C of the rest u32 (at 4 while zero)   8 page number u64
//	16 zero       32 bits of blocksPerPage blocks
func encodePage(b []byte, page int, words []uint64) {
	clear(b[:pageHead])
	le.PutUint32(b, pageMagic)
	le.PutUint64(b[8:], uint64(page))
	for i, w := range words {
		le.PutUint64(b[pageHead+8*i:], w)
	}
	clear(b[pageHead+8*len(words):])
	le.PutUint32(b[4:], crc32.Checksum(b, castagnoli))
}

// pageOK says whether a page was written whole, and as this page.
func pageOK(b []byte, page int) bool {
	return le.Uint32(b) == pageMagic && le.Uint64(b[8:]) == uint64(page) && checksumOK(b, 4)
}

// DecodeMap reads the map of a data area of size bytes. A page that is damaged or
// was torn by a crash counts as dirty from end to end; damaged says how many.
func DecodeMap(b []byte, size int64) (m *Map, damaged int) {
	m = NewMap(size)
	for page := 0; page*wordsPerPage < len(m.words); page++ {
		first := page * wordsPerPage
		n := min(wordsPerPage, len(m.words)-first)
		if len(b) < (page+1)*PageSize || !pageOK(b[page*PageSize:(page+1)*PageSize], page) {
			damaged++
			m.Set(Block(first)*64, Block(n)*64)
			continue
		}
		p := b[page*PageSize+pageHead:]
		for i := range n {
			m.OrWord(first+i, le.Uint64(p[8*i:]))
		}
	}
	return m, damaged
}
