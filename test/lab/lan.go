package lab

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LAN is the link as a switch, and a third host on it: the nodes can lose their
// carrier, and somebody outside sees which of them answers.
type LAN struct {
	*namespaces
	standby bool // each node has a second interface in it, and a cable to the other
}

const (
	// clientHost is the last byte of the third host's addresses.
	clientHost = 50
	// standbyName is a node's second interface, directName its end of the cable to
	// the other node.
	standbyName = "lab1"
	directName  = "direct0"
)

// NewLAN makes the network. It needs root, ip and nft.
func NewLAN(standby bool) (*LAN, error) {
	n := &namespaces{}
	l := &LAN{n, standby}
	err := n.holdAll(&n.hold[Alpha], &n.hold[Bravo], &n.sw, &n.client)
	if err == nil {
		err = l.plugIn()
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return l, nil
}

func (l *LAN) plugIn() error {
	lines := []string{
		"ip link add br0 type bridge mcast_snooping 0 stp_state 0 forward_delay 0",
		"ip link set br0 up",
	}
	for i, h := range []int{l.hold[Alpha].Process.Pid, l.hold[Bravo].Process.Pid, l.client.Process.Pid} {
		lines = append(lines, fmt.Sprintf("ip link add p%d type veth peer name %s netns %d", i, linkName, h),
			fmt.Sprintf("ip link set p%d master br0 up", i))
	}
	for _, line := range lines {
		if err := run("", inside(l.sw, strings.Fields(line)...)...); err != nil {
			return err
		}
	}
	if err := l.setUp(); err != nil {
		return err
	}
	if l.standby {
		if err := l.addStandby(); err != nil {
			return err
		}
	}
	six := func(host int) []string {
		return []string{
			fmt.Sprintf("ip addr add fd77::%d/64 dev %s nodad", host, linkName),
			fmt.Sprintf("ip addr add fe80::%d/64 dev %s nodad", host, linkName),
		}
	}
	for _, s := range []Side{Alpha, Bravo} {
		for _, line := range six(int(s) + 1) {
			if err := run("", l.Command(s, strings.Fields(line)...)...); err != nil {
				return err
			}
		}
	}
	for _, line := range append([]string{
		"ip link set lo up",
		fmt.Sprintf("ip addr add 10.77.0.%d/24 dev %s", clientHost, linkName),
		"ip link set " + linkName + " addrgenmode none up",
	}, six(clientHost)...) {
		if err := run("", inside(l.client, strings.Fields(line)...)...); err != nil {
			return err
		}
	}
	return nil
}

// addStandby gives the nodes second interfaces in the same network, as docs/failover.md
// says how, and the cable.
func (l *LAN) addStandby() error {
	pid := func(s Side) int { return l.hold[s].Process.Pid }
	err := run("", strings.Fields(fmt.Sprintf("ip link add %[1]s netns %[2]d type veth peer name %[1]s netns %[3]d", directName, pid(Alpha), pid(Bravo)))...)
	if err != nil {
		return err
	}
	for _, s := range []Side{Alpha, Bravo} {
		lines := []string{
			fmt.Sprintf("ip link add s%d type veth peer name %s netns %d", s, standbyName, pid(s)),
			fmt.Sprintf("ip link set s%d master br0 up", s),
		}
		for _, line := range lines {
			if err := run("", inside(l.sw, strings.Fields(line)...)...); err != nil {
				return err
			}
		}
		for _, line := range []string{
			"sysctl -qw net.ipv4.conf.all.ignore_routes_with_linkdown=1 net.ipv4.conf.all.arp_ignore=1",
			fmt.Sprintf("ip addr add 10.77.0.%d/24 dev %s", 11+s, standbyName),
			"ip link set " + standbyName + " addrgenmode none up",
			fmt.Sprintf("ip addr add %s/24 dev %s", l.Address(s, s), directName),
			"ip link set " + directName + " addrgenmode none up",
		} {
			if err := run("", l.Command(s, strings.Fields(line)...)...); err != nil {
				return err
			}
		}
	}
	return nil
}

// Address is that of the cable, if there is one.
func (l *LAN) Address(at, reader Side) string {
	if l.standby {
		return fmt.Sprintf("10.78.0.%d", at+1)
	}
	return l.namespaces.Address(at, reader)
}

// Plug puts a node's cable into the switch, or pulls it.
func (l *LAN) Plug(s Side, in bool) error {
	return run("", inside(l.sw, "ip", "link", "set", "p"+strconv.Itoa(int(s)), map[bool]string{true: "up", false: "down"}[in])...)
}

// plugStandby does so with a node's second cable.
func (l *LAN) plugStandby(s Side, in bool) error {
	return run("", inside(l.sw, "ip", "link", "set", "s"+strconv.Itoa(int(s)), map[bool]string{true: "up", false: "down"}[in])...)
}

// onNode runs open in a node's namespace: the sockets that it opens stay there.
func (l *LAN) onNode(s Side, open func() error) error { return enter(l.hold[s].Process.Pid, open) }

// onClient does so on the third host.
func (l *LAN) onClient(open func() error) error { return enter(l.client.Process.Pid, open) }

// enter has this thread visit a namespace. It comes back rather than ends: processes
// that it started are killed with it.
func enter(pid int, open func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("lab: own namespace: %w", err)
	}
	defer unix.Close(own)
	ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("lab: namespace of process %d: %w", pid, err)
	}
	defer unix.Close(ns)
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("lab: enter the namespace of process %d: %w", pid, err)
	}
	defer func() {
		if err := unix.Setns(own, unix.CLONE_NEWNET); err != nil {
			panic("lab: a thread cannot leave a namespace: " + err.Error())
		}
	}()
	return open()
}

// prefixed is an address of the group with the length that its network has.
func prefixed(address string) string {
	if strings.Contains(address, ":") {
		return address + "/64"
	}
	return address + "/24"
}
