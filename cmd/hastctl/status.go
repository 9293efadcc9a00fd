package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/human"
)

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status [NAME|all]",
		Short: "show the state of resources, a line each",
		Long: `status shows what the resources of this node are doing: role, state, connection,
both disks, how much differs, and the progress of a synchronisation. Below a
resource that is not complete stands the reason.

With --json it prints the status contract that scripts may rely on.`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: once(a.completeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := a.resources(cmd, args)
			if err != nil {
				return err
			}
			if a.json {
				return a.writeJSON(st)
			}
			printStatus(a.Out, st, terminal(a.Out))
			return nil
		},
	}
}

func (a *app) listCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list [NAME|all]",
		Short: "show everything about resources, a paragraph each",
		Args:  cobra.MaximumNArgs(1), ValidArgsFunction: once(a.completeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := a.resources(cmd, args)
			if err != nil {
				return err
			}
			if a.json {
				return a.writeJSON(st)
			}
			for _, r := range st.Resources {
				printResource(a.Out, r)
			}
			return nil
		},
	}
}

// resources asks for one resource or all of them.
func (a *app) resources(cmd *cobra.Command, args []string) (api.Status, error) {
	c, err := a.client()
	if err != nil {
		return api.Status{}, err
	}
	if len(args) == 0 || args[0] == all {
		return c.Status(cmd.Context())
	}
	r, err := c.Resource(cmd.Context(), args[0])
	if err != nil {
		return api.Status{}, err
	}
	v, err := c.Version(cmd.Context())
	return api.Status{Node: v.Node, Resources: []api.Resource{r}}, err
}

// cell is a piece of a table; colour does not count for its width.
type cell struct{ text, colour string }

const (
	plain  = ""
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	reset  = "\x1b[0m"
)

// colours of the words that call for attention, or for none.
var colours = map[string]string{
	"complete": green, "connected": green, "uptodate": green,
	"degraded": yellow, "syncing": yellow, "connecting": yellow, "standalone": yellow,
	"inconsistent": yellow, "outdated": yellow,
	"split-brain": red, "failed": red, "refused": red, "diskless": red,
}

func word(s string) cell { return cell{s, colours[s]} }

// printStatus writes one line for each resource and, below it, why it is not
// complete, what is copied and what waits.
func printStatus(w io.Writer, st api.Status, colour bool) {
	if len(st.Resources) == 0 {
		fmt.Fprintf(w, "no resources on node %s\n", st.Node)
		return
	}
	rows := [][]cell{{{"NAME", plain}, {"ROLE", plain}, {"STATUS", plain}, {"CONNECTION", plain}, {"DISK", plain},
		{"PEER", plain}, {"PEER DISK", plain}, {"DIRTY", plain}, {"PROVIDER", plain}}}
	for _, r := range st.Resources {
		provider := "-"
		if r.Provider != nil {
			provider = r.Provider.Path
		}
		rows = append(rows, []cell{{r.Name, plain}, {r.Role, plain}, word(r.Status), word(r.Connection), word(r.Disk),
			{r.Peer.Node + " " + r.Peer.Role, plain}, word(r.Peer.Disk), {human.Bytes(r.DirtyBytes), plain}, {provider, plain}})
	}
	lines := table(rows, colour)
	fmt.Fprintln(w, lines[0])
	for i, r := range st.Resources {
		fmt.Fprintln(w, lines[i+1])
		for _, note := range notes(r) {
			fmt.Fprintln(w, "  "+note)
		}
	}
}

// notes is what stands below a resource's line.
func notes(r api.Resource) []string {
	var n []string
	if r.Sync.State != "" && r.Sync.State != "idle" {
		n = append(n, progress(r.Sync))
	}
	if r.IO.Suspended {
		n = append(n, "requests are held back: "+held(r))
	}
	if r.Reason != "" {
		n = append(n, r.Reason)
	}
	return n
}

const barWidth = 24

