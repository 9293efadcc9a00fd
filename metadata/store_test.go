package metadata

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// storeModel is the rules of replication 2.2 as simple sets, next to a Store: a
// block that was written and is not known to be the same on both replicas must be
// found again after a crash at any point.
type storeModel struct {
	t    *testing.T
	r    *rand.Rand
	seed uint64
	step int
	what string

	s      *Store
	disk   *medium
	linked bool
	size   int64
	ext    int64

	writes  []*modelWrite
	flush   bool // one is under way
	refs    map[Extent]int
	marked  map[Block]bool // marked in the log since a flush of both last covered it
	covered map[Block]bool // of marked: the flush under way covers it
	must    map[Block]bool // may differ, and the map has to know
	touched map[Extent]int // when each extent was acquired last
	clock   int
	supers  [2]Superblock // durable, and in the commit under way
	// loading: the commit with the log of the last use is not durable yet.
	loading uint64

	crashes, evicted, spilled, denied int
}

type modelWrite struct {
	off, len int64
	commit   uint64
	started  bool
}

func (m *storeModel) fatalf(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("seed %d step %d, %s: %s", m.seed, m.step, m.what, fmt.Sprintf(format, args...))
}

func blocksOf(off, length int64) (bs []Block) {
	first, n := Touched(off, length)
	for b := first; b < first+n; b++ {
		bs = append(bs, b)
	}
	return bs
}

func (m *storeModel) extentOf(b Block) Extent { return Extent(int64(b) * BlockSize / m.ext) }

func (m *storeModel) extentsOf(off, length int64) (es []Extent) {
	for e := off / m.ext; e*m.ext < off+length; e++ {
		es = append(es, Extent(e))
	}
	return es
}

// evictable is the rule: idle, flushed by both, every dirty bit durable, and
// itself durable.
func (m *storeModel) evictable(e Extent) bool {
	if m.refs[e] > 0 {
		return false
	}
	return !m.unflushed(e) && m.durableCovers(e) && m.s.Log.slots[m.s.Log.index[e]-1].journal <= m.s.durable
}

// unflushed says whether a block of an extent is marked.
func (m *storeModel) unflushed(e Extent) bool {
	for _, b := range blocksOf(int64(e)*m.ext, m.ext) {
		if m.marked[b] {
			return true
		}
	}
	return false
}

// durableCovers compares memory with what stands on the medium.
func (m *storeModel) durableCovers(e Extent) bool {
	first, n := Touched(int64(e)*m.ext, min(m.ext, m.size-int64(e)*m.ext))
	for b := first; b < first+n; b++ {
		if m.s.Dirty.Any(b, 1) && !m.stableBit(b) {
			return false
		}
	}
	return true
}

// stableBit reads a bit from the flushed medium, as Load would; a commit under way
// must not take it away.
func (m *storeModel) stableBit(b Block) bool {
	page := int64(b / blocksPerPage)
	at := m.disk.layout.Map - m.disk.base + page*PageSize
	p := m.disk.bytes[at : at+PageSize]
	bit := b % blocksPerPage
	for _, w := range m.disk.pending {
		if w.Offset == m.disk.layout.Map+page*PageSize && w.Data[pageHead+bit/8]>>(bit%8)&1 == 0 {
			return false
		}
	}
	return p[pageHead+bit/8]>>(bit%8)&1 != 0 || !pageOK(p, int(page))
}

