package metadata

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// What a disk that lies about metadata can do: a part of the area is read, without an
// error, as another part of it or as what stood there before.
//
// Noticed by checksums: any sector of a superblock, log copy or map page that is not
// its own, a whole copy or page that is something else. Noticed by page numbers: a
// map page in the place of another. Noticed by sequences: one copy of the superblock
// or log in the place of the other. Not to be noticed: an older copy of superblock or
// log (the state is then at most that of the last but one commit of it), and an older
// map page.

// liarImage is a replica with a history: extent 3 entered the log with the commit
// before the last, extents 5 and 7 with the last, block 1 is dirty in the map.
func liarImage(t *testing.T) (now, before *Image) {
	t.Helper()
	l := testLayout(t, 300<<20)
	sb := sampleSuper()
	sb.Size = 0
	ws, err := Create(l, sb)
	if err != nil {
		t.Fatal(err)
	}
	m := newMedium(l)
	m.write(ws)
	image := func() *Image { // what was read stays what it was
		img := m.image()
		for _, b := range []*[]byte{&img.Super[0], &img.Super[1], &img.Log[0], &img.Log[1], &img.Map} {
			*b = bytes.Clone(*b)
		}
		return img
	}
	s, _, err := Load(image())
	if err != nil {
		t.Fatal(err)
	}
	commit := func() {
		m.write(s.Prepare())
		s.Committed()
	}
	size := int64(s.Super().ExtentSize)
	s.Update(func(sb *Superblock) { sb.Localcnt = 100 })
	commit()
	s.Acquire(3*size, BlockSize)
	s.Update(func(sb *Superblock) { sb.Localcnt = 101 })
	commit()
	before = image()
	s.Acquire(5*size, BlockSize)
	s.Acquire(7*size, BlockSize)
	s.Dirty.Set(1, 1)
	s.Persist(BlockSize, BlockSize)
	s.Update(func(sb *Superblock) { sb.Localcnt = 102 })
	commit()
	s.Update(func(sb *Superblock) { sb.Localcnt = 103 })
	commit()
	return image(), before
}

// newer is the index of the copy with the higher sequence.
func newer(t *testing.T, copies [2][]byte) int {
	t.Helper()
	if le.Uint64(copies[1][16:]) > le.Uint64(copies[0][16:]) {
		return 1
	}
	return 0
}

func TestMisdirectedSuperblockIsNoticed(t *testing.T) {
	for _, which := range []int{0, 1} {
		img, _ := liarImage(t)
		copy(img.Super[which], img.Super[1-which])
		_, _, err := Load(img)
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || !strings.Contains(err.Error(), "in the place of the other") || !strings.Contains(err.Error(), "Try again") {
			t.Errorf("copy %d in the place of the other: %v", 1-which, err)
		}
		for name, from := range map[string]func(*Image) []byte{
			"the log": func(i *Image) []byte { return i.Log[0] },
			"the map": func(i *Image) []byte { return i.Map },
			"nothing": func(*Image) []byte { return make([]byte, SuperblockSize) },
			"a sector": func(i *Image) []byte {
				return append(append([]byte{}, i.Super[which][:512]...), i.Log[0][:512]...)
			},
		} {
			img, _ := liarImage(t)
			copy(img.Super[which], from(img))
			s, p, err := Load(img)
			if err != nil || !p.SuperCopyLost {
				t.Fatalf("copy %d is %s: %v, %+v", which, name, err, p)
			}
			if want := uint64(103 - btoi(which == newer(t, clean(t).Super))); s.Super().Localcnt != want {
				t.Errorf("copy %d is %s: localcnt %d, want %d", which, name, s.Super().Localcnt, want)
			}
		}
	}
}

func clean(t *testing.T) *Image { img, _ := liarImage(t); return img }

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestMisdirectedLogMakesAllDirty: of two equal copies one may hide a newer one.
func TestMisdirectedLogMakesAllDirty(t *testing.T) {
	for _, which := range []int{0, 1} {
		img := clean(t)
		copy(img.Log[which], img.Log[1-which])
		s, p, err := Load(img)
		if err != nil || !p.LogLost || s.Dirty.Count() != int64(s.Dirty.Blocks()) {
			t.Fatalf("log copy %d in the place of the other: %v, %+v", 1-which, err, p)
		}
		// The next log must be the newest, wherever the true one stands.
		s.Acquire(0, BlockSize)
		for _, w := range s.Prepare() {
			if seq, _, err := DecodeLog(w.Data, 1<<20); err == nil && seq <= le.Uint64(img.Log[0][16:]) {
				t.Errorf("log copy %d in the place of the other: the next log has sequence %d", 1-which, seq)
			}
		}
		img = clean(t)
		copy(img.Log[which], img.Map)
		if _, p, err := Load(img); err != nil || p.LogLost || p.LogExtents == 0 {
			t.Fatalf("log copy %d is the map: %v, %+v", which, err, p)
		}
	}
}

