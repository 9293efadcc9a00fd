package beat

import (
	"bytes"
	"slices"
	"testing"
)

// FuzzPacket: no bytes crash the codec; what is accepted is written the same again,
// and lies within its bounds.
func FuzzPacket(f *testing.F) {
	p := example()
	f.Add(codec.Seal(nil, &p))
	b := exampleBeat()
	f.Add(codec.Seal(nil, &Packet{From: 1, Kind: KindBeat, Incarnation: 1, Sequence: 1, Payload: b.Append(nil)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := NewCodec("red", testKey)
		check := func(b []byte) {
			p, fault := c.Open(b)
			if fault != FaultNone {
				return
			}
			if !bytes.Equal(c.Seal(nil, &p), b) {
				t.Fatalf("%x is written otherwise", b)
			}
			if p.From > MaxID || p.To > MaxID || len(p.Payload) > payloadMax || p.Pieces > MaxPieces {
				t.Fatalf("beyond its bounds: %+v", p)
			}
		}
		check(b)
		if len(b) >= headSize+codeSize { // past the code
			b = slices.Clone(b)
			copy(b, []byte{'h', 'b', version, flagKeyed})
			copy(b[4:], c.tag[:])
			n := len(b) - codeSize
			b[18], b[19] = byte((n-headSize)>>8), byte(n-headSize)
			copy(b[n:], c.code(b[:n]))
			check(b)
		}
	})
}

// FuzzBeat does so for the payload of a heartbeat.
func FuzzBeat(f *testing.F) {
	b := exampleBeat()
	f.Add(b.Append(nil))
	f.Add((&Beat{}).Append(nil))
	f.Fuzz(func(t *testing.T, p []byte) {
		b, ok := ParseBeat(p)
		if !ok {
			return
		}
		if again := b.Append(nil); !bytes.Equal(again, p) {
			t.Fatalf("%x became %x", p, again)
		}
		if len(b.Hears) >= MaxNodes || len(b.Bodies) > maxBodies {
			t.Fatal("beyond its bounds")
		}
	})
}

// FuzzLine: no stream crashes the serial line's reader or makes it keep more than a
// frame, however it is cut; frames after it are read.
func FuzzLine(f *testing.F) {
	f.Add(AppendFrame(AppendFrame(nil, []byte("one\x00two")), make([]byte, 300)), uint8(3))
	f.Add(bytes.Repeat([]byte{0xff, 1}, 1000), uint8(255))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		var whole, parts Unframer
		var one, two [][]byte
		bad := whole.Read(b, func(p []byte) { one = append(one, slices.Clone(p)) })
		for part := range slices.Chunk(b, int(step)+1) {
			bad -= parts.Read(part, func(p []byte) { two = append(two, slices.Clone(p)) })
		}
		if bad != 0 || !slices.EqualFunc(one, two, bytes.Equal) {
			t.Fatal("it matters how a stream is cut")
		}
		if cap(whole.buf) > 4*MaxFrame {
			t.Fatalf("%d bytes are kept", cap(whole.buf))
		}
		for _, p := range one {
			var u Unframer
			u.Read(AppendFrame(nil, p), func(again []byte) {
				if !bytes.Equal(again, p) {
					t.Fatalf("%x became %x", p, again)
				}
			})
		}
		got := false
		whole.Read(AppendFrame(nil, []byte("next")), func(p []byte) { got = got || string(p) == "next" })
		if !got {
			t.Fatal("the next frame is lost")
		}
	})
}

// FuzzShared: what another node says of its configuration crashes nothing, and what is
// told of it is bounded and can be shown.
func FuzzShared(f *testing.F) {
	s := Shared{"cluster.lease": "3s", `group."a.b".vhid`: "1", "node.alpha.id": "0"}
	f.Add(s.appendGroups(), s.appendKeys([]string{"cluster", "node.alpha"}))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if groups, ok := parseGroups(a); ok {
			if keys := s.appendKeys(s.differing(groups)); len(keys) > MaxBody {
				t.Fatalf("an answer of %d bytes", len(keys))
			}
		}
		if groups, keys, ok := parseKeys(b); ok {
			diff := s.diff(groups, keys)
			if len(diff) > maxDiffs {
				t.Fatalf("%d differences", len(diff))
			}
			for _, d := range diff {
				if clean(d.String()) != d.String() {
					t.Fatalf("%q cannot be shown", d)
				}
			}
		}
	})
}

// FuzzMachine: packets with a right code from a node that sends anything crash
// nothing, and never make another node's link.
func FuzzMachine(f *testing.F) {
	b := exampleBeat()
	f.Add(uint8(0), uint8(1), uint8(1), uint64(9), uint64(1), int64(5), uint16(0), uint64(1), b.Append(nil), true)
	f.Add(uint8(0), uint8(2), uint8(3), uint64(9), uint64(1), int64(5), uint16(40), uint64(1), []byte{kindKeys, 0, 0}, false)
	f.Add(uint8(0), uint8(255), uint8(1), uint64(9), uint64(1), int64(5), uint16(40), uint64(1), append([]byte{kindKeys}, Shared{"a.b": "d"}.appendKeys([]string{"a.b"})...), false)
	f.Add(uint8(0), uint8(255), uint8(1), uint64(9), uint64(1), int64(5), uint16(2999), uint64(1), append([]byte{kindGroups}, Shared{"a.b": "d"}.appendGroups()...), false)
	f.Add(uint8(1), uint8(255), uint8(3), uint64(9), uint64(1), int64(5), uint16(1), uint64(1), []byte("piece"), false)
	f.Fuzz(func(t *testing.T, on, piece, pieces uint8, incarnation, seq uint64, sent int64, ago uint16, echoSeq uint64, payload []byte, beats bool) {
		m, err := New(Config{Self: 0, Incarnation: 5, Interval: Second, Trouble: 2 * Second, Timeout: 3 * Second, Shared: Shared{"a.b": "c"},
			Peers: []Peer{{1, "b", []LinkID{0, 1, Serial}}, {2, "c", []LinkID{0}}}})
		if err != nil {
			t.Fatal(err)
		}
		now := Instant(100 * Second)
		m.Step(now, Event{Kind: EvTick}, nil)
		p := Packet{From: 1, Link: LinkID(on), Kind: KindMessage, Piece: piece, Pieces: pieces, Incarnation: incarnation, Sequence: seq, Message: seq,
			Sent: Instant(sent), Echo: Echo{5, echoSeq, now.add(-Duration(ago) * Millisecond), 0}, Payload: payload}
		if beats {
			p.Kind, p.Piece, p.Pieces, p.Message = KindBeat, 0, 0, 0
		}
		if len(payload) > payloadMax {
			return
		}
		c := NewCodec("red", nil)
		for i := range 4 {
			p.Sequence += uint64(i)
			p.Piece++
			q, fault := NewGate(c).Admit(now, Anybody, 0, c.Seal(nil, &p))
			if fault != FaultNone {
				continue
			}
			now = now.add(Millisecond)
			for _, e := range m.Step(now, Event{Kind: EvPacket, Link: q.Link, Packet: &q}, nil) {
				if e.Kind == EffSend {
					if n := len(c.Seal(nil, &e.Packet)); n > MaxPacket {
						t.Fatalf("a packet of %d bytes", n)
					}
				}
				if e.Kind == EffNode && e.Node != 1 {
					t.Fatalf("node %d is up", e.Node)
				}
			}
		}
		m.Status(now)
	})
}
