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
	"os"
	"os/exec"
	"syscall"

	"hastd/cmd/internal/daemon"
)

func main() {
	daemon.Main(about, func(o daemon.Setup) (daemon.Process, error) {
		s, err := start(o, execAgain)
		if err != nil {
			return nil, err
		}
		return s, nil
	})
}

// execAgain puts the program that is installed now in this one's place: same process,
// same arguments. It returns only if that fails.
func execAgain() error {
	path, err := exec.LookPath(os.Args[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, os.Args, os.Environ())
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
