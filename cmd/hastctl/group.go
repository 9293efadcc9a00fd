package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/exit"
	"hastd/conf"
)

// orderTimeout bounds an order to a group unless --timeout says otherwise: services
// may take a minute to stop.
const orderTimeout = 75 * time.Second

// askGroups asks vipd for its groups, and gives the way to ask more.
func (a *app) askGroups(cmd *cobra.Command) (api.GroupClient, api.Groups, error) {
	c, err := a.groupClient(cmd)
	if err != nil {
		return c, api.Groups{}, err
	}
	st, err := c.Groups(cmd.Context())
	return c, st, err
}

// groupClient is the way to vipd.
func (a *app) groupClient(cmd *cobra.Command) (api.GroupClient, error) {
	socket, err := a.socket(func(_ conf.Hastd, v conf.Vipd) string { return v.Control })
	if err != nil {
		return api.GroupClient{}, err
	}
	timeout := a.timeout
	if !cmd.Flags().Changed("timeout") && cmd.Annotations["order"] != "" {
		timeout = orderTimeout
	}
	return api.NewGroupClient(socket, timeout), nil
}

func (a *app) groupCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "group",
		Short: "show and move groups",
		Long: `group shows and moves what fails over together: storage, mounts, services and
addresses. It asks vipd on this node, and tells of this node's part.`,
		RunE: func(*cobra.Command, []string) error {
			return exit.New(exit.Usage, "hastctl group --help lists the commands", "no command given")
		},
	}
	c.AddCommand(
		a.groupStatusCommand(),
		a.groupOrder("online", "let a group run here again", `online ends "group offline": this node takes part in the election again. With an
external election it takes the group up here and waits until it is online.`),
		a.groupOrder("offline", "take a group down here and keep it down", `offline takes a group down on this node, which no longer takes part in its
election until "group online". It waits until everything is down. Another node takes
the group over. The order is forgotten when vipd is started again.`),
		a.groupOrder("switch", "hand a group over to the other node", `switch takes a group down on this node, where it must be online, and waits until
another node is master. It is refused while the other replica is not up to date.`),
		a.groupOrder("freeze", "let nothing happen to a group", `freeze keeps a group as it is, whatever happens: nothing goes up or down, no
service is looked at, until "group unfreeze". It is forgotten when vipd is started
again; vipd that ends leaves a frozen group up, and its addresses run out. With
quorum = "majority" the other node starts the group then, once the lease is over, and
with toc this machine is reset: unfreeze it before.`),
		a.groupOrder("unfreeze", "end a freeze", `unfreeze lets a group follow its election again.`),
	)
	return c
}

func (a *app) groupStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status [NAME|all]",
		Short: "show the state of groups on this node",
		Args:  cobra.MaximumNArgs(1), ValidArgsFunction: once(a.completeGroups),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, st, err := a.askGroups(cmd)
			if err != nil {
				return err
			}
			if len(args) == 1 && args[0] != all {
				g, err := c.Group(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				st.Groups = []api.Group{g}
			}
			if a.json {
				return a.writeJSON(st)
			}
			printGroups(a.Out, st, terminal(a.Out))
			return nil
		},
	}
}

// groupOrder is a command that gives one order to NAME|all.
func (a *app) groupOrder(order, short, long string) *cobra.Command {
	return &cobra.Command{
		Use: order + " NAME|all", Short: short, Long: long,
		Args: cobra.ExactArgs(1), ValidArgsFunction: once(a.completeGroups),
		Annotations: map[string]string{"order": order},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, st, err := a.askGroups(cmd)
			if err != nil {
				return err
			}
			names := []string{args[0]}
			if args[0] == all {
				names = names[:0]
				for _, g := range st.Groups {
					names = append(names, g.Name)
				}
			}
			return a.orderGroups(cmd.Context(), c, st.Node, names, order, nil)
		},
	}
}

