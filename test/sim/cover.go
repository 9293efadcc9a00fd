package sim

import (
	_ "embed"
	"fmt"
	"sort"
	"strings"

	"hastd/metadata"
	"hastd/replicate"
)

// Coverage counts what runs reached. A nil one counts nothing.
type Coverage struct {
	Runs    int
	Effects [32]int
	Disk    [16]int
	Msgs    [64]int
	Reports [64]int
	Reqs    [8]int
	Cmds    [16]int
	Refused [8]int
	Marks   [16]int
	Replied [8]int // requests answered with success, by kind
	Failed  [8]int // and with an error
	Deaths  int    // daemons that ended without warning, by loss of power too
	Powers  int    // nodes that lost power
	Other   map[string]int
}

// NewCoverage makes an empty count.
func NewCoverage() *Coverage { return &Coverage{Other: map[string]int{}} }

// Add adds another count.
func (c *Coverage) Add(d *Coverage) {
	c.Runs += d.Runs
	add := func(a, b []int) {
		for i := range a {
			a[i] += b[i]
		}
	}
	add(c.Effects[:], d.Effects[:])
	add(c.Disk[:], d.Disk[:])
	add(c.Msgs[:], d.Msgs[:])
	add(c.Reports[:], d.Reports[:])
	add(c.Reqs[:], d.Reqs[:])
	add(c.Cmds[:], d.Cmds[:])
	add(c.Refused[:], d.Refused[:])
	add(c.Marks[:], d.Marks[:])
	add(c.Replied[:], d.Replied[:])
	add(c.Failed[:], d.Failed[:])
	c.Deaths += d.Deaths
	c.Powers += d.Powers
	for k, v := range d.Other {
		c.Other[k] += v
	}
}

func (c *Coverage) effect(e *replicate.Effect) {
	if c == nil {
		return
	}
	c.Effects[e.Kind]++
	if e.Kind == replicate.EffDisk {
		c.Disk[e.Disk]++
	}
}

func (c *Coverage) message(m *replicate.Msg) {
	if c == nil {
		return
	}
	c.Msgs[m.Kind]++
}

// verdict counts a verdict without the nodes' names.
func (c *Coverage) verdict(s string) {
	if c == nil || s == "" {
		return
	}
	s = strings.NewReplacer("from A", "from X", "from B", "from X").Replace(s)
	c.Other["verdict "+s]++
}

func (c *Coverage) report(r *replicate.Report) {
	if c == nil {
		return
	}
	c.Reports[r.Kind]++
	if r.Kind == replicate.ReportVerdict {
		c.verdict(r.New)
	}
}

func (c *Coverage) fault(name string) {
	if c != nil {
		c.Other["fault "+name]++
	}
}

func (c *Coverage) count(group, name string) {
	if c != nil {
		c.Other[group+" "+name]++
	}
}

func (c *Coverage) replied(k replicate.Request, err replicate.Err) {
	switch {
	case c == nil:
	case err == replicate.OK:
		c.Replied[k]++
	default:
		c.Failed[k]++
	}
}

// died counts the end of a daemon, power the loss of it.
func (c *Coverage) died() {
	if c != nil {
		c.Deaths++
	}
}

func (c *Coverage) power() {
	if c != nil {
		c.Powers++
	}
}

func (c *Coverage) request(k replicate.Request) {
	if c != nil {
		c.Reqs[k]++
	}
}

func (c *Coverage) command(cmd *replicate.Command) {
	if c == nil {
		return
	}
	c.Cmds[cmd.Kind]++
	if cmd.Kind == replicate.CmdRole {
		s := "role " + cmd.Role.String()
		if cmd.Force {
			s += " force"
		}
		c.Other["command "+s]++
	}
}

func (c *Coverage) answer(o *order, r *replicate.Refusal) {
	if c == nil {
		return
	}
	if r == nil {
		c.Refused[0]++
	} else {
		c.Refused[r.Code]++
	}
}

func (c *Coverage) marks(m metadata.Marks) {
	if c == nil {
		return
	}
	for i := range c.Marks {
		if m&(1<<i) != 0 {
			c.Marks[i]++
		}
	}
}

func (c *Coverage) status(s *replicate.Status) {
	if c == nil {
		return
	}
	c.Other["status "+s.Status]++
	c.Other["connection "+s.Connection]++
	c.Other["disk "+s.Disk]++
	c.Other["sync "+s.SyncState+s.SyncDirection]++
	if s.Suspended {
		c.Other["suspended "+s.SuspendReason]++
	}
}

var (
	effectNames = [...]string{1: "disk", "commit", "send", "reply", "release", "open", "close", "state-mark", "connect", "disconnect", "provider-start", "provider-stop", "answer", "report"}
	diskNames   = [...]string{1: "read", "write", "zero", "flush", "read-hash", "compare", "write-masked"}
	msgNames    = [...]string{1: "write", "zero", "flush", "read", "clean", "received", "wrote", "flushed", "data", "failed",
		"sync-hash", "sync-need", "sync-data", "sync-pull", "sync-blocks", "facts", "begin", "map", "ready", "flow", "sync-end", "sync-ended", "sync-clear",
		"take-over", "took-over", "role", "renegotiate", "disk-failed", "probe", "alive"}
	reportNames = [...]string{1: "role", "connected", "disconnected", "refused", "split-brain", "sync-start", "sync-done", "sync-stopped", "status", "disk",
		"peer-disk", "suspended", "resumed", "repaired", "data-loss", "forced", "warning", "verdict"}
	commandNames = [...]string{1: "role", "connect", "disconnect", "resume", "recover", "shutdown", "replace-config", "grant", "suspend"}
	refusalNames = [...]string{"success", "busy", "policy", "io", "internal"}
	markNames    = [...]string{"raised", "inconsistent", "outdated", "forced", "crashed-primary", "assume-clean", "disconnected"}
)

// Table lists every count by name.
func (c *Coverage) Table() map[string]int {
	t := map[string]int{}
	list := func(group string, names []string, counts []int) {
		for i, n := range names {
			if n != "" {
				t[group+" "+n] = counts[i]
			}
		}
	}
	list("effect", effectNames[:], c.Effects[:])
	list("disk-op", diskNames[:], c.Disk[:])
	list("message", msgNames[:], c.Msgs[:])
	list("report", reportNames[:], c.Reports[:])
	list("request", requestNames[:], c.Reqs[:])
	list("order", commandNames[:], c.Cmds[:])
	list("answer", refusalNames[:], c.Refused[:])
	list("mark", markNames[:], c.Marks[:])
	list("answered", requestNames[:], c.Replied[:])
	list("failed", requestNames[:], c.Failed[:])
	for k, v := range c.Other {
		t[k] = v
	}
	return t
}

//go:embed expected.txt
var expected string

// Missing lists what a batch should have reached (expected.txt) and did not.
func (c *Coverage) Missing() []string {
	t := c.Table()
	var missing []string
	for _, l := range strings.Split(expected, "\n") {
		l = strings.TrimSpace(l)
		if l != "" && !strings.HasPrefix(l, "#") && t[l] == 0 {
			missing = append(missing, l)
		}
	}
	return missing
}

func (c *Coverage) String() string {
	t := c.Table()
	keys := make([]string, 0, len(t))
	for k := range t {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&b, "%12d  %s\n", t[k], k)
	}
	return b.String()
}
