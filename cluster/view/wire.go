package view

import (
	"encoding/binary"
	"errors"
)

// writer and reader are the primitives of the codec: big-endian numbers, and texts
// with their length in one byte.

type writer struct{ b []byte }

func (w *writer) u8(v uint8)   { w.b = append(w.b, v) }
func (w *writer) u32(v uint32) { w.b = binary.BigEndian.AppendUint32(w.b, v) }
func (w *writer) u64(v uint64) { w.b = binary.BigEndian.AppendUint64(w.b, v) }

func (w *writer) flag(v bool) {
	if v {
		w.u8(1)
	} else {
		w.u8(0)
	}
}

func (w *writer) text(s string) {
	w.u8(uint8(len(s)))
	w.b = append(w.b, s...)
}

// reader reads zeroes once something was wrong; end tells what.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(why string) {
	if r.err == nil {
		r.err = errors.New(why)
		r.b = nil
	}
}

func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.fail("it ends too early")
		return make([]byte, n)
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) u8() uint8   { return r.take(1)[0] }
func (r *reader) u32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

func (r *reader) flag() bool {
	v := r.u8()
	if v > 1 {
		r.fail("a flag that is neither")
	}
	return v == 1
}

// number is a count that must have room to grow.
func (r *reader) number() uint64 {
	v := r.u64()
	if v > maxNumber {
		r.fail("a number too large")
	}
	return v
}

func (r *reader) node() NodeID {
	v := NodeID(r.u8())
	if v > MaxNodeID {
		r.fail("a node that cannot be")
		return 0
	}
	return v
}

func (r *reader) inc() Incarnation {
	v := Incarnation(r.u64())
	if v == 0 {
		r.fail("no incarnation")
	}
	return v
}

func (r *reader) count(most int) int {
	n := int(r.u8())
	if n > most {
		r.fail("too many of something")
		return 0
	}
	return n
}

func (r *reader) text(most int) string {
	n := int(r.u8())
	if n > most {
		r.fail("a text too long")
		return ""
	}
	return string(r.take(n))
}

// end gives the first thing that was wrong; bytes left over are.
func (r *reader) end() error {
	if len(r.b) > 0 {
		r.fail("it goes on after its end")
	}
	return r.err
}
