package metadata

import (
	"fmt"
	"reflect"
	"slices"
)

// What happens to a storeModel, a step at a time.

func (m *storeModel) acquire() {
	off := m.r.Int64N(m.size/512) * 512
	if m.r.IntN(3) > 0 { // most writes are near each other
		off = m.r.Int64N(m.ext*24/512) * 512
	}
	length := min((1+m.r.Int64N(64))*512, m.size-off)
	if m.r.IntN(10) == 0 {
		length = min(m.ext*int64(1+m.r.IntN(m.s.Log.Capacity()/4)), m.size-off)
	}
	w := &modelWrite{off: off, len: length}
	for _, o := range m.writes {
		if off < o.off+o.len && o.off < off+length {
			return // serialised by the caller
		}
	}
	es := m.extentsOf(off, length)
	m.act(fmt.Sprintf("acquire %d+%d", off, length), es, func() {
		used := m.s.Log.extents()
		free, missing := m.s.Log.Capacity()-len(used), 0
		for _, e := range es {
			if !slices.Contains(used, e) {
				missing++
			}
		}
		able := 0
		for _, e := range used {
			if !slices.Contains(es, e) && m.evictable(e) {
				able++
			}
		}
		commit, ok := m.s.Acquire(off, length)
		if want := missing <= free+able; ok != want {
			m.fatalf("%t, want %t: %d missing, %d free, %d may leave", ok, want, missing, free, able)
		}
		if !ok {
			m.denied++
			return
		}
		if missing > 0 && commit != m.s.Next() {
			m.fatalf("a new extent is durable with commit %d, not %d", commit, m.s.Next())
		}
		for _, e := range es {
			m.refs[e]++
			m.clock++
			m.touched[e] = m.clock
		}
		w.commit = commit
		m.writes = append(m.writes, w)
		if m.linked {
			m.s.Mark(off, length)
			for _, b := range blocksOf(off, length) {
				m.marked[b] = true
				delete(m.covered, b)
			}
		} else {
			first, n := Touched(off, length)
			m.s.Dirty.Set(first, n)
		}
	})
}

// start begins the data write of what is journalled.
func (m *storeModel) start() {
	for _, w := range m.writes {
		if !w.started && m.s.Durable(w.commit) {
			w.started = true
			for _, b := range blocksOf(w.off, w.len) {
				m.must[b] = true
			}
		}
	}
}

func (m *storeModel) complete() {
	if len(m.writes) == 0 {
		return
	}
	i := m.r.IntN(len(m.writes))
	w := m.writes[i]
	if !w.started {
		return
	}
	m.writes = slices.Delete(m.writes, i, i+1)
	m.act("complete", nil, func() {
		if first, n := Covered(w.off, w.len); m.linked && n > 0 && m.r.IntN(2) == 0 {
			m.s.Dirty.Clear(first, n) // both have it
		}
		for _, e := range m.extentsOf(w.off, w.len) {
			m.refs[e]--
		}
		m.s.Release(w.off, w.len)
	})
}

func (m *storeModel) flushBegin() {
	if !m.linked || m.flush && m.r.IntN(4) > 0 { // some are begun again
		return
	}
	m.act("flush begin", nil, func() {
		m.s.FlushBegin()
		m.covered = map[Block]bool{}
		for b := range m.marked {
			m.covered[b] = true
		}
		for _, w := range m.writes { // still being written
			m.s.Mark(w.off, w.len)
			for _, b := range blocksOf(w.off, w.len) {
				m.marked[b] = true
				delete(m.covered, b)
			}
		}
		m.flush = true
	})
}

func (m *storeModel) flushEnd() {
	if !m.flush {
		return
	}
	m.act("flush end", nil, func() {
		m.s.FlushEnd()
		for b := range m.covered {
			delete(m.marked, b)
			if !m.s.Dirty.Any(b, 1) && !m.stableBit(b) {
				delete(m.must, b) // the same on both, flushed
			}
		}
		m.flush, m.covered = false, map[Block]bool{}
	})
	if m.s.Unflushed() != (len(m.marked) > 0) {
		m.fatalf("unflushed is %t, %d blocks are marked", m.s.Unflushed(), len(m.marked))
	}
}

// lose parts from the peer.
func (m *storeModel) lose() {
	m.act("lose", nil, func() {
		m.s.Lose()
		m.linked, m.flush = false, false
		for b := range m.marked {
			if !m.s.Dirty.Any(b, 1) {
				m.fatalf("block %d was not flushed by both and is not dirty", b)
			}
		}
		m.marked, m.covered = map[Block]bool{}, map[Block]bool{}
		if m.s.Unflushed() {
			m.fatalf("something is unflushed still")
		}
		// What was in flight must be known too, as the machine does by Dirty.Set.
		for _, w := range m.writes {
			first, n := Touched(w.off, w.len)
			m.s.Dirty.Set(first, n)
		}
	})
}

// relink is the part of an agreement that concerns one side's metadata: every bit
// durable first, and what is in flight marked.
func (m *storeModel) relink() {
	if m.linked || m.loading != 0 {
		return
	}
	m.s.PersistChanged()
	m.commit()
	m.act("relink", nil, func() {
		m.linked = true
		for _, w := range m.writes {
			m.s.Mark(w.off, w.len)
			for _, b := range blocksOf(w.off, w.len) {
				m.marked[b] = true
			}
		}
	})
}

