package metadata

import "testing"

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

// A range whose extents were used least recently of all: room for it comes from the
// others, after as many commits as that takes.
func TestSpillMakesRoomBesideWhatIsWanted(t *testing.T) {
	const size = 1 << 20
	s, _, err := Load(image(t, testLayout(t, 64<<20), Superblock{Resource: "db", SectorSize: 512, ExtentSize: size, Keepdirty: 16}))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range [][2]int64{{12, 4}, {0, 12}} {
		if _, ok := s.Acquire(r[0]*size, r[1]*size); !ok {
			t.Fatal("no room in an empty log")
		}
		s.Mark(r[0]*size, r[1]*size)
		s.Release(r[0]*size, r[1]*size)
	}
	for range 3 {
		s.Prepare()
		s.Committed()
		if _, ok := s.Acquire(12*size, 8*size); ok {
			return
		}
		if _, ok := s.Spill(4); !ok {
			t.Fatal("nothing can leave")
		}
	}
	t.Error("the log is full of extents that nobody uses")
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
