package metadata

import "fmt"

// Store is one replica's metadata in memory and what of it is durable. Changes are
// made in memory; Prepare gives the writes that make all of them durable, one
// commit at a time; Committed tells that they are.
//
// A commit's writes may reach the medium in any order and in part, so what must
// follow something else durably goes into a later commit: the machine waits for
// Durable of the number that Next gave.
type Store struct {
	Layout Layout
	Dirty  *Map // blocks that may differ from the peer's
	Log    *Log

	super     Superblock
	changed   bool    // super differs from what was prepared last
	skipped   bool    // a commit was prepared since the opening
	stable    *Map    // what the map on the medium says, at least
	queued    []bool  // by page: stands in queue
	queue     []int32 // pages to write with the next commit
	exact     bool    // the next commit may clear bits of the map
	copySuper int     // which copy is written next
	copyLog   int
	logSeq    uint64

	prepared uint64 // number of the newest commit given out
	durable  uint64 // number of the newest commit that is durable
	writes   []Write
	inPages  []int32 // pages in the commit under way
	buffers  [][]byte
	superBuf []byte
	logBuf   []byte
}

// Problems are what Load found and could make good; people are told.
type Problems struct {
	SuperCopyLost bool
	LogLost       bool // it cannot be trusted: everything counts as dirty
	PagesDamaged  int
	LogExtents    int // extents that were active when the component was last used
}

// Load judges what was read when a component was opened. Its log's extents are
// dirty in the map from now on; they must be durable there (one commit) before
// the log is used again.
func Load(img *Image) (*Store, Problems, error) {
	var p Problems
	sb, which, err := newestSuper(img)
	if err != nil {
		return nil, p, err
	}
	for i, b := range img.Super {
		if b == nil {
			return nil, p, &CorruptError{fmt.Sprintf("superblock copy %d could not be read, and it may be the newer one: using the other could forget that this replica is old, half copied or ahead of its peer. Try again; if that place stays unreadable, create the replica anew with create --force and let the peer fill it, or read it with dump first", i)}
		}
	}
	if which >= 0 && le.Uint64(img.Super[0][16:]) == le.Uint64(img.Super[1][16:]) {
		return nil, p, &CorruptError{fmt.Sprintf("both superblock copies have sequence %d, which is never written: the disk gave one in the place of the other, which may be newer. Try again; if it stays so, create the replica anew with create --force and let the peer fill it, or read it with dump first", sb.Sequence)}
	}
	p.SuperCopyLost = which < 0
	if sb.DataSize > img.Layout.DataSize {
		return nil, p, &CorruptError{"superblock speaks of more data than the component holds"}
	}
	s := newStore(img.Layout, sb)
	s.copySuper = 1 - max(which, 0)
	if which < 0 {
		s.copySuper = -1 - which
	}
	s.Dirty, p.PagesDamaged = DecodeMap(img.Map, sb.DataSize)
	s.stable = NewMap(sb.DataSize)
	for i := range s.Dirty.words {
		s.stable.OrWord(i, s.Dirty.words[i])
	}
	s.limit()
	if p.PagesDamaged > 0 {
		s.PersistAll() // written anew, so that they are whole again
	}
	extents, ok := s.loadLog(img)
	p.LogLost = !ok
	p.LogExtents = len(extents)
	per := Block(int64(sb.ExtentSize) / BlockSize)
	for _, e := range extents {
		s.Dirty.Set(Block(e)*per, per)
		s.Persist(int64(e)*int64(sb.ExtentSize), int64(sb.ExtentSize))
	}
	if !ok {
		s.Dirty.Fill()
		s.PersistAll()
	}
	return s, p, nil
}

// openGap is how many sequence numbers an opening leaves out, and logShift how many
// numbers of the log there are to one of the superblock.
const (
	openGap  = 1 << 16
	logShift = 24
)

// skip makes what is written from now on outrank every copy on the medium, those
// too that this opening did not see: a copy that could not be read, or was read as
// something else, may be there again at the next one. The superblock with the new
// number is part of the first commit, which is durable before the log is used.
func (s *Store) skip() {
	s.skipped = true
	s.super.Sequence += openGap
	s.logSeq = max(s.logSeq, s.super.Sequence<<logShift)
	s.changed = true
}

