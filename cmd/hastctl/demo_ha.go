package main

import (
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"hastd/cmd/internal/demo/ha"
	"hastd/cmd/internal/exit"
)

func (a *app) demoHACommand() *cobra.Command {
	var o ha.Options
	c := &cobra.Command{
		Use:   "ha",
		Short: "show on this machine how a service fails over",
		Long: `ha makes two nodes and a client in network namespaces, as root, and tells a
story of about a minute: the client writes through a service address while an
interface of the master is lost, the service is moved by hand, both daemons of the
master are killed, and its cables are pulled. Each time the pause that the client
saw is told. At the end every acknowledged write is read back, and a picture of all
requests is drawn.

Everything stands in namespaces and one temporary folder and is taken away at the
end, also after Ctrl-C or a failure. It needs no configuration and touches no
daemon, device, network or file of this machine.

The exit status is 0 only if nothing acknowledged was lost.`,
		Example: "  hastctl demo ha\n  hastctl demo ha --picture /tmp/pauses.svg",
		Args:    cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Hastctl, err = os.Executable(); err != nil {
				return err
			}
			for _, p := range []struct {
				path *string
				name string
			}{{&o.Hastd, "hastd"}, {&o.Vipd, "vipd"}} {
				if *p.path == "" {
					*p.path = filepath.Join(filepath.Dir(o.Hastctl), p.name)
				}
				// The daemons do not start where this command stands.
				if *p.path, err = filepath.Abs(*p.path); err != nil {
					return err
				}
			}
			o.Out, o.Err, o.Terminal = a.Out, a.Err, terminal(a.Out)
			return ha.Run(cmd.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Hastd, "hastd", "", "`PATH` of the daemon's program (default: beside hastctl)")
	f.StringVar(&o.Vipd, "vipd", "", "`PATH` of the controller's program (default: beside hastctl)")
	f.StringVar(&o.Picture, "picture", "demo-ha.svg", "`FILE` for the picture of requests and pauses; \"\" for none")
	f.BoolVar(&o.Quick, "quick", false, "only the switch by hand and the kill")
	f.DurationVar(&o.Limit, "limit", ha.DefaultLimit, "how long all of it may take")
	c.AddCommand(
		&cobra.Command{
			// The group's service, for vipd on the nodes of the demonstration.
			Use: "store VERB DIR", Hidden: true, Args: cobra.ExactArgs(2),
			RunE: func(cmd *cobra.Command, args []string) error {
				code, err := ha.Store(cmd.Context(), args[0], args[1])
				if err == nil && code != exit.OK {
					err = &reported{code}
				}
				return err
			},
		},
		&cobra.Command{
			// What keeps the namespaces of a place.
			Use: "hold DIR", Hidden: true, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error { return ha.Hold(cmd.Context(), args[0]) },
		},
		&cobra.Command{
			// The client, in its place.
			Use: "load VERB ADDRESS SEED LAST", Hidden: true, Args: cobra.ExactArgs(4),
			RunE: func(cmd *cobra.Command, args []string) error {
				last, err := strconv.ParseUint(args[3], 10, 32)
				if err != nil {
					return exit.New(exit.Usage, "write a number", "%q is no number", args[3])
				}
				return ha.Load(cmd.Context(), a.Out, args[0], args[1], args[2], uint32(last))
			},
		},
	)
	return c
}
