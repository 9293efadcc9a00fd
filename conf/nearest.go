package conf

import (
	"fmt"
	"slices"
	"strings"
)

// nearest finds which of the candidates was probably meant. Case and the
// difference between _ and - count for nothing.
func nearest[T ~string](word string, candidates []T) (T, bool) {
	const longest = 64 // bytes; what is longer is no typo
	word = fold(word)
	if word == "" || len(word) > longest {
		return "", false
	}
	var best T
	least := 1 + max(1, len(word)/3)
	for _, c := range candidates {
		if d := distance(word, fold(string(c))); d < least {
			best, least = c, d
		}
	}
	return best, best != ""
}

func fold(s string) string { return strings.ReplaceAll(strings.ToLower(s), "_", "-") }

// distance counts the insertions, deletions and replacements from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// reportUnknown judges the unknown keys once every table has told its keys.
func (r *reader) reportUnknown() {
	for _, u := range r.unknown {
		if r.errs.Dropped > 0 { // past the limit only the count matters
			r.errs.Dropped++
			continue
		}
		r.wrong(u.at.with(u.key), "there is no such key", r.adviseUnknown(u))
	}
}

// maxHomes is how many tables are offered for a misplaced key.
const maxHomes = 2

func (r *reader) adviseUnknown(u unknownKey) string {
	where := "in [" + u.at.String() + "]"
	if len(u.at) == 0 {
		where = "at the top"
	}
	near, ok := nearest(u.key, u.known)
	if homes := r.homes[u.key]; len(homes) > 0 && (!ok || distance(fold(u.key), fold(near)) > 1) {
		homes = slices.Clone(homes)
		slices.SortStableFunc(homes, func(a, b home) int { return common(b.at, u.at) - common(a.at, u.at) })
		var places []string
		for _, h := range homes[:min(len(homes), maxHomes)] {
			if len(h.at) == 0 {
				places = append(places, "the top of the file")
			} else {
				places = append(places, "["+h.at.String()+"]")
			}
		}
		return "move it to " + strings.Join(places, " or ")
	}
	if ok {
		return fmt.Sprintf("did you mean %s?", near)
	}
	known := slices.Sorted(slices.Values(u.known))
	return "the keys " + where + " are " + strings.Join(known, ", ")
}

// common counts the steps that two paths share from the start.
func common(a, b path) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