// limit keeps the maps to the size that was agreed: what lies beyond is nobody's.
func (s *Store) limit() {
	if s.super.Size != 0 {
		s.Dirty.Limit(s.super.Size)
		s.stable.Limit(s.super.Size)
	}
}

// newestSuper picks the valid copy with the higher sequence. which tells its
// index, or -1-i when copy i is no good.
func newestSuper(img *Image) (Superblock, int, error) {
	var sbs [2]Superblock
	var errs [2]error
	for i, b := range img.Super {
		if b == nil {
			errs[i] = &CorruptError{"superblock could not be read"}
			continue
		}
		sbs[i], errs[i] = DecodeSuperblock(b)
	}
	for i := range errs {
		if v, ok := errs[i].(*VersionError); ok {
			return Superblock{}, 0, v
		}
	}
	switch {
	case errs[0] == nil && errs[1] == nil:
		if sbs[1].Sequence > sbs[0].Sequence {
			return sbs[1], 1, nil
		}
		return sbs[0], 0, nil
	case errs[0] == nil:
		return sbs[0], -2, nil
	case errs[1] == nil:
		return sbs[1], -1, nil
	case errs[0] == ErrNoMetadata && errs[1] == ErrNoMetadata:
		return Superblock{}, 0, ErrNoMetadata
	}
	return Superblock{}, 0, &CorruptError{"both superblock copies are bad; this replica cannot be trusted. Create it anew with create --force and let the peer fill it, or read it with dump first"}
}

func newStore(l Layout, sb Superblock) *Store {
	s := &Store{
		Layout:   l,
		super:    sb,
		Log:      newLog(sb.DataSize, sb.ExtentSize, sb.Keepdirty),
		queued:   make([]bool, mapPages(sb.DataSize)),
		superBuf: make([]byte, SuperblockSize),
		logBuf:   make([]byte, LogSize),
	}
	return s
}

// loadLog gives the extents of the newest valid copy. ok is false if neither can be
// trusted, or if one could not be read: it may be the newer one. So it may be if both
// are equally new, which is never written: the disk gave one in the place of the
// other. (One that was read and is torn belongs to a commit that never ended.)
func (s *Store) loadLog(img *Image) (extents []Extent, ok bool) {
	limit := int64(len(s.Log.index))
	unread := false
	for i, b := range img.Log {
		unread = unread || b == nil
		seq, e, err := DecodeLog(b, limit)
		if err != nil {
			continue
		}
		unread = unread || ok && seq == s.logSeq
		if !ok || seq > s.logSeq {
			s.logSeq, extents, s.copyLog = seq, e, 1-i
		}
		ok = true
	}
	return extents, ok && !unread
}

// Super is the superblock in memory.
func (s *Store) Super() *Superblock { return &s.super }

// Update changes the superblock in memory and returns the number of the commit
// that will make the change durable.
func (s *Store) Update(f func(sb *Superblock)) uint64 {
	size := s.super.Size
	f(&s.super)
	s.changed = true
	if s.super.Size != size {
		s.limit()
	}
	return s.Next()
}

// Next is the number of the commit that will hold what changes now.
func (s *Store) Next() uint64 { return s.prepared + 1 }

// Durable says whether a commit is durable.
func (s *Store) Durable(commit uint64) bool { return commit <= s.durable }

// Busy says whether a commit is under way.
func (s *Store) Busy() bool { return s.prepared != s.durable }

// Pending says whether something waits for a commit to be started.
func (s *Store) Pending() bool {
	return s.changed || s.Log.changed || len(s.queue) > 0
}

// Persist makes the bits of a byte range durable with the commit it returns.
func (s *Store) Persist(off, length int64) uint64 {
	first, n := Touched(off, length)
	last := min(first+n, s.Dirty.blocks)
	for p := first / blocksPerPage; p*blocksPerPage < last; p++ {
		if !s.queued[p] {
			s.queued[p] = true
			s.queue = append(s.queue, int32(p))
		}
	}
	return s.Next()
}

