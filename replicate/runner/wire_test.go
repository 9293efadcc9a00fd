package runner

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"

	"hastd/metadata"
	"hastd/replicate"
	"hastd/transport"
)

const testDevice = 10<<20 + 12<<10 // the last window is not whole

// sampleMessages has one message of every kind.
func sampleMessages() map[replicate.MsgKind]replicate.Msg {
	k := replicate.MsgKind(0)
	ms := map[replicate.MsgKind]replicate.Msg{}
	add := func(m replicate.Msg) { m.Conn, m.Seq = 7, uint64(100+m.Kind); ms[m.Kind] = m }
	for k = replicate.MsgWrite; int(k) < len(bodies); k++ {
		m := replicate.Msg{Kind: k}
		switch bodies[k] {
		case bodyData:
			m.Off, m.Len = 8192, 12288
		case bodyHashes:
			m.Off, m.Mask = 2*replicate.WindowSize, 0xf00000000000000f
		case bodyBlocks:
			m.Off, m.Mask, m.Zeroes = replicate.WindowSize, 0x8000000000ff0001, 0xf00001
		case bodySeqs:
			m.Seqs = []uint64{1, 2, 1 << 63}
		}
		switch k {
		case replicate.MsgZero, replicate.MsgRead:
			m.Off, m.Len = 512, 1024
		case replicate.MsgWrite:
			m.Flags = replicate.FUA
		case replicate.MsgSyncNeed:
			m.Mask = 5
		case replicate.MsgFacts:
			m.Control = &replicate.Facts{Node: "alpha", Resource: "data", DataSize: 8 << 20, SectorSize: 512, Role: metadata.Primary,
				Lineage: metadata.Lineage{{ID: 1 << 63, Time: 5, Node: 1}}}
		case replicate.MsgBegin:
			m.Control = &replicate.Begin{Verdict: "equal", HashSeed: 1<<64 - 1, Size: 4096}
		case replicate.MsgMap:
			m.Control = &replicate.MapPart{First: 2, Bits: bytes.Repeat([]byte{0x80}, 64)}
		case replicate.MsgSyncEnd, replicate.MsgSyncEnded:
			m.Control = &replicate.SyncEnd{Localcnt: 3, Pair: 9}
		case replicate.MsgTakeOver, replicate.MsgTookOver:
			m.Control = &replicate.TakeOver{Localcnt: 3}
		case replicate.MsgRole:
			m.Control = &replicate.RoleChange{Role: metadata.Secondary}
		case replicate.MsgRenegotiate:
			m.Control = &replicate.Renegotiate{Conn: 8, Reason: "because"}
		}
		add(m)
	}
	return ms
}

// carry brings a message over the wire mapping, without a wire.
func carry(t *testing.T, m replicate.Msg, mem *memory, table *memories) (replicate.Msg, []byte) {
	t.Helper()
	r := &Resource{box: newMailbox(), peerMem: table.app}
	r.deviceSize.Store(testDevice)
	p := &peerSession{r: r}
	for _, o := range pack(nil, table, &m, mem) {
		var body []byte
		flat := bytes.Join(o.Body, nil)
		if len(flat) > 0 {
			if body = p.Body(&o.Frame, len(flat)); body == nil {
				t.Fatalf("kind %d: the body of %d bytes was refused", m.Kind, len(flat))
			}
			copy(body, flat)
		}
		p.Frame(&o.Frame, body)
		if o.Done != nil {
			o.Done.Released()
		}
	}
	if p.bad || len(p.batch) == 0 {
		t.Fatalf("kind %d: refused", m.Kind)
	}
	p.Batch()
	var w word
	r.box.take(&w)
	got := w.items[0].ev.Msg
	for _, it := range w.items {
		got.Seqs = append(got.Seqs, w.seqs[it.seqs[0]:it.seqs[1]]...)
	}
	return got, w.items[0].body
}