// act does something to the store and checks which extents left the log.
func (m *storeModel) act(what string, keep []Extent, f func()) {
	m.t.Helper()
	m.what = what
	before := m.s.Log.extents()
	may := map[Extent]bool{}
	if len(before) == m.s.Log.Capacity() {
		for _, e := range before {
			may[e] = m.evictable(e) && !slices.Contains(keep, e)
		}
	} else {
		may = nil // nobody has to leave, but Reclaim may be asked directly
	}
	f()
	after := m.s.Log.extents()
	if len(after) != m.s.Log.Used() || len(after) > m.s.Log.Capacity() {
		m.fatalf("%d extents, used %d of %d", len(after), m.s.Log.Used(), m.s.Log.Capacity())
	}
	newest := -1
	for _, e := range before {
		if slices.Contains(after, e) {
			continue
		}
		m.evicted++
		if may != nil && !may[e] {
			m.fatalf("extent %d left the log: %d in flight, covered %t", e, m.refs[e], m.durableCovers(e))
		}
		newest = max(newest, m.touched[e])
	}
	for e, ok := range may {
		if ok && slices.Contains(after, e) && m.touched[e] < newest {
			m.fatalf("extent %d stayed, though it was used less recently than one that left", e)
		}
	}
	for _, e := range after {
		sl := &m.s.Log.slots[m.s.Log.index[e]-1]
		if int(sl.refs) != m.refs[e] {
			m.fatalf("extent %d has %d references, want %d", e, sl.refs, m.refs[e])
		}
	}
	for e, n := range m.refs {
		if n > 0 && m.s.Log.index[e] == 0 {
			m.fatalf("extent %d left with %d writes in flight", e, n)
		}
	}
	for b := range m.marked {
		if m.s.Log.index[m.extentOf(b)] == 0 {
			m.fatalf("block %d is not flushed by both, and its extent %d left", b, m.extentOf(b))
		}
	}
}

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
			if m.refs[e] == 0 && m.s.Log.slots[m.s.Log.index[e]-1].journal <= m.s.durable {
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

// TestStoreAgainstModel runs random histories of one replica's metadata, with a
// crash looked at after every few steps: any share of the sectors of a commit
// under way may have reached the medium.
func TestStoreAgainstModel(t *testing.T) {
	seeds := uint64(18)
	if testing.Short() {
		seeds = 10
	}
	var crashes, evicted, spilled, denied int
	for seed := range seeds {
		ext, size := int64(1<<20), int64(300<<20) // three map pages
		if seed%2 == 1 {
			ext, size = MinExtentSize, 8<<20
		}
		keepdirty := uint32(16)
		if seed%3 == 0 { // a log of several sectors
			ext, size, keepdirty = MinExtentSize, 64<<20, 300
		}
		if seed%5 == 4 {
			size += 5 * BlockSize // the last extent is not whole
		}
		l := testLayout(t, size)
		sb := Superblock{Resource: "db", SectorSize: 512, ExtentSize: uint32(ext), Keepdirty: keepdirty}
		for id := ID(1); id <= MaxGenerations; id++ { // a superblock of two sectors
			sb.Lineage = sb.Lineage.Add(Generation{ID: id})
		}
		ws, err := Create(l, sb)
		if err != nil {
			t.Fatal(err)
		}
		m := &storeModel{t: t, r: testRand(1000 + seed), seed: seed, disk: newMedium(l), size: size, ext: ext,
			refs: map[Extent]int{}, marked: map[Block]bool{}, covered: map[Block]bool{}, must: map[Block]bool{}, touched: map[Extent]int{}, linked: true}
		m.disk.write(ws)
		if m.s, _, err = Load(m.disk.image()); err != nil {
			t.Fatal(err)
		}
		m.supers = [2]Superblock{*m.s.Super(), *m.s.Super()}
		m.run(600)
		crashes, evicted, spilled, denied = crashes+m.crashes, evicted+m.evicted, spilled+m.spilled, denied+m.denied
	}
	t.Logf("%d crashes looked at, %d extents left the log, %d spills, %d acquisitions denied", crashes, evicted, spilled, denied)
	if crashes == 0 || evicted == 0 || spilled == 0 || denied == 0 {
		t.Error("the histories do not reach everything")
	}
}

func TestStoreAcquireTakesAllOrNone(t *testing.T) {
	img := image(t, testLayout(t, 64<<20), Superblock{Resource: "db", SectorSize: 512, ExtentSize: 1 << 20, Keepdirty: 16})
	s, _, err := Load(img)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Acquire(0, 14<<20); !ok || s.Log.Used() != 14 {
		t.Fatalf("%t, %d", ok, s.Log.Used())
	}
	if _, ok := s.Acquire(13<<20, 4<<20); ok { // one held, three more, two free
		t.Fatal("more than fits")
	}
	if s.Log.Used() != 14 {
		t.Fatalf("a denied acquisition left %d extents", s.Log.Used())
	}
	if _, ok := s.Acquire(13<<20, 3<<20); !ok || s.Log.Used() != 16 {
		t.Fatalf("%t, %d", ok, s.Log.Used())
	}
	s.Release(0, 14<<20)
	s.Release(13<<20, 3<<20)
	if n := s.Reclaim(99); n != 0 {
		t.Fatalf("%d extents left before their journal was durable", n)
	}
	s.Prepare()
	s.Committed()
	if n := s.Reclaim(99); n != 16 || s.Log.Used() != 0 {
		t.Fatalf("%d left", n)
	}
	ws := s.Prepare()
	if len(ws) != 1 {
		t.Fatalf("%d writes after the log became empty", len(ws))
	}
	if _, extents, err := DecodeLog(ws[0].Data, 64); err != nil || len(extents) != 0 {
		t.Fatalf("%v, %v", extents, err)
	}
}

// TestStoreClearNeverReachesTheMediumBeforeTheEnd: bits cleared in memory stay on
// the medium until ClearMap.
func TestStoreClearNeverReachesTheMediumBeforeTheEnd(t *testing.T) {
	l := testLayout(t, 64<<20)
	d := newMedium(l)
	ws, err := Create(l, Superblock{Resource: "db", SectorSize: 512, ExtentSize: 1 << 20, Keepdirty: 16})
	if err != nil {
		t.Fatal(err)
	}
	d.write(ws)
	s, _, err := Load(d.image())
	if err != nil {
		t.Fatal(err)
	}
	commit := func() {
		if ws := s.Prepare(); ws != nil {
			d.write(ws)
			s.Committed()
		}
	}
	count := func() int64 {
		m, _ := DecodeMap(d.image().Map, 64<<20)
		return m.Count()
	}
	s.Dirty.Set(10, 5)
	if n := s.PersistChanged(); n != s.Next() {
		t.Fatalf("commit %d", n)
	}
	commit()
	s.Dirty.Clear(10, 5)
	s.Dirty.Set(100, 1)
	s.PersistAll()
	commit()
	if count() != 6 {
		t.Fatalf("%d bits on the medium", count())
	}
	s.ClearMap()
	commit()
	if count() != 1 {
		t.Fatalf("%d bits on the medium after the end", count())
	}
	if n := s.ClearMap(); !s.Durable(n) || s.Pending() {
		t.Fatal("nothing to clear, but something to wait for")
	}
}

// TestStoreAgreedSizeLimitsTheMaps: beyond the agreed size nothing is dirty.
func TestStoreAgreedSizeLimitsTheMaps(t *testing.T) {
	sb := Superblock{Resource: "db", SectorSize: 512, ExtentSize: 1 << 20, Keepdirty: 16}
	s, _, err := Load(image(t, testLayout(t, 300<<20), sb))
	if err != nil {
		t.Fatal(err)
	}
	s.Dirty.Fill()
	s.PersistAll()
	s.Prepare()
	s.Update(func(sb *Superblock) { sb.Size = 100 << 20 }) // while a commit is under way
	s.Committed()
	if s.Dirty.Count() != 100<<20/BlockSize {
		t.Fatalf("%d blocks are dirty", s.Dirty.Count())
	}
	s.Dirty.Reset()
	s.ClearMap()
	s.Prepare()
	s.Committed()
	s.PersistAll()
	s.Prepare()
	s.Committed()
}

// TestStoreWritesDamagedPagesAnew: the first commit after a Load mends them.
func TestStoreWritesDamagedPagesAnew(t *testing.T) {
	img := image(t, testLayout(t, 300<<20), Superblock{Resource: "db", SectorSize: 512, ExtentSize: 1 << 20, Keepdirty: 16})
	img.Map[PageSize+99] ^= 1
	s, p, err := Load(img)
	if err != nil || p.PagesDamaged != 1 || s.Dirty.Count() != blocksPerPage {
		t.Fatalf("%+v, %v, %d blocks are dirty", p, err, s.Dirty.Count())
	}
	d := newMedium(img.Layout)
	copy(d.bytes[img.Layout.Map-d.base:], img.Map)
	d.write(s.Prepare())
	if m, damaged := DecodeMap(d.image().Map, 300<<20); damaged != 0 || m.Count() != blocksPerPage {
		t.Fatalf("%d pages are damaged, %d blocks dirty", damaged, m.Count())
	}
}

// TestStoreDoesNotRelyOnBitsBeingCleared: while ClearMap's commit is under way, an
// extent whose blocks became dirty again must not leave on the strength of bits
// that the commit is about to take away.
func TestStoreDoesNotRelyOnBitsBeingCleared(t *testing.T) {
	s, _, err := Load(image(t, testLayout(t, 64<<20), Superblock{Resource: "db", SectorSize: 512, ExtentSize: 1 << 20, Keepdirty: 16}))
	if err != nil {
		t.Fatal(err)
	}
	commit := func() {
		if s.Prepare() != nil {
			s.Committed()
		}
	}
	if _, ok := s.Acquire(0, BlockSize); !ok {
		t.Fatal("no room")
	}
	s.Dirty.Set(0, 1)
	s.PersistChanged()
	commit()
	s.Dirty.Clear(0, 1) // copied
	s.ClearMap()
	s.Prepare()
	s.Mark(0, BlockSize) // written again, then the peer is lost
	s.Release(0, BlockSize)
	s.Lose()
	if n := s.Reclaim(1); n != 0 {
		t.Fatal("the extent left, and nothing on the medium will tell of its block")
	}
	s.Committed()
	if n := s.Reclaim(1); n != 0 {
		t.Fatal("the extent left before its bit was durable again")
	}
	s.PersistChanged()
	commit()
	if n := s.Reclaim(1); n != 1 {
		t.Fatal("the extent stays although its bit is durable")
	}
}
