package carp

import "net/netip"

// Replay tells packets that were seen before from new ones. A sender counts
// upwards; one that started again begins somewhere else, by chance below. So for
// each sender the ranges of what it has sent are kept, and a number is new if it
// lies in none. It makes the range below it longer: what was skipped is no longer
// waited for.
type Replay struct {
	senders map[netip.Addr][]span
}

type span struct{ first, last uint64 }

const (
	// maxSenders bounds the addresses that are remembered. Who is counted here
	// knows the password.
	maxSenders = 64
	// maxRanges bounds how many starts of one are remembered; the oldest is
	// forgotten.
	maxRanges = 64
	// maxGap is how many packets in a row may be lost without a new range.
	maxGap = 1 << 31
)

// Fresh takes the number of a packet that was signed rightly.
func (r *Replay) Fresh(from netip.Addr, n uint64) bool {
	ranges, known := r.senders[from]
	if !known {
		if len(r.senders) >= maxSenders {
			return false
		}
		if r.senders == nil {
			r.senders = map[netip.Addr][]span{}
		}
	}
	var below *span
	for i := range ranges {
		x := &ranges[i]
		if n >= x.first && n <= x.last {
			return false
		}
		if x.last < n && (below == nil || x.last > below.last) {
			below = x
		}
	}
	if below != nil && n-below.last <= maxGap {
		below.last = n
		return true
	}
	if len(ranges) == maxRanges {
		ranges = append(ranges[:0], ranges[1:]...)
	}
	r.senders[from] = append(ranges, span{n, n})
	return true
}
