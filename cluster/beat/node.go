package beat

import (
	"fmt"
	"iter"
	"math/bits"
)

// Instant is a reading of CLOCK_BOOTTIME; Duration is a span of it. Both count
// nanoseconds.
type (
	Instant  int64
	Duration int64
)

// Spans of time.
const (
	Microsecond Duration = 1e3
	Millisecond          = 1000 * Microsecond
	Second               = 1000 * Millisecond
)

func (i Instant) add(d Duration) Instant   { return i + Instant(d) }
func (i Instant) since(j Instant) Duration { return Duration(i - j) }
func seconds(d Duration) string            { return fmt.Sprintf("%.1f s", float64(d)/float64(Second)) }
func clamp(d, low, high Duration) Duration { return min(max(d, low), high) }

// NodeID is the id of a node, from 0 to MaxID.
type NodeID uint8

// LinkID names a link: the index of its addresses, or Serial.
type LinkID uint8

// Serial is the serial line.
const Serial LinkID = 0xff

func (l LinkID) String() string {
	if l == Serial {
		return "serial line"
	}
	return fmt.Sprintf("link %d", uint8(l))
}

// Bounds of a cluster: what a heartbeat says of all others fits into one datagram.
const (
	MaxID    NodeID = 63 // so that a set of nodes is 64 bits
	MaxNodes int    = 32
	MaxLinks int    = 8 // without the serial line
)

// Set is a set of nodes: bit n is node n.
type Set uint64

// SetOf makes one.
func SetOf(nodes ...NodeID) (s Set) {
	for _, n := range nodes {
		s |= 1 << n
	}
	return s
}

// Has says whether a node is in it.
func (s Set) Has(n NodeID) bool { return s>>n&1 != 0 }

// Len is how many nodes are in it.
func (s Set) Len() int { return bits.OnesCount64(uint64(s)) }

// All gives the nodes, the lowest first.
func (s Set) All() iter.Seq[NodeID] {
	return func(yield func(NodeID) bool) {
		for ; s != 0; s &= s - 1 {
			if !yield(NodeID(bits.TrailingZeros64(uint64(s)))) {
				return
			}
		}
	}
}

// LinkState is what a link to a node is.
type LinkState uint8

const (
	LinkDown    LinkState = iota // silent for the time-out, or never heard
	LinkTrouble                  // silent for a while, or without a carrier
	LinkUp                       // heard both ways
)

func (s LinkState) String() string { return [...]string{"down", "trouble", "up"}[s] }
