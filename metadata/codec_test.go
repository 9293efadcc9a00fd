package metadata

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Codec tests: what was written is read back; what was damaged, cut or torn is
// never taken for whole.

func testRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x4a57)) }

func sampleSuper() Superblock {
	return Superblock{
		Sequence: 7, Resource: "db", Resuid: 0xabcdef, DataSize: 64 << 20, Size: 32 << 20,
		SectorSize: 512, ExtentSize: 1 << 20, Keepdirty: 16, PrevRole: Secondary,
		Localcnt: 3, Remotecnt: 2, PeerLocalcnt: 2, PeerRemotecnt: 1,
		Epoch: Epoch{9, 2}, Marks: Raised | CrashedPrimary,
		Lineage: Lineage{{0x11, 1700000000, 1}, {0x22, 1600000000, 2}}, Pair: 0x33, PairPrev: 0x44,
	}
}

func randomSuper(r *rand.Rand) Superblock {
	name := make([]byte, r.IntN(MaxResourceName+1))
	for i := range name {
		name[i] = byte(r.Uint32())
	}
	sb := Superblock{
		Sequence: r.Uint64(), Resource: string(name), Resuid: ID(r.Uint64()),
		DataSize: (1 + r.Int64N(1<<20)) * BlockSize, SectorSize: 512 << (3 * r.IntN(2)),
		ExtentSize: MinExtentSize << r.IntN(11), Keepdirty: MinKeepdirty + uint32(r.IntN(MaxKeepdirty-MinKeepdirty+1)),
		PrevRole: Role(r.IntN(3)), Localcnt: r.Uint64(), Remotecnt: r.Uint64(),
		PeerLocalcnt: r.Uint64(), PeerRemotecnt: r.Uint64(), Epoch: Epoch{r.Uint64(), NodeID(r.Uint32())},
		Marks: Marks(r.Uint32()), Pair: ID(r.Uint64()), PairPrev: ID(r.Uint64()),
	}
	sb.Size = r.Int64N(sb.DataSize/BlockSize+1) * BlockSize
	for range r.IntN(MaxGenerations + 1) {
		sb.Lineage = append(sb.Lineage, Generation{ID(r.Uint64()), int64(r.Uint64()), NodeID(r.Uint32())})
	}
	return sb
}

func encoded(sb Superblock) []byte {
	b := make([]byte, SuperblockSize)
	sb.Encode(b)
	return b
}

