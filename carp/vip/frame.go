package vip

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Frames of ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861), made and
// read by hand: a few fixed fields each.

const (
	etherARP  = 0x0806
	etherIPv6 = 0x86dd

	arpRequest = 1
	arpReply   = 2
	arpSize    = 28

	icmpSolicit   = 135
	icmpAdvertise = 136
	nextICMP      = 58
	ipv6Head      = 40
	hopLimit      = 255 // neighbour discovery is believed with no other

	optSource = 1
	optTarget = 2

	flagOverride = 1 << 29
)

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// allNodes is ff02::1.
var allNodes = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 1})

// arp is an ARP packet for IPv4 over Ethernet.
type arp struct {
	op       uint16
	sender   net.HardwareAddr
	senderIP netip.Addr
	target   net.HardwareAddr
	targetIP netip.Addr
}

func (a *arp) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, 1) // Ethernet
	b = binary.BigEndian.AppendUint16(b, 0x0800)
	b = append(b, 6, 4)
	b = binary.BigEndian.AppendUint16(b, a.op)
	b = append(b, a.sender...)
	b = append(b, a.senderIP.AsSlice()...)
	b = append(b, a.target...)
	return append(b, a.targetIP.AsSlice()...)
}

func parseARP(b []byte) (arp, bool) {
	if len(b) < arpSize || binary.BigEndian.Uint16(b) != 1 || binary.BigEndian.Uint16(b[2:]) != 0x0800 || b[4] != 6 || b[5] != 4 {
		return arp{}, false
	}
	return arp{
		op:     binary.BigEndian.Uint16(b[6:]),
		sender: net.HardwareAddr(b[8:14]), senderIP: netip.AddrFrom4([4]byte(b[14:18])),
		target: net.HardwareAddr(b[18:24]), targetIP: netip.AddrFrom4([4]byte(b[24:28])),
	}, true
}

// gratuitous tells everybody where an IPv4 address is. Some believe requests only,
// some replies only.
func gratuitous(op uint16, mac net.HardwareAddr, ip netip.Addr) []byte {
	a := arp{op: op, sender: mac, senderIP: ip, target: broadcast, targetIP: ip}
	if op == arpRequest {
		a.target = make(net.HardwareAddr, 6)
	}
	return a.append(nil)
}

// question asks who has an IPv4 address, without saying that we have it.
func question(mac net.HardwareAddr, ip netip.Addr) []byte {
	a := arp{op: arpRequest, sender: mac, senderIP: netip.IPv4Unspecified(), target: make(net.HardwareAddr, 6), targetIP: ip}
	return a.append(nil)
}

// icmp6 makes an IPv6 packet of neighbour discovery.
func icmp6(src, dst netip.Addr, body []byte) []byte {
	b := make([]byte, ipv6Head, ipv6Head+len(body))
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
	b[6], b[7] = nextICMP, hopLimit
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	b = append(b, body...)
	binary.BigEndian.PutUint16(b[ipv6Head+2:], checksum(src, dst, b[ipv6Head:]))
	return b
}

func checksum(src, dst netip.Addr, p []byte) uint16 {
	s := uint32(len(p)) + nextICMP
	add := func(b []byte) {
		for ; len(b) >= 2; b = b[2:] {
			s += uint32(binary.BigEndian.Uint16(b))
		}
	}
	add(src.AsSlice())
	add(dst.AsSlice())
	add(p)
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// unsolicited tells all nodes where an IPv6 address is (RFC 4861, 7.2.6).
func unsolicited(mac net.HardwareAddr, ip netip.Addr) []byte {
	body := make([]byte, 8, 32)
	body[0] = icmpAdvertise
	binary.BigEndian.PutUint32(body[4:], flagOverride)
	body = append(body, ip.AsSlice()...)
	body = append(body, optTarget, 1)
	body = append(body, mac...)
	return icmp6(ip, allNodes, body)
}

// solicited is the group in which who has an address listens.
func solicited(ip netip.Addr) netip.Addr {
	a := ip.As16()
	return netip.AddrFrom16([16]byte{0xff, 0x02, 11: 1, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]})
}

// question6 asks who has an IPv6 address, as its duplicate detection does (RFC 4862,
// 5.4.2): from nobody.
func question6(ip netip.Addr) (frame []byte, to net.HardwareAddr) {
	body := make([]byte, 8, 24)
	body[0] = icmpSolicit
	body = append(body, ip.AsSlice()...)
	group := solicited(ip)
	g := group.As16()
	return icmp6(netip.IPv6Unspecified(), group, body), net.HardwareAddr{0x33, 0x33, g[12], g[13], g[14], g[15]}
}

// parseAdvertisement reads who says that it has an IPv6 address, or also looks
// whether it may have it.
func parseAdvertisement(b []byte) (ip netip.Addr, ok bool) {
	if len(b) < ipv6Head+24 || b[0]>>4 != 6 || b[6] != nextICMP || b[7] != hopLimit || b[ipv6Head] != icmpAdvertise {
		return netip.Addr{}, false
	}
	src, dst := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	n := int(binary.BigEndian.Uint16(b[4:]))
	if n < 24 || ipv6Head+n > len(b) || n%2 != 0 || checksum(src, dst, b[ipv6Head:ipv6Head+n]) != 0 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte(b[ipv6Head+8 : ipv6Head+24])), true
}

var allNodesMAC = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
