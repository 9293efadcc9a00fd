package metadata

import (
	"fmt"
	"math/rand/v2"
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
