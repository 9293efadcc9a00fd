package sim

import "hastd/metadata"

// disk is one component: data as stamps, metadata as bytes, each with what a read
// gives now (cur) and what a power loss leaves at least (stable). Completed writes
// that no flush covered stand in a journal, in their order; a power loss keeps a
// random part of each.
//
// Data and metadata count as two devices: a flush of one says nothing about the
// other, as with external metadata.
type disk struct {
	w           *World
	cur, stable []uint32
	journal     []cached
	arena       []uint32
	base        int // absolute number of journal[0]

	layout     metadata.Layout
	metaCur    []byte
	metaStable []byte
	metaLog    []metaCached
	metaArena  []byte

	// Faults on command.
	failWrites  int  // how many of the next writes fail
	failFlushes int  // how many of the next flushes fail
	failMeta    int  // how many of the next commits fail
	failReads   int  // how many of the next reads fail
	shortReads  int  // how many of the next reads end after a part
	gone        bool // everything fails
	lies        int  // how many of the next reads may lie
	lieOld      bool // with what was there at the time of old
	old         []uint32
	metaLie     metaLie
	oldMeta     []byte
	slow        int64  // factor on every delay
	bad         []bool // blocks that cannot be read until written
	badCount    int
}

// cached is a completed write of data that no flush covered.
type cached struct {
	sec, n int32
	at     int32 // first stamp in arena; -1: zeroes
}

// metaCached is one sector of metadata likewise.
type metaCached struct {
	sec int32
	at  int32
}

const superAndLogs = 2*metadata.SuperblockSize + 2*metadata.LogSize

func (d *disk) reset(w *World, size int64) {
	d.w = w
	n := int(size / sectorSize)
	if cap(d.cur) < n {
		d.cur, d.stable = make([]uint32, n), make([]uint32, n)
	}
	d.cur, d.stable = d.cur[:n], d.stable[:n]
	clear(d.cur)
	clear(d.stable)
	blocks := n / sectorsPerBlock
	if cap(d.bad) < blocks {
		d.bad = make([]bool, blocks)
	}
	d.bad = d.bad[:blocks]
	d.heal()
	d.old, d.oldMeta = d.old[:0], d.oldMeta[:0]
	d.journal, d.arena, d.base = d.journal[:0], d.arena[:0], 0
	var err error
	if d.layout, err = metadata.Internal(metadata.ComponentSize(size)); err != nil || d.layout.DataSize != size {
		panic("sim: layout does not give the size asked for")
	}
	m := superAndLogs + int(d.layout.MapPages)*metadata.PageSize
	if cap(d.metaCur) < m {
		d.metaCur, d.metaStable = make([]byte, m), make([]byte, m)
	}
	d.metaCur, d.metaStable = d.metaCur[:m], d.metaStable[:m]
	clear(d.metaCur)
	clear(d.metaStable)
	d.metaLog, d.metaArena = d.metaLog[:0], d.metaArena[:0]
}

// heal ends all faults of the disk.
func (d *disk) heal() {
	d.failWrites, d.failFlushes, d.failMeta, d.failReads, d.shortReads, d.lies, d.gone, d.slow = 0, 0, 0, 0, 0, 0, false, 1
	clear(d.bad)
	d.badCount = 0
	d.metaLie = tellTruth
}

// blank forgets everything, as a new disk.
func (d *disk) blank() {
	clear(d.cur)
	clear(d.stable)
	clear(d.metaCur)
	clear(d.metaStable)
	d.journal, d.arena, d.base = d.journal[:0], d.arena[:0], 0
	d.metaLog, d.metaArena = d.metaLog[:0], d.metaArena[:0]
	d.heal()
}

// create writes new metadata, flushed.
func (d *disk) create(sb metadata.Superblock) {
	ws, err := metadata.Create(d.layout, sb)
	if err != nil {
		panic(err)
	}
	for _, wr := range ws {
		copy(d.metaCur[d.place(wr.Offset):], wr.Data)
	}
	copy(d.metaStable, d.metaCur)
}

// place maps an offset on the device to one in the compact copy.
func (d *disk) place(off int64) int {
	l := &d.layout
	switch {
	case off >= l.Map && off < l.Map+l.MapPages*metadata.PageSize:
		return superAndLogs + int(off-l.Map)
	case off >= l.Super[0] && off < l.Super[0]+metadata.SuperblockSize:
		return int(off - l.Super[0])
	case off >= l.Super[1] && off < l.Super[1]+metadata.SuperblockSize:
		return metadata.SuperblockSize + int(off-l.Super[1])
	case off >= l.Log[0] && off < l.Log[0]+metadata.LogSize:
		return 2*metadata.SuperblockSize + int(off-l.Log[0])
	case off >= l.Log[1] && off < l.Log[1]+metadata.LogSize:
		return 2*metadata.SuperblockSize + metadata.LogSize + int(off-l.Log[1])
	}
	d.w.violate("shell", "metadata write outside the metadata area at %d", off)
	return 0
}

// image is what opening the component reads.
func (d *disk) image(of []byte, mark bool) *metadata.Image {
	b := append([]byte(nil), of...)
	img := &metadata.Image{Layout: d.layout, SectorSize: d.w.prof.Sector, StateInconsistent: mark}
	for i := range 2 {
		img.Super[i] = b[i*metadata.SuperblockSize:][:metadata.SuperblockSize:metadata.SuperblockSize]
		img.Log[i] = b[2*metadata.SuperblockSize+i*metadata.LogSize:][:metadata.LogSize:metadata.LogSize]
	}
	img.Map = b[superAndLogs:]
	return img
}

