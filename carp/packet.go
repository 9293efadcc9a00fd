package carp

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// IPProtocol is the number under which IP carries both protocols.
const IPProtocol = 112

// TTL is what every packet must arrive with: it has not passed a router.
const TTL = 255

// Groups that packets are sent to unless the peers are named.
var (
	Group4 = netip.AddrFrom4([4]byte{224, 0, 0, 18})
	Group6 = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 0x12})
)

// Fault says what is wrong with a packet.
type Fault uint8

const (
	FaultNone     Fault = iota
	FaultLength         // too short or too long
	FaultVersion        // another version or kind
	FaultChecksum       // damaged on the way
	FaultID             // of another group on the same network
	FaultAuth           // made with another password or for other addresses
	FaultReplay         // seen before
	FaultTTL            // passed a router
	FaultContent        // a field that cannot be
	faults
)

// Faults is how many kinds there are.
const Faults = int(faults)

var faultNames = [...]string{"none", "length", "version", "checksum", "id", "auth", "replay", "ttl", "content"}

func (f Fault) String() string { return faultNames[f] }

// sortAddresses orders addresses as CARP signs them: IPv4 first, each family by
// value.
func sortAddresses(a []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, len(a))
	for i, x := range a {
		out[i] = x.Unmap().WithZone("")
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// sum adds to an internet checksum (RFC 1071) that is not folded yet.
func sum(s uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

// fold ends a checksum. Over bytes that include a right one it is 0.
func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// pseudoHeader sums what IP says of a packet (RFC 9568, 5.2.8).
func pseudoHeader(src, dst netip.Addr, n int) uint32 {
	s := sum(0, src.AsSlice())
	s = sum(s, dst.AsSlice())
	return s + uint32(n) + IPProtocol
}
