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
type LAN struct{ *namespaces }

// clientHost is the last byte of the third host's addresses.
const clientHost = 50

// NewLAN makes the network. It needs root, ip and nft.
func NewLAN() (*LAN, error) {
	n := &namespaces{}
	l := &LAN{n}
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

// Plug puts a node's cable into the switch, or pulls it.
func (l *LAN) Plug(s Side, in bool) error {
	return run("", inside(l.sw, "ip", "link", "set", "p"+strconv.Itoa(int(s)), map[bool]string{true: "up", false: "down"}[in])...)
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

// servicePrefix is the group's address with the length that its network has.
func (l *Lab) servicePrefix() string {
	if strings.Contains(l.o.Service, ":") {
		return l.o.Service + "/64"
	}
	return l.o.Service + "/24"
}
