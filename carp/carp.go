package carp

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"hash"
	"net/netip"
)

// CARPSize is the length of a CARP packet behind the IP header, in bytes.
const CARPSize = 36

// Offsets of its fields. The first byte has version and kind, the fourth the length
// of counter and code in words of four bytes.
const (
	carpVHID     = 1
	carpAdvskew  = 2
	carpWords    = 3
	carpDemotion = 4
	carpAdvbase  = 5
	carpChecksum = 6
	carpCounter  = 8
	carpCode     = 16

	carpFirst = 2<<4 | 1 // version 2, advertisement
	carpSeven = 7
)

// CARPAdvert is what a master says of itself.
type CARPAdvert struct {
	VHID     uint8
	Advbase  uint8 // seconds between two
	Advskew  uint8 // and 256ths of a second
	Demotion uint8 // as OpenBSD sends it, for people; others send 0
	Counter  uint64
}

// CARPKey signs for one group: with its password, over its number and addresses. It
// serves one goroutine.
type CARPKey struct {
	vhid   uint8
	hash   hash.Hash
	signed []byte // what comes before the counter
	result [sha1.Size]byte
}

// maxPassword is what the BSDs take of a password, in bytes.
const maxPassword = 20

// NewCARPKey makes the key of a group. The addresses are those of the service, in
// any order, without their prefix lengths.
func NewCARPKey(vhid uint8, password []byte, addresses []netip.Addr) *CARPKey {
	k := &CARPKey{vhid: vhid, signed: []byte{2, 1, vhid}}
	k.hash = hmac.New(sha1.New, password[:min(len(password), maxPassword)])
	for _, a := range sortAddresses(addresses) {
		k.signed = append(k.signed, a.AsSlice()...)
	}
	return k
}

// code is the HMAC of a packet with this counter; valid until the next one.
func (k *CARPKey) code(counter []byte) []byte {
	k.hash.Reset()
	k.hash.Write(k.signed)
	k.hash.Write(counter)
	return k.hash.Sum(k.result[:0])
}

// Append makes the packet.
func (a *CARPAdvert) Append(b []byte, k *CARPKey) []byte {
	at := len(b)
	b = append(b, make([]byte, CARPSize)...)
	p := b[at:]
	p[0], p[carpVHID], p[carpAdvskew], p[carpWords] = carpFirst, k.vhid, a.Advskew, carpSeven
	p[carpDemotion], p[carpAdvbase] = a.Demotion, a.Advbase
	binary.BigEndian.PutUint64(p[carpCounter:], a.Counter)
	copy(p[carpCode:], k.code(p[carpCounter:carpCode]))
	binary.BigEndian.PutUint16(p[carpChecksum:], fold(sum(0, p)))
	return b
}

// ParseCARP reads a packet and checks everything but the counter. What is cheap to
// check comes first: a flood of rubbish costs little.
func ParseCARP(p []byte, k *CARPKey) (CARPAdvert, Fault) {
	switch {
	case len(p) != CARPSize:
		return CARPAdvert{}, FaultLength
	case p[0] != carpFirst || p[carpWords] != carpSeven:
		return CARPAdvert{}, FaultVersion
	case p[carpVHID] != k.vhid:
		return CARPAdvert{}, FaultID
	case fold(sum(0, p)) != 0:
		return CARPAdvert{}, FaultChecksum
	case !hmac.Equal(p[carpCode:], k.code(p[carpCounter:carpCode])):
		return CARPAdvert{}, FaultAuth
	}
	return CARPAdvert{
		VHID: p[carpVHID], Advbase: p[carpAdvbase], Advskew: p[carpAdvskew], Demotion: p[carpDemotion],
		Counter: binary.BigEndian.Uint64(p[carpCounter:]),
	}, FaultNone
}

// Heard is the packet in the terms of an election.
func (a *CARPAdvert) Heard(from netip.Addr) Advert {
	return Advert{From: from, Every: CARPEvery(a.Advbase, a.Advskew), Leaving: a.Advbase == carpLeaving && a.Advskew == carpLeaving}
}

// CARPPacket is what says an advert on the wire.
func CARPPacket(a *Advert, vhid uint8, counter uint64) CARPAdvert {
	whole := a.Every / Second
	return CARPAdvert{VHID: vhid, Advbase: uint8(whole), Advskew: uint8((a.Every - whole*Second) * 256 / Second), Counter: counter}
}
