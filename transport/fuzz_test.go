package transport

import (
	"bytes"
	"encoding/json"
	"testing"
)

// FuzzHello: no handshake message crashes or exceeds its bounds, and what is
// accepted says the same after encoding it again.
func FuzzHello(f *testing.F) {
	o := options("alpha")
	h := o.hello(kindData, randomHex(sessionBytes), 1)
	for _, v := range []any{h, &hello{Refused: &refusal{Code: CodeKey, Reason: "no\x1b[2J"}}, &proof{Proof: randomHex(proofBytes), Facts: json.RawMessage(`{"role":"primary","shared":{"a":"b"}}`)}} {
		b, err := putMessage(nil, v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("HAST\xff\xff\xff\xff{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		raw, err := readMessage(bytes.NewReader(b))
		if err != nil {
			return
		}
		if len(raw) > maxHello || len(raw) > len(b) {
			t.Fatalf("a message of %d bytes out of %d", len(raw), len(b))
		}
		if h, err := parseHello(raw); err == nil {
			stable(t, h, func(j []byte) (any, error) { return parseHello(j) })
		}
		if p, _, err := parseProof(raw); err == nil {
			stable(t, p, func(j []byte) (any, error) { p, _, err := parseProof(j); return p, err })
		}
	})
}

func stable(t *testing.T, v any, parse func([]byte) (any, error)) {
	one, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	again, err := parse(one)
	if err != nil {
		t.Fatalf("%s was accepted, but not again: %v", one, err)
	}
	two, err := json.Marshal(again)
	if err != nil || !bytes.Equal(one, two) {
		t.Fatalf("%s became %s (%v)", one, two, err)
	}
}

// fuzzSink checks that no more memory is asked for than a frame may have.
type fuzzSink struct {
	t   *testing.T
	mem []byte
	n   int
}

func (h *fuzzSink) Body(f *Frame, n int) []byte {
	if n <= 0 || n > MaxBody {
		h.t.Fatalf("memory for %d bytes was asked for", n)
	}
	if n > cap(h.mem) {
		h.mem = make([]byte, n)
	}
	return h.mem[:n:n]
}
func (h *fuzzSink) Frame(f *Frame, body []byte) { h.n++ }
func (h *fuzzSink) Batch()                      {}

// encodeFrames is what the writer sends for out.
func encodeFrames(t testing.TB, o *Options, out []Out) []byte {
	t.Helper()
	w := &writer{s: &Session{o: o}, heads: make([]byte, 0, batchFrames*(headerSize+digestMax))}
	defer w.pk.close()
	var b []byte
	for i := range out {
		if _, _, err := w.add(&out[i]); err != nil {
			t.Fatal(err)
		}
		for _, v := range w.iov {
			b = append(b, bytesOf(v)...)
		}
		w.iov, w.heads, w.used, w.left = w.iov[:0], w.heads[:0], 0, 0
	}
	return b
}

// FuzzFrame: no stream of bytes crashes the reader or makes it ask for too much;
// a header that is accepted encodes to the bytes it was.
func FuzzFrame(f *testing.F) {
	for _, pack := range []string{"none", "hole", "lz4", "zstd"} {
		for _, sum := range []string{"none", "crc32c", "xxh3", "sha256"} {
			o := &Options{Checksum: sum, Compression: pack, Metrics: new(Metrics)}
			f.Add(encodeFrames(f, o, []Out{
				{Frame: Frame{Kind: 1, Seq: 2, Off: 4096, Len: 4096, Mask: 5, Aux: 6}},
				{Frame: Frame{Kind: 255, Flags: 255}, Body: [][]byte{text(600)}},
				{Frame: Frame{Kind: 3}, Body: [][]byte{make([]byte, 512)}},
				{Frame: Frame{Kind: 4}, Body: [][]byte{noise(1, 300), noise(2, 10)}},
			}))
		}
	}
	buf := make([]byte, readBuffer)
	sink := new(fuzzSink)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= headerSize {
			var h header
			for _, limit := range []uint32{MaxBody, maxControl} {
				if h.parse(b, limit) == nil {
					var again [headerSize]byte
					h.put(again[:])
					if !bytes.Equal(again[:], b[:headerSize]) {
						t.Fatalf("%x became %x", b[:headerSize], again)
					}
				}
			}
			// Let the fuzzer past the checksum.
			c := bytes.Clone(b)
			c[10] &= 3
			c[11] &= 3
			fixCRC(c)
			stream(t, buf, sink, c)
		}
		stream(t, buf, sink, b)
	})
}

func stream(t *testing.T, buf []byte, sink *fuzzSink, b []byte) {
	sink.t = t
	r := &reader{s: &Session{o: &Options{Metrics: new(Metrics)}}, h: sink, conn: bytes.NewReader(b), buf: buf}
	defer r.un.close()
	for r.frame() == nil {
	}
}
