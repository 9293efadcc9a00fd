package main

import (
	"bytes"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// isNode says whether an interface with this hardware address is another node's,
// as far as the kernel has learned it from their traffic.
func (s *server) isNode(mac net.HardwareAddr) bool {
	list, err := netlink.NeighList(0, netlink.FAMILY_ALL)
	if err != nil {
		return false
	}
	for _, n := range list {
		if !bytes.Equal(n.HardwareAddr, mac) {
			continue
		}
		ip, _ := netip.AddrFromSlice(n.IP)
		for _, node := range s.o.conf.Nodes {
			if node.Name != s.Node() && slices.Contains(node.Addresses, ip.Unmap()) {
				return true
			}
		}
	}
	return false
}
