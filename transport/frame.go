package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Frame is the head of one message. What its fields mean is the caller's; the
// transport only carries them.
type Frame struct {
	Kind  uint8
	Flags uint8
	Conn  uint32 // connection number of the replication rules
	Seq   uint64
	Off   int64
	Len   uint32 // not the length of the body
	Mask  uint64
	Aux   uint64
	// Zero is set on arrival: the body was all zeroes and did not travel. Its
	// memory is filled with zeroes all the same.
	Zero bool
}

const (
	frameMagic = 0x31465348 // "HSF1"
	headerSize = 64
	digestMax  = 32
)

// header is a frame's head on the wire, 64 bytes little endian:
//
//	 0 magic   4 crc32c of bytes 8 to 63   8 kind   9 flags   10 pack   11 sum
//	12 conn   16 seq   24 off   32 len   36 raw   40 mask   48 aux   56 wire
//	60 zero
//
// The digest of the raw body (0, 4, 8 or 32 bytes by sum) and wire bytes follow.
type header struct {
	Frame
	pack packKind
	sum  sumKind
	raw  uint32 // body bytes in memory
	wire uint32 // body bytes on the wire
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errHeader = errors.New("broken frame header")

// put writes h into the first headerSize bytes of b.
func (h *header) put(b []byte) {
	b = b[:headerSize]
	le := binary.LittleEndian
	le.PutUint32(b, frameMagic)
	b[8], b[9], b[10], b[11] = h.Kind, h.Flags, byte(h.pack), byte(h.sum)
	le.PutUint32(b[12:], h.Conn)
	le.PutUint64(b[16:], h.Seq)
	le.PutUint64(b[24:], uint64(h.Off))
	le.PutUint32(b[32:], h.Len)
	le.PutUint32(b[36:], h.raw)
	le.PutUint64(b[40:], h.Mask)
	le.PutUint64(b[48:], h.Aux)
	le.PutUint32(b[56:], h.wire)
	le.PutUint32(b[60:], 0)
	le.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
}

// parse reads headerSize bytes and accepts nothing that put would not write.
// limit is the longest body allowed.
func (h *header) parse(b []byte, limit uint32) error {
	b = b[:headerSize]
	le := binary.LittleEndian
	if le.Uint32(b) != frameMagic {
		return fmt.Errorf("%w: no frame begins here", errHeader)
	}
	if le.Uint32(b[4:]) != crc32.Checksum(b[8:], castagnoli) {
		return fmt.Errorf("%w: its checksum differs", errHeader)
	}
	h.Kind, h.Flags, h.pack, h.sum = b[8], b[9], packKind(b[10]), sumKind(b[11])
	h.Conn = le.Uint32(b[12:])
	h.Seq = le.Uint64(b[16:])
	h.Off = int64(le.Uint64(b[24:]))
	h.Len = le.Uint32(b[32:])
	h.raw = le.Uint32(b[36:])
	h.Mask = le.Uint64(b[40:])
	h.Aux = le.Uint64(b[48:])
	h.wire = le.Uint32(b[56:])
	h.Zero = h.pack == packHole
	if h.raw > limit || h.wire > limit {
		return fmt.Errorf("%w: a body of %d bytes (%d on the wire), at most %d", errHeader, h.raw, h.wire, limit)
	}
	ok := le.Uint32(b[60:]) == 0 && h.sum < sumKinds
	switch h.pack {
	case packNone:
		ok = ok && h.wire == h.raw && (h.raw > 0 || h.sum == sumNone)
	case packHole:
		ok = ok && h.raw > 0 && h.wire == 0 && h.sum == sumNone
	case packLZ4, packZstd:
		ok = ok && h.wire > 0 && h.wire < h.raw
	default:
		ok = false
	}
	if !ok {
		return fmt.Errorf("%w: its fields contradict each other", errHeader)
	}
	return nil
}
