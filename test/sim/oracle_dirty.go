package sim

import (
	"hastd/metadata"
)

// Invariant 2: wherever the two replicas differ, or would after a power loss of
// either or both, a bit or a log extent on the stable storage of one of them says
// so. Data in flight is no exception: an extent is journalled before it is
// written. Replicas whose pair ids do not match are copied whole and need no bits.

// dirtyUnion decodes what the stable metadata of a node marks.
func (n *node) dirtyInto(b []byte, set []uint64) {
	w := n.w
	img := metadata.Image{Layout: n.disk.layout}
	extents, ok := newestLog(b, int64(len(n.disk.stable))*sectorSize)
	if !ok {
		w.violate("metadata", "%s: no copy of the activity log is whole", n.name)
	}
	img.Map = b[superAndLogs:]
	m, _ := metadata.DecodeMap(img.Map, n.judge.sb.DataSize)
	for i := range min(m.Words(), len(set)) {
		set[i] |= m.Word(i)
	}
	const per = extentSize / metadata.BlockSize
	for _, e := range extents {
		first := int(e) * per
		for blk := first; blk < first+per && blk/64 < len(set); blk++ {
			set[blk/64] |= 1 << uint(blk%64)
		}
	}
}

func newestLog(b []byte, size int64) ([]metadata.Extent, bool) {
	limit := (size + extentSize - 1) / extentSize
	var newest uint64
	var out []metadata.Extent
	ok := false
	for i := range 2 {
		seq, e, err := metadata.DecodeLog(b[2*metadata.SuperblockSize+i*metadata.LogSize:][:metadata.LogSize], limit)
		if err == nil && (!ok || seq > newest) {
			ok, newest, out = true, seq, e
		}
	}
	return out, ok
}

// paired says whether the two replicas' maps belong together.
func paired(a, b *metadata.Superblock) bool {
	if a.Resuid == 0 || a.Resuid != b.Resuid {
		return false
	}
	for _, x := range [...]metadata.ID{a.Pair, a.PairPrev} {
		if x != 0 && (x == b.Pair || x == b.PairPrev) {
			return true
		}
	}
	return false
}

// oracleDirty compares the two media, whatever their caches may lose.
func (w *World) oracleDirty(when string, _ bool) {
	a, b := &w.nodes[0], &w.nodes[1]
	if !a.judge.sbOK || !b.judge.sbOK || !paired(&a.judge.sb, &b.judge.sb) {
		return
	}
	w.probes++
	da, db := &a.disk, &b.disk
	n := min(len(da.cur), len(db.cur), a.judge.sectors)
	var buf [32]uint64
	set := buf[:(n/sectorsPerBlock+63)/64]
	clear(set)
	decoded := false
	for s := 0; s < n; s++ {
		v := da.cur[s]
		if v == db.cur[s] && v == da.stable[s] && v == db.stable[s] {
			continue
		}
		if lied(v) || lied(db.cur[s]) || lied(da.stable[s]) || lied(db.stable[s]) {
			continue
		}
		if !decoded {
			decoded = true
			a.dirtyInto(da.metaStable, set)
			b.dirtyInto(db.metaStable, set)
		}
		blk := s / sectorsPerBlock
		if set[blk/64]&(1<<uint(blk%64)) == 0 {
			w.violate("dirty", "%s: block %d (sector %d) may differ (A %d, flushed %d; B %d, flushed %d), but neither node has it marked durably", when, blk, s,
				w.owner(v), w.owner(da.stable[s]), w.owner(db.cur[s]), w.owner(db.stable[s]))
		}
		s = (blk+1)*sectorsPerBlock - 1
	}
}

func (w *World) owner(v uint32) int32 {
	if lied(v) {
		v &^= lieMark
	}
	if v == poison || int64(v) >= int64(len(w.ledger.owners)) {
		return -1
	}
	return w.ledger.owners[v]
}
