package metadata

import "time"

// Generation is one stretch of history: it is added whenever a replica begins to
// acknowledge what its peer does not have.
type Generation struct {
	ID   ID     `json:"id"`
	Time int64  `json:"time"` // unix seconds on the node that added it; for people, never for decisions
	Node NodeID `json:"node"`
}

func (g Generation) String() string {
	return g.ID.String() + " " + time.Unix(g.Time, 0).UTC().Format(time.RFC3339)
}

// Lineage is the newest generations of a replica, newest first.
type Lineage []Generation

// Add puts a generation in front and forgets the oldest beyond MaxGenerations.
func (l Lineage) Add(g Generation) Lineage {
	n := append(Lineage{g}, l...)
	return n[:min(len(n), MaxGenerations)]
}

// Contains says whether a generation stands in the lineage.
func (l Lineage) Contains(id ID) bool {
	for _, g := range l {
		if g.ID == id {
			return true
		}
	}
	return false
}

// Agree says whether one of two histories can be the other's past: one is empty,
// or the newest generation of one stands anywhere in the other.
func Agree(a, b Lineage) bool {
	return len(a) == 0 || len(b) == 0 || b.Contains(a[0].ID) || a.Contains(b[0].ID)
}

// TooShort says whether two lineages that do not agree may only seem to differ
// because an ancestor fell out: one of them is full and shares nothing with the
// other.
func TooShort(a, b Lineage) bool {
	if Agree(a, b) || len(a) < MaxGenerations && len(b) < MaxGenerations {
		return false
	}
	for _, g := range a {
		if b.Contains(g.ID) {
			return false
		}
	}
	return true
}

// Merge is the winner's lineage after a recovery: g, then its own generations and
// the victim's, as many as fit. Both sides' newest ones stay, so that either
// history is recognised as past.
func Merge(own, victim Lineage, g Generation) Lineage {
	n := Lineage{g}
	for i := 0; i < MaxGenerations && len(n) < MaxGenerations; i++ {
		for _, l := range []Lineage{own, victim} {
			if i < len(l) && len(n) < MaxGenerations && !n.Contains(l[i].ID) {
				n = append(n, l[i])
			}
		}
	}
	return n
}
