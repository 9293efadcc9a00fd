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
	"hastd/cmd/internal/daemon"
	"hastd/cmd/internal/exit"
)

func main() { daemon.Main(about, begin) }

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

// begin starts the daemon.
func begin(s daemon.Setup) (daemon.Process, error) {
	if s.Node.Witness {
		return nil, exit.New(exit.Config, "run only vipd on a witness", "node %s is a witness and stores nothing", s.Node.Name)
	}
	prepareProcess(s.Log, len(s.Conf.ResourceOn(s.Node.Name)))
	d, err := start(s)
	if err != nil {
		return nil, err // not a nil *server in an interface
	}
	return d, nil
}
