package sim

import "hastd/replicate"

// memKind says what a piece of memory holds.
type memKind uint8

const (
	memPayload memKind = iota + 1 // a request's; comes back with EffReply
	memBlocks                     // stamps of a message's body or of a read into memory of the shell
	memHashes                     // hashes: here the stamps themselves, so that no two differ by chance
)

// mem is memory under a handle.
type mem struct {
	gen    uint32
	kind   memKind
	owned  bool // the machine has not returned it
	uses   int32
	stamps []uint32
	mask   uint64 // of a window: which blocks are meant
	target bool   // hashes of the target of a sync, not of its source
}

// arena is a node's memory. Handles are never used twice in one process, so that
// use after release is seen.
type arena struct {
	mems []mem
	free []int32
	live int // owned by the machine
}

// memIndexBits bounds how many buffers a node may hold. Honest runs stay below 70.
const memIndexBits = 7

func (a *arena) reset() {
	a.free = a.free[:0]
	for i := range a.mems {
		a.mems[i].owned, a.mems[i].uses = false, 0
		a.mems[i].gen++
	}
	a.mems = a.mems[:0]
	a.live = 0
}

// alloc gives memory for n sectors, owned by the machine.
func (n *node) alloc(k memKind, sectors int) (replicate.Handle, *mem) {
	a := &n.mem
	var i int32
	if len(a.free) == 0 {
		if len(a.mems) == 1<<memIndexBits {
			n.w.violate("bounds", "%s holds %d buffers", n.name, len(a.mems))
		}
		if len(a.mems) < cap(a.mems) {
			a.mems = a.mems[:len(a.mems)+1] // with the memory it had
		} else {
			a.mems = append(a.mems, mem{})
		}
		i = int32(len(a.mems) - 1)
	} else {
		i = a.free[len(a.free)-1]
		a.free = a.free[:len(a.free)-1]
	}
	m := &a.mems[i]
	m.gen++
	m.gen &= 1<<(32-memIndexBits) - 1
	if m.gen == 0 {
		m.gen = 1
	}
	m.kind, m.owned, m.uses, m.mask, m.target = k, true, 0, 0, false
	if cap(m.stamps) < sectors {
		m.stamps = make([]uint32, max(sectors, 64))
	}
	m.stamps = m.stamps[:sectors]
	a.live++
	return replicate.Handle(m.gen<<memIndexBits | uint32(i)), m
}

// named finds the memory of a handle that an effect names; the machine must still
// own it.
func (n *node) named(h replicate.Handle, what string) *mem {
	m := n.lookup(h)
	if m == nil || !m.owned {
		n.w.violate("handles", "%s: %s names buffer %#x, which was returned before", n.name, what, h)
	}
	return m
}

func (n *node) lookup(h replicate.Handle) *mem {
	i := int(h & (1<<memIndexBits - 1))
	if h == 0 || i >= len(n.mem.mems) || n.mem.mems[i].gen != uint32(h)>>memIndexBits {
		return nil
	}
	return &n.mem.mems[i]
}

// giveBack ends the machine's ownership.
func (n *node) giveBack(h replicate.Handle, request bool, what string) {
	m := n.lookup(h)
	if m == nil || !m.owned {
		n.w.violate("handles", "%s: %s returns buffer %#x twice", n.name, what, h)
	}
	if request != (m.kind == memPayload) {
		n.w.violate("handles", "%s: %s returns buffer %#x in the wrong way", n.name, what, h)
	}
	m.owned = false
	n.mem.live--
	n.freeIfIdle(h, m)
}

func (n *node) hold(h replicate.Handle, what string) {
	if h != 0 {
		n.named(h, what).uses++
	}
}

func (n *node) drop(h replicate.Handle) {
	if h != 0 {
		m := n.lookup(h)
		m.uses--
		n.freeIfIdle(h, m)
	}
}

func (n *node) freeIfIdle(h replicate.Handle, m *mem) {
	if !m.owned && m.uses == 0 {
		n.mem.free = append(n.mem.free, int32(h&(1<<memIndexBits-1)))
		m.gen++
		m.gen &= 1<<(32-memIndexBits) - 1
	}
}
