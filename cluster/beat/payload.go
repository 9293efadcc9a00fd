package beat

import "encoding/binary"

// Beat is the payload of a heartbeat:
//
//	 0  wall clock in nanoseconds, era and index of the view committed last
//	24  digest of the shared configuration (8)
//	32  flags (1: the last one, its sender stops), links with a carrier (bit n: link n)
//	34  how many nodes follow; for each: id, flags (1: two hosts use its name), how many
//	    links; for each of these: link, state, milliseconds since it was heard (2)
//	    how many bodies follow; for each: kind, length (2), bytes
type Beat struct {
	Wall    int64
	Era     uint64
	Index   uint64
	Shared  Digest
	Leaving bool
	Carrier uint8
	Hears   []Hears
	Bodies  []Body
}

// Hears is what a node says of another one.
type Hears struct {
	Node      NodeID
	Duplicate bool
	Links     []HeardLink
}

// HeardLink is one link of it.
type HeardLink struct {
	Link  LinkID
	State LinkState
	Age   uint16 // milliseconds; the largest number stands for more as well
}

// Best is the best of the links.
func (h *Hears) Best() (best LinkState) {
	for _, l := range h.Links {
		best = max(best, l.State)
	}
	return best
}

// Body is something of another machine that travels along: views, the lease.
type Body struct {
	Kind byte
	Data []byte
}

const (
	beatFixed  = 36 // with both counts
	bodyHead   = 3
	maxBodies  = 16
	flagLeaves = 1
	flagDouble = 1
)

// hearsSize is how long a node's entry gets.
func hearsSize(links int) int { return 3 + 4*links }

// Append appends the payload.
func (b *Beat) Append(dst []byte) []byte {
	be := binary.BigEndian
	dst = be.AppendUint64(dst, uint64(b.Wall))
	dst = be.AppendUint64(dst, b.Era)
	dst = be.AppendUint64(dst, b.Index)
	dst = append(dst, b.Shared[:]...)
	flags := byte(0)
	if b.Leaving {
		flags = flagLeaves
	}
	dst = append(dst, flags, b.Carrier, byte(len(b.Hears)))
	for _, h := range b.Hears {
		flags := byte(0)
		if h.Duplicate {
			flags = flagDouble
		}
		dst = append(dst, byte(h.Node), flags, byte(len(h.Links)))
		for _, l := range h.Links {
			dst = append(dst, byte(l.Link), byte(l.State))
			dst = be.AppendUint16(dst, l.Age)
		}
	}
	dst = append(dst, byte(len(b.Bodies)))
	for _, x := range b.Bodies {
		dst = append(dst, x.Kind)
		dst = be.AppendUint16(dst, uint16(len(x.Data)))
		dst = append(dst, x.Data...)
	}
	return dst
}

// reader takes bytes off; after the end it gives zeroes and remembers.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.bad, r.b = true, nil
		return make([]byte, n)
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() uint8   { return r.take(1)[0] }
func (r *reader) u16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) u64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

// ParseBeat reads one. Bodies are part of p.
func ParseBeat(p []byte) (b Beat, ok bool) {
	r := reader{b: p}
	b.Wall, b.Era, b.Index = int64(r.u64()), r.u64(), r.u64()
	b.Shared = Digest(r.take(len(b.Shared)))
	flags := r.u8()
	b.Leaving = flags == flagLeaves
	b.Carrier = r.u8()
	var told Set
	n := int(r.u8())
	if r.bad || flags&^flagLeaves != 0 || n >= MaxNodes {
		return Beat{}, false
	}
	for range n {
		h := Hears{Node: NodeID(r.u8())}
		flags, links := r.u8(), int(r.u8())
		h.Duplicate = flags == flagDouble
		if r.bad || flags&^flagDouble != 0 || links > MaxLinks+1 || h.Node > MaxID || told.Has(h.Node) {
			return Beat{}, false
		}
		told |= SetOf(h.Node)
		for range links {
			l := HeardLink{LinkID(r.u8()), LinkState(r.u8()), r.u16()}
			if r.bad || l.State > LinkUp || int(l.Link) >= MaxLinks && l.Link != Serial {
				return Beat{}, false
			}
			h.Links = append(h.Links, l)
		}
		b.Hears = append(b.Hears, h)
	}
	n = int(r.u8())
	if r.bad || n > maxBodies {
		return Beat{}, false
	}
	for range n {
		x := Body{Kind: r.u8()}
		size := int(r.u16())
		if r.bad || size > len(r.b) {
			return Beat{}, false
		}
		x.Data = r.take(size)
		b.Bodies = append(b.Bodies, x)
	}
	return b, !r.bad && len(r.b) == 0
}
