package conf

import (
	"fmt"
	"slices"
	"strings"
)

// maxCandidates bounds how many names are looked at for an advice, so that a
// huge file full of mistakes is refused as quickly as a small one.
const maxCandidates = 256

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
	for _, c := range candidates[:min(len(candidates), maxCandidates)] {
		if d := distance(word, fold(string(c))); d < least {
			best, least = c, d
		}
	}
	return best, best != ""
}

func fold(s string) string { return strings.ReplaceAll(strings.ToLower(s), "_", "-") }

// distance counts the insertions, deletions, replacements and exchanges of
// neighbours that lead from a to b.
func distance(a, b string) int {
	var before []int // the row before the last
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			next[j+1] = row[j]
			if a[i] != b[j] {
				next[j+1] = 1 + min(row[j], row[j+1], next[j])
			}
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], 1+before[j-1])
			}
		}
		before, row = row, next
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
	near, ok := nearest(u.key, u.known)
	if homes := r.homes[u.key]; len(homes) > 0 && (!ok || distance(fold(u.key), fold(near)) > 1) {
		homes = slices.Clone(homes)
		slices.SortStableFunc(homes, func(a, b home) int { return common(b.at, u.at) - common(a.at, u.at) })
		var places, kinds []string
		for _, h := range homes {
			if len(places) < maxHomes && !slices.Contains(kinds, h.kind) {
				places, kinds = append(places, h.at.header()), append(kinds, h.kind)
			}
		}
		return "move it to " + strings.Join(places, " or ")
	}
	if ok {
		return fmt.Sprintf("did you mean %s?", near)
	}
	known := slices.Sorted(slices.Values(u.known))
	return "the keys of " + u.at.header() + " are " + strings.Join(known, ", ")
}

// header shows how the table at p is opened in the file.
func (p path) header() string {
	switch {
	case len(p) == 0:
		return "the top"
	case strings.HasPrefix(p[len(p)-1], "["):
		return "[[" + p[:len(p)-1].String() + "]]"
	}
	return "[" + p.String() + "]"
}

// common counts the steps that two paths share from the start.
func common(a, b path) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
