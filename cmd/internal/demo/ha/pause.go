package ha

import (
	"fmt"
	"time"
)

// gap is the longest time without an answer that a client saw around something
// that was done.
type gap struct {
	From, To time.Duration // the answers before and after it, by the clock
	Failed   int           // tries without a good answer in it
	Why      string        // of the last of them
	Before   string        // the node that answered before
	After    string        // and after
}

func (p gap) Length() time.Duration { return p.To - p.From }

// longestPause looks at all answers from the last one before an instant on.
func longestPause(tries []request, since time.Duration) (gap, bool) {
	var p, best gap
	seen, any := false, false
	for _, t := range tries {
		if !t.OK {
			p.Failed++
			p.Why = t.Error
			continue
		}
		if seen && t.End >= since {
			p.To, p.After = t.End, t.Node
			if !any || p.Length() > best.Length() {
				best, any = p, true
			}
		}
		p, seen = gap{From: t.End, Before: t.Node}, true
	}
	return best, any
}

// String tells it to a person.
func (p gap) String() string {
	s := fmt.Sprintf("%.2f s", p.Length().Seconds())
	switch p.Failed {
	case 0:
	case 1:
		s += fmt.Sprintf(", one try failed (%s)", p.Why)
	default:
		s += fmt.Sprintf(", %d tries failed (the last: %s)", p.Failed, p.Why)
	}
	return s
}
