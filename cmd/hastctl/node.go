package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/exit"
)

func (a *app) nodeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "node",
		Short: "show this node's part in the cluster, stop and start it",
		Long: `node shows and changes whether this node takes part in a cluster with quorum =
"majority". It asks vipd on this node, which runs on whatever is ordered; the orders
are forgotten when vipd is started again: starting vipd is "node start", ending it
(systemctl stop vipd) is "node stop". With quorum = "off" only state and map work.`,
		RunE: func(*cobra.Command, []string) error {
			return exit.New(exit.Usage, "hastctl node --help lists the commands", "no command given")
		},
	}
	c.AddCommand(a.nodeStateCommand(), a.nodeMapCommand(), a.nodeStopCommand(), a.nodeStartCommand(), a.nodeAbortCommand(), a.nodeRestartCommand(), a.nodeReinitCommand())
	return c
}

func (a *app) nodeStateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "state",
		Short: "show whether this node takes part, and why not",
		Long: `state shows the state of this node and the reason for it.

The state is running, joining (no membership names it yet), waiting (its side has no
quorum), stopping, stopped, aborted, failed, or down (vipd does not run; then the exit
status is 69). A node that runs and cannot use a replica of its own says why. The last stop or abort is kept over restarts and shown as well.`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.groupClient(cmd)
			if err != nil {
				return err
			}
			st, err := c.NodeState(cmd.Context())
			if exit.CodeOf(err) == exit.Unreachable {
				st = api.NodeState{State: "down", Reason: api.ReasonNoDaemon}
			} else if err != nil {
				return err
			}
			a.tellNode(st)
			return err
		},
	}
}

func (a *app) tellNode(st api.NodeState) {
	if a.json {
		a.writeJSON(st)
		return
	}
	printNode(a.Out, st)
}

func printNode(w io.Writer, st api.NodeState) {
	fmt.Fprintf(w, "state: %s\n", st.State)
	reason := st.Reason
	switch {
	case reason == "":
		reason = dash(st.Detail)
	case st.Detail != "":
		reason += " (" + st.Detail + ")"
	}
	fmt.Fprintf(w, "reason: %s\n", reason)
	if l := st.Last; l != nil && l.Reason != st.Reason {
		fmt.Fprintf(w, "last stop: %s, by %s at %s\n", l.Reason, l.Who, l.Time.Local().Format(time.DateTime))
	}
}

func (a *app) nodeMapCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "map",
		Short: "show all nodes with their ids, storage and states",
		Args:  cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
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
				return a.writeJSON(st.Nodes)
			}
			printMap(a.Out, st, terminal(a.Out))
			return nil
		},
	}
}

// printMap writes a line for each node: where hastd is reached stands under STORAGE.
func printMap(w io.Writer, c api.Cluster, colour bool) {
	rows := [][]cell{{{"ID", plain}, {"NODE", plain}, {"STORAGE", plain}, {"STATE", plain}}}
	for _, n := range c.Nodes {
		name, storage, state := n.Name, strings.Join(n.Addresses, " "), n.State
		if n.Self {
			name += "*"
		}
		if n.Witness {
			storage = "none: a witness"
		}
		switch {
		case c.Quorum == "off" && n.Heard:
			state = "heard"
		case c.Quorum == "off":
			state = "not heard"
		case !n.Heard:
			state += ", not heard"
		}
		rows = append(rows, []cell{{fmt.Sprint(n.ID), plain}, {name, plain}, {storage, plain}, {state, clusterColours[state]}})
	}
	for _, l := range table(rows, colour) {
		fmt.Fprintln(w, l)
	}
}

// nodeOrder gives an order to this node and shows its state afterwards.
func (a *app) nodeOrder(cmd *cobra.Command, order string, req api.NodeRequest) error {
	c, err := a.groupClient(cmd)
	if err != nil {
		return err
	}
	req.Who = person()
	st, err := c.OrderNode(cmd.Context(), order, req)
	if err != nil {
		return err
	}
	a.tellNode(st)
	return nil
}

// person is who orders, for the records.
func person() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("user %d", os.Getuid())
}

func (a *app) nodeStopCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stop",
		Short: "take everything down here and leave the cluster",
		Long: `stop tells the others first that this node leaves: another node leads from then on,
and goes on alone if the links are cut meanwhile. Then it takes the groups down, makes
its replicas secondary, hands over what it owns, and takes no part any more: it has no
vote, owns nothing and is heard by nobody, until "node start". It waits for services and
for those who use a device; if that lasts longer than --timeout (1m15s unless given) it
goes on, and the exit status is 75. "node abort" ends it.`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		Annotations: map[string]string{"order": "stop"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.nodeOrder(cmd, "stop", api.NodeRequest{})
		},
	}
}