// sync copies everything, flushes, and ends as replication 6.3 says.
func (m *storeModel) sync() {
	if !m.linked || len(m.writes) > 0 || m.flush {
		return
	}
	m.what = "sync"
	for w := m.s.Dirty.NextWord(0); w >= 0; w = m.s.Dirty.NextWord(w + 1) {
		m.s.Dirty.ClearWord(w, ^uint64(0))
	}
	m.crash(false) // nothing copied is forgotten before the end
	m.flushBegin()
	m.flushEnd()
	m.s.Update(func(sb *Superblock) { sb.Marks &^= Raised })
	m.commit()
	m.s.ClearMap()
	m.must = map[Block]bool{}
	if m.r.IntN(2) == 0 {
		m.prepare() // life goes on while the map is being cleared
		for range 12 {
			m.acquire()
			m.start()
			m.complete()
		}
		if m.r.IntN(2) == 0 {
			m.lose()
		} else {
			m.spill()
		}
		for range 24 {
			m.acquire()
			m.start()
			m.complete()
		}
		m.committed()
		m.prepare()
		m.crash(false)
		return
	}
	m.commit()
	if m.s.Dirty.Count() != 0 {
		m.fatalf("%d blocks are dirty after a sync", m.s.Dirty.Count())
	}
	_, damaged := DecodeMap(m.disk.image().Map, m.size)
	if damaged > 0 {
		m.fatalf("%d pages are damaged after a sync", damaged)
	}
}

func (m *storeModel) prepare() {
	if m.s.Busy() {
		return
	}
	m.what = "prepare"
	pending := m.s.Pending()
	ws := m.s.Prepare()
	if (ws != nil) != pending {
		m.fatalf("pending %t, %d writes", pending, len(ws))
	}
	if ws == nil {
		return
	}
	m.supers[1] = *m.s.Super()
	m.disk.begin(ws)
}

func (m *storeModel) committed() {
	if !m.s.Busy() {
		return
	}
	m.act("committed", nil, func() {
		if !m.disk.end() {
			m.fatalf("the writes of a commit changed while it was under way")
		}
		m.s.Committed()
		m.supers[0] = m.supers[1]
	})
	if m.loading != 0 && m.s.Durable(m.loading) {
		m.loading = 0
	}
	m.start()
}

// commit makes everything durable.
func (m *storeModel) commit() {
	m.committed()
	for m.s.Pending() {
		m.prepare()
		m.committed()
	}
}

// crash checks what a crash now would leave; with real set it happens.
func (m *storeModel) crash(real bool) {
	m.t.Helper()
	m.crashes++
	c := m.disk.crash(m.r)
	s, p, err := Load(c.image())
	if err != nil {
		m.fatalf("load after a crash: %v", err)
	}
	if p.LogLost {
		m.fatalf("a crash took both copies of the log")
	}
	for b := range m.must {
		if !s.Dirty.Any(b, 1) {
			m.fatalf("block %d (extent %d) was written and is not known to be the same on both, and a crash forgets it", b, m.extentOf(b))
		}
	}
	same := func(sb Superblock) bool {
		sb.Sequence = s.Super().Sequence // of what did not change
		return reflect.DeepEqual(*s.Super(), sb)
	}
	if !same(m.supers[0]) && !same(m.supers[1]) {
		m.fatalf("superblock %+v after a crash, want %+v or %+v", *s.Super(), m.supers[0], m.supers[1])
	}
	if !real {
		return
	}
	m.disk.scratch = nil // it is the medium now
	m.s, m.disk = s, c
	m.writes, m.flush, m.linked = nil, false, false
	m.refs, m.touched = map[Extent]int{}, map[Extent]int{}
	m.marked, m.covered = map[Block]bool{}, map[Block]bool{}
	m.supers = [2]Superblock{*s.Super(), *s.Super()}
	m.loading = s.Update(func(*Superblock) {})
}

// spill makes idle extents leave for the map.
func (m *storeModel) spill() {
	m.act("spill", nil, func() {
		idle := 0
		for _, e := range m.s.Log.extents() {
			if sl := &m.s.Log.slots[m.s.Log.index[e]-1]; m.refs[e] == 0 && sl.journal <= m.s.durable && !m.s.evictable(sl) {
				idle++
			}
		}
		if m.flush && m.linked {
			return
		}
		_, ok := m.s.Spill(1 + m.r.IntN(8))
		if ok != (idle > 0) {
			m.fatalf("%t, %d extents are idle", ok, idle)
		}
		m.spilled++
		for b := range m.marked { // now in the map instead
			if sl := m.s.Log.slots[m.s.Log.index[m.extentOf(b)]-1]; !sl.unflushed {
				if !m.s.Dirty.Any(b, 1) {
					m.fatalf("block %d was spilled and is not dirty", b)
				}
				delete(m.marked, b)
				delete(m.covered, b)
			}
		}
	})
}

func (m *storeModel) run(steps int) {
	for m.step = range steps {
		switch op := m.r.IntN(100); {
		case m.loading != 0 && op < 70:
			if op < 40 {
				m.prepare()
			} else {
				m.committed()
			}
		case m.loading != 0:
		case op < 30:
			m.acquire()
		case op < 50:
			m.complete()
		case op < 55:
			m.flushBegin()
		case op < 62:
			m.flushEnd()
		case op < 74:
			m.prepare()
		case op < 88:
			m.committed()
		case op < 91:
			m.spill()
		case op < 93:
			m.s.Update(func(sb *Superblock) {
				sb.Localcnt++
				sb.Lineage = sb.Lineage.Add(Generation{ID: ID(m.r.Uint64()), Node: 1})
			})
		case op < 95:
			if m.linked {
				m.lose()
			} else {
				m.relink()
			}
		case op < 96:
			m.sync()
		case op < 97:
			if m.r.IntN(3) == 0 {
				m.what = "crash"
				m.crash(true)
				continue
			}
		}
		if m.r.IntN(4) == 0 {
			m.crash(false)
		}
	}
}
