package carp

import "slices"

// Replay tells packets that were seen before from new ones by their counters. The
// code of a packet does not cover its sender's address, so whoever sends it, a number
// is good once for the whole group; own numbers are told to it as well, lest a node
// believe an echo of itself.
//
// Each start of a sender counts upwards from a number drawn at random. For each the
// range of what it has sent is kept: a number is new if it lies in none, or among the
// last of one and was not seen there.
type Replay struct {
	ranges []span // the one used last at the end
}

// span is a range. Of its last numbers each one is remembered.
type span struct {
	first, last uint64
	seen        uint64 // bit i: last - i was seen
}

const (
	// maxRanges bounds how many starts are remembered; the one that was silent for
	// longest is forgotten. Who adds to them knows the password.
	maxRanges = 256
	// maxGap is how many packets in a row may be lost without a new range.
	maxGap = 1 << 31
	// window is how much later than its successors a packet may come.
	window = 64
)

// Fresh takes the number of a packet that was signed rightly.
func (r *Replay) Fresh(n uint64) bool {
	below := -1
	for i := range r.ranges {
		x := &r.ranges[i]
		if n >= x.first && n <= x.last {
			if back := x.last - n; back < window && x.seen>>back&1 == 0 {
				x.seen |= 1 << back
				return true
			}
			return false
		}
		if x.last < n && (below < 0 || x.last > r.ranges[below].last) {
			below = i
		}
	}
	next := span{n, n, 1}
	switch {
	case below >= 0 && n-r.ranges[below].last <= maxGap:
		x := r.ranges[below]
		next.first, next.seen = x.first, x.seen<<(n-x.last)|1
		r.ranges = slices.Delete(r.ranges, below, below+1)
	case len(r.ranges) == maxRanges:
		r.ranges = slices.Delete(r.ranges, 0, 1)
	}
	r.ranges = append(r.ranges, next)
	return true
}