func (a *app) nodeAbortCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "abort",
		Short: "leave the cluster at once: outstanding I/O fails",
		Long: `abort makes the replicas of this node secondary at once, whoever uses them: what
applications have under way ends in errors. It tells nobody and waits for nothing; the
groups go down afterwards, and another node takes over once the lease of this one is
over. "node start" ends it.`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.nodeOrder(cmd, "abort", api.NodeRequest{})
		},
	}
}

func (a *app) nodeStartCommand() *cobra.Command {
	var req api.NodeRequest
	var sure bool
	c := &cobra.Command{
		Use:   "start",
		Short: "take part in the cluster again",
		Long: `start ends "node stop" and "node abort", and waits until a membership names this node.

A node whose side has no quorum waits, since the others may go on without it. Only a
person can know that they are down. --others-are-down commits a membership of the nodes
that are heard: it is recorded who did that and when, and what the others did
meanwhile, if they were not down, is lost. --bootstrap does the same for a new cluster
of which not all nodes can be started. Both ask first, unless --yes is given.`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case req.Bootstrap && req.OthersAreDown:
				return exit.New(exit.Usage, "--bootstrap is for a cluster that never ran, --others-are-down for one that did", "--bootstrap and --others-are-down do not go together")
			case (req.Bootstrap || req.OthersAreDown) && !sure:
				if err := a.confirm("Are the nodes that are not heard down for certain, and will they stay so until this is done?"); err != nil {
					return err
				}
			}
			return a.nodeOrder(cmd, "start", req)
		},
	}
	f := c.Flags()
	f.BoolVar(&req.Bootstrap, "bootstrap", false, "begin a new cluster with the nodes that are heard")
	f.BoolVar(&req.OthersAreDown, "others-are-down", false, "go on with the nodes that are heard")
	f.BoolVar(&sure, "yes", false, "do not ask")
	return c
}

// confirm asks a person at a terminal.
func (a *app) confirm(question string) error {
	if !isTerminal(os.Stdin) {
		return exit.New(exit.Usage, "add --yes if it is so", "nobody can be asked: %s", question)
	}
	fmt.Fprintf(a.Err, "%s Type yes: ", question)
	line, _ := bufio.NewReader(io.LimitReader(os.Stdin, 100)).ReadString('\n')
	if strings.TrimSpace(line) != "yes" {
		return exit.New(exit.Refused, "nothing was done", "it was not confirmed")
	}
	return nil
}

// restartEvery is the time between two looks whether vipd is back.
const restartEvery = 50 * time.Millisecond

func (a *app) nodeRestartCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "restart",
		Short: "start vipd again and leave everything up",
		Long: `restart ends vipd and starts it in its place, for example after an upgrade. Services,
mounts and replicas stay as they are; addresses stay if it is back within the lease. The
one that starts adopts what it finds if this node still owns it. It waits until the node
is a member again.`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.nodeAgain(cmd, "restart") },
	}
}

func (a *app) nodeReinitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reinit",
		Short: "take over another list of nodes and leave everything up",
		Long: `reinit reads the nodes and their addresses from the file again: nodes that were added may
become members, nodes that were removed do not come back. Everything stays up as in
"node restart". Change the file on every node first, then order reinit on one node after
the other, and start vipd on a new one last; on one that goes, stop it first. If anything
else changed in the file, or the file cannot be used, nothing is done. hastd takes other
addresses over when it is started again.`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.nodeAgain(cmd, "reinit") },
	}
}

// nodeAgain has vipd start itself again, and waits until this node is a member.
func (a *app) nodeAgain(cmd *cobra.Command, order string) error {
	c, err := a.groupClient(cmd)
	if err != nil {
		return err
	}
	was, err := c.OrderNode(cmd.Context(), order, api.NodeRequest{Who: person()})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), a.timeout)
	defer cancel()
	for {
		st, err := c.NodeState(ctx)
		if err == nil && !st.Started.Equal(was.Started) && st.State == "running" {
			a.tellNode(st)
			return nil
		}
		select {
		case <-ctx.Done():
			return exit.New(exit.Again, "hastctl node state, and vipd's log, tell how far it is", "vipd was started again and is no member yet")
		case <-time.After(restartEvery):
		}
	}
}
