package metadata

import (
	"bytes"
	"math/bits"
	"reflect"
	"slices"
	"testing"
)

// The fuzz targets mend the checksum of what they are given, or nothing but
// checksums would be tested; the raw bytes are tried as well.

func FuzzSuperblock(f *testing.F) {
	f.Add(encoded(sampleSuper()))
	r := testRand(40)
	for range 5 {
		f.Add(encoded(randomSuper(r)))
	}
	f.Add([]byte(superMagic))
	f.Fuzz(func(t *testing.T, in []byte) {
		_, _ = DecodeSuperblock(in)
		b := make([]byte, SuperblockSize)
		copy(b, in)
		copy(b, superMagic)
		le.PutUint32(b[8:], Version)
		resum(b, 12)
		before := bytes.Clone(b)
		sb, err := DecodeSuperblock(b)
		if !bytes.Equal(b, before) {
			t.Fatal("reading changed what was read")
		}
		if err != nil {
			return
		}
		again := encoded(sb)
		got, err := DecodeSuperblock(again)
		if err != nil || !reflect.DeepEqual(got, sb) {
			t.Fatalf("%+v was read back as %+v, %v", sb, got, err)
		}
		// What carries no meaning is zero when written.
		clear(b[124+len(sb.Resource) : 192])
		for i := range MaxGenerations {
			p := b[192+24*i : 192+24*i+24]
			if i >= len(sb.Lineage) {
				clear(p)
			}
			clear(p[17:])
		}
		clear(b[192+24*MaxGenerations:])
		resum(b, 12)
		if !bytes.Equal(b, again) {
			t.Fatalf("not the same bytes again")
		}
		// Load must cope with whatever is accepted.
		if sb.DataSize > 1<<30 {
			return
		}
		l, err := External(ExternalSize(sb.DataSize), sb.DataSize)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := Load(&Image{Layout: l, SectorSize: 512, Super: [2][]byte{b, make([]byte, SuperblockSize)}}); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzLog(f *testing.F) {
	f.Add(bytes.Clone(encodeLog(make([]byte, LogSize), 1, nil)), uint32(10))
	f.Add(bytes.Clone(encodeLog(make([]byte, LogSize), 9, []Extent{0, 3, 7})), uint32(8))
	f.Add([]byte(logMagic), uint32(0))
	f.Fuzz(func(t *testing.T, in []byte, limit uint32) {
		_, _, _ = DecodeLog(in, int64(limit))
		b := make([]byte, LogSize)
		copy(b, in)
		copy(b, logMagic)
		count := le.Uint32(b[12:])
		n := min(LogSize, (logHead+4*int64(count)+PageSize-1)/PageSize*PageSize)
		resum(b[:n], 8)
		seq, extents, err := DecodeLog(b, int64(limit))
		if err != nil {
			return
		}
		if !slices.IsSorted(extents) || len(extents) > int(count) || len(extents) > 0 && extents[len(extents)-1] >= Extent(limit) {
			t.Fatalf("%d of %d: %v", len(extents), count, extents)
		}
		again := encodeLog(make([]byte, LogSize), seq, extents)
		seq2, extents2, err := DecodeLog(again, int64(limit))
		if err != nil || seq2 != seq || !slices.Equal(extents2, extents) {
			t.Fatalf("%d %v was read back as %d %v, %v", seq, extents, seq2, extents2, err)
		}
		if len(extents) != int(count) {
			return // named one twice
		}
		sorted := true
		for i, e := range extents {
			sorted = sorted && Extent(le.Uint32(b[logHead+4*i:])) == e
		}
		clear(b[24:logHead])
		clear(b[logHead+4*count:])
		resum(b[:n], 8)
		if sorted && !bytes.Equal(b[:n], again) {
			t.Fatal("not the same bytes again")
		}
	})
}

func FuzzMap(f *testing.F) {
	page := make([]byte, PageSize)
	encodePage(page, 0, []uint64{1, 2, 3})
	f.Add(bytes.Clone(page), uint32(3*64), true)
	f.Add(page, uint32(1), false)
	f.Add([]byte{}, uint32(blocksPerPage+1), true)
	f.Fuzz(func(t *testing.T, in []byte, blocks uint32, mend bool) {
		blocks = 1 + blocks%(3*blocksPerPage)
		size := int64(blocks) * BlockSize
		in = bytes.Clone(in)
		for p := 0; mend && (p+1)*PageSize <= len(in); p++ {
			b := in[p*PageSize : (p+1)*PageSize]
			le.PutUint32(b, pageMagic)
			le.PutUint64(b[8:], uint64(p))
			resum(b, 4)
		}
		m, damaged := DecodeMap(in, size)
		total := 0
		for i := range m.words {
			total += bits.OnesCount64(m.words[i])
			if m.words[i]&^m.valid(i) != 0 {
				t.Fatal("bits beyond the end")
			}
		}
		pages := int(mapPages(size))
		if int64(total) != m.Count() || m.Blocks() != Block(blocks) || damaged > pages {
			t.Fatalf("%d bits, count %d, %d of %d pages damaged", total, m.Count(), damaged, pages)
		}
		if want := pages - min(pages, len(in)/PageSize); mend && damaged != want {
			t.Fatalf("%d pages damaged, want %d", damaged, want)
		}
		out := make([]byte, pages*PageSize)
		for p := range pages {
			first := p * wordsPerPage
			encodePage(out[p*PageSize:(p+1)*PageSize], p, m.words[first:min(first+wordsPerPage, len(m.words))])
			if whole := mend && (p+1)*PageSize <= len(in); whole {
				b := in[p*PageSize : (p+1)*PageSize]
				clear(b[16:pageHead])
				for i := range wordsPerPage {
					if first+i >= len(m.words) {
						clear(b[pageHead+8*i:])
						break
					}
					at := b[pageHead+8*i:]
					le.PutUint64(at, le.Uint64(at)&m.valid(first+i))
				}
				resum(b, 4)
				if !bytes.Equal(b, out[p*PageSize:(p+1)*PageSize]) {
					t.Fatalf("page %d: not the same bytes again", p)
				}
			}
		}
		again, damaged := DecodeMap(out, size)
		if damaged != 0 || !reflect.DeepEqual(again, m) {
			t.Fatal("not the same map again")
		}
	})
}
