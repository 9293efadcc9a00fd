package metadata

import "math/bits"

// Map is one bit for each block of the data area.
type Map struct {
	words  []uint64
	blocks Block
	count  int64
}

// NewMap makes an empty map of a data area of size bytes.
func NewMap(size int64) *Map {
	n := Block((size + BlockSize - 1) / BlockSize)
	return &Map{words: make([]uint64, (n+63)/64), blocks: n}
}

// Limit makes the map stand for the first size bytes only.
func (m *Map) Limit(size int64) {
	n := min(m.blocks, Block((size+BlockSize-1)/BlockSize))
	m.Clear(n, m.blocks-n)
	m.blocks = n
	m.words = m.words[:(n+63)/64]
}

// Blocks is how many blocks the map stands for.
func (m *Map) Blocks() Block { return m.blocks }

// Count is how many bits are set.
func (m *Map) Count() int64 { return m.count }

// Words is how many words of 64 blocks the map has.
func (m *Map) Words() int { return len(m.words) }

// Word gives the bits of blocks 64i to 64i+63.
func (m *Map) Word(i int) uint64 { return m.words[i] }

// OrWord sets bits of one word; those beyond the end are ignored.
func (m *Map) OrWord(i int, w uint64) {
	w &= m.valid(i) &^ m.words[i]
	m.words[i] |= w
	m.count += int64(bits.OnesCount64(w))
}

// ClearWord clears bits of one word.
func (m *Map) ClearWord(i int, w uint64) {
	w &= m.words[i]
	m.words[i] &^= w
	m.count -= int64(bits.OnesCount64(w))
}

// valid are the bits of a word that stand for blocks.
func (m *Map) valid(i int) uint64 {
	if rest := m.blocks - Block(i)*64; rest < 64 {
		return 1<<uint(rest) - 1
	}
	return ^uint64(0)
}

// each calls f for every word that [first, first+n) touches, with the bits in it.
func (m *Map) each(first, n Block, f func(i int, w uint64)) {
	last := min(first+n, m.blocks)
	for b := first; b < last; {
		i := int(b / 64)
		end := min(Block(i+1)*64, last)
		w := ^uint64(0) << uint(b%64)
		if e := uint(end - Block(i)*64); e < 64 {
			w &= 1<<e - 1
		}
		f(i, w)
		b = end
	}
}

// Set sets n bits.
func (m *Map) Set(first, n Block) { m.each(first, n, m.OrWord) }

// Clear clears n bits.
func (m *Map) Clear(first, n Block) { m.each(first, n, m.ClearWord) }

// Any says whether one of n bits is set.
func (m *Map) Any(first, n Block) bool {
	last := min(first+n, m.blocks)
	for b := first; b < last; {
		i := int(b / 64)
		end := min(Block(i+1)*64, last)
		w := m.words[i] >> uint(b%64)
		if e := uint(end - b); e < 64 {
			w &= 1<<e - 1
		}
		if w != 0 {
			return true
		}
		b = end
	}
	return false
}

// NextWord finds the first word at or after i that has a bit set, or -1.
func (m *Map) NextWord(i int) int {
	for ; i < len(m.words); i++ {
		if m.words[i] != 0 {
			return i
		}
	}
	return -1
}

// Fill sets every bit.
func (m *Map) Fill() { m.Set(0, m.blocks) }

// Reset clears every bit.
func (m *Map) Reset() {
	clear(m.words)
	m.count = 0
}

// Touched are the blocks that a range of bytes overlaps.
func Touched(off, length int64) (first, n Block) {
	first = Block(off / BlockSize)
	return first, Block((off+length+BlockSize-1)/BlockSize) - first
}

// Covered are the blocks that a range of bytes fills from end to end.
func Covered(off, length int64) (first, n Block) {
	first = Block((off + BlockSize - 1) / BlockSize)
	return first, max(0, Block((off+length)/BlockSize)-first)
}
