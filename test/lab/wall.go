package lab

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Host is one of the three of a LAN.
type Host int

// The hosts: the nodes, and the third one.
const (
	HostAlpha Host = iota
	HostBravo
	HostCharlie
)

func (h Host) String() string { return [...]string{"alpha", "bravo", "charlie"}[h] }

// AllLinks stands for both.
const AllLinks = -1

// Way is what packets go from one host to another. What clients and the service address
// say to each other is none of it.
type Way struct {
	From, To    Host
	Link        int  // 0, 1 or AllLinks
	Replication bool // only that of storage
}

// secondName is the interface of a host in the second network.
const secondName = "lab2"

func firstAddress(h Host) string  { return fmt.Sprintf("10.77.0.%d", hostNumber(h)) }
func secondAddress(h Host) string { return fmt.Sprintf("10.79.0.%d", hostNumber(h)) }

func hostNumber(h Host) int {
	if h == HostCharlie {
		return clientHost
	}
	return int(h) + 1
}

// addSecond makes the second network.
func (l *LAN) addSecond() error {
	lines := []string{"ip link add br1 type bridge mcast_snooping 0 stp_state 0 forward_delay 0", "ip link set br1 up"}
	for h := range Host(3) {
		lines = append(lines, fmt.Sprintf("ip link add q%d type veth peer name %s netns %d", h, secondName, l.holder(h).Process.Pid),
			fmt.Sprintf("ip link set q%d master br1 up", h))
	}
	for _, line := range lines {
		if err := run("", inside(l.sw, strings.Fields(line)...)...); err != nil {
			return err
		}
	}
	for h := range Host(3) {
		for _, line := range []string{
			fmt.Sprintf("ip addr add %s/24 dev %s", secondAddress(h), secondName),
			"ip link set " + secondName + " addrgenmode none up",
		} {
			if err := run("", inside(l.holder(h), strings.Fields(line)...)...); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *LAN) holder(h Host) *exec.Cmd {
	if h == HostCharlie {
		return l.client
	}
	return l.hold[h]
}

// Wall stops packets silently on these ways, and on no others; none is no wall.
func (l *LAN) Wall(ways ...Way) error {
	var rules [3]strings.Builder
	for _, w := range ways {
		for i, address := range []func(Host) string{firstAddress, secondAddress} {
			if w.Link != AllLinks && w.Link != i {
				continue
			}
			match := fmt.Sprintf("ip saddr %s ip daddr %s ", address(w.From), address(w.To))
			if w.Replication {
				fmt.Fprintf(&rules[w.To], "%[1]stcp dport %[2]d drop; %[1]stcp sport %[2]d drop; ", match, port)
			} else {
				fmt.Fprintf(&rules[w.To], "%sdrop; ", match)
			}
		}
	}
	var errs []error
	for h := range Host(3) {
		table := fmt.Sprintf("table ip wall\ndelete table ip wall\ntable ip wall {\n chain in {\n type filter hook input priority 0\n %s\n }\n}", rules[h].String())
		errs = append(errs, run(table, inside(l.holder(h), "nft", "-f", "-")...))
	}
	return errors.Join(errs...)
}

// Between is both ways between two hosts, on all links.
func Between(a, b Host) []Way {
	return []Way{{From: a, To: b, Link: AllLinks}, {From: b, To: a, Link: AllLinks}}
}

// lineOf is a node's end of the serial line, "" for none.
func (l *Lab) lineOf(s Side) string {
	if l.line == nil {
		return ""
	}
	return l.line.Device[s]
}
