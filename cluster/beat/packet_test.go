package beat

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"testing"
)

var (
	testKey = []byte("0123456789abcdef0123456789abcdef")
	codec   = NewCodec("red", testKey)
)

func example() Packet {
	return Packet{
		From: 1, To: 2, Link: 1, Kind: KindMessage, Piece: 1, Pieces: 3, Incarnation: 7, Sequence: 8, Message: 9, Sent: 10,
		Echo: Echo{11, 12, 13, 14}, Payload: []byte("payload"),
	}
}

func TestPacketRoundTrip(t *testing.T) {
	p := example()
	b := codec.Seal(nil, &p)
	got, fault := NewCodec("red", testKey).Open(b)
	if fault != FaultNone || !reflect.DeepEqual(got, p) {
		t.Fatalf("%+v, %v", got, fault)
	}
	for name, x := range map[string]struct {
		c    *Codec
		b    []byte
		want Fault
	}{
		"another cluster": {NewCodec("blue", testKey), b, FaultCluster},
		"another key":     {NewCodec("red", append(bytes.Clone(testKey[1:]), 'x')), b, FaultKey},
		"no key here":     {NewCodec("red", nil), b, FaultSecured},
		"cut":             {codec, b[:len(b)-1], FaultLength},
		"longer":          {codec, append(bytes.Clone(b), 0), FaultLength},
		"empty":           {codec, nil, FaultLength},
		"a web browser":   {codec, bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 10), FaultVersion},
	} {
		if _, fault := x.c.Open(x.b); fault != x.want {
			t.Errorf("%s: %v, want %v", name, fault, x.want)
		}
	}
	open := NewCodec("red", nil)
	if _, fault := codec.Open(open.Seal(nil, &p)); fault != FaultSecured {
		t.Errorf("made without a key: %v", fault)
	}
	if _, fault := open.Open(open.Seal(nil, &p)); fault != FaultNone {
		t.Errorf("neither has a key: %v", fault)
	}
}

// Every byte of a packet is covered: no change of one bit is believed.
func TestEveryBitIsCovered(t *testing.T) {
	p := example()
	for _, c := range []*Codec{codec, NewCodec("red", nil)} {
		b := c.Seal(nil, &p)
		for i := range 8 * len(b) {
			b[i/8] ^= 1 << (i % 8)
			if _, fault := c.Open(b); fault == FaultNone {
				t.Errorf("bit %d of byte %d may change", i%8, i/8)
			}
			b[i/8] ^= 1 << (i % 8)
		}
	}
}

// The format is a promise between versions.
func TestFormat(t *testing.T) {
	p, b := example(), exampleBeat()
	for want, got := range map[string][]byte{
		"686201018918ad120b1ef5770102010201030007" + "0000000000000007" + "0000000000000008" + "0000000000000009" + "000000000000000a" +
			"000000000000000b" + "000000000000000c" + "000000000000000d" + "0000000e" + "7061796c6f6164" + "cf2b75c2f04d07685696a60aaebff94b": codec.Seal(nil, &p),
		"fffffffffffffffb" + "0000000000000001" + "0000000000000002" + "0300000000000000" + "01fe02" + "020002" + "000201f4" + "ff01ffff" + "3f0100" +
			"02" + "01000476696577" + "020000": b.Append(nil),
	} {
		if hex.EncodeToString(got) != want {
			t.Errorf("%x, want %s", got, want)
		}
	}
}

func TestFieldsThatCannotBe(t *testing.T) {
	for name, change := range map[string]func(p *Packet){
		"kind":             func(p *Packet) { p.Kind = 3 },
		"node":             func(p *Packet) { p.From = 64 },
		"link":             func(p *Packet) { p.Link = LinkID(MaxLinks) },
		"no incarnation":   func(p *Packet) { p.Incarnation = 0 },
		"no sequence":      func(p *Packet) { p.Sequence = 0 },
		"sent before boot": func(p *Packet) { p.Sent = -1 },
		"echo before boot": func(p *Packet) { p.Echo.Sent = -1 },
		"echo of nobody":   func(p *Packet) { p.Echo.Incarnation = 0 },
		"piece after last": func(p *Packet) { p.Piece = 3 },
		"too many pieces":  func(p *Packet) { p.Pieces = MaxPieces + 1 },
		"an empty piece":   func(p *Packet) { p.Payload = nil },
		"no message":       func(p *Packet) { p.Message = 0 },
		"a beat in pieces": func(p *Packet) { p.Kind = KindBeat },
		"a numbered beat":  func(p *Packet) { p.Kind, p.Piece, p.Pieces = KindBeat, 0, 0 },
	} {
		p := example()
		change(&p)
		if _, fault := codec.Open(codec.Seal(nil, &p)); fault != FaultContent {
			t.Errorf("%s: %v", name, fault)
		}
	}
}

func exampleBeat() Beat {
	return Beat{
		Wall: -5, Era: 1, Index: 2, Shared: Digest{3}, Leaving: true, Carrier: 0xfe,
		Hears: []Hears{
			{Node: 2, Links: []HeardLink{{0, LinkUp, 500}, {Serial, LinkTrouble, 65535}}},
			{Node: 63, Duplicate: true},
		},
		Bodies: []Body{{1, []byte("view")}, {2, []byte{}}},
	}
}

