package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"hastd/cmd/internal/demo"
	"hastd/cmd/internal/exit"
	"hastd/conf"
)

func (a *app) demoCommand() *cobra.Command {
	var o demo.Options
	size := "256MiB"
	c := &cobra.Command{
		Use:   "demo",
		Short: "show on this machine what a pair does when it fails",
		Long: `demo starts two daemons on 127.0.0.1 and 127.0.0.2 with files as disks and tells
a story: files are written, the primary is killed in the middle of it, the other
takes over, the two part and are brought together again. Every acknowledged file
is looked for by hash, and both replicas are compared block by block.

As root it uses a real device with ext4 on it, where mkfs.ext4, FUSE and loop
devices work; else the NBD socket. Everything stands in one temporary folder and
is taken away at the end, also after Ctrl-C or a failure. It needs no
configuration and touches no daemon, device or file of this machine.

The exit status is 0 only if nothing acknowledged was lost and the replicas are
equal. --sabotage breaks something on purpose, to see that it is found: "flip"
changes one bit of a replica, "early-ack" counts a file as safe too early.`,
		Example: "  hastctl demo\n  hastctl demo --quick --provider nbd-server\n  hastctl demo --sabotage flip",
		Args:    cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Size, err = conf.ParseSize(size); err != nil {
				return exit.New(exit.Usage, "write for example --size 256MiB", "size %q is not usable", size)
			}
			if o.Hastctl, err = os.Executable(); err != nil {
				return err
			}
			if o.Hastd == "" {
				o.Hastd = filepath.Join(filepath.Dir(o.Hastctl), "hastd")
			}
			// The daemons do not start where this command stands.
			if o.Hastd, err = filepath.Abs(o.Hastd); err != nil {
				return err
			}
			o.Out, o.Err, o.Terminal = a.Out, a.Err, terminal(a.Out)
			return demo.Run(cmd.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Hastd, "hastd", "", "`PATH` of the daemon's program (default: beside hastctl)")
	f.StringVar(&size, "size", size, "`SIZE` of the mirrored device")
	f.StringVar(&o.Provider, "provider", demo.Auto, "`KIND` of the device: fuse, nbd-server, or auto for the first that works")
	f.StringVar(&o.Sabotage, "sabotage", "", "break something on `PURPOSE`: flip or early-ack")
	f.BoolVar(&o.Quick, "quick", false, "write less")
	f.BoolVar(&o.Keep, "keep", false, "keep the folder after a failure")
	f.DurationVar(&o.Limit, "limit", 5*time.Minute, "how long all of it may take")
	c.AddCommand(a.demoHACommand())
	return c
}
