// Command hastd is the storage daemon: it mirrors the resources of this node to
// their peers, gives applications a device, and serves the control socket and
// HTTP.
//
// This package wires the parts together and owns the process: sockets, memory,
// start and stop. What a resource does is decided in package replicate and carried
// out in replicate/runner; a resource that cannot work never keeps the daemon from
// starting, it says so in its status.
package main

import (
	"context"
	"os"

	"hastd/cmd/internal/daemon"
	"hastd/cmd/internal/exit"
)

func main() {
	err := run(context.Background(), os.Args[1:], daemon.Stdio{Out: os.Stdout, Err: os.Stderr})
	os.Exit(int(daemon.Report(os.Stderr, about.Name, err)))
}

var about = daemon.About{
	Name:  "hastd",
	Short: "mirror block devices between two nodes",
	Long: `hastd mirrors the resources of this node to their peers and gives applications a
device for each resource that is primary here. It runs in the foreground, logs to
standard error, tells systemd when it is ready, reads its configuration again on
SIGHUP and stops cleanly on SIGTERM. hastctl controls it.

It starts whatever the state of peers and disks: a resource that cannot work says
so in its status.`,
}

// run is the whole life of the daemon.
func run(ctx context.Context, args []string, std daemon.Stdio) error {
	return daemon.Run(ctx, about, args, std, func(ctx context.Context, f daemon.Flags) error { return serve(ctx, f, std) })
}

// serve starts the daemon and keeps it until a signal or ctx ends it.
func serve(ctx context.Context, f daemon.Flags, std daemon.Stdio) error {
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
	if node.Witness {
		return exit.New(exit.Config, "run only vipd on a witness", "node %s is a witness and stores nothing", node.Name)
	}
	return daemon.Keep(ctx, log, func() (daemon.Process, error) {
		prepareProcess(log, len(c.ResourceOn(node.Name)))
		d, err := start(options{conf: c, node: node, flags: f, log: log})
		if err != nil {
			return nil, err // not a nil *server in an interface
		}
		return d, nil
	})
}