func (a *app) orderGroups(ctx context.Context, c api.GroupClient, node string, names []string, order string, body any) error {
	done := api.Groups{Node: node, Groups: []api.Group{}}
	err := a.eachOf(names, func(name string) error {
		g, err := c.Order(ctx, name, order, body)
		if err != nil {
			return err
		}
		done.Groups = append(done.Groups, g)
		if !a.json {
			fmt.Fprintf(a.Out, "%s: %s on %s%s\n", g.Name, g.State, node, attributes(g))
		}
		return nil
	})
	if a.json && len(done.Groups) > 0 {
		a.writeJSON(done)
	}
	return err
}

func attributes(g api.Group) string {
	var words []string
	if g.Frozen {
		words = append(words, "frozen")
	}
	if g.Disabled {
		words = append(words, "disabled")
	}
	if len(words) == 0 {
		return ""
	}
	return ", " + strings.Join(words, ", ")
}

func (a *app) clearCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "clear NAME",
		Short: "forget a fault, once its cause is mended",
		Long: `clear lets a group that left the field on this node, because one of its parts
failed, take part again. NAME is the part: its full name (data/service/app), the
last word of it (app), a bare address, or the name of the whole group.`,
		Example: "  hastctl clear data/service/app\n  hastctl clear 192.0.2.10",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: once(a.completeParts),
		Annotations: map[string]string{"order": "clear"},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, st, err := a.askGroups(cmd)
			if err != nil {
				return err
			}
			group, part, err := findPart(st, args[0])
			if err != nil {
				return err
			}
			return a.orderGroups(cmd.Context(), c, st.Node, []string{group}, "clear", api.ClearRequest{Part: part})
		},
	}
}

// findPart finds the one part, or group, that a person means.
func findPart(st api.Groups, name string) (group, part string, err error) {
	var found []string
	for _, g := range st.Groups {
		if g.Name == name {
			return g.Name, "", nil
		}
		for _, p := range g.Parts {
			if api.PartMatches(p, name) {
				group, part = g.Name, p.Name
				found = append(found, p.Name)
			}
		}
	}
	switch len(found) {
	case 0:
		return "", "", exit.New(exit.Usage, "hastctl group status shows the groups and their parts", "there is no part %q on node %s", name, st.Node)
	case 1:
		return group, part, nil
	}
	return "", "", exit.New(exit.Usage, "write the full name: "+strings.Join(found, " or "), "%q is the name of %d parts", name, len(found))
}

func (a *app) vipCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "vip",
		Short: "show elections and service addresses",
		Long: `vip shows for each group of this node the state of its election (INIT, BACKUP,
MASTER), the interface, the addresses (with a star where they stand here), how many
adverts were sent, received and refused, and the last change with its reason.`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.groupClient(cmd)
			if err != nil {
				return err
			}
			v, err := c.VIPs(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.writeJSON(v)
			}
			printVIPs(a.Out, v, time.Now(), terminal(a.Out))
			return nil
		},
	}
}

// completeGroups offers the groups of the configuration and "all".
func (a *app) completeGroups(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	c, err := conf.Load(a.file)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := []string{}
	for _, g := range c.Groups {
		names = append(names, g.Name)
	}
	return append(names, all), cobra.ShellCompDirectiveNoFileComp
}

