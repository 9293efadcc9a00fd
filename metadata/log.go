package metadata

import (
	"hash/crc32"
	"slices"
)

// Log is the activity log: the extents that may differ although their bits in the
// map are not durable. It keeps, for each extent in it, which blocks were written
// since both replicas last flushed.
//
// An extent leaves only when no request is in flight in it, nothing in it is
// unflushed, and no dirty bit in it is only in memory; Store says the last.
type Log struct {
	extentSize int64
	words      int     // of 64 blocks in an extent
	index      []int16 // extent → slot+1
	slots      []slot
	free       []int16
	lru        int16 // head of a ring of the slots in use: least recently used first; -1: empty
	used       int
	changed    bool // the log on disk differs from what must be there
}

type slot struct {
	extent     Extent
	refs       int32
	journal    uint64 // the commit that makes it durable
	next, prev int16
	cur, old   []uint64 // written since the last flush of both began; covered by one under way
	unflushed  bool     // any bit in cur or old
}

func newLog(size int64, extentSize, keepdirty uint32) *Log {
	l := &Log{
		extentSize: int64(extentSize),
		words:      max(1, int(extentSize)/(64*BlockSize)),
		index:      make([]int16, (size+int64(extentSize)-1)/int64(extentSize)),
		slots:      make([]slot, keepdirty),
		lru:        -1,
	}
	bits := make([]uint64, 2*l.words*len(l.slots))
	for i := range l.slots {
		l.slots[i].cur, bits = bits[:l.words], bits[l.words:]
		l.slots[i].old, bits = bits[:l.words], bits[l.words:]
		l.free = append(l.free, int16(len(l.slots)-1-i))
	}
	return l
}

// Used is how many extents are in the log.
func (l *Log) Used() int { return l.used }

// Capacity is how many extents fit.
func (l *Log) Capacity() int { return len(l.slots) }

func (l *Log) span(off, length int64) (first, last Extent) {
	return Extent(off / l.extentSize), Extent((off + length - 1) / l.extentSize)
}

// missing counts the extents of a range that are not in the log.
func (l *Log) missing(first, last Extent) (n int) {
	for e := first; e <= last; e++ {
		if l.index[e] == 0 {
			n++
		}
	}
	return n
}

// touch takes a reference on an extent, adding it if need be (there is room).
func (l *Log) touch(e Extent, commit uint64) *slot {
	if i := l.index[e]; i != 0 {
		s := &l.slots[i-1]
		s.refs++
		if l.lru != i-1 && s.next == l.lru {
			return s // already the most recent
		}
		l.unlink(i - 1)
		l.link(i - 1)
		return s
	}
	i := l.free[len(l.free)-1]
	l.free = l.free[:len(l.free)-1]
	s := &l.slots[i]
	s.extent, s.refs, s.journal, s.unflushed = e, 1, commit, false
	l.index[e] = i + 1
	l.used++
	l.changed = true
	l.link(i)
	return s
}

// link puts a slot at the ring's most recent end.
func (l *Log) link(i int16) {
	s := &l.slots[i]
	if l.lru < 0 {
		s.next, s.prev, l.lru = i, i, i
		return
	}
	head := &l.slots[l.lru]
	s.next, s.prev = l.lru, head.prev
	l.slots[head.prev].next = i
	head.prev = i
}

func (l *Log) unlink(i int16) {
	s := &l.slots[i]
	if s.next == i {
		l.lru = -1
		return
	}
	l.slots[s.prev].next, l.slots[s.next].prev = s.next, s.prev
	if l.lru == i {
		l.lru = s.next
	}
}

func (l *Log) remove(i int16) {
	l.unlink(i)
	l.index[l.slots[i].extent] = 0
	l.slots[i].extent = 0
	l.free = append(l.free, i)
	l.used--
	l.changed = true
}

// mark notes blocks as written and not flushed by both.
func (l *Log) mark(off, length int64) {
	first, n := Touched(off, length)
	perExtent := Block(l.extentSize / BlockSize)
	for b := first; b < first+n; b++ {
		s := &l.slots[l.index[b/perExtent]-1]
		i := b % perExtent
		s.cur[i/64] |= 1 << uint(i%64)
		s.unflushed = true
	}
}

const logMagic = "HASTALOG"

const logHead = 32

// encode writes the log: magic, CRC32C at 8, count u32, sequence u64, 8 zero
// bytes, then the extents as u32. Its length is that of its content rounded up to
// whole pages.
func encodeLog(b []byte, sequence uint64, extents []Extent) []byte {
	n := (logHead + 4*len(extents) + PageSize - 1) / PageSize * PageSize
	b = b[:n]
	clear(b)
	copy(b, logMagic)
	le.PutUint32(b[12:], uint32(len(extents)))
	le.PutUint64(b[16:], sequence)
	for i, e := range extents {
		le.PutUint32(b[logHead+4*i:], uint32(e))
	}
	le.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

// DecodeLog reads one copy of the activity log. limit is the number of extents the
// data area has.
func DecodeLog(b []byte, limit int64) (sequence uint64, extents []Extent, err error) {
	if len(b) < PageSize || string(b[:8]) != logMagic {
		return 0, nil, ErrNoMetadata
	}
	count := int64(le.Uint32(b[12:]))
	if count > MaxKeepdirty {
		return 0, nil, &CorruptError{"activity log has too many entries"}
	}
	n := (logHead + 4*count + PageSize - 1) / PageSize * PageSize
	if n > int64(len(b)) || !checksumOK(b[:n], 8) {
		return 0, nil, &CorruptError{"activity log checksum does not match"}
	}
	for i := range count {
		e := Extent(le.Uint32(b[logHead+4*i:]))
		if int64(e) >= limit {
			return 0, nil, &CorruptError{"activity log names an extent beyond the end"}
		}
		extents = append(extents, e)
	}
	slices.Sort(extents)
	return le.Uint64(b[16:]), slices.Compact(extents), nil
}
