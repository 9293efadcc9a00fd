package metadata

import (
	"bytes"
	"testing"
)

// fuzzedImage is the metadata of a small replica whose logs and map say what the
// fuzzer wants, with checksums that hold where whole says so.
func fuzzedImage(t testing.TB, logA, logB, pages []byte, whole uint8) *Image {
	l, err := External(ExternalSize(fuzzedSize), fuzzedSize)
	if err != nil {
		t.Fatal(err)
	}
	sb := sampleSuper()
	sb.Sequence, sb.DataSize, sb.Size, sb.ExtentSize, sb.Keepdirty = 1, fuzzedSize, 0, MinExtentSize, MinKeepdirty
	older := sb
	sb.Sequence++
	img := &Image{Layout: l, SectorSize: 512, Super: [2][]byte{encoded(older), encoded(sb)}, Map: make([]byte, l.MapPages*PageSize)}
	for i, in := range [][]byte{logA, logB} {
		b := make([]byte, LogSize)
		copy(b, in)
		if whole>>i&1 != 0 {
			copy(b, logMagic)
			n := (logHead + 4*int64(le.Uint32(b[12:])%1024) + PageSize - 1) / PageSize * PageSize
			le.PutUint32(b[12:], le.Uint32(b[12:])%1024)
			resum(b[:n], 8)
		}
		img.Log[i] = b
	}
	copy(img.Map, pages)
	for p := range int(l.MapPages) {
		if whole>>(2+p)&1 == 0 {
			continue
		}
		b := img.Map[p*PageSize : (p+1)*PageSize]
		le.PutUint32(b, pageMagic)
		le.PutUint64(b[8:], uint64(p))
		resum(b, 4)
	}
	return img
}

const fuzzedSize = 2 * blocksPerPage * BlockSize // two pages of map

// apply writes a commit into an image.
func (img *Image) apply(t testing.TB, ws []Write) {
	for _, w := range ws {
		l := &img.Layout
		var to []byte
		switch {
		case w.Offset >= l.Map && w.Offset < l.Map+l.MapPages*PageSize:
			to = img.Map[w.Offset-l.Map:]
		case w.Offset == l.Super[0] || w.Offset == l.Super[1]:
			to = img.Super[btoi(w.Offset == l.Super[1])]
		case w.Offset == l.Log[0] || w.Offset == l.Log[1]:
			to = img.Log[btoi(w.Offset == l.Log[1])]
		}
		if len(w.Data) == 0 || len(w.Data) > len(to) || len(w.Data)%512 != 0 {
			t.Fatalf("a write of %d bytes at %d", len(w.Data), w.Offset)
		}
		copy(to, w.Data)
	}
}

// FuzzLoad: whatever a crash left of log and map, what they name is dirty after the
// component was opened, what cannot be read counts as dirty, and one commit makes
// all of it durable: opened again without its log, the replica marks the same.
func FuzzLoad(f *testing.F) {
	empty := bytes.Clone(encodeLog(make([]byte, LogSize), 1, nil))
	some := bytes.Clone(encodeLog(make([]byte, LogSize), 2, []Extent{0, 3, 1000, fuzzedSize/MinExtentSize - 1}))
	page := make([]byte, PageSize)
	encodePage(page, 0, []uint64{1, 0, 1 << 63})
	f.Add(empty[:PageSize], some[:PageSize], page, uint8(15))
	f.Add(some[:PageSize], some[:PageSize], page, uint8(0))
	f.Add(some[:40], empty[:40], []byte{}, uint8(1))
	f.Add([]byte{}, []byte{}, []byte{}, uint8(12))
	f.Fuzz(func(t *testing.T, logA, logB, pages []byte, whole uint8) {
		img := fuzzedImage(t, logA, logB, pages, whole)
		st, p, err := Load(img)
		if err != nil {
			t.Fatal(err) // both superblocks are good
		}
		const limit = fuzzedSize / MinExtentSize
		const per = MinExtentSize / BlockSize
		var newest uint64
		var extents []Extent
		ok := false
		twice := false // equally new copies are never written
		for _, b := range img.Log {
			seq, e, err := DecodeLog(b, limit)
			twice = err == nil && ok && seq == newest
			if err == nil && (!ok || seq > newest) {
				newest, extents, ok = seq, e, true
			}
		}
		ok = ok && !twice
		if p.LogLost == ok || p.LogExtents != len(extents) {
			t.Fatalf("%+v, although a log is good: %v, with %d extents", p, ok, len(extents))
		}
		if !ok && st.Dirty.Count() != int64(st.Dirty.Blocks()) {
			t.Fatalf("%d blocks dirty without a log", st.Dirty.Count())
		}
		for _, e := range extents {
			for b := Block(e) * per; b < Block(e+1)*per; b++ {
				if !st.Dirty.Any(b, 1) {
					t.Fatalf("block %d of extent %d is clean", b, e)
				}
			}
		}
		m, damaged := DecodeMap(img.Map, fuzzedSize)
		if damaged != p.PagesDamaged {
			t.Fatalf("%d pages damaged, told %d", damaged, p.PagesDamaged)
		}
		for i := range m.Words() {
			if m.Word(i)&^st.Dirty.Word(i) != 0 {
				t.Fatalf("word %d of the map was forgotten", i)
			}
		}
		if st.Log.Used() != 0 || st.Unflushed() {
			t.Fatal("the log of the last use is still in use")
		}
		if st.Pending() {
			img.apply(t, st.Prepare())
			st.Committed()
		}
		again := &Image{Layout: img.Layout, SectorSize: 512, Super: img.Super, Map: img.Map,
			Log: [2][]byte{encodeLog(make([]byte, LogSize), 1, nil), encodeLog(make([]byte, LogSize), 2, nil)}}
		st2, p2, err := Load(again)
		if err != nil || p2.PagesDamaged != 0 {
			t.Fatalf("opened again: %+v, %v", p2, err)
		}
		for i := range m.Words() {
			if st.Dirty.Word(i) != st2.Dirty.Word(i) {
				t.Fatalf("word %d is %#x in memory and %#x on the medium", i, st.Dirty.Word(i), st2.Dirty.Word(i))
			}
		}
	})
}