func TestCodecSuperblockRoundTrip(t *testing.T) {
	r := testRand(1)
	for range 2000 {
		want := randomSuper(r)
		got, err := DecodeSuperblock(encoded(want))
		if err != nil {
			t.Fatalf("%+v: %v", want, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	}
}

// flips are the single-byte damages tried at each place.
var flips = []byte{0x01, 0x80, 0xff}

func TestCodecSuperblockEveryDamagedByteIsNoticed(t *testing.T) {
	good := encoded(sampleSuper())
	for i := range good {
		for _, x := range flips {
			b := bytes.Clone(good)
			b[i] ^= x
			if _, err := DecodeSuperblock(b); err == nil {
				t.Fatalf("byte %d xor %#x was not noticed", i, x)
			}
		}
	}
	if sb, err := DecodeSuperblock(good); err != nil || sb.Resource != "db" {
		t.Fatal("the check changed what it read")
	}
}

func TestCodecSuperblockEveryTruncationIsNoticed(t *testing.T) {
	good := encoded(sampleSuper())
	for n := range good {
		if _, err := DecodeSuperblock(good[:n]); err == nil {
			t.Fatalf("%d bytes were taken for a superblock", n)
		}
	}
	var corrupt *CorruptError
	if _, err := DecodeSuperblock(append(good, 0)); !errors.As(err, &corrupt) {
		t.Fatalf("a byte too many: %v", err)
	}
}

func TestCodecSuperblockRefusesWhatNoReleaseWrote(t *testing.T) {
	for name, spoil := range map[string]func(sb *Superblock){
		"role":             func(sb *Superblock) { sb.PrevRole = Primary + 1 },
		"sector":           func(sb *Superblock) { sb.SectorSize = 1024 },
		"extent odd":       func(sb *Superblock) { sb.ExtentSize = 3 << 20 },
		"extent small":     func(sb *Superblock) { sb.ExtentSize = MinExtentSize / 2 },
		"extent large":     func(sb *Superblock) { sb.ExtentSize = MaxExtentSize * 2 },
		"keepdirty small":  func(sb *Superblock) { sb.Keepdirty = MinKeepdirty - 1 },
		"keepdirty large":  func(sb *Superblock) { sb.Keepdirty = MaxKeepdirty + 1 },
		"no data":          func(sb *Superblock) { sb.DataSize, sb.Size = 0, 0 },
		"odd data":         func(sb *Superblock) { sb.DataSize++ },
		"negative data":    func(sb *Superblock) { sb.DataSize = -BlockSize },
		"size beyond data": func(sb *Superblock) { sb.Size = sb.DataSize + BlockSize },
		"odd size":         func(sb *Superblock) { sb.Size-- },
		"negative size":    func(sb *Superblock) { sb.Size = -BlockSize },
		"too many extents": func(sb *Superblock) { sb.DataSize, sb.ExtentSize = 1<<50, MinExtentSize },
	} {
		sb := sampleSuper()
		spoil(&sb)
		var corrupt *CorruptError
		if _, err := DecodeSuperblock(encoded(sb)); !errors.As(err, &corrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Create(Layout{DataSize: sb.DataSize, MapPages: 1}, sb); err == nil && name != "size beyond data" {
			t.Errorf("%s: create accepts it", name)
		}
	}
	b := encoded(sampleSuper())
	for _, f := range []struct {
		off int
		v   uint16
	}{{120, MaxGenerations + 1}, {122, MaxResourceName + 1}, {122, 0xffff}} {
		c := bytes.Clone(b)
		le.PutUint16(c[f.off:], f.v)
		resum(c, 12)
		if _, err := DecodeSuperblock(c); err == nil {
			t.Errorf("%d at %d was accepted", f.v, f.off)
		}
	}
}

// resum writes a checksum that matches.
func resum(b []byte, off int) {
	le.PutUint32(b[off:], 0)
	le.PutUint32(b[off:], crc32.Checksum(b, castagnoli))
}

// image is a new replica's metadata as a shell would read it.
func image(t testing.TB, l Layout, sb Superblock) *Image {
	t.Helper()
	ws, err := Create(l, sb)
	if err != nil {
		t.Fatal(err)
	}
	m := newMedium(l)
	m.write(ws)
	return m.image()
}

func testLayout(t testing.TB, dataSize int64) Layout {
	t.Helper()
	l, err := External(ExternalSize(dataSize), dataSize)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLoadTakesTheOlderCopyOfATornSuperblock(t *testing.T) {
	r := testRand(2)
	for range 300 {
		older := randomSuper(r)
		older.Sequence = 10
		older.DataSize, older.Size = 64<<20, 0
		newer := randomSuper(r)
		newer.Sequence = 12
		newer.DataSize, newer.Size = 64<<20, 0
		img := image(t, testLayout(t, 64<<20), sampleSuper())
		good, torn := r.IntN(2), 0
		torn = 1 - good
		img.Super[good] = encoded(older)
		before, after := randomSuper(r), encoded(newer)
		before.Sequence = 9
		b := encoded(before)
		n := 0
		for s := range SuperblockSize / 512 {
			if r.IntN(2) == 0 {
				copy(b[512*s:512*s+512], after[512*s:])
				n++
			}
		}
		img.Super[torn] = b
		want, lost := older, true
		if bytes.Equal(b, after) {
			want, lost = newer, false
		} else if bytes.Equal(b, encoded(before)) {
			lost = false
		}
		s, p, err := Load(img)
		if err != nil {
			t.Fatal(err)
		}
		if s.Super().Sequence != want.Sequence || s.Super().Resource != want.Resource || p.SuperCopyLost != lost {
			t.Fatalf("loaded sequence %d, want %d, lost %t, want %t", s.Super().Sequence, want.Sequence, p.SuperCopyLost, lost)
		}
		// What is written next must not touch the copy that was read.
		s.Update(func(*Superblock) {})
		at := good
		if want.Sequence == newer.Sequence {
			at = torn
		}
		for _, w := range s.Prepare() {
			if w.Offset == s.Layout.Super[at] {
				t.Fatalf("the only good copy %d is written over", at)
			}
		}
	}
}

func TestLoadSaysWhatToDoWhenBothSuperblocksAreBad(t *testing.T) {
	for name, spoil := range map[string]func(b []byte) []byte{
		"damaged":    func(b []byte) []byte { b[70] ^= 1; return b },
		"unreadable": func([]byte) []byte { return nil },
		"cut short":  func(b []byte) []byte { return b[:512] },
	} {
		img := image(t, testLayout(t, 64<<20), sampleSuper())
		img.Super[0], img.Super[1] = spoil(img.Super[0]), spoil(img.Super[1])
		_, _, err := Load(img)
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || !strings.Contains(err.Error(), "create --force") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Inspect(img); !errors.As(err, &corrupt) {
			t.Errorf("%s: inspect: %v", name, err)
		}
	}
	img := image(t, testLayout(t, 64<<20), sampleSuper())
	clear(img.Super[0])
	clear(img.Super[1])
	if _, _, err := Load(img); !errors.Is(err, ErrNoMetadata) {
		t.Errorf("zeroes: %v", err)
	}
	img.Super[1] = nil // one side zeroes, the other not readable: it may have been there
	if _, _, err := Load(img); errors.Is(err, ErrNoMetadata) {
		t.Error("an unreadable copy counts as never written")
	}
}

// TestLoadWantsBothSuperblocksRead: a copy that could not be read may be the newer
// one; one that was read and is damaged is what a commit that never ended left.
func TestLoadWantsBothSuperblocksRead(t *testing.T) {
	for i := range 2 {
		img := image(t, testLayout(t, 64<<20), sampleSuper())
		whole := img.Super[i]
		img.Super[i] = nil
		_, _, err := Load(img)
		if want := fmt.Sprintf("superblock copy %d could not be read", i); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("copy %d unreadable: %v", i, err)
		}
		if _, err := Inspect(img); err != nil {
			t.Errorf("copy %d unreadable: dump shows nothing: %v", i, err)
		}
		img.Super[i] = whole
		whole[70] ^= 1
		if _, p, err := Load(img); err != nil || !p.SuperCopyLost {
			t.Errorf("copy %d damaged: %v, %+v", i, err, p)
		}
	}
}

// TestLoadWantsBothLogsRead likewise: else the extents of the newer one are
// forgotten.
func TestLoadWantsBothLogsRead(t *testing.T) {
	for i := range 2 {
		img := image(t, testLayout(t, 64<<20), sampleSuper())
		encodeLog(img.Log[1-i], 9, nil)
		img.Log[i] = nil
		s, p, err := Load(img)
		if err != nil || !p.LogLost || s.Dirty.Count() != sampleSuper().Size/BlockSize {
			t.Errorf("copy %d unreadable: %v, %+v", i, err, p)
		}
	}
}

func TestLoadRefusesANewerFormat(t *testing.T) {
	for _, copies := range [][]int{{0}, {1}, {0, 1}} {
		img := image(t, testLayout(t, 64<<20), sampleSuper())
		for _, i := range copies {
			le.PutUint32(img.Super[i][8:], Version+1)
			resum(img.Super[i], 12)
		}
		_, _, err := Load(img)
		var version *VersionError
		if !errors.As(err, &version) || version.Found != Version+1 {
			t.Fatalf("copies %v: %v", copies, err)
		}
		for _, word := range []string{"version 2", "knows version 1", "newer release"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q does not say %q", err, word)
			}
		}
	}
}

func TestCodecLogRoundTripAndDamage(t *testing.T) {
	r := testRand(3)
	for _, n := range []int{0, 1, 16, 1000, 1016, 1017, MaxKeepdirty} {
		var want []Extent
		for e := Extent(0); len(want) < n; e += 1 + Extent(r.IntN(5)) {
			want = append(want, e)
		}
		b := encodeLog(make([]byte, LogSize), 42, want)
		seq, got, err := DecodeLog(b, 1<<20)
		if err != nil || seq != 42 || !reflect.DeepEqual(got, want) {
			t.Fatalf("%d extents: sequence %d, %d extents, %v", n, seq, len(got), err)
		}
		step := max(1, len(b)/4096)
		for i := r.IntN(step); i < len(b); i += step {
			for _, x := range flips {
				b[i] ^= x
				if _, _, err := DecodeLog(b, 1<<20); err == nil {
					t.Fatalf("%d extents: byte %d xor %#x was not noticed", n, i, x)
				}
				b[i] ^= x
			}
		}
		for i := 0; i < len(b); i += step {
			if _, _, err := DecodeLog(b[:i], 1<<20); err == nil {
				t.Fatalf("%d extents: %d of %d bytes were accepted", n, i, len(b))
			}
		}
	}
	b := encodeLog(make([]byte, LogSize), 1, []Extent{3, 9})
	if _, _, err := DecodeLog(b, 9); err == nil {
		t.Error("an extent beyond the end was accepted")
	}
}

func TestLoadTakesTheOlderCopyOfATornLog(t *testing.T) {
	r := testRand(4)
	for range 300 {
		pick := func() (es []Extent) {
			for e := range Extent(64) {
				if r.IntN(4) == 0 {
					es = append(es, e)
				}
			}
			return es
		}
		older, newer := pick(), pick()
		sb := sampleSuper()
		sb.Size = 0
		img := image(t, testLayout(t, 64<<20), sb)
		good := r.IntN(2)
		encodeLog(img.Log[good], 10, older)
		encodeLog(img.Log[1-good], 9, pick())
		after := encodeLog(make([]byte, LogSize), 11, newer)
		for s := range len(after) / 512 {
			if r.IntN(2) == 0 {
				copy(img.Log[1-good][512*s:512*s+512], after[512*s:])
			}
		}
		want := older
		if seq, _, err := DecodeLog(img.Log[1-good], 64); err == nil && seq == 11 {
			want = newer
		}
		s, p, err := Load(img)
		if err != nil || p.LogLost || p.LogExtents != len(want) {
			t.Fatalf("%v, %+v, want %d extents", err, p, len(want))
		}
		for _, e := range want {
			if !s.Dirty.Any(Block(e)*256, 1) || s.Dirty.Count() != int64(len(want))*256 {
				t.Fatalf("extent %d is not dirty (%d blocks are)", e, s.Dirty.Count())
			}
		}
		if len(want) == len(older) && !slices.Equal(want, newer) { // the next one must not touch the copy that was read
			for !s.Durable(s.Next()-1) || s.Pending() {
				s.Prepare()
				s.Committed()
			}
			s.Acquire(0, BlockSize)
			for _, w := range s.Prepare() {
				if w.Offset == s.Layout.Log[good] {
					t.Fatal("the only good copy of the log is written over")
				}
			}
		}
	}
}

func TestLoadWithoutAnyLogCountsEverythingAsDirty(t *testing.T) {
	img := image(t, testLayout(t, 64<<20), sampleSuper())
	img.Log[0][40] ^= 1
	img.Log[1] = nil
	s, p, err := Load(img)
	if err != nil || !p.LogLost {
		t.Fatalf("%v, %+v", err, p)
	}
	if want := sampleSuper().Size / BlockSize; s.Dirty.Count() != want {
		t.Fatalf("%d of %d blocks are dirty", s.Dirty.Count(), want)
	}
}

func TestCodecMapPageDamageNeverLosesABit(t *testing.T) {
	const size = 3 * blocksPerPage * BlockSize / 2
	m := NewMap(size)
	r := testRand(5)
	for range 500 {
		m.Set(Block(r.Int64N(int64(m.Blocks()))), 1)
	}
	pages := make([]byte, 2*PageSize)
	write := func() {
		for p := range 2 {
			first := p * wordsPerPage
			encodePage(pages[p*PageSize:(p+1)*PageSize], p, m.words[first:min(first+wordsPerPage, len(m.words))])
		}
	}
	write()
	got, damaged := DecodeMap(pages, size)
	if damaged != 0 || !reflect.DeepEqual(got, m) {
		t.Fatalf("%d damaged, %d of %d bits", damaged, got.Count(), m.Count())
	}
	check := func(what string, page int) {
		t.Helper()
		got, damaged := DecodeMap(pages, size)
		if damaged != 1 {
			t.Fatalf("%s: not noticed", what)
		}
		for i := range m.words {
			want := m.words[i]
			if i/wordsPerPage == page {
				want = m.valid(i)
			}
			if got.words[i] != want {
				t.Fatalf("%s: word %d is %x, want %x", what, i, got.words[i], want)
			}
		}
	}
	for i := 0; i < len(pages); i += 7 {
		pages[i] ^= 0x10
		check("a damaged byte", i/PageSize)
		pages[i] ^= 0x10
	}
	swapped := append(bytes.Clone(pages[PageSize:]), pages[:PageSize]...)
	if _, damaged := DecodeMap(swapped, size); damaged != 2 {
		t.Fatal("pages in the wrong place were accepted")
	}
	if got, damaged := DecodeMap(pages[:PageSize+100], size); damaged != 1 || got.Count() < m.Count() {
		t.Fatalf("a cut map: %d damaged, %d bits", damaged, got.Count())
	}
	if got, damaged := DecodeMap(nil, size); damaged != 2 || got.Count() != int64(got.Blocks()) {
		t.Fatalf("no map: %d damaged, %d bits", damaged, got.Count())
	}
}

func TestRoleAndMarksHaveNames(t *testing.T) {
	for r := Init; r <= Primary; r++ {
		b, _ := r.MarshalText()
		var got Role
		if err := got.UnmarshalText(b); err != nil || got != r {
			t.Errorf("%s: %v %v", b, got, err)
		}
	}
	if _, err := ParseRole("master"); err == nil || !strings.Contains(err.Error(), "secondary") {
		t.Errorf("%v", err)
	}
	if s := (Raised | Forced).String(); s != "raised,forced" {
		t.Errorf("marks are %q", s)
	}
	if Marks(0).String() != "none" {
		t.Error("no marks have no word")
	}
}

func TestEpochsOrderByNumberThenNode(t *testing.T) {
	order := []Epoch{{}, {1, 1}, {1, 2}, {2, 1}, {2, 2}}
	for i, e := range order {
		for j, f := range order {
			if e.Less(f) != (i < j) {
				t.Errorf("%v before %v: %t", e, f, e.Less(f))
			}
		}
	}
}
