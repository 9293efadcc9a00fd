package chaos

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// rows is a table as COPY writes it.
func rows(ids ...int64) string {
	var b strings.Builder
	for _, id := range ids {
		fmt.Fprintf(&b, "%d\t7\t%s\n", id, body(id))
	}
	return b.String()
}

// TestAccounts: committed 1 and 2, unknown 3 and 4.
func TestAccounts(t *testing.T) {
	for _, c := range []struct {
		name string
		rows []string // at one check after the other
		want string   // of the last one's error
	}{
		{"nothing unknown came", []string{rows(1, 2)}, ""},
		{"both unknown came", []string{rows(1, 2, 3, 4)}, ""},
		{"an unknown one stays", []string{rows(1, 2, 3), rows(1, 2, 3)}, ""},
		{"lost", []string{rows(1)}, "LOST: transaction 2 "},
		{"an unknown one that was there is lost", []string{rows(1, 2, 3), rows(1, 2)}, "LOST: transaction 3 "},
		{"comes back", []string{rows(1, 2), rows(1, 2, 4)}, "transaction 4 is there; it was not"},
		{"never begun", []string{rows(1, 2, 5)}, "never begun"},
		{"twice", []string{rows(1, 2, 2)}, "twice"},
		{"another's", []string{strings.Replace(rows(1, 2), "2\t7", "2\t8", 1)}, "begun by 7"},
		{"other content", []string{rows(1) + "2\t7\t" + body(1) + "\n"}, "transaction 2 holds"},
		{"no row at all", []string{rows(1, 2) + "x\n"}, "nobody wrote"},
	} {
		a := newAccounts(io.Discard)
		for i := range int64(4) {
			id := a.begin(7)
			a.end(id, map[bool]fate{true: acked, false: unknown}[i < 2])
		}
		var err error
		var n int64
		for _, r := range c.rows {
			var per map[int]int64
			n, per, err = a.check(strings.NewReader(r))
			if err == nil && per[7] != n {
				t.Errorf("%s: %d rows, and %d of the one client", c.name, n, per[7])
			}
		}
		switch {
		case c.want == "" && (err != nil || n != int64(strings.Count(c.rows[len(c.rows)-1], "\n"))):
			t.Errorf("%s: %d rows, %v", c.name, n, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestAccountsForget: what was emptied must not come back.
func TestAccountsForget(t *testing.T) {
	a := newAccounts(io.Discard)
	a.end(a.begin(7), acked)
	a.forget()
	if _, _, err := a.check(strings.NewReader("")); err != nil {
		t.Error(err)
	}
	if _, _, err := a.check(strings.NewReader(rows(1))); err == nil {
		t.Error("an emptied row came back, and nobody minded")
	}
}
