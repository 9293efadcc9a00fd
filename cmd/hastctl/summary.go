package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"hastd/cmd/internal/api"
)

func (a *app) summaryCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "summary",
		Short: "show all nodes, and all groups on each",
		Long: `summary shows the nodes of the cluster (A), their groups (B) and the parts of groups
that a person has to look at (C), as vipd on this node knows them. Of a node that does
not report it knows only whether it advertises as master; the rest is UNKNOWN. A group
that is not probed, or AutoDisabled, is not taken over there.`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.groupClient(cmd)
			if err != nil {
				return err
			}
			s, err := c.Summary(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.writeJSON(s)
			}
			printSummary(a.Out, s)
			return nil
		},
	}
}

// printSummary writes the tables as administrators know them: a letter before each line
// says what it is of, for those who cut them out with a program.
func printSummary(w io.Writer, s api.Summary) {
	line := func(format string, args ...any) {
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf(format, args...), " "))
	}
	frozen := map[bool]string{false: "0", true: "1"}
	truth := map[bool]string{false: "N", true: "Y"}
	const systems, groups, failed = "%-2s %-20s %-20s %-20s", "%-2s %-15s %-20s %-10s %-15s %-15s", "%-2s %-15s %-20s %-20s %-20s"
	line("-- SYSTEM STATE")
	line(systems, "--", "System", "State", "Frozen")
	line("")
	for _, x := range s.Systems {
		line(systems, "A", x.System, strings.ToUpper(x.State), frozen[x.Frozen])
	}
	line("")
	line("-- GROUP STATE")
	line(groups, "--", "Group", "System", "Probed", "AutoDisabled", "State")
	line("")
	for _, x := range s.Groups {
		line(groups, "B", x.Group, x.System, truth[x.Probed], truth[x.AutoDisabled], strings.ToUpper(x.State))
	}
	if len(s.Failed) == 0 {
		return
	}
	line("")
	line("-- RESOURCES FAILED")
	line(failed, "--", "Group", "Type", "Resource", "System")
	line("")
	for _, x := range s.Failed {
		line(failed, "C", x.Group, x.Kind, x.Part, x.System)
	}
}