// put applies a completed write: in the cache, not yet flushed.
func (d *disk) put(sec, n int, stamps []uint32) {
	at := int32(-1)
	if stamps == nil {
		clear(d.cur[sec : sec+n])
	} else {
		at = int32(len(d.arena))
		d.arena = append(d.arena, stamps[:n]...)
		copy(d.cur[sec:sec+n], stamps)
	}
	d.journal = append(d.journal, cached{int32(sec), int32(n), at})
	if d.badCount > 0 {
		for b := (sec + sectorsPerBlock - 1) / sectorsPerBlock; (b+1)*sectorsPerBlock <= sec+n; b++ {
			if d.bad[b] {
				d.bad[b] = false
				d.badCount--
			}
		}
	}
}

// position is what a flush issued now covers.
func (d *disk) position() int { return d.base + len(d.journal) }

// flushed makes everything up to a position stable.
func (d *disk) flushed(upTo int) {
	n := upTo - d.base
	if n <= 0 {
		return
	}
	for _, c := range d.journal[:n] {
		d.keep(c)
	}
	d.journal = d.journal[:copy(d.journal, d.journal[n:])]
	d.base += n
	if len(d.journal) == 0 {
		d.arena = d.arena[:0]
	}
}

func (d *disk) keep(c cached) {
	if c.at < 0 {
		clear(d.stable[c.sec : c.sec+c.n])
	} else {
		copy(d.stable[c.sec:c.sec+c.n], d.arena[c.at:c.at+c.n])
	}
}

// tear applies a random part of a write that was cut off.
func (d *disk) tear(sec, n int, stamps []uint32) {
	switch d.w.rng.IntN(4) {
	case 0:
		return
	case 1:
		d.put(sec, n, stamps)
		return
	}
	p := d.w.rng.Float64()
	for i := range n {
		if d.w.chance(p) {
			if stamps == nil {
				d.put(sec+i, 1, nil)
			} else {
				d.put(sec+i, 1, stamps[i:])
			}
		}
	}
}

// powerLoss drops the caches: of each write in them a random part survives.
func (d *disk) powerLoss() {
	share := d.w.rng.Float64()
	if d.w.scripted || d.w.chance(0.25) {
		share = 0
	}
	if d.w.hooks.share != nil {
		share = d.w.hooks.share()
	}
	for _, c := range d.journal {
		switch x := d.w.rng.Float64(); {
		case x < share*0.7:
			d.keep(c)
		case x < share && c.n > 1:
			for i := int32(0); i < c.n; i++ {
				if d.w.chance(0.5) {
					one := cached{c.sec + i, 1, c.at}
					if c.at >= 0 {
						one.at += i
					}
					d.keep(one)
				}
			}
		}
	}
	for _, m := range d.metaLog {
		if d.w.chance(share) {
			copy(d.metaStable[int(m.sec)*sectorSize:][:sectorSize], d.metaArena[m.at:])
		}
	}
	d.journal, d.arena, d.base = d.journal[:0], d.arena[:0], 0
	d.metaLog, d.metaArena = d.metaLog[:0], d.metaArena[:0]
	copy(d.cur, d.stable)
	copy(d.metaCur, d.metaStable)
}

// putMeta applies metadata sectors: all of them and flushed, or a random part and
// only cached.
func (d *disk) putMeta(writes []metaWrite, buf []byte, whole bool) {
	if whole {
		for _, m := range d.metaLog { // the flush covers what an earlier process left
			copy(d.metaStable[int(m.sec)*sectorSize:][:sectorSize], d.metaArena[m.at:])
		}
		d.metaLog, d.metaArena = d.metaLog[:0], d.metaArena[:0]
		for _, m := range writes {
			copy(d.metaCur[m.place:], buf[m.at:m.at+m.n])
			copy(d.metaStable[m.place:], buf[m.at:m.at+m.n])
		}
		return
	}
	for _, m := range writes {
		p := d.w.rng.Float64()
		switch d.w.rng.IntN(4) {
		case 0:
			p = 0
		case 1:
			p = 1
		}
		for i := 0; i < m.n; i += sectorSize {
			if !d.w.chance(p) {
				continue
			}
			b := buf[m.at+i:][:sectorSize]
			copy(d.metaCur[m.place+i:], b)
			d.metaLog = append(d.metaLog, metaCached{int32((m.place + i) / sectorSize), int32(len(d.metaArena))})
			d.metaArena = append(d.metaArena, b...)
		}
	}
}

// metaWrite is one write of a commit, copied when it was asked for.
type metaWrite struct{ place, at, n int }

// super decodes the newest superblock of a copy of the metadata.
func newestSuper(b []byte) (metadata.Superblock, bool) {
	x, errX := metadata.DecodeSuperblock(b[:metadata.SuperblockSize])
	y, errY := metadata.DecodeSuperblock(b[metadata.SuperblockSize : 2*metadata.SuperblockSize])
	switch {
	case errX == nil && (errY != nil || x.Sequence > y.Sequence):
		return x, true
	case errY == nil:
		return y, true
	}
	return metadata.Superblock{}, false
}