// TestMisdirectedMapPageIsDirty: a page knows its number.
func TestMisdirectedMapPageIsDirty(t *testing.T) {
	for name, lie := range map[string]func(img *Image, page []byte){
		"another page":    func(img *Image, page []byte) { copy(page, img.Map[2*PageSize:3*PageSize]) },
		"another sector":  func(img *Image, page []byte) { copy(page[:512], img.Map[2*PageSize:][:512]) },
		"a log copy":      func(img *Image, page []byte) { copy(page, img.Log[0][:PageSize]) },
		"a superblock":    func(img *Image, page []byte) { copy(page, img.Super[1]) },
		"nothing at all":  func(_ *Image, page []byte) { clear(page) },
		"a mix of itself": func(_ *Image, page []byte) { copy(page[512:1024], page[:512]) },
	} {
		img := clean(t)
		lie(img, img.Map[PageSize:2*PageSize])
		s, p, err := Load(img)
		if err != nil || p.PagesDamaged != 1 {
			t.Fatalf("%s: %v, %+v", name, err, p)
		}
		for b := Block(blocksPerPage); b < 2*blocksPerPage; b++ {
			if !s.Dirty.Any(b, 1) {
				t.Fatalf("%s: block %d is not dirty", name, b)
			}
		}
	}
}

// TestStaleCopiesCostOneCommit: an older copy cannot be told from one whose last
// write never came, but the other copy bounds what it costs.
func TestStaleCopiesCostOneCommit(t *testing.T) {
	for _, which := range []int{0, 1} {
		img, old := liarImage(t)
		last := newer(t, img.Super)
		copy(img.Super[which], old.Super[which])
		s, _, err := Load(img)
		if err != nil || s.Super().Localcnt != uint64(103-btoi(which == last)) {
			t.Errorf("an old superblock copy %d: %v, localcnt %d", which, err, s.Super().Localcnt)
		}
		img, old = liarImage(t)
		last = newer(t, img.Log)
		copy(img.Log[which], old.Log[which])
		s, p, err := Load(img)
		want := 3
		if which == last {
			want = 1
		}
		if err != nil || p.LogExtents != want {
			t.Errorf("an old log copy %d: %v, %+v, want %d extents", which, err, p, want)
		}
		if !s.Dirty.Any(1, 1) {
			t.Error("the map was not read")
		}
	}
	img, old := liarImage(t)
	copy(img.Map, old.Map)
	if s, p, err := Load(img); err != nil || p.PagesDamaged != 0 || s.Dirty.Any(1, 1) {
		t.Errorf("an old map page: %v, %+v", err, p)
	}
}

// An opening that sees no copy of the log, or only the older one of the superblock,
// must not write what a copy that it did not see outranks at the next one.
func TestUnseenCopiesDoNotComeBack(t *testing.T) {
	now, _ := liarImage(t)
	m := newMedium(now.Layout)
	m.write([]Write{{now.Layout.Super[0], now.Super[0]}, {now.Layout.Super[1], now.Super[1]},
		{now.Layout.Log[0], now.Log[0]}, {now.Layout.Log[1], now.Log[1]}, {now.Layout.Map, now.Map}})
	blind := m.image()
	blind.Log[0], blind.Log[1] = nil, nil
	s, p, err := Load(blind)
	if err != nil || !p.LogLost {
		t.Fatal(p, err)
	}
	commit := func() {
		m.write(s.Prepare())
		s.Committed()
	}
	commit() // everything is dirty in the map
	s.Update(func(sb *Superblock) { sb.Localcnt = 200 })
	commit()
	for b := range Block(s.Dirty.Words() * 64) {
		s.Dirty.Clear(b, 1)
	}
	s.ClearMap()
	commit()
	size := int64(s.Super().ExtentSize)
	if _, ok := s.Acquire(9*size, BlockSize); !ok {
		t.Fatal("no room in an empty log")
	}
	commit()
	again, p, err := Load(m.image())
	if err != nil || p.LogLost {
		t.Fatal(p, err)
	}
	per := Block(size / BlockSize)
	if !again.Dirty.Any(9*per, 1) {
		t.Error("an extent that was in the log is forgotten: a copy that nobody saw counts")
	}
	if again.Super().Localcnt != 200 {
		t.Errorf("localcnt is %d", again.Super().Localcnt)
	}
}
