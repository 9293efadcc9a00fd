package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Votes is a group under load on two nodes whose cluster decides by a majority, with two
// links, and mostly a witness. Cases of lost nodes and links are played on it.
type Votes struct {
	*Failovers
	from map[Host]int // how much of each controller's log was there when the case began
}

// VotesResult is what a case came out as.
type VotesResult struct {
	Case, Survivor string
	Pause          time.Duration // the longest that a client saw
	Words          []string      // what the controllers said
}

// maxWords bounds what is kept of the logs of a case.
const maxWords = 50

// StartVotes brings the group up on a node and the load to work.
func StartVotes(ctx context.Context, l *Lab, on Side, seed uint64) (*Votes, error) {
	f, err := StartFailovers(ctx, l, seed)
	v := &Votes{Failovers: f}
	if err != nil {
		return v, err
	}
	now, err := l.owner(downLimit)
	if err == nil && now.Side != on {
		out, errs, code := now.Hastctl("group", "switch", GroupName)
		if code != 0 {
			return v, fmt.Errorf("lab: group switch: status %d: %s%s", code, out, errs)
		}
		if err = l.Nodes[on].WaitGroup("online", downLimit); err == nil {
			err = l.AwaitComplete(syncLimit)
		}
	}
	if err == nil {
		err = v.Writes(ctx, fewWrites)
	}
	if err == nil {
		err = l.awaitInSync(downLimit)
	}
	v.Begin()
	return v, err
}

// Begin begins a case.
func (v *Votes) Begin() {
	v.client.Begin()
	v.from = map[Host]int{}
	for h := range Host(3) {
		v.from[h] = len(v.log(h))
	}
}

func (v *Votes) log(h Host) string {
	if h == HostCharlie {
		return v.l.WitnessLog()
	}
	return v.l.Nodes[h].VipdLog()
}

// Writes waits until so many more writes are acknowledged.
func (v *Votes) Writes(ctx context.Context, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, downLimit)
	defer cancel()
	if err := v.load.load.WaitAcked(ctx, n); err != nil {
		return v.quiet(err)
	}
	return nil
}

// Serves waits until a node has the group, and writes are acknowledged there.
func (v *Votes) Serves(ctx context.Context, n *Node) error {
	if err := n.WaitGroup("online", downLimit); err != nil {
		return err
	}
	return v.Writes(ctx, fewWrites)
}

// Stays wants the group on a node, and nowhere else, for a time.
func (v *Votes) Stays(n *Node, d time.Duration) error {
	for end := time.Now().Add(d); ; time.Sleep(20 * time.Millisecond) {
		if g, err := n.Group(); err != nil || g.State != "online" {
			return fmt.Errorf("lab: the group does not stay on %v: %v %w", n.Side, g, err)
		}
		if time.Now().After(end) {
			return nil
		}
	}
}

// Idle wants a node not to serve for a time: it is not primary, or holds what it takes.
func (v *Votes) Idle(n *Node, d time.Duration) error {
	for end := time.Now().Add(d); ; time.Sleep(20 * time.Millisecond) {
		if s, err := n.Status(); err == nil && s.Role == "primary" && !s.IO.Suspended {
			return fmt.Errorf("lab: %v serves, and must not: %v", n.Side, s)
		}
		if time.Now().After(end) {
			return nil
		}
	}
}

// Says waits until a host's controller said something since the case began.
func (v *Votes) Says(h Host, text string) error {
	err := poll(downLimit, func() (bool, error) { return strings.Contains(v.log(h)[v.from[h]:], text), nil })
	if err != nil {
		return fmt.Errorf("lab: %v did not say %q: %w", h, text, err)
	}
	return nil
}

// At is when a host's controller first said all of some words in one line since the case
// began, by the clock that all hosts of a lab have.
func (v *Votes) At(h Host, words ...string) (time.Time, error) {
	for line := range strings.Lines(v.log(h)[v.from[h]:]) {
		if slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			continue
		}
		at, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		return time.Parse(time.RFC3339Nano, at)
	}
	return time.Time{}, fmt.Errorf("lab: %v did not say %q", h, words)
}

// Before wants one host to have said something before another one said something else.
func (v *Votes) Before(a Host, first string, b Host, then ...string) error {
	x, errX := v.At(a, first)
	y, errY := v.At(b, then...)
	if err := errors.Join(errX, errY); err != nil {
		return err
	}
	if !x.Before(y) {
		return fmt.Errorf("lab: %v said %q at %v, %v said %q at %v already", a, first, x, b, then, y)
	}
	return nil
}

// Count is how many lines of a host's controller have a text since the case began.
func (v *Votes) Count(h Host, text string) int { return strings.Count(v.log(h)[v.from[h]:], text) }

// End heals everything, and wants the replicas equal with nothing lost.
func (v *Votes) End(ctx context.Context) error {
	if err := v.lan.Wall(); err != nil {
		return err
	}
	if v.l.line != nil {
		v.l.line.Cut(false)
	}
	if _, err := v.l.owner(downLimit); err != nil {
		return err
	}
	if err := v.l.AwaitComplete(syncLimit); err != nil {
		return err
	}
	if err := v.Writes(ctx, fewWrites); err != nil {
		return err
	}
	return v.load.judge(ctx)
}

// Result is what there is to tell of a case.
func (v *Votes) Result(name, survivor string) VotesResult {
	seen := v.client.Seen()
	r := VotesResult{Case: name, Survivor: survivor, Pause: seen.Pause()}
	type said struct{ at, text string }
	var all []said
	for h := range Host(3) {
		for line := range strings.Lines(v.log(h)[v.from[h]:]) {
			at, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
			if ok && tells(rest) {
				all = append(all, said{strings.TrimPrefix(at, "time="), h.String() + ": " + rest})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b said) int { return strings.Compare(a.at, b.at) })
	for _, s := range all[:min(len(all), maxWords)] {
		r.Words = append(r.Words, s.at+" "+s.text)
	}
	return r
}

// tells says whether a line of a log belongs into a report.
func tells(line string) bool {
	if strings.Contains(line, "level=DEBUG") {
		return false
	}
	for _, s := range []string{"in trouble", "reconfiguration", "racer", "race ", "fencing", "membership", "msg=ownership", "no longer heard", "about=", "may no longer serve", "group data: master", "group data: backup", "-> ONLINE", "-> OFFLINE", "handed over", "leaves"} {
		if strings.Contains(line, s) {
			return true
		}
	}
	return false
}

// awaitInSync waits until the view counts every replica on both nodes as in sync: before
// that the other node may not take over, whatever hastd says of its replica.
func (l *Lab) awaitInSync(limit time.Duration) error {
	var last string
	err := poll(limit, func() (bool, error) {
		for _, n := range l.Nodes {
			var c struct {
				Generation string
				Resources  []struct {
					Name   string
					InSync []string `json:"in_sync"`
				}
			}
			if err := newAPI(n.VipdControl()).call(http.MethodGet, "/v1/cluster", 5*time.Second, nil, &c); err != nil {
				return false, err
			}
			last = fmt.Sprintf("%v: view %s, %v", n.Side, c.Generation, c.Resources)
			for _, r := range c.Resources {
				if len(r.InSync) != len(l.Nodes) {
					return false, nil
				}
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("lab: waiting for all replicas to count as in sync: %w; %s", err, last)
	}
	return nil
}
