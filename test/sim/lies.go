package sim

// Disks that lie: a read returns, without an error, what stands in another place or
// what stood here some time ago. hastd keeps no checksums of data, so nothing can
// know: an application may be told the wrong bytes, a sync may copy them, or take two
// blocks for equal that are not. What a lie may have reached must be no more than
// the very sectors that it was told of, and only until they are written or copied
// again. No other promise gets weaker.
//
// So a stamp that is a lie carries a mark, through memory, messages, caches and
// media, and every judge leaves out marked sectors. A sector that a lie made count
// as equal to the source's is marked where it stands.

// lieMark is the mark. Stamps themselves stay below it.
const lieMark = 1 << 31

// lied says whether a stamp may not be what belongs in its place.
func lied(v uint32) bool { return v&lieMark != 0 && v != poison }

// keepOld notes what the disk holds, for reads of a later time.
func (d *disk) keepOld() { d.old = append(d.old[:0], d.cur...) }

// lie changes a part of what was read, if the disk lies now.
func (n *node) lie(to []uint32, sec int) {
	w, d := n.w, &n.disk
	if d.lieOld && len(d.old) != len(d.cur) || !take(&d.lies) {
		return
	}
	unit := int(w.prof.Sector) / sectorSize
	first, cnt := 0, len(to)
	if w.chance(0.5) {
		cnt = unit * (1 + w.rng.IntN(len(to)/unit))
		first = unit * w.rng.IntN((len(to)-cnt)/unit+1)
	}
	from := d.old
	at := sec + first
	if !d.lieOld {
		from = d.cur
		at = unit * w.rng.IntN((len(from)-cnt)/unit+1)
	}
	told := false
	for i := range cnt {
		if x, v := &to[first+i], from[at+i]; (*x^v)&^lieMark != 0 {
			*x = v | lieMark
			told = true
		}
	}
	if told {
		w.tracef("%s: a read of sector %d +%d lies", n.name, sec+first, cnt)
		w.cover.fault("lie-told")
	}
}

// foundEqual marks or unmarks a block of the target of a sync that is not copied
// because it seemed to be like the source's. st is what this node read of it.
func (n *node) foundEqual(hashes *mem, b, at int, st []uint32) {
	target := n
	if hashes.target {
		target = n.w.peerOf(n)
	}
	for i, own := range st {
		sec := b*sectorsPerBlock + i
		other := hashes.stamps[at*sectorsPerBlock+i]
		holds, read, source := target.disk.cur[sec], own, other
		if hashes.target {
			read, source = other, own
		}
		wrong := lied(source) || (read^holds)&^lieMark != 0
		if wrong == lied(holds) {
			continue
		}
		v := holds &^ lieMark
		if wrong {
			v |= lieMark
			n.w.cover.fault("lie-kept")
		}
		target.disk.put(sec, 1, []uint32{v})
	}
}

// marked counts the sectors of a disk that a lie may have reached.
func (d *disk) marked() (n int) {
	for _, v := range d.cur {
		if lied(v) {
			n++
		}
	}
	return n
}

// countCopied counts lies that a write carried to a disk.
func (n *node) countCopied(stamps []uint32) {
	for _, v := range stamps {
		if lied(v) {
			n.w.cover.fault("lie-copied")
			return
		}
	}
}