func TestBeatRoundTrip(t *testing.T) {
	b := exampleBeat()
	p := b.Append(nil)
	got, ok := ParseBeat(p)
	if !ok || !bytes.Equal(got.Append(nil), p) || got.Wall != -5 || !got.Leaving || !got.Hears[1].Duplicate || string(got.Bodies[0].Data) != "view" {
		t.Fatalf("%+v, %v", got, ok)
	}
	if got.Hears[0].Best() != LinkUp || got.Hears[1].Best() != LinkDown {
		t.Error("the best link is another")
	}
	for n := range p {
		if _, ok := ParseBeat(p[:n]); ok {
			t.Errorf("cut to %d bytes it is read", n)
		}
	}
	if _, ok := ParseBeat(append(p, 0)); ok {
		t.Error("with a byte more it is read")
	}
	twice := Beat{Hears: []Hears{{Node: 3}, {Node: 3}}}
	if _, ok := ParseBeat(twice.Append(nil)); ok {
		t.Error("a node stands in it twice")
	}
}

// What a heartbeat says of the largest cluster fits into one packet.
func TestLargestBeatFits(t *testing.T) {
	var b Beat
	for n := range NodeID(MaxNodes - 1) {
		b.Hears = append(b.Hears, Hears{Node: n, Links: make([]HeardLink, MaxLinks+1)})
	}
	if n := len(b.Append(nil)); n > payloadMax {
		t.Errorf("%d bytes, and %d fit", n, payloadMax)
	}
}

func TestWindow(t *testing.T) {
	var w window
	for i, x := range []struct {
		n    uint64
		want bool
	}{{5, true}, {5, false}, {3, true}, {3, false}, {6, true}, {5, false}, {4, true}, {100, true}, {36, false}, {37, true}, {37, false}, {99, true}, {1 << 63, true}, {100, false}} {
		if got := w.see(x.n); got != x.want {
			t.Errorf("%d: %d is new: %v", i, x.n, got)
		}
	}
}

func TestPieces(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), 500)
	list := cut(7, body, pieceMax)
	if len(list) != 4 {
		t.Fatalf("%d pieces", len(list))
	}
	piece := func(message uint64, i int) *Packet {
		return &Packet{Incarnation: 1, Message: message, Piece: uint8(i), Pieces: uint8(len(list)), Payload: list[i]}
	}
	var a assembly
	for _, i := range []int{2, 0, 2, 3} {
		if _, ok := a.add(piece(1, i)); ok {
			t.Fatal("whole too soon")
		}
	}
	whole, ok := a.add(piece(1, 1))
	if !ok || whole[0] != 7 || !bytes.Equal(whole[1:], body) {
		t.Fatalf("%d bytes, %v", len(whole), ok)
	}
	// A newer message drops an older one, whose late pieces change nothing.
	a.add(piece(5, 0))
	a.add(piece(6, 1))
	for i := range list {
		if _, ok := a.add(piece(5, i)); ok {
			t.Error("an older message became whole")
		}
	}
	for _, i := range []int{0, 2} {
		a.add(piece(6, i))
	}
	if _, ok := a.add(piece(6, 3)); !ok {
		t.Error("a piece of the newer one was lost")
	}
	if len(cut(1, make([]byte, MaxBody), pieceMax)) != MaxPieces || len(cut(1, make([]byte, MaxSerialBody), serialPiece)) != MaxPieces {
		t.Error("the longest body does not fill its pieces")
	}
}

func TestFrames(t *testing.T) {
	packets := [][]byte{{}, {0}, {0, 0}, {1}, bytes.Repeat([]byte{1}, 253), bytes.Repeat([]byte{1}, 254), bytes.Repeat([]byte{1}, 255), bytes.Repeat([]byte{7}, 508), append(bytes.Repeat([]byte{1}, 254), 0), append(bytes.Repeat([]byte{1}, 254), 0, 1), make([]byte, MaxPacket), bytes.Repeat([]byte{9}, MaxPacket)}
	var stream []byte
	for _, p := range packets {
		f := AppendFrame(nil, p)
		if len(f) > MaxFrame || bytes.IndexByte(f[1:len(f)-1], 0) >= 0 {
			t.Errorf("%d bytes become %d: %v", len(p), len(f), f)
		}
		stream = append(stream, f...)
	}
	for _, step := range []int{1, 3, 1000, len(stream)} {
		var u Unframer
		var got [][]byte
		for at := 0; at < len(stream); at += step {
			if bad := u.Read(stream[at:min(at+step, len(stream))], func(p []byte) { got = append(got, bytes.Clone(p)) }); bad != 0 {
				t.Errorf("step %d: %d bad", step, bad)
			}
		}
		if len(got) != len(packets) {
			t.Fatalf("step %d: %d of %d", step, len(got), len(packets))
		}
		for i := range got {
			if !bytes.Equal(got[i], packets[i]) {
				t.Errorf("step %d: %v became %v", step, packets[i], got[i])
			}
		}
	}
}

// Noise costs the frames that it hits, no memory, and not the next frame.
func TestNoiseOnTheLine(t *testing.T) {
	var u Unframer
	n := 0
	u.Read(bytes.Repeat([]byte{0xaa}, 1<<20), func([]byte) { n++ })
	if cap(u.buf) > 2*MaxFrame {
		t.Errorf("%d bytes are kept", cap(u.buf))
	}
	bad := u.Read(AppendFrame(nil, []byte("good")), func(p []byte) {
		if n++; string(p) != "good" {
			t.Errorf("%q", p)
		}
	})
	if n != 1 || bad != 1 {
		t.Errorf("%d packets, %d bad frames", n, bad)
	}
}
