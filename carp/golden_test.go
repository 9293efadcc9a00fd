package carp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"slices"
	"testing"
)

// captured is a packet of protocol 112 that a real peer sent.
type captured struct {
	src, dst netip.Addr
	ttl      byte
	payload  []byte
}

// readCapture reads a file that test/interop's TestCapture wrote.
func readCapture(t *testing.T, name string) (list []captured) {
	t.Helper()
	b, err := os.ReadFile("testdata/peers/" + name)
	if err != nil {
		t.Fatal(err)
	}
	for b = b[24:]; len(b) > 0; {
		n := binary.LittleEndian.Uint32(b[8:])
		f := b[16+14 : 16+n]
		b = b[16+n:]
		if f[0]>>4 == 4 {
			list = append(list, captured{netip.AddrFrom4([4]byte(f[12:16])), netip.AddrFrom4([4]byte(f[16:20])), f[8], f[20:binary.BigEndian.Uint16(f[2:])]})
			continue
		}
		list = append(list, captured{netip.AddrFrom16([16]byte(f[8:24])), netip.AddrFrom16([16]byte(f[24:40])), f[7], f[40:]})
	}
	return list
}

// ucarp 1.5.2 with vhid 1, password "secret", advbase 2, advskew 7.
func TestPacketsOfUcarp(t *testing.T) {
	k := NewCARPKey(1, []byte("secret"), addrs("10.9.0.100"))
	list := readCapture(t, "ucarp.pcap")
	if len(list) < 4 {
		t.Fatalf("%d packets", len(list))
	}
	var seen Replay
	for i, p := range list {
		a, fault := ParseCARP(p.payload, k)
		if fault != FaultNone {
			t.Fatalf("packet %d is refused: %v", i, fault)
		}
		if a.Advbase != 2 || a.Advskew != 7 || a.VHID != 1 || p.dst != Group4 || p.ttl != TTL {
			t.Errorf("packet %d reads as %+v to %v", i, a, p.dst)
		}
		// It draws each number at random.
		if !seen.Fresh(a.Counter) || seen.Fresh(a.Counter) {
			t.Errorf("packet %d with number %d is not new once", i, a.Counter)
		}
		if again := a.Append(nil, k); !bytes.Equal(again, p.payload) {
			t.Errorf("we would send % x\nucarp sent     % x", again, p.payload)
		}
	}
}

// keepalived 2.2.7 with virtual_router_id 1, priority 200, advert_int 0.2, one
// instance in each family, until it was stopped.
func TestPacketsOfKeepalived(t *testing.T) {
	service := map[bool][]netip.Addr{false: addrs("10.9.0.100"), true: addrs("fd09::100")}
	seen, left := map[bool]int{}, map[bool]bool{}
	for i, p := range readCapture(t, "keepalived.pcap") {
		six := p.src.Is6()
		a, fault := ParseVRRP(p.payload, 1, p.src, p.dst)
		if fault != FaultNone {
			t.Fatalf("packet %d is refused: %v", i, fault)
		}
		if a.Interval != 20 || !slices.Equal(a.Addresses, service[six]) || p.ttl != TTL || p.dst != Group4 && p.dst != Group6 {
			t.Errorf("packet %d reads as %+v to %v", i, a, p.dst)
		}
		seen[six]++
		switch {
		case a.Heard(p.src).Leaving:
			left[six] = true
		case a.Priority != 200:
			t.Errorf("packet %d reads as %+v", i, a)
		}
		if again := a.Append(nil, p.src, p.dst); !bytes.Equal(again, p.payload) {
			t.Errorf("we would send   % x\nkeepalived sent % x", again, p.payload)
		}
	}
	if seen[false] < 10 || seen[true] < 10 || !left[false] || !left[true] {
		t.Errorf("%d packets of IPv4 and %d of IPv6 came, the last ones: %v", seen[false], seen[true], left)
	}
}
