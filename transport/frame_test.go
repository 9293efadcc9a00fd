package transport

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func bytesOf(v unix.Iovec) []byte { return unsafe.Slice(v.Base, v.Len) }

func fixCRC(b []byte) {
	binary.LittleEndian.PutUint32(b, frameMagic)
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:headerSize], castagnoli))
}

// The layout is a contract between versions.
func TestHeaderLayout(t *testing.T) {
	h := header{
		Frame: Frame{Kind: 0x11, Flags: 0x22, Conn: 0x33343536, Seq: 0x4142434445464748, Off: 0x5152535455565758, Len: 0x61626364, Mask: 0x7172737475767778, Aux: 0x8182838485868788},
		pack:  packLZ4, sum: sumSHA256, raw: 0x100000, wire: 0x1000,
	}
	var b [headerSize]byte
	h.put(b[:])
	want := "HSF1" + string(b[4:8]) + "\x11\x22\x02\x03" + "\x36\x35\x34\x33" + "\x48\x47\x46\x45\x44\x43\x42\x41" +
		"\x58\x57\x56\x55\x54\x53\x52\x51" + "\x64\x63\x62\x61" + "\x00\x00\x10\x00" + "\x78\x77\x76\x75\x74\x73\x72\x71" +
		"\x88\x87\x86\x85\x84\x83\x82\x81" + "\x00\x10\x00\x00" + "\x00\x00\x00\x00"
	if string(b[:]) != want {
		t.Errorf("got  %x\nwant %x", b, want)
	}
	var back header
	if err := back.parse(b[:], MaxBody); err != nil || back != h {
		t.Errorf("came back as %+v, %v", back, err)
	}
}

// Nothing that put does not write is accepted; every single flipped bit shows.
func TestHeaderRefusals(t *testing.T) {
	good := header{Frame: Frame{Kind: 1}, raw: 4096, wire: 4096, sum: sumCRC32C}
	var b [headerSize]byte
	good.put(b[:])
	for bit := range headerSize * 8 {
		c := b
		c[bit/8] ^= 1 << (bit % 8)
		var h header
		if h.parse(c[:], MaxBody) == nil {
			t.Errorf("flipped bit %d was not noticed", bit)
		}
	}
	for name, change := range map[string]func(h *header, b []byte){
		"4 GiB":                  func(h *header, b []byte) { h.raw, h.wire = 1<<32-1, 1<<32-1 },
		"one byte too many":      func(h *header, b []byte) { h.raw, h.wire = MaxBody+1, MaxBody+1 },
		"wire over raw":          func(h *header, b []byte) { h.wire = h.raw + 1 },
		"wire below raw":         func(h *header, b []byte) { h.wire = h.raw - 1 },
		"hole with a body":       func(h *header, b []byte) { h.pack = packHole },
		"hole of nothing":        func(h *header, b []byte) { h.pack, h.raw, h.wire, h.sum = packHole, 0, 0, sumNone },
		"packed but not shorter": func(h *header, b []byte) { h.pack = packZstd },
		"packed to nothing":      func(h *header, b []byte) { h.pack, h.wire = packLZ4, 0 },
		"sum of nothing":         func(h *header, b []byte) { h.raw, h.wire = 0, 0 },
		"unknown compression":    func(h *header, b []byte) { h.pack = 4 },
		"unknown checksum":       func(h *header, b []byte) { h.sum = 4 },
		"last bytes in use":      func(h *header, b []byte) { b[63] = 1 },
	} {
		h := good
		var b [headerSize]byte
		change(&h, b[:])
		last := b[63]
		h.put(b[:])
		b[63] = last
		fixCRC(b[:])
		if err := h.parse(b[:], MaxBody); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A body that changed on the way ends the session, whatever digest is used; a
// compressed one that lies about its length does too, without writing beyond.
func TestBodyDamage(t *testing.T) {
	for _, pack := range []string{"none", "lz4", "zstd"} {
		for _, sum := range []string{"none", "crc32c", "xxh3", "sha256"} {
			o := &Options{Checksum: sum, Compression: pack, Metrics: new(Metrics)}
			body := append(text(2000), noise(9, 100)...)
			b := encodeFrames(t, o, []Out{{Body: [][]byte{body}}})
			read := func(b []byte) ([]byte, error) {
				h := newSink()
				r := &reader{s: &Session{o: o}, h: h, conn: bytes.NewReader(b), buf: make([]byte, 8192)}
				defer r.un.close()
				if err := r.frame(); err != nil {
					return nil, err
				}
				return (<-h.frames).body, nil
			}
			if got, err := read(b); err != nil || !bytes.Equal(got, body) {
				t.Fatalf("%s/%s: %v", pack, sum, err)
			}
			if sum != "none" {
				for _, at := range []int{headerSize, len(b) - 1, len(b) - 50} {
					c := bytes.Clone(b)
					c[at] ^= 0x10
					if _, err := read(c); err == nil || !strings.Contains(err.Error(), ErrProtocol.Error()) {
						t.Errorf("%s/%s: byte %d changed: %v", pack, sum, at, err)
					}
				}
			}
			if pack != "none" {
				for _, d := range []int{-1, +1, -1000, 1 << 20} {
					c := bytes.Clone(b)
					binary.LittleEndian.PutUint32(c[36:], uint32(len(body)+d))
					fixCRC(c)
					if _, err := read(c); err == nil {
						t.Errorf("%s/%s: length off by %d accepted", pack, sum, d)
					}
				}
			}
		}
	}
}
