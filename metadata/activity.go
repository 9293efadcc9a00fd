package metadata

import "math/bits"

// Acquire takes a reference on every extent of a byte range, or on none. ok is
// false when the log has no room: the caller makes room (a flush of both replicas,
// or Spill) and asks again. Data in the range may be written once commit is
// durable.
func (s *Store) Acquire(off, length int64) (commit uint64, ok bool) {
	l := s.Log
	first, last := l.span(off, length)
	if n := l.missing(first, last) - len(l.free); n > 0 {
		l.hold(first, last, 1)
		freed := s.Reclaim(n)
		l.hold(first, last, -1)
		if freed < n {
			return 0, false
		}
	}
	for e := first; e <= last; e++ {
		if sl := l.touch(e, s.Next()); sl.journal > s.durable {
			commit = max(commit, sl.journal)
		}
	}
	return commit, true
}

// Fits says whether the log could ever take a byte range together with others.
func (s *Store) Fits(off, length int64) bool {
	first, last := s.Log.span(off, length)
	return int(last-first)+1 <= len(s.Log.slots)/2
}

// hold keeps the extents of a range that are in the log from being reclaimed.
func (l *Log) hold(first, last Extent, n int32) {
	for e := first; e <= last; e++ {
		if i := l.index[e]; i != 0 {
			l.slots[i-1].refs += n
		}
	}
}

// Release gives back what Acquire took.
func (s *Store) Release(off, length int64) {
	first, last := s.Log.span(off, length)
	for e := first; e <= last; e++ {
		sl := &s.Log.slots[s.Log.index[e]-1]
		if sl.refs--; sl.refs < 0 {
			panic("metadata: extent released too often")
		}
	}
}

// Mark notes that a byte range, acquired before, was written and is not known to
// be flushed on both replicas.
func (s *Store) Mark(off, length int64) { s.Log.mark(off, length) }

// FlushBegin starts a flush of both replicas: what was marked before is covered by
// it. The caller marks again what was still being written.
func (s *Store) FlushBegin() {
	s.Log.eachUnflushed(func(sl *slot) {
		for i, w := range sl.cur {
			sl.old[i] |= w
			sl.cur[i] = 0
		}
	})
}

// FlushEnd tells that both replicas flushed what FlushBegin covered.
func (s *Store) FlushEnd() {
	s.Log.eachUnflushed(func(sl *slot) {
		sl.unflushed = false
		for i := range sl.old {
			sl.old[i] = 0
			if sl.cur[i] != 0 {
				sl.unflushed = true
			}
		}
	})
}

// Unflushed says whether the peer may hold, unflushed, what this replica counts
// on it to have.
func (s *Store) Unflushed() bool {
	found := false
	s.Log.eachUnflushed(func(*slot) { found = true })
	return found
}

// Lose sets the bits of everything that was written and not flushed on both: the
// peer is lost.
func (s *Store) Lose() {
	s.Log.eachUnflushed(s.spill)
}

// spill turns a slot's marks into dirty bits.
func (s *Store) spill(sl *slot) {
	first := int(int64(sl.extent) * s.Log.extentSize / BlockSize)
	for i := range sl.cur {
		w := sl.cur[i] | sl.old[i]
		sl.cur[i], sl.old[i] = 0, 0
		for w != 0 {
			b := first + 64*i + bits.TrailingZeros64(w)
			s.Dirty.Set(Block(b), 1)
			w &= w - 1
		}
	}
	sl.unflushed = false
}

// Spill makes up to n idle extents leave for the map: their marks become dirty
// bits, durable with the commit it returns, after which Reclaim can drop them. Those
// that it could drop already are passed over: they may be wanted, and stay. ok is
// false if there is no other.
func (s *Store) Spill(n int) (commit uint64, ok bool) {
	s.Log.eachUsed(func(i int16) bool {
		sl := &s.Log.slots[i]
		if sl.refs == 0 && sl.journal <= s.durable && !s.evictable(sl) {
			s.spill(sl)
			s.Persist(int64(sl.extent)*s.Log.extentSize, s.Log.extentSize)
			ok = true
			n--
		}
		return n > 0
	})
	return s.Next(), ok
}

// Reclaim drops up to n extents that the log need not keep, least recently used
// first, and tells how many it dropped.
func (s *Store) Reclaim(n int) (freed int) {
	s.Log.eachUsed(func(i int16) bool {
		if freed < n && s.evictable(&s.Log.slots[i]) {
			s.Log.remove(i)
			freed++
		}
		return freed < n
	})
	return freed
}

func (s *Store) evictable(sl *slot) bool {
	return sl.refs == 0 && !sl.unflushed && sl.journal <= s.durable && s.stableCovers(sl.extent)
}

// stableCovers says whether every dirty bit of an extent is durable.
func (s *Store) stableCovers(e Extent) bool {
	per := Block(s.Log.extentSize / BlockSize)
	covered := true
	s.Dirty.each(Block(e)*per, per, func(i int, w uint64) {
		if s.Dirty.words[i]&w&^s.stable.words[i] != 0 {
			covered = false
		}
	})
	return covered
}

// eachUsed visits the slots in use, least recently used first, while f says so; f
// may remove the slot it is given.
func (l *Log) eachUsed(f func(i int16) bool) {
	i := l.lru
	for n := l.used; n > 0; n-- {
		next := l.slots[i].next
		if !f(i) {
			return
		}
		i = next
	}
}

func (l *Log) eachUnflushed(f func(sl *slot)) {
	for i := range l.slots {
		if l.slots[i].unflushed {
			f(&l.slots[i])
		}
	}
}

// MarkPresent is Mark for those extents of a range that are still in the log; what
// left it has its bits in the map.
func (s *Store) MarkPresent(off, length int64) {
	for end := off + length; off < end; {
		next := min(end, (off/s.Log.extentSize+1)*s.Log.extentSize)
		if s.Log.index[off/s.Log.extentSize] != 0 {
			s.Log.mark(off, next-off)
		}
		off = next
	}
}
