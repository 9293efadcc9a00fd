package carp

import (
	"encoding/binary"
	"net/netip"
)

// VRRPAdvert is what an active router says of itself (RFC 9568, section 5).
type VRRPAdvert struct {
	VRID      uint8
	Priority  uint8
	Interval  uint16 // hundredths of a second between two, 12 bits
	Addresses []netip.Addr
}

const (
	vrrpHead     = 8
	vrrpFirst    = 3<<4 | 1 // version 3, advertisement
	vrrpChecksum = 6

	// MaxInterval is the longest interval that the packet can say, in hundredths
	// of a second.
	MaxInterval = 1<<12 - 1
	// maxAddresses is how many the count can say.
	maxAddresses = 255
)

// VRRPMaxSize is the longest packet behind the IP header, in bytes.
const VRRPMaxSize = vrrpHead + maxAddresses*16

// Append makes the packet. All addresses are of the family of src and dst.
func (a *VRRPAdvert) Append(b []byte, src, dst netip.Addr) []byte {
	at := len(b)
	b = append(b, vrrpFirst, a.VRID, a.Priority, uint8(len(a.Addresses)))
	b = binary.BigEndian.AppendUint16(b, a.Interval&MaxInterval)
	b = append(b, 0, 0)
	for _, x := range a.Addresses {
		b = append(b, x.AsSlice()...)
	}
	p := b[at:]
	binary.BigEndian.PutUint16(p[vrrpChecksum:], fold(sum(pseudoHeader(src, dst, len(p)), p)))
	return b
}

// ParseVRRP reads a packet that came from src to dst.
func ParseVRRP(p []byte, vrid uint8, src, dst netip.Addr) (VRRPAdvert, Fault) {
	size := 4
	if src.Is6() {
		size = 16
	}
	switch {
	case len(p) < vrrpHead || len(p) > VRRPMaxSize:
		return VRRPAdvert{}, FaultLength
	case p[0] != vrrpFirst:
		return VRRPAdvert{}, FaultVersion
	case p[1] != vrid:
		return VRRPAdvert{}, FaultID
	case len(p) != vrrpHead+int(p[3])*size:
		return VRRPAdvert{}, FaultLength
	case src.Is6() != dst.Is6():
		return VRRPAdvert{}, FaultContent
	case fold(sum(pseudoHeader(src, dst, len(p)), p)) != 0:
		return VRRPAdvert{}, FaultChecksum
	}
	a := VRRPAdvert{VRID: p[1], Priority: p[2], Interval: binary.BigEndian.Uint16(p[4:]) & MaxInterval}
	if a.Interval == 0 {
		return VRRPAdvert{}, FaultContent
	}
	for b := p[vrrpHead:]; len(b) > 0; b = b[size:] {
		x, _ := netip.AddrFromSlice(b[:size])
		a.Addresses = append(a.Addresses, x)
	}
	return a, FaultNone
}

// hundredth is the unit of Interval.
const hundredth = 10 * Millisecond

// Heard is the packet in the terms of an election.
func (a *VRRPAdvert) Heard(from netip.Addr) Advert {
	return Advert{From: from, Every: Duration(a.Interval) * hundredth, Priority: a.Priority, Leaving: a.Priority == 0}
}

// VRRPPacket is what says an advert on the wire.
func VRRPPacket(a *Advert, vrid uint8, addresses []netip.Addr) VRRPAdvert {
	return VRRPAdvert{VRID: vrid, Priority: a.Priority, Interval: uint16(a.Every / hundredth), Addresses: addresses}
}
