// Command vipd is the small controller of groups: for each group of this node it
// takes part in an election, switches storage roles through hastd's control
// socket, mounts, starts services, and holds the addresses.
//
// This package wires the parts together and owns the process. What an election
// leads to is decided in packages carp and cluster, and carried out in their
// runners and in carp/vip; vipd itself decides nothing and trusts hastd to refuse
// what would lose data.
package main

import (
	"context"
	"os"

	"hastd/cmd/internal/daemon"
)

func main() {
	err := run(context.Background(), os.Args[1:], daemon.Stdio{Out: os.Stdout, Err: os.Stderr})
	os.Exit(int(daemon.Report(os.Stderr, about.Name, err)))
}

var about = daemon.About{
	Name:  "vipd",
	Short: "fail groups over between nodes",
	Long: `vipd decides with CARP or VRRP which node a group is online on, and takes the
group up and down there: storage becomes primary, filesystems are mounted, services
started, addresses set, in this order. It runs in the foreground, logs to standard
error, tells systemd when it is ready, and takes its groups down on SIGTERM.
hastctl group, vip, clear and events control and show it.

Addresses have a lifetime in the kernel: they vanish by themselves if vipd dies.`,
}

// run is the whole life of the daemon.
func run(ctx context.Context, args []string, std daemon.Stdio) error {
	return daemon.Run(ctx, about, args, std, func(ctx context.Context, f daemon.Flags) error {
		aside := daemon.NewAsideLog(about.Name, std.Err)
		defer aside.Close()
		log, err := daemon.NewLog(aside, f)
		if err != nil {
			return err
		}
		c, node, err := daemon.LoadConfig(f)
		if err != nil {
			return err
		}
		return daemon.Keep(ctx, log, func() (daemon.Process, error) {
			s, err := start(options{conf: c, node: node, flags: f, log: log})
			if err != nil {
				return nil, err // not a nil *server in an interface
			}
			return s, nil
		})
	})
}
