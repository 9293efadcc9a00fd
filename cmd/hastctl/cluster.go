package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/exit"
)

func (a *app) clusterCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "cluster",
		Short: "show who is a member and who owns what",
		RunE: func(*cobra.Command, []string) error {
			return exit.New(exit.Usage, "hastctl cluster status shows it", "no command given")
		},
	}
	c.AddCommand(&cobra.Command{
		Use:   "status",
		Short: "show members, votes, links and owners",
		Long: `status shows the cluster as vipd on this node knows it.

First stand the generation of the membership (ERA.INDEX) and how its era began, the
leader, the votes (how many members are heard, how many the next membership needs, and
whether half of them with the leader suffice), the last decision, and what is waited
for. Then the nodes: whether each is a member, whether it is heard (both ways), whom it
says that it hears, and the links to it with the time of silence. Then who owns each
resource, and whose replica is in sync: these may become owner.

With quorum = "off" there are no members and no owners: it shows nodes and links.`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.groupClient(cmd)
			if err != nil {
				return err
			}
			st, err := c.Cluster(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.writeJSON(st)
			}
			printCluster(a.Out, st, terminal(a.Out))
			return nil
		},
	})
	return c
}

// clusterColours of words that call for attention, or for none.
var clusterColours = map[string]string{"member": green, "leaving": yellow, "excluded": red, "unknown": yellow, "no": red}

// printCluster writes what is known of the cluster.
func printCluster(w io.Writer, c api.Cluster, colour bool) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-11s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("cluster", "%s, quorum %s, as node %s knows it", c.Name, c.Quorum, c.Node)
	switch {
	case c.Quorum == "off":
	case c.Generation == "":
		line("generation", "none: no membership is known")
	default:
		line("generation", "%s, %s", c.Generation, era(c.Era))
		line("leader", "%s", c.Leader)
		line("votes", "%s", votes(c.Votes))
		line("decided", "%s", decided(c.Decision))
		if c.LeaseLeftMS > 0 {
			line("lease", "%s left", silence(c.LeaseLeftMS))
		}
	}
	if !c.Joined && c.Generation != "" {
		line("joined", "no: this is what the node remembers; it waits to be taken in")
	}
	if c.Waits != "" {
		line("waiting", "%s", c.Waits)
	}
	fmt.Fprintln(w)
	printClusterNodes(w, c, colour)
	if len(c.Resources) == 0 {
		return
	}
	fmt.Fprintln(w)
	rows := [][]cell{{{"RESOURCE", plain}, {"OWNER", plain}, {"IN SYNC", plain}, {"SERVED HERE", plain}}}
	for _, r := range c.Resources {
		owner := cell{r.Owner, plain}
		if r.Owner == "" {
			owner = cell{"nobody", red}
		}
		if r.Forced {
			owner.text += " (forced)"
		}
		rows = append(rows, []cell{{r.Name, plain}, owner, {dash(strings.Join(r.InSync, " ")), plain}, {yes(r.Serves), plain}})
	}
	for _, l := range table(rows, colour) {
		fmt.Fprintln(w, l)
	}
}

func printClusterNodes(w io.Writer, c api.Cluster, colour bool) {
	rows := [][]cell{{{"NODE", plain}, {"ID", plain}, {"STATE", plain}, {"HEARD", plain}, {"HEARS", plain}, {"INCARNATION", plain}}}
	for _, n := range c.Nodes {
		name, state, heard := n.Name, n.State, yes(n.Heard)
		if n.Self {
			name, heard = name+"*", "-"
		}
		if n.Witness {
			name += " (witness)"
		}
		if c.Quorum == "off" {
			state = "-"
		}
		rows = append(rows, []cell{{name, plain}, {fmt.Sprint(n.ID), plain}, {state, clusterColours[state]}, {heard, clusterColours[heard]},
			{dash(strings.Join(n.Hears, " ")), plain}, {dash(n.Incarnation), plain}})
	}
	lines := table(rows, colour)
	fmt.Fprintln(w, lines[0])
	for i, n := range c.Nodes {
		fmt.Fprintln(w, lines[i+1])
		for _, note := range nodeNotes(n) {
			fmt.Fprintln(w, "  "+note)
		}
	}
}

// nodeNotes is what stands below a node's line.
func nodeNotes(n api.ClusterNode) (list []string) {
	if n.Reason != "" {
		list = append(list, n.Reason)
	}
	for _, l := range n.Links {
		s := l.Name + " " + l.State
		if l.SilentMS >= 0 {
			s += ", silent for " + silence(l.SilentMS)
		} else {
			s += ", never heard"
		}
		if l.State != "up" && l.Reason != "" && l.Reason != n.Reason {
			s += ": " + l.Reason
		}
		list = append(list, s)
	}
	if n.Jeopardy {
		list = append(list, "in jeopardy: one link is left; if it is lost too, nobody can tell whether the node is")
	}
	if n.Duplicate {
		list = append(list, "duplicate: two hosts send heartbeats as this node")
	}
	if n.ClockAheadMS != 0 {
		word, ms := "ahead", n.ClockAheadMS
		if ms < 0 {
			word, ms = "behind", -ms
		}
		list = append(list, fmt.Sprintf("its clock is %s %s: set both by NTP", silence(ms), word))
	}
	for _, d := range n.Differences {
		list = append(list, fmt.Sprintf("its configuration differs: %s is %s here and %s there", d.Key, d.Here, d.There))
	}
	return list
}

// silence is a span for people, to a tenth of a second.
func silence(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	if d >= time.Minute {
		return ago(d)
	}
	return fmt.Sprintf("%.1fs", d.Seconds())
}

func era(e *api.Era) string {
	switch {
	case e == nil:
		return "its era is not known"
	case e.Who == "":
		return "its era was " + e.How + ", proposed by " + e.By
	}
	return fmt.Sprintf("its era was begun by %s on node %s at %s (%s)", e.Who, e.By, e.When.Local().Format(time.DateTime), e.How)
}

func votes(v *api.Votes) string {
	if v == nil {
		return "not known"
	}
	s := fmt.Sprintf("%d of %d members heard, %d needed", v.Heard, v.Members, v.Needed)
	if v.TieBreak != "" {
		s += fmt.Sprintf(", or %d with %s", v.Members/2, v.TieBreak)
	}
	if !v.Quorate {
		return s + ": no quorum"
	}
	return s + ": quorum"
}

func decided(d *api.Decision) string {
	if d == nil || d.What == "" {
		return "nothing since vipd started"
	}
	s := fmt.Sprintf("%s %s", d.Time.Local().Format(time.DateTime), d.What)
	if d.Why != "" {
		s += " (asked for here: " + d.Why + ")"
	}
	return s
}