func TestWireCarriesEveryKind(t *testing.T) {
	table := newMemories(testArena(t, 64<<20))
	window := make([]byte, replicate.WindowSize)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range window {
		window[i] = byte(rng.Uint32())
	}
	for kind, m := range sampleMessages() {
		mem := table.add(window, nil)
		mem.hashes = new(windowHashes)
		hashBlocks(mem.hashes, window, ^uint64(0), 0, 42)
		got, body := carry(t, m, mem, table)
		if !reflect.DeepEqual(got, m) {
			t.Errorf("kind %d: sent %+v, got %+v", kind, m, got)
		}
		switch bodies[kind] {
		case bodyData:
			if !bytes.Equal(body, window[:m.Len]) {
				t.Errorf("kind %d: wrong payload", kind)
			}
		case bodyBlocks:
			for i := range replicate.Window {
				a, b := window[i*4096:(i+1)*4096], body[:replicate.WindowSize][i*4096:(i+1)*4096]
				if (m.Mask&^m.Zeroes)>>i&1 == 1 && !bytes.Equal(a, b) {
					t.Errorf("kind %d: block %d differs", kind, i)
				}
			}
		case bodyHashes:
			if d := mem.hashes.differ(m.Mask, body, m.Mask); d != 0 {
				t.Errorf("kind %d: hashes of %#x differ after the way", kind, d)
			}
		}
		if body != nil {
			table.app.Put(body)
		}
		if n := mem.refs.Load(); n != 1 {
			t.Errorf("kind %d: %d references are left", kind, n)
		}
	}
	if table.app.Free() != table.app.Size() {
		t.Error("memory was not given back")
	}
}

func TestWireSplitsLongLists(t *testing.T) {
	table := newMemories(testArena(t, 32<<20))
	seqs := make([]uint64, 2*maxSeqs+1)
	for i := range seqs {
		seqs[i] = uint64(i)
	}
	got, _ := carry(t, replicate.Msg{Kind: replicate.MsgWrote, Seqs: seqs}, nil, table)
	if !reflect.DeepEqual(got.Seqs, seqs) {
		t.Fatalf("%d numbers arrived of %d", len(got.Seqs), len(seqs))
	}
}