// progress shows a synchronisation: bar, share, what is left, how fast, how long. Only
// the primary counts what is done; elsewhere there is no share to show.
func progress(s api.Sync) string {
	line := "sync " + s.Direction
	switch {
	case s.BytesDone > 0:
		line += " " + share(s.BytesDone, s.BytesLeft) + ", " + human.Bytes(s.BytesLeft) + " left"
	case s.State == "running":
		line += " in progress"
	}
	if s.BytesDone == 0 && s.BytesLeft > 0 {
		line += ", " + human.Bytes(s.BytesLeft) + " left"
	}
	if s.State != "running" {
		return line + ", " + s.State
	}
	if s.BytesPerSecond > 0 {
		line += fmt.Sprintf(", %s/s", human.Bytes(s.BytesPerSecond))
	}
	if s.ETASeconds >= 0 {
		line += ", done in " + human.Seconds(s.ETASeconds)
	}
	return line
}

// share is a bar and a percentage: 100% only when nothing is left, whatever rounding
// says.
func share(done, left int64) string {
	part := float64(done) / float64(done+left)
	full := int(part * barWidth)
	percent := int(part * 100)
	if left > 0 {
		percent = min(percent, 99)
	}
	return fmt.Sprintf("[%s%s] %d%%", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), percent)
}

// held says why requests are held back, and what a person can do about it. Votes that
// are missing come back, or are counted anew, by themselves.
func held(r api.Resource) string {
	switch resume := "hastctl resume "; {
	case r.IO.Reason == "operator":
		return r.IO.Reason + "; " + resume + r.Name + " goes on"
	case r.IO.Reason == "peer-lost" && r.Disk == "uptodate":
		return r.IO.Reason + "; " + resume + r.Name + " goes on alone"
	case r.IO.Reason == "peer-lost", r.IO.Reason == "both-failed", r.IO.Reason == "peer-primary":
		return r.IO.Reason + "; " + resume + "--error " + r.Name + " ends them with errors"
	}
	return r.IO.Reason
}

// table aligns rows in columns.
func table(rows [][]cell, colour bool) []string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	lines := make([]string, len(rows))
	for k, row := range rows {
		var b strings.Builder
		for i, c := range row {
			text := c.text
			if colour && c.colour != plain {
				text = c.colour + text + reset
			}
			b.WriteString(text)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+2))
			}
		}
		lines[k] = b.String()
	}
	return lines
}

// printResource writes everything that is known of one resource.
func printResource(w io.Writer, r api.Resource) {
	fmt.Fprintf(w, "%s:\n", r.Name)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("role", "%s", r.Role)
	line("status", "%s", r.Status)
	if r.Reason != "" {
		line("reason", "%s", r.Reason)
	}
	line("connection", "%s", r.Connection)
	line("replication", "%s", r.Replication)
	line("local", "%s", r.Local)
	line("disk", "%s", r.Disk)
	if len(r.Marks) > 0 {
		line("marks", "%s", strings.Join(r.Marks, ", "))
	}
	if p := r.Provider; p != nil {
		line("provider", "%s (%s, %d bytes, %s)", p.Path, p.Kind, p.Size, human.Bytes(p.Size))
	} else {
		line("provider", "none")
	}
	line("peer", "%s at %s, role %s, disk %s", r.Peer.Node, r.Peer.Address, r.Peer.Role, r.Peer.Disk)
	line("resuid", "%s", r.Resuid)
	line("counters", "localcnt %d, remotecnt %d, epoch %d", r.Localcnt, r.Remotecnt, r.Epoch)
	line("dirty", "%d bytes (%s)", r.DirtyBytes, human.Bytes(r.DirtyBytes))
	if r.Sync.State == "idle" {
		line("sync", "idle")
	} else {
		line("sync", "%s", strings.TrimPrefix(progress(r.Sync), "sync "))
	}
	if r.IO.Suspended {
		line("requests", "held back: %s", held(r))
	}
}
