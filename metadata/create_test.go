package metadata

import (
	"reflect"
	"testing"
)

func TestCreateInspectLoad(t *testing.T) {
	for _, dataSize := range []int64{BlockSize, 1 << 20, 128 << 20, 1 << 30} {
		size := ComponentSize(dataSize)
		l, err := Internal(size)
		if err != nil {
			t.Fatal(err)
		}
		sb := Superblock{Resource: "db", SectorSize: 512, ExtentSize: 1 << 20, Keepdirty: 16, Marks: AssumeClean}
		ws, err := Create(l, sb)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range ws {
			if w.Offset < l.Start || w.Offset+int64(len(w.Data)) > l.End || w.Offset%PageSize != 0 || len(w.Data)%PageSize != 0 {
				t.Fatalf("%d: a write of %d bytes at %d leaves the area", dataSize, len(w.Data), w.Offset)
			}
		}
		m := newMedium(l)
		for i := range m.bytes { // whatever stood there before
			m.bytes[i] = 0xa5
		}
		m.write(ws)
		img := m.image()

		d, err := Inspect(img)
		if err != nil || d.Super.DataSize != dataSize || d.Newest != 1 || d.Damaged != 0 || d.DirtyBytes != 0 || len(d.Extents) != 0 ||
			d.SuperError != [2]error{} || d.LogError != [2]error{} {
			t.Fatalf("%d: %+v, %v", dataSize, d, err)
		}
		s, p, err := Load(img)
		if err != nil || p != (Problems{}) || s.Dirty.Count() != 0 || s.Pending() || s.Busy() {
			t.Fatalf("%d: %+v, %v, %d dirty", dataSize, p, err, s.Dirty.Count())
		}
		got := *s.Super()
		sb.DataSize, sb.Sequence = dataSize, 2
		if !reflect.DeepEqual(got, sb) || got.Bytes() != dataSize {
			t.Fatalf("%d: loaded %+v, want %+v", dataSize, got, sb)
		}
		if s.Log.Capacity() != 16 || s.Log.Used() != 0 {
			t.Fatalf("%d: log of %d with %d", dataSize, s.Log.Capacity(), s.Log.Used())
		}
	}
}

func TestLoadRefusesASuperblockOfALargerComponent(t *testing.T) {
	sb := sampleSuper()
	img := image(t, testLayout(t, 64<<20), sb)
	img.Layout = testLayout(t, 32<<20)
	if _, _, err := Load(img); err == nil {
		t.Error("accepted")
	}
}

func TestInspectTellsEachCopy(t *testing.T) {
	fresh := func() *Image { return image(t, testLayout(t, 64<<20), sampleSuper()) }
	for bad := range 2 {
		img := fresh()
		img.Super[bad][200] ^= 1
		img.Log[bad] = nil
		img.Map[100] ^= 1
		d, err := Inspect(img)
		if err != nil || d.Newest != 1-bad || d.SuperError[bad] == nil || d.SuperError[1-bad] != nil ||
			d.LogError[bad] == nil || d.LogError[1-bad] != nil || d.Damaged != 1 || d.DirtyBytes == 0 {
			t.Errorf("copy %d bad: %+v, %v", bad, d, err)
		}
	}
}

// TestInspectShowsTheNewestLog: an empty log that is newer hides the older copy.
func TestInspectShowsTheNewestLog(t *testing.T) {
	for newest := range 2 {
		img := image(t, testLayout(t, 64<<20), sampleSuper())
		encodeLog(img.Log[newest], 9, nil)
		encodeLog(img.Log[1-newest], 8, []Extent{1, 2})
		d, err := Inspect(img)
		if err != nil || len(d.Extents) != 0 {
			t.Errorf("newest in copy %d: %+v, %v", newest, d.Extents, err)
		}
		_, p, err := Load(img)
		if err != nil || p.LogExtents != 0 {
			t.Errorf("newest in copy %d: load finds %d extents, %v", newest, p.LogExtents, err)
		}
		encodeLog(img.Log[newest], 9, []Extent{5})
		if d, err = Inspect(img); err != nil || len(d.Extents) != 1 || d.Extents[0] != 5 {
			t.Errorf("newest in copy %d: %+v, %v", newest, d.Extents, err)
		}
	}
}
