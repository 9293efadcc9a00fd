package lab

import (
	"slices"
	"time"
)

// Seen is what a client saw in a span of time.
type Seen struct {
	From, To time.Time
	Answers  []Answer
	Holders  []Holder
}

// Pause is the longest time without an answer, the ends of the span included.
func (s *Seen) Pause() time.Duration {
	last, longest := s.From, time.Duration(0)
	for _, a := range s.Answers {
		longest = max(longest, a.At.Sub(last))
		last = a.At
	}
	return max(longest, s.To.Sub(last))
}

// FirstBy is when a node first answered after an instant.
func (s *Seen) FirstBy(n Side, after time.Time) (time.Time, bool) {
	for _, a := range s.Answers {
		if a.By == n && a.At.After(after) {
			return a.At, true
		}
	}
	return time.Time{}, false
}

// silentFor is how long a card may not answer and still counts as answering: some
// answers are lost or late.
const silentFor = 250 * time.Millisecond

// Overlap is the longest time for which two cards answered for the address.
func (s *Seen) Overlap() time.Duration {
	type span struct{ from, to time.Time }
	spans := map[string][]span{}
	for _, h := range s.Holders {
		list := spans[h.MAC]
		if n := len(list); n > 0 && h.At.Sub(list[n-1].to) <= silentFor {
			list[n-1].to = h.At
		} else {
			list = append(list, span{h.At, h.At})
		}
		spans[h.MAC] = list
	}
	longest := time.Duration(0)
	for mac, list := range spans {
		for other, theirs := range spans {
			if mac >= other {
				continue
			}
			for _, a := range list {
				for _, b := range theirs {
					from, to := a.from, a.to
					if b.from.After(from) {
						from = b.from
					}
					if b.to.Before(to) {
						to = b.to
					}
					longest = max(longest, to.Sub(from))
				}
			}
		}
	}
	return longest
}

// LastBy is when a card last answered for the address.
func (s *Seen) LastBy(mac string) (time.Time, bool) {
	for _, h := range slices.Backward(s.Holders) {
		if h.MAC == mac {
			return h.At, true
		}
	}
	return time.Time{}, false
}