// PersistAll makes all bits durable with the commit it returns.
func (s *Store) PersistAll() uint64 {
	return s.Persist(0, int64(s.Dirty.blocks)*BlockSize)
}

// PersistChanged queues every page that has a bit only in memory.
func (s *Store) PersistChanged() uint64 {
	for i, w := range s.Dirty.words {
		if w&^s.stable.words[i] != 0 {
			s.Persist(int64(i)*64*BlockSize, BlockSize)
		}
	}
	return s.settled()
}

// settled is the number of the commit with which all queued pages are durable.
func (s *Store) settled() uint64 {
	if len(s.queue) > 0 {
		return s.Next()
	}
	return s.prepared // if it is under way it may hold some
}

// ClearMap lets the medium forget the bits that are clear in memory, with the
// commit it returns. Only after both superblocks durably say that the sync ended,
// with nothing unflushed.
func (s *Store) ClearMap() uint64 {
	for i, w := range s.stable.words {
		if w != s.Dirty.words[i] {
			s.Persist(int64(i)*64*BlockSize, BlockSize)
		}
	}
	s.exact = len(s.queue) > 0
	return s.settled()
}

// Prepare gives the writes of the next commit, or nil if there is nothing to do.
// It must not be called while one is under way.
func (s *Store) Prepare() []Write {
	if s.Busy() {
		panic("metadata: two commits at a time")
	}
	if !s.Pending() {
		return nil
	}
	s.writes = s.writes[:0]
	if !s.skipped {
		s.skip()
	}
	if s.changed {
		s.super.Sequence++
		s.super.Encode(s.superBuf)
		s.writes = append(s.writes, Write{s.Layout.Super[s.copySuper], s.superBuf})
		s.copySuper = 1 - s.copySuper
		s.changed = false
	}
	if s.Log.changed {
		s.logSeq++
		b := encodeLog(s.logBuf, s.logSeq, s.Log.extents())
		s.writes = append(s.writes, Write{s.Layout.Log[s.copyLog], b})
		s.copyLog = 1 - s.copyLog
		s.Log.changed = false
	}
	s.inPages = append(s.inPages[:0], s.queue...)
	s.queue = s.queue[:0]
	for i, p := range s.inPages {
		s.queued[p] = false
		if len(s.buffers) <= i {
			s.buffers = append(s.buffers, make([]byte, PageSize))
		}
		encodePage(s.buffers[i], int(p), s.pageWords(int(p)))
		s.writes = append(s.writes, Write{s.Layout.Map + int64(p)*PageSize, s.buffers[i]})
	}
	s.exact = false
	s.prepared++
	return s.writes
}

// pageWords are the bits a page must have on the medium: never fewer than before
// unless the map may be cleared. What is being cleared is not relied on from now on.
func (s *Store) pageWords(page int) []uint64 {
	first := page * wordsPerPage
	n := max(0, min(wordsPerPage, len(s.Dirty.words)-first))
	words := make([]uint64, n)
	for i := range n {
		words[i] = s.Dirty.words[first+i]
		if s.exact {
			s.stable.ClearWord(first+i, ^words[i])
		} else {
			words[i] |= s.stable.words[first+i]
		}
	}
	return words
}

// Committed tells that the commit under way is durable.
func (s *Store) Committed() {
	if !s.Busy() {
		panic("metadata: no commit under way")
	}
	for i, p := range s.inPages {
		first := int(p) * wordsPerPage
		n := max(0, min(wordsPerPage, len(s.stable.words)-first)) // the map may have been limited since
		for j := range n {
			s.stable.words[first+j] = le.Uint64(s.buffers[i][pageHead+8*j:])
		}
	}
	s.inPages = s.inPages[:0]
	s.durable = s.prepared
}

func (l *Log) extents() []Extent {
	var e []Extent
	for i := range l.slots {
		if l.index[l.slots[i].extent] == int16(i)+1 {
			e = append(e, l.slots[i].extent)
		}
	}
	return e
}
