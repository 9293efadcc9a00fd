package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/build"
	"hastd/cmd/internal/exit"
	"hastd/conf"
)

// all stands for every resource of the node.
const all = "all"

var roles = []string{"primary", "secondary", "init"}

func (a *app) roleCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "role primary|secondary|init NAME|all",
		Short: "change the role of a resource on this node",
		Long: `role makes this node the primary of a resource (its device appears and may be
written), the secondary (it follows the primary), or neither.

It waits until the change is done. A promotion that would lose data is refused
and says why; --force overrides that where it can be overridden, is logged and
recorded on disk. A demotion is refused while the device is in use; --force cuts
its users, whose requests end in errors.

With quorum = "majority" a promotion asks vipd first: the cluster's view must name this
node owner. Who owns the resource gives it up if it is not primary there; a resource of
a group moves with the group ("hastctl group switch"). --force makes this node owner
although its replica is not in sync: what it lacks is lost. It takes nothing from a node
that is heard and uses it.`,
		Example: "  hastctl role primary data\n  hastctl role secondary all",
		Args:    cobra.ExactArgs(2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
			switch len(args) {
			case 0:
				return roles, cobra.ShellCompDirectiveNoFileComp
			case 1:
				return a.completeNames(cmd, nil, s)
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(roles, args[0]) {
				return exit.New(exit.Usage, "write primary, secondary or init before the name", "there is no role %q", args[0])
			}
			return a.command(cmd.Context(), args[1], "role", api.RoleRequest{Role: args[0], Force: force},
				a.ownership(args[0], force),
				func(r api.Resource, node string) string { return fmt.Sprintf("%s: %s on %s", r.Name, r.Role, node) })
		},
	}
	c.Flags().BoolVar(&force, "force", false, "promote against advice, or demote although the device is in use")
	return c
}

func (a *app) connectCommand() *cobra.Command {
	return a.simple("connect", "end an administrative disconnection",
		`connect lets a resource seek its peer again after "hastctl disconnect".`, nil)
}

func (a *app) disconnectCommand() *cobra.Command {
	return a.simple("disconnect", "part a resource from its peer until connect",
		`disconnect parts a resource from its peer. It holds over restarts of the daemon,
until "hastctl connect".`, nil)
}

func (a *app) resumeCommand() *cobra.Command {
	var req api.ResumeRequest
	c := a.simple("resume", "end a suspension of application I/O",
		`resume lets a resource that holds requests back go on: alone if this node's
replica can be trusted. With --error the waiting requests end in errors instead.`, &req)
	c.Flags().BoolVar(&req.Error, "error", false, "end the waiting requests in errors")
	return c
}

func (a *app) recoverCommand() *cobra.Command {
	var req api.RecoverRequest
	c := a.simple("recover", "give up this node's changes after a split-brain",
		`recover ends a split-brain: run on the node whose changes are to be given up, it
makes this node follow the other one, which then copies what differs.

Everything written on this node since the two parted is lost. Look at both nodes
with "hastctl status" first.`, &req)
	c.Flags().BoolVar(&req.DiscardLocal, "discard-local", false, "yes, give up what was written on this node")
	return c
}

// simple is a command that posts a request for NAME|all and tells the outcome.
func (a *app) simple(name, short, long string, body any) *cobra.Command {
	return &cobra.Command{
		Use: name + " NAME|all", Short: short, Long: long,
		Args: cobra.ExactArgs(1), ValidArgsFunction: once(a.completeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.command(cmd.Context(), args[0], name, body, nil, func(r api.Resource, node string) string {
				return fmt.Sprintf("%s: %s, %s on %s", r.Name, r.Connection, r.Status, node)
			})
		},
	}
}

// ownership is what has to be done before a promotion: with quorum = "majority" vipd is
// asked that the cluster's view name this node. It is nil where nobody needs to be asked.
func (a *app) ownership(role string, force bool) func(ctx context.Context, name string) error {
	if role != "primary" {
		return nil
	}
	c, err := a.config()
	if err != nil || c.Cluster.Quorum != conf.QuorumMajority {
		return nil // a wrong file is told where it is needed
	}
	return func(ctx context.Context, name string) error {
		n, err := a.self(c)
		if err != nil {
			return err
		}
		_, vipd := c.Effective(n)
		_, err = api.NewGroupClient(vipd.Control, a.timeout).Own(ctx, name, force)
		return err
	}
}

