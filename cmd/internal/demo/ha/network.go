package ha

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hastd/cmd/internal/demo/stage"
	"hastd/cmd/internal/exit"
)

// network is four places with namespaces of their own for network and mounts: a
// switch, two nodes and a client. Each is held by a process that dies after
// this one: then the kernel takes away what stood in it.
type network struct {
	hastctl, dir string // the program that holds, and the demonstration's folder
	places       map[string]*exec.Cmd
}

// The places, and the addresses in them.
const (
	lan     = "lan"
	clients = "client"

	serviceAddress = "10.66.0.100"
	clientAddress  = "10.66.0.9"
	servicePort    = "8080"
)

// lanAddress and directAddress are those of a node (0 or 1) in the network of the
// clients, by interface, and on the cable between the two nodes.
func lanAddress(i, nic int) string { return fmt.Sprintf("10.66.0.%d%d", i+1, nic) }
func directAddress(i int) string   { return fmt.Sprintf("10.66.1.%d", i+1) }

// port is the end in the switch of a node's cable.
func port(node string, nic int) string { return fmt.Sprintf("%s%d", node, nic) }

const (
	commandLimit = 15 * time.Second // of one program
	killLimit    = 10 * time.Second
	pollEvery    = 50 * time.Millisecond
)

// build makes the places and the cables. Every step is a command of ip(8).
func (n *network) build(ctx context.Context) error {
	n.places = map[string]*exec.Cmd{}
	for _, name := range []string{lan, "alpha", "bravo", clients} {
		if err := n.hold(ctx, name); err != nil {
			return err
		}
	}
	cable := func(from, fromName, to, toName string) []string {
		return []string{"ip", "link", "add", fromName, "netns", n.pid(from), "type", "veth", "peer", "name", toName, "netns", n.pid(to)}
	}
	in := func(place, command string) error { return n.run(ctx, place, strings.Fields(command)...) }
	steps := func(place string, commands ...string) error {
		for _, c := range commands {
			if err := in(place, c); err != nil {
				return err
			}
		}
		return nil
	}
	up := func(place, name, address string) error {
		return steps(place, "ip link set "+name+" addrgenmode none", "ip addr add "+address+"/24 dev "+name, "ip link set "+name+" up")
	}
	plug := func(place, name, address, port string) error {
		if err := n.run(ctx, "", cable(lan, port, place, name)...); err != nil {
			return err
		}
		return errors.Join(steps(lan, "ip link set "+port+" addrgenmode none", "ip link set "+port+" master br0", "ip link set "+port+" up"), up(place, name, address))
	}
	if err := steps(lan, "ip link set lo up", "ip link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0", "ip link set br0 addrgenmode none", "ip link set br0 up"); err != nil {
		return err
	}
	if err := errors.Join(steps(clients, "ip link set lo up"), plug(clients, "eth0", clientAddress, "client0")); err != nil {
		return err
	}
	for i, name := range []string{"alpha", "bravo"} {
		if err := errors.Join(steps(name, "ip link set lo up"), n.twoInOneNet(ctx, name)); err != nil {
			return err
		}
		for nic := range 2 {
			if err := plug(name, fmt.Sprintf("eth%d", nic), lanAddress(i, nic), port(name, nic)); err != nil {
				return err
			}
		}
	}
	if err := n.run(ctx, "", cable("alpha", "direct0", "bravo", "direct0")...); err != nil {
		return err
	}
	return errors.Join(up("alpha", "direct0", directAddress(0)), up("bravo", "direct0", directAddress(1)))
}

// twoInOneNet tells the kernel what an administrator tells it for two interfaces
// in one network: a route over one without a link is none, and each interface
// answers for its own addresses.
func (n *network) twoInOneNet(ctx context.Context, place string) error {
	return n.run(ctx, place, "sh", "-c", `for s in ignore_routes_with_linkdown arp_ignore; do for i in all default; do echo 1 >/proc/sys/net/ipv4/conf/$i/$s || exit; done; done`)
}

// hold starts the process that holds a place, and waits until it is there. It does
// not die with this one, but soon after: see Hold.
func (n *network) hold(ctx context.Context, name string) error {
	h := exec.Command("unshare", "--net", "--mount", "--propagation", "private", "--", n.hastctl, "demo", "ha", "hold", n.dir)
	h.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := h.Start(); err != nil {
		return exit.New(exit.CantCreate, "", "make a namespace for %s: %w", name, err)
	}
	n.places[name] = h
	return stage.Poll(ctx, commandLimit, pollEvery, "the namespaces of "+name, func() (bool, error) {
		// It is another program only when both are made.
		at, err := os.Readlink("/proc/" + n.pid(name) + "/exe")
		return err == nil && at == n.hastctl, err
	})
}

const (
	// holdEvery is the time between two looks whether the demonstration still lives,
	// holdLimit how long its daemons may take to die.
	holdEvery = 250 * time.Millisecond
	holdLimit = 15 * time.Second
)

// Hold is the process that keeps a place while the demonstration of a folder lives,
// and a moment longer: until everybody else has left the place. Were a daemon that
// dies the last one in it, the kernel would unmount the filesystem on the daemon's
// own device in its name, and wait for answers that nobody gives any more.
func Hold(ctx context.Context, dir string) error {
	tick := time.NewTicker(holdEvery)
	defer tick.Stop()
	var orphaned time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		switch {
		case !orphan(dir):
		case orphaned.IsZero():
			orphaned = time.Now()
		case alone() || time.Since(orphaned) > holdLimit:
			return nil
		}
	}
}

// alone says whether no other process, dying ones included, is in this one's
// namespace of mounts.
func alone() bool {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return false
	}
	places, _ := filepath.Glob("/proc/[0-9]*/task/[0-9]*/ns/mnt")
	for _, p := range places {
		at, err := os.Readlink(p)
		if err == nil && at == own && !strings.HasPrefix(p, fmt.Sprintf("/proc/%d/", os.Getpid())) {
			return false
		}
	}
	return true
}

func (n *network) pid(place string) string { return strconv.Itoa(n.places[place].Process.Pid) }

// in is a command line that runs another in a place; "" is the machine itself.
func (n *network) in(place string, argv ...string) []string {
	if place == "" {
		return argv
	}
	pid := n.pid(place)
	return append([]string{"nsenter", "--net=/proc/" + pid + "/ns/net", "--mount=/proc/" + pid + "/ns/mnt", "--"}, argv...)
}

// run runs a command in a place to its end.
func (n *network) run(ctx context.Context, place string, argv ...string) error {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	line := n.in(place, argv...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return exit.New(exit.CantCreate, "", "%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// plug puts a cable of a node in or out of the switch.
func (n *network) plug(ctx context.Context, node string, nic int, in bool) error {
	state := "down"
	if in {
		state = "up"
	}
	return n.run(ctx, lan, "ip", "link", "set", port(node, nic), state)
}

// close lets go of the places.
func (n *network) close() error {
	var errs []error
	for name, h := range n.places {
		h.Process.Kill()
		if err := stage.Within(killLimit, func() error { h.Wait(); return nil }); err != nil {
			errs = append(errs, fmt.Errorf("the process %d that holds %s: %w", h.Process.Pid, name, err))
		}
	}
	n.places = nil
	return errors.Join(errs...)
}
