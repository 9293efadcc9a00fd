package vip

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
)

var (
	mac  = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	ip4  = netip.MustParseAddr("192.0.2.10")
	ip6  = netip.MustParseAddr("2001:db8::10")
	away = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

func TestClaims(t *testing.T) {
	probe6, _ := question6(ip6)
	reply := arp{op: arpReply, sender: away, senderIP: ip4, target: mac, targetIP: netip.IPv4Unspecified()}
	for name, c := range map[string]struct {
		payload []byte
		six     bool
		ip      netip.Addr // invalid: says nothing
	}{
		"gratuitous request": {gratuitous(arpRequest, away, ip4), false, ip4},
		"gratuitous reply":   {gratuitous(arpReply, away, ip4), false, ip4},
		"answer":             {reply.append(nil), false, ip4},
		"another's probe":    {question(away, ip4), false, netip.Addr{}},
		"advertisement":      {unsolicited(away, ip6), true, ip6},
		"solicitation":       {probe6, true, netip.Addr{}},
		"nothing":            {nil, true, netip.Addr{}},
	} {
		kind := etherARP
		if c.six {
			kind = etherIPv6
		}
		frame := ethernet(c.payload, away, broadcast, kind)
		ip, from, ok := claim(frame, c.six)
		if ok != c.ip.IsValid() || ok && (ip != c.ip || !bytes.Equal(from, away)) {
			t.Errorf("%s: %v at %v, %v", name, ip, from, ok)
		}
		for n := range frame[:max(0, len(frame)-1)] {
			if _, _, ok := claim(frame[:n], c.six); ok {
				t.Errorf("%s: cut to %d bytes it is believed", name, n)
			}
		}
	}
	bad := unsolicited(away, ip6)
	bad[len(bad)-1] ^= 1
	if _, ok := parseAdvertisement(bad); ok {
		t.Error("a damaged advertisement is believed")
	}
	far := unsolicited(away, ip6)
	far[7] = 254
	if _, ok := parseAdvertisement(far); ok {
		t.Error("an advertisement that passed a router is believed")
	}
}

func TestQuestion6GoesToTheSolicitedGroup(t *testing.T) {
	frame, to := question6(netip.MustParseAddr("2001:db8::12:3456"))
	if to.String() != "33:33:ff:12:34:56" || netip.AddrFrom16([16]byte(frame[24:40])) != netip.MustParseAddr("ff02::1:ff12:3456") {
		t.Errorf("%v: % x", to, frame)
	}
}

func FuzzClaim(f *testing.F) {
	f.Add(ethernet(gratuitous(arpRequest, away, ip4), away, broadcast, etherARP), false)
	f.Add(ethernet(unsolicited(away, ip6), away, broadcast, etherIPv6), true)
	f.Fuzz(func(t *testing.T, frame []byte, six bool) {
		ip, mac, ok := claim(frame, six)
		if ok && (ip.Is6() != six || len(mac) != 6) {
			t.Errorf("%v at %v", ip, mac)
		}
	})
}
