package carp

import (
	"cmp"
	"slices"
)

// Replay tells packets that were seen before from new ones by their counters. The
// code of a packet does not cover its sender's address, so whoever sends it, a number
// is good once for the whole group; own numbers are told to it as well, lest a node
// believe an echo of itself.
//
// This project counts upwards from a number drawn at each start, and for each start
// the range of what was sent is kept: a number is new if it lies in none, or among
// the last of one and was not seen there. FreeBSD and ucarp draw each number at
// random: each is a range of its own.
type Replay struct {
	ranges []span // in order, none touching another
	clock  uint64
}

// span is a range. Of its last numbers each one is remembered.
type span struct {
	first, last uint64
	seen        uint64 // bit i: last - i was seen
	used        uint64 // when, by the clock of Replay
}

const (
	// maxRanges bounds what is remembered: more than an hour of a sender that draws
	// each number. The one that was used longest ago is forgotten. Who adds to them
	// knows the password.
	maxRanges = 4096
	// maxGap is how many packets in a row may be lost without a new range.
	maxGap = 1 << 31
	// window is how much later than its successors a packet may come.
	window = 64
)

// Fresh takes the number of a packet that was signed rightly.
func (r *Replay) Fresh(n uint64) bool {
	r.clock++
	above, exact := slices.BinarySearchFunc(r.ranges, n, func(x span, n uint64) int { return cmp.Compare(x.first, n) })
	if exact {
		above++
	}
	if above > 0 {
		x := &r.ranges[above-1]
		switch {
		case n <= x.last:
			back := x.last - n
			if back >= window || x.seen>>back&1 != 0 {
				return false
			}
			x.seen |= 1 << back
			x.used = r.clock
			return true
		case n-x.last <= maxGap:
			x.seen, x.last, x.used = x.seen<<(n-x.last)|1, n, r.clock
			return true
		}
	}
	r.ranges = slices.Insert(r.ranges, above, span{n, n, 1, r.clock})
	if len(r.ranges) > maxRanges {
		oldest := 0
		for i := range r.ranges {
			if r.ranges[i].used < r.ranges[oldest].used {
				oldest = i
			}
		}
		r.ranges = slices.Delete(r.ranges, oldest, oldest+1)
	}
	return true
}
