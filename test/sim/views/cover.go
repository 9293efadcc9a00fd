package views

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Coverage counts what runs reached, by name.
type Coverage map[string]int

//go:embed expected.txt
var expected string

// Missing lists what a batch should have reached and did not. What stands below the line
// that begins with "rare" is asked of a thousand runs only.
func (p Play) Missing(c Coverage) []string {
	var missing []string
	for l := range strings.Lines(p.Expected) {
		l = strings.TrimSpace(l)
		if strings.HasPrefix(l, "rare") {
			if c["run"] < 1000 {
				break
			}
			continue
		}
		if l != "" && c[l] == 0 {
			missing = append(missing, l)
		}
	}
	return missing
}

func (c Coverage) String() string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintf(&b, "%12d  %s\n", c[k], k)
	}
	return b.String()
}
