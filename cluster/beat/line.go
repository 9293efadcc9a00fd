package beat

import "bytes"

// Frames on the serial line are packets in COBS (Cheshire and Baker, 1999) with a
// zero byte before and after each: whatever noise or half a frame came before, the
// next one is read. That a frame is whole and right its code tells.

// MaxFrame is the longest frame.
const MaxFrame = MaxPacket + MaxPacket/254 + 1 + 2

// AppendFrame appends a packet as a frame.
func AppendFrame(dst, packet []byte) []byte {
	dst = append(dst, 0)
	at := len(dst) // of the code byte to be filled
	dst = append(dst, 1)
	for i, c := range packet {
		if c != 0 {
			dst = append(dst, c)
			dst[at]++
		}
		if c == 0 || dst[at] == 0xff && i+1 < len(packet) {
			at = len(dst)
			dst = append(dst, 1)
		}
	}
	return append(dst, 0)
}

// Unframer takes frames out of a stream of bytes.
type Unframer struct {
	buf  []byte
	long bool // what is read now is too long to be a frame
}

// Read takes bytes and calls packet for each whole frame; what it is given is valid
// until it returns. Damaged frames are counted in the result.
func (u *Unframer) Read(b []byte, packet func(p []byte)) (bad int) {
	for len(b) > 0 {
		end := bytes.IndexByte(b, 0)
		part := b
		if end >= 0 {
			part = b[:end]
		}
		if u.long = u.long || len(u.buf)+len(part) > MaxFrame-2; !u.long {
			u.buf = append(u.buf, part...)
		}
		if end < 0 {
			return bad
		}
		b = b[end+1:]
		if u.long {
			bad++
		} else if len(u.buf) > 0 {
			if p, ok := unstuff(u.buf); ok {
				packet(p)
			} else {
				bad++
			}
		}
		u.buf, u.long = u.buf[:0], false
	}
	return bad
}

// unstuff undoes COBS in place.
func unstuff(b []byte) ([]byte, bool) {
	out := b[:0]
	for i := 0; i < len(b); {
		n := int(b[i])
		if n == 0 || i+n > len(b) {
			return nil, false
		}
		out = append(out, b[i+1:i+n]...)
		i += n
		if n != 0xff && i < len(b) {
			out = append(out, 0)
		}
	}
	return out, true
}
