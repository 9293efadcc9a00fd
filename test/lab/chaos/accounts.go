package chaos

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"sync"
)

// fate is what is known of a transaction.
type fate uint8

const (
	open    fate = iota // begun, and not answered yet
	unknown             // its connection ended: it may be there or not
	acked               // committed, and told so
	gone                // was unknown and not there at a check: it must not come back
)

// transaction is one that a client began.
type transaction struct {
	client int
	fate   fate
}

// accounts is the ledger of the database, outside the pair: it knows each
// transaction that was begun, and how it ended as far as the client could tell.
type accounts struct {
	mu   sync.Mutex
	next int64
	all  map[int64]transaction
	log  io.Writer // a line for each event, for those who look into a loss

	committed, unanswered int64 // over all
}

func newAccounts(log io.Writer) *accounts {
	return &accounts{all: map[int64]transaction{}, log: log}
}

// body is what the row of a transaction holds, of a length that depends on it.
func body(id int64) string {
	sum := sha256.Sum256(fmt.Append(nil, "transaction ", id))
	word := hex.EncodeToString(sum[:])
	b := make([]byte, 0, 8*len(word))
	for range 1 + int(sum[0])%8 {
		b = append(b, word...)
	}
	return string(b)
}

// begin gives a new transaction's number.
func (a *accounts) begin(client int) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next++
	a.all[a.next] = transaction{client: client}
	fmt.Fprintln(a.log, "begun", a.next, client)
	return a.next
}

// end says how it ended: acked or unknown.
func (a *accounts) end(id int64, f fate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.all[id]
	t.fate = f
	a.all[id] = t
	if f == acked {
		a.committed++
		fmt.Fprintln(a.log, "committed", id)
	} else {
		a.unanswered++
		fmt.Fprintln(a.log, "unknown", id)
	}
}

// counts are the totals.
func (a *accounts) counts() (committed, unanswered int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.committed, a.unanswered
}

// maxComplaints bounds what a finding lists; all are counted.
const maxComplaints = 20

// findings are what a check found wrong.
type findings struct {
	bad    int
	listed []string
}

func (f *findings) add(format string, args ...any) {
	f.bad++
	if len(f.listed) < maxComplaints {
		f.listed = append(f.listed, fmt.Sprintf(format, args...))
	}
}

func (f *findings) err() error {
	if f.bad == 0 {
		return nil
	}
	s := fmt.Sprintf("chaos: the database is wrong in %d places:", f.bad)
	for _, l := range f.listed {
		s += "\n  " + l
	}
	return fmt.Errorf("%s", s)
}

// check judges the table as COPY wrote it: a line "id client body" with tabs for
// each row. No transaction may be open. What was unknown is settled by it: it
// stays as it was found. perClient is how many rows each client has.
func (a *accounts) check(rows io.Reader) (checked int64, perClient map[int]int64, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var f findings
	perClient = map[int]int64{}
	seen := make(map[int64]struct{}, len(a.all))
	in := bufio.NewScanner(rows)
	for in.Scan() {
		var id int64
		var client int
		var text string
		if _, err := fmt.Sscanf(in.Text(), "%d\t%d\t%s", &id, &client, &text); err != nil {
			f.add("a row that nobody wrote: %q", cut(in.Text()))
			continue
		}
		t, known := a.all[id]
		_, twice := seen[id]
		switch {
		case !known:
			f.add("transaction %d is there and was never begun", id)
		case twice:
			f.add("transaction %d is there twice", id)
		case t.fate == gone:
			f.add("transaction %d is there; it was not at an earlier check", id)
		case t.client != client:
			f.add("transaction %d is client %d's, and was begun by %d", id, client, t.client)
		case text != body(id):
			f.add("transaction %d holds %q", id, cut(text))
		case t.fate == unknown:
			a.all[id] = transaction{client, acked}
		}
		seen[id] = struct{}{}
		perClient[client]++
	}
	if err := in.Err(); err != nil {
		return 0, nil, err
	}
	for id, t := range a.all {
		if _, there := seen[id]; there {
			continue
		}
		switch t.fate {
		case acked:
			f.add("LOST: transaction %d of client %d was committed and is not there", id, t.client)
		case unknown:
			a.all[id] = transaction{t.client, gone}
		}
	}
	return int64(len(seen)), perClient, f.err()
}

// forget is for a table that was emptied by a transaction of its own.
func (a *accounts) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, t := range a.all {
		// None of them may come back.
		if t.fate == acked {
			a.all[id] = transaction{t.client, gone}
		}
	}
	fmt.Fprintln(a.log, "emptied")
}