// completeParts offers what the configuration says that parts are called.
func (a *app) completeParts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	c, err := conf.Load(a.file)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := []string{}
	for _, g := range c.Groups {
		names = append(names, g.Name)
		for _, s := range g.Services {
			names = append(names, g.Name+"/service/"+s.Name)
		}
		for _, r := range g.Resources {
			names = append(names, g.Name+"/resource/"+r)
		}
		for _, m := range g.Mounts {
			names = append(names, g.Name+"/mount/"+strings.TrimPrefix(m.Dir, "/"))
		}
		for _, x := range g.Addresses {
			names = append(names, g.Name+"/address/"+cmp.Or(x.Name, x.CIDR.Addr().String()))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

var stateColours = map[string]string{
	"online": green, "up": green, "master": green,
	"starting": yellow, "stopping": yellow, "partial": yellow, "init": yellow, "unknown": yellow,
	"faulted": red, "stuck": red, "failed": red, "stray": red,
}

func stateCell(s string) cell { return cell{s, stateColours[s]} }

// printGroups writes a line for each group, and below it why it is not online and
// the parts that are not where the others are.
func printGroups(w io.Writer, st api.Groups, colour bool) {
	if len(st.Groups) == 0 {
		fmt.Fprintf(w, "no groups on node %s\n", st.Node)
		return
	}
	rows := [][]cell{{{"GROUP", plain}, {"STATE", plain}, {"ONLINE ON", plain}, {"ELECTION", plain}, {"MASTER", plain}, {"FIT", plain}, {"ORDERS", plain}}}
	for _, g := range st.Groups {
		rows = append(rows, []cell{{g.Name, plain}, stateCell(g.State), {dash(g.Online), plain}, {g.Election, plain},
			{yes(g.Elected), plain}, {yes(g.Fit), plain}, {dash(strings.TrimPrefix(attributes(g), ", ")), plain}})
	}
	lines := table(rows, colour)
	fmt.Fprintln(w, lines[0])
	for i, g := range st.Groups {
		fmt.Fprintln(w, lines[i+1])
		if g.Reason != "" {
			fmt.Fprintln(w, "  "+g.Reason)
		}
		for _, p := range g.Parts {
			line := fmt.Sprintf("  %s is %s", p.Name, p.State)
			if p.Reason != "" && !strings.Contains(g.Reason, p.Reason) {
				line += ": " + p.Reason
			}
			fmt.Fprintln(w, line)
		}
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// printVIPs writes a line for each election and, below it, its last change.
func printVIPs(w io.Writer, v api.VIPs, now time.Time, colour bool) {
	if len(v.VIPs) == 0 {
		fmt.Fprintf(w, "no groups on node %s\n", v.Node)
		return
	}
	rows := [][]cell{{{"GROUP", plain}, {"PROTOCOL", plain}, {"STATE", plain}, {"INTERFACE", plain}, {"ADDRESSES", plain}, {"SINCE", plain}, {"SENT", plain}, {"RECEIVED", plain}, {"REFUSED", plain}}}
	for _, x := range v.VIPs {
		addresses := slices.Clone(x.Addresses)
		if x.Held {
			for i := range addresses {
				addresses[i] += "*"
			}
		}
		var refused uint64
		for cause, n := range x.Adverts.Refused {
			if cause != "id" { // of another group on the same network
				refused += n
			}
		}
		protocol := x.Protocol
		if x.State != "" {
			protocol += fmt.Sprint(" ", x.ID)
		}
		rows = append(rows, []cell{{x.Group, plain}, {protocol, plain}, {dash(strings.ToUpper(x.State)), stateColours[x.State]}, {dash(x.Interface), plain},
			{dash(strings.Join(addresses, " ")), plain}, {ago(now.Sub(x.Since)), plain},
			{fmt.Sprint(x.Adverts.Sent), plain}, {fmt.Sprint(x.Adverts.Received), plain}, {fmt.Sprint(refused), plain}})
	}
	lines := table(rows, colour)
	fmt.Fprintln(w, lines[0])
	for i, x := range v.VIPs {
		fmt.Fprintln(w, lines[i+1])
		if x.Last.New != "" {
			fmt.Fprintf(w, "  %s %s -> %s: %s\n", x.Last.Time.Format(time.DateTime), strings.ToUpper(x.Last.Old), strings.ToUpper(x.Last.New), x.Last.Reason)
		}
	}
}

// ago is a span for people: the two largest units.
func ago(d time.Duration) string {
	d = max(d, 0).Round(time.Second)
	switch {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return d.String()
}