func TestWireRefusesWhatMakesNoSense(t *testing.T) {
	type F = transport.Frame
	k := func(k replicate.MsgKind) uint8 { return uint8(k) }
	for name, c := range map[string]struct {
		f F
		n int
	}{
		"kind 0":              {F{}, 0},
		"unknown kind":        {F{Kind: uint8(len(bodies))}, 0},
		"unknown flags":       {F{Kind: k(replicate.MsgFlush), Flags: 0x80}, 0},
		"write beyond":        {F{Kind: k(replicate.MsgWrite), Off: testDevice - 512, Len: 1024}, 1024},
		"write below":         {F{Kind: k(replicate.MsgWrite), Off: -512, Len: 512}, 512},
		"write overflow":      {F{Kind: k(replicate.MsgZero), Off: 1<<63 - 512, Len: 1024}, 0},
		"write unaligned":     {F{Kind: k(replicate.MsgWrite), Off: 1, Len: 512}, 512},
		"write without bytes": {F{Kind: k(replicate.MsgWrite), Len: 512}, 0},
		"write of nothing":    {F{Kind: k(replicate.MsgWrite)}, 0},
		"body too long":       {F{Kind: k(replicate.MsgWrite), Len: 512}, 513},
		"read too long":       {F{Kind: k(replicate.MsgRead), Len: 1 << 31}, 0},
		"no window":           {F{Kind: k(replicate.MsgSyncData), Off: 4096, Mask: 1}, 4096},
		"empty mask":          {F{Kind: k(replicate.MsgSyncHash)}, 0},
		"zeroes not in mask":  {F{Kind: k(replicate.MsgSyncData), Mask: 1, Aux: 2}, 4096},
		"block beyond":        {F{Kind: k(replicate.MsgSyncPull), Off: 10 << 20, Mask: 8}, 16},
		"window beyond":       {F{Kind: k(replicate.MsgSyncPull), Off: 1 << 40, Mask: 1}, 16},
		"hashes missing":      {F{Kind: k(replicate.MsgSyncHash), Mask: 3}, 16},
		"half a number":       {F{Kind: k(replicate.MsgWrote)}, 12},
		"no number":           {F{Kind: k(replicate.MsgWrote)}, 0},
		"too many numbers":    {F{Kind: k(replicate.MsgWrote)}, 8 * (maxSeqs + 1)},
		"no control":          {F{Kind: k(replicate.MsgFacts)}, 0},
		"long control":        {F{Kind: k(replicate.MsgFacts)}, replicate.MaxControl + 1},
		"flush with a body":   {F{Kind: k(replicate.MsgFlush)}, 8},
	} {
		if checkFrame(&c.f, c.n, testDevice) == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	for name, c := range map[string]struct {
		kind replicate.MsgKind
		body string
	}{
		"no JSON":        {replicate.MsgFacts, "facts"},
		"odd size":       {replicate.MsgFacts, `{"data_size":4097}`},
		"negative size":  {replicate.MsgBegin, `{"size":-4096}`},
		"sector":         {replicate.MsgFacts, `{"sector_size":1000}`},
		"wrong type":     {replicate.MsgRole, `{"role":"king"}`},
		"map without":    {replicate.MsgMap, `{"first":0}`},
		"negative first": {replicate.MsgMap, `{"first":-1,"bits":"AAAAAAAAAAA="}`},
	} {
		if _, err := decodeControl(c.kind, []byte(c.body), testDevice); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// FuzzDecodeMessage: whatever arrives, nothing panics, what is accepted lies
// within the device, and encoding it again gives the same message.
func FuzzDecodeMessage(f *testing.F) {
	for _, m := range sampleMessages() {
		fr := frameOf(&m)
		var body []byte
		if m.Control != nil {
			body, _ = json.Marshal(m.Control)
		}
		body = encodeSeqs(body, m.Seqs)
		f.Add(fr.Kind, fr.Flags, fr.Off, fr.Len, fr.Mask, fr.Aux, body)
	}
	f.Fuzz(func(t *testing.T, kind, flags uint8, off int64, length uint32, mask, aux uint64, body []byte) {
		fr := transport.Frame{Kind: kind, Flags: flags, Off: off, Len: length, Mask: mask, Aux: aux}
		if checkFrame(&fr, len(body), testDevice) != nil {
			return
		}
		m := msgOf(&fr)
		if again := frameOf(&m); again != fr {
			t.Fatalf("%+v became %+v", fr, again)
		}
		switch bodies[kind] {
		case bodyData:
			if off < 0 || off+int64(length) > testDevice || int(length) != len(body) {
				t.Fatal("beyond the device")
			}
		case bodySeqs:
			if !bytes.Equal(encodeSeqs(nil, decodeSeqs(nil, body)), body) {
				t.Fatal("numbers changed")
			}
		case bodyBlocks:
			window := make([]byte, replicate.WindowSize)
			copy(window, body)
			scatter(window, mask&^aux)
			if !bytes.Equal(bytes.Join(gather(nil, window, mask&^aux), nil), body) {
				t.Fatal("blocks changed")
			}
		case bodyControl:
			c, err := decodeControl(m.Kind, body, testDevice)
			if err != nil {
				return
			}
			j, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			if p, ok := c.(*replicate.MapPart); ok && len(p.Bits) == 0 {
				return // cut to nothing
			}
			d, err := decodeControl(m.Kind, j, testDevice)
			if err != nil || !reflect.DeepEqual(c, d) {
				t.Fatalf("%+v became %+v: %v", c, d, err)
			}
		}
	})
}
