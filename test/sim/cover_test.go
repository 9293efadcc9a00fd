package sim

import (
	"fmt"
	"strings"
	"testing"
)

// neverListed are names that a batch need not reach, and why.
var neverListed = map[string]string{
	"answer internal": "no order is given that ends so",
	"order grant":     "only nodes with votes get it: the cluster's simulator gives it",
}

// TestExpectedIsWhole: whatever has a name is expected of a batch, so that a new kind
// of message, fault or mark cannot stay unreached unnoticed.
func TestExpectedIsWhole(t *testing.T) {
	listed := map[string]bool{}
	for _, l := range strings.Split(expected, "\n") {
		listed[l] = true
	}
	want := func(group string, names []string) {
		for _, n := range names {
			key := group + " " + n
			if n != "" && !listed[key] && neverListed[key] == "" {
				t.Errorf("expected.txt does not list %q", key)
			}
		}
	}
	want("effect", effectNames[:])
	want("disk-op", diskNames[:])
	want("message", msgNames[:])
	want("report", reportNames[:])
	want("request", requestNames[:])
	want("order", commandNames[:])
	want("answer", refusalNames[:])
	want("mark", markNames[:])
	want("fault", faultNames[:])
	for _, r := range rows {
		want("row", []string{fmt.Sprint(r.n)})
	}
	for rule := 1; rule <= 14; rule++ {
		if !strings.Contains(expected, fmt.Sprintf(" by rule %d\n", rule)) && !strings.Contains(expected, fmt.Sprintf(" by rule %d,", rule)) {
			t.Errorf("expected.txt lists no verdict by rule %d", rule)
		}
	}
}