// Where vipd was asked first, a group may be at work on the resource: so often, and so
// long after each other, a promotion is tried again. All tries have --timeout together.
const (
	busyTries = 30
	busyPause = 100 * time.Millisecond
)

// command posts one command for one resource or all of them, each after what before
// does. text is what people read of a success.
func (a *app) command(ctx context.Context, name, command string, body any, before func(ctx context.Context, name string) error, text func(r api.Resource, node string) string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	done := api.Status{Resources: []api.Resource{}}
	names := []string{name}
	if name == all {
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		names = names[:0]
		for _, r := range st.Resources {
			names = append(names, r.Name)
		}
		done.Node = st.Node
	} else {
		v, err := c.Version(ctx)
		if err != nil {
			return err
		}
		done.Node = v.Node
	}
	err = a.eachOf(names, func(name string) error {
		end := time.Now().Add(a.timeout)
		try := func() (api.Resource, error) {
			left := max(time.Until(end), busyPause) // what vipd granted at the last moment is tried once
			return c.Within(left.Round(time.Millisecond)).Command(ctx, name, command, body)
		}
		if before != nil {
			if err := before(ctx, name); err != nil {
				return err
			}
		}
		r, err := try()
		for n := 0; before != nil && exit.CodeOf(err) == exit.Again && n < busyTries && time.Until(end) > busyPause; n++ {
			select {
			case <-ctx.Done():
				return err
			case <-time.After(busyPause): // a group that may serve it now promotes it, too
			}
			r, err = try()
		}
		if err != nil {
			return err
		}
		done.Resources = append(done.Resources, r)
		if !a.json {
			fmt.Fprintln(a.Out, text(r, done.Node))
		}
		return nil
	})
	if a.json && len(done.Resources) > 0 {
		a.writeJSON(done)
	}
	return err
}

func (a *app) writeEvent(ev api.Event) error {
	if a.json {
		return json.NewEncoder(a.Out).Encode(ev)
	}
	line := fmt.Sprintf("%s %s %s", ev.Time.Local().Format(time.DateTime), ev.Name, ev.Kind)
	switch {
	case ev.Old != "" && ev.New != "":
		line += fmt.Sprintf(" %s -> %s", ev.Old, ev.New)
	case ev.New != "":
		line += " " + ev.New
	}
	if ev.Reason != "" {
		line += ": " + ev.Reason
	}
	_, err := fmt.Fprintln(a.Out, line)
	return err
}

func (a *app) reloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "make hastd read its configuration again",
		Long: `reload makes hastd, or with --control the daemon behind that socket, read its
configuration again. It applies what can change while resources run and says what
needs a restart.`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			r, err := c.Reload(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.writeJSON(r)
			}
			for _, s := range r.Changed {
				fmt.Fprintf(a.Out, "changed: %s\n", s)
			}
			for _, s := range r.Restart {
				fmt.Fprintf(a.Out, "needs a restart of %s: %s\n", cmp.Or(r.Daemon, "the daemon"), s)
			}
			if len(r.Changed)+len(r.Restart) == 0 {
				fmt.Fprintln(a.Out, "nothing changed")
			}
			return nil
		},
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "show the version of hastctl, and of hastd if it runs",
		Long: `version shows which hastctl this is, and which hastd runs on this node; with
--control, which daemon answers on that socket.`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Hastctl build.Info   `json:"hastctl"`
				Hastd   *api.Version `json:"hastd"` // or the daemon behind --control
			}{Hastctl: build.Read()}
			if c, err := a.client(); err == nil {
				if d, err := c.Version(cmd.Context()); err == nil {
					v.Hastd = &d
				}
			}
			if a.json {
				return a.writeJSON(v)
			}
			fmt.Fprintln(a.Out, "hastctl", v.Hastctl)
			if v.Hastd != nil {
				fmt.Fprintf(a.Out, "%-7s %v\n", cmp.Or(v.Hastd.Daemon, "hastd"), v.Hastd.Info)
			}
			return nil
		},
	}
}

func (a *app) writeJSON(v any) error {
	e := json.NewEncoder(a.Out)
	e.SetIndent("", " ")
	return e.Encode(v)
}
