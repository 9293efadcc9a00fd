package linear

import (
	"fmt"
	"hash/maphash"
	"slices"

	"github.com/anishathalye/porcupine"
)

// state is what a sector may hold. It is a set of states written as one: after a
// loss the value in force is any of back, and the first read tells which.
type state struct {
	open bool    // the value in force is one of back, and on a medium
	soft bool    // or else nothing was lost and cur is in force
	cur  Value   // the value in force, if known
	back []Value // sorted: what a loss now may leave, cur included; nil once no loss comes any more
}

// step is the input of an operation on one sector.
type step struct {
	kind  Kind // 0: a loss
	soft  bool // which may not have been one
	value Value
	fixed bool // with FUA
	last  bool // no loss can come after it
	seen  Value
}

func insert(s []Value, v Value) []Value {
	i, ok := slices.BinarySearch(s, v)
	if ok {
		return s
	}
	return slices.Insert(slices.Clone(s), i, v)
}

func (s state) apply(x step) (state, bool) {
	switch x.kind {
	case 0:
		switch {
		case !x.soft:
			return state{open: true, back: s.back}, true
		case s.open:
			return s, true
		}
		return state{open: true, soft: true, cur: s.cur, back: s.back}, true
	case Read:
		if !s.open {
			return s, s.cur == x.seen
		}
		if s.soft && s.cur == x.seen {
			return state{cur: s.cur, back: s.back}, true
		}
		if _, ok := slices.BinarySearch(s.back, x.seen); !ok {
			return s, false
		}
		// It came from a medium: no later loss brings back another.
		return fixed(x.seen, x.last), true
	case Write, WriteZeroes:
		if x.last || x.fixed {
			return fixed(x.value, x.last), true
		}
		return state{cur: x.value, back: insert(s.back, x.value)}, true
	case Flush:
		if s.open {
			return state{open: true, back: s.back}, true // whichever it is, it is on a medium
		}
		return fixed(s.cur, x.last), true
	}
	return s, false
}

func fixed(v Value, last bool) state {
	if last {
		return state{cur: v}
	}
	return state{cur: v, back: []Value{v}}
}

var seed = maphash.MakeSeed()

func (s state) hash() uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	maphash.WriteComparable(&h, s.open)
	maphash.WriteComparable(&h, s.soft)
	if !s.open || s.soft {
		maphash.WriteComparable(&h, s.cur)
	}
	for _, v := range s.back {
		maphash.WriteComparable(&h, v)
	}
	return h.Sum64()
}

func (s state) equal(t state) bool {
	return s.open == t.open && s.soft == t.soft && (s.open && !s.soft || s.cur == t.cur) && slices.Equal(s.back, t.back)
}

// model is one sector, which held zeroes at first and durably.
var model = porcupine.Model{
	Init: func() any { return fixed(Zero, false) },
	Step: func(s, in, _ any) (bool, any) {
		next, ok := s.(state).apply(in.(step))
		return ok, next
	},
	Equal: func(a, b any) bool { return a.(state).equal(b.(state)) },
	Hash:  func(s any) uint64 { return s.(state).hash() },
	DescribeOperation: func(in, _ any) string {
		x := in.(step)
		switch x.kind {
		case 0:
			if x.soft {
				return "power lost, perhaps"
			}
			return "power lost"
		case Read:
			return fmt.Sprintf("read: %d", x.seen)
		case Flush:
			return "flush"
		}
		if x.fixed {
			return fmt.Sprintf("%v %d FUA", x.kind, x.value)
		}
		return fmt.Sprintf("%v %d", x.kind, x.value)
	},
	DescribeState: func(s any) string {
		x := s.(state)
		switch {
		case x.soft:
			return fmt.Sprintf("%d, or one of %v", x.cur, x.back)
		case x.open:
			return fmt.Sprintf("one of %v", x.back)
		}
		return fmt.Sprintf("%d, after a loss one of %v", x.cur, x.back)
	},
}
