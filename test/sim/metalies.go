package sim

import (
	"bytes"

	"hastd/metadata"
)

// Disks that lie about metadata when the component is opened: once, a part is read as
// what stands in another place of the area, or as what stood here before. The tests
// of package metadata say what the format notices. What it cannot:
//
//   - the newest superblock copy is gone or old: the one before counts. What people
//     were promised may be gone with it, as with a component restored from a copy
//     (restore.go), and the same judges are deaf from then on.
//   - the newest log copy or a page of the map is gone or old: bits of the dirty map
//     are missing, or taken for durable although the medium lacks them. The sectors of
//     just these blocks are marked as lies are (lies.go).

// metaLie is armed for the next opening.
type metaLie uint8

const (
	tellTruth metaLie = iota
	tellOther         // what stands in another place
	tellOld           // what stood there
)

func (d *disk) keepOldMeta() { d.oldMeta = append(d.oldMeta[:0], d.metaCur...) }

// lieAtOpen changes what is read of the metadata area, and judges what comes of it.
func (n *node) lieAtOpen(img *metadata.Image) {
	w, d := n.w, &n.disk
	lie := d.metaLie
	d.metaLie = tellTruth
	if lie == tellTruth || lie == tellOld && len(d.oldMeta) != len(d.metaCur) {
		return
	}
	truth, was, err := metadata.Load(d.image(d.metaCur, n.mark))
	if err != nil || was.LogLost {
		return // it is bad enough
	}
	// A part as the image has it, and the same part of an older image.
	var old *metadata.Image
	if lie == tellOld {
		old = d.image(d.oldMeta, n.mark)
	} else {
		old = d.image(d.metaCur, n.mark)
	}
	part, i := w.rng.IntN(5), w.rng.IntN(2)
	var to, other, from []byte
	switch part {
	case 0, 1:
		to, from, other = img.Super[i], old.Super[i], old.Super[1-i]
	case 2, 3:
		to, from, other = img.Log[i], old.Log[i], old.Log[1-i]
	default:
		to, from, other = img.Map, old.Map, old.Log[i]
	}
	if lie == tellOther {
		switch from = other; w.rng.IntN(3) {
		case 0: // one sector of it
			s := sectorSize * (1 + w.rng.IntN(metadata.PageSize/sectorSize-1))
			to, from = to[s:s+sectorSize], old.Map[:sectorSize]
		case 1:
			from = old.Map
			if part >= 4 {
				from = old.Super[i]
			}
		}
	}
	copy(to, from)
	names := [...]string{"super", "super", "log", "log", "map"}
	w.tracef("%s: the disk lies about its %s", n.name, names[part])
	st, found, err := metadata.Load(img)
	tell := func(what string) { w.cover.fault("meta-lie " + names[part] + " " + what) }
	if err != nil {
		tell("refused")
		return
	}
	if bytes.Equal(img.Super[0], img.Super[1]) || bytes.Equal(img.Log[0], img.Log[1]) && !found.LogLost {
		w.violate("metadata", "%s: one copy of the %s was taken in the place of the other", n.name, names[part])
	}
	// (A replica that was created anew counts from the beginning again.)
	if got, is := st.Super(), truth.Super(); got.Sequence != is.Sequence || got.Epoch != is.Epoch || got.Pair != is.Pair || got.Resuid != is.Resuid {
		tell("old")
		w.restored, n.copied = true, true
		n.judge.sbOK = false // what it says next is the beginning
		n.forget()
		n.recovering = false
	}
	lost := n.markLost(truth.Dirty, st.Dirty)
	if lie == tellOld && part == 4 {
		n.believed = [2]*metadata.Map{st.Dirty, truth.Dirty}
		n.markBelieved()
	}
	switch {
	case lost && lie == tellOther && part == 4:
		w.violate("metadata", "%s: a page that is not the map's was taken for it", n.name)
	case lost && found.LogLost:
		w.violate("metadata", "%s: the log is lost, and not every block counts as different", n.name)
	case lost:
		tell("bits lost")
	case found.LogLost || found.PagesDamaged > was.PagesDamaged:
		tell("all dirty")
	default:
		tell("harmless")
	}
}

// markBelieved marks the blocks whose bits are taken for durable and are not: what is
// written to them since may rest on these bits, too, until the next opening reads others.
func (n *node) markBelieved() {
	if b := n.believed; b[0] != nil {
		n.markLost(b[0], b[1])
	}
}

// markLost marks the blocks whose bits are missing, on both nodes: which of the two
// is to be made like the other is not decided yet. The disks' own caches count as
// written by then.
func (n *node) markLost(truth, read *metadata.Map) bool {
	lost := false
	for i := range min(truth.Words(), read.Words()) {
		gone := truth.Word(i) &^ read.Word(i)
		if gone == 0 {
			continue
		}
		for k := range n.w.nodes {
			d := &n.w.nodes[k].disk
			if !lost {
				d.flushed(d.position())
			}
			n.eachBlock(int64(i)*64*metadata.BlockSize, gone, func(b, _ int) {
				for s := b * sectorsPerBlock; s < (b+1)*sectorsPerBlock && s < len(d.cur); s++ {
					d.cur[s] |= lieMark
					d.stable[s] |= lieMark
				}
			})
		}
		lost = true
	}
	return lost
}
