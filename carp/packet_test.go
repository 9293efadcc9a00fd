package carp

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
)

func addrs(s ...string) (out []netip.Addr) {
	for _, x := range s {
		out = append(out, netip.MustParseAddr(x))
	}
	return out
}

func TestCARPRoundTrip(t *testing.T) {
	k := NewCARPKey(7, []byte("secret"), addrs("192.0.2.10", "2001:db8::10", "192.0.2.9"))
	a := CARPAdvert{VHID: 7, Advbase: 1, Advskew: 100, Demotion: 3, Counter: 0x0123456789abcdef}
	p := a.Append(nil, k)
	if len(p) != CARPSize || p[0] != 0x21 || p[3] != 7 {
		t.Fatalf("% x", p)
	}
	// The code again, written out: version, kind, group, addresses sorted, counter.
	h := hmac.New(sha1.New, []byte("secret"))
	h.Write([]byte{2, 1, 7, 192, 0, 2, 9, 192, 0, 2, 10})
	h.Write(netip.MustParseAddr("2001:db8::10").AsSlice())
	h.Write(p[8:16])
	if !bytes.Equal(p[16:], h.Sum(nil)) {
		t.Error("the code is over something else")
	}
	got, fault := ParseCARP(p, k)
	if fault != FaultNone || got != a {
		t.Errorf("%+v, %v", got, fault)
	}
	same := NewCARPKey(7, []byte("secret"), addrs("192.0.2.9", "192.0.2.10", "2001:db8::10"))
	if _, fault := ParseCARP(p, same); fault != FaultNone {
		t.Errorf("the order of addresses matters: %v", fault)
	}
	for name, bad := range map[string]struct {
		k    *CARPKey
		p    []byte
		want Fault
	}{
		"another password": {NewCARPKey(7, []byte("secreT"), addrs("192.0.2.9", "192.0.2.10", "2001:db8::10")), p, FaultAuth},
		"another address":  {NewCARPKey(7, []byte("secret"), addrs("192.0.2.9", "192.0.2.10")), p, FaultAuth},
		"another group":    {NewCARPKey(8, []byte("secret"), nil), p, FaultID},
		"cut":              {k, p[:35], FaultLength},
		"longer":           {k, append(bytes.Clone(p), 0), FaultLength},
		"damaged":          {k, append(bytes.Clone(p[:35]), p[35]^1), FaultChecksum},
		"version":          {k, append([]byte{0x31}, p[1:]...), FaultVersion},
	} {
		if _, fault := ParseCARP(bad.p, bad.k); fault != bad.want {
			t.Errorf("%s: %v, want %v", name, fault, bad.want)
		}
	}
}

func TestVRRPRoundTrip(t *testing.T) {
	for _, c := range []struct {
		src, dst string
		addrs    []netip.Addr
	}{
		{"10.0.0.1", "224.0.0.18", addrs("192.0.2.10", "192.0.2.11")},
		{"fe80::1", "ff02::12", addrs("fe80::10", "2001:db8::10")},
		{"10.0.0.1", "10.0.0.2", nil},
	} {
		src, dst := netip.MustParseAddr(c.src), netip.MustParseAddr(c.dst)
		a := VRRPAdvert{VRID: 5, Priority: 154, Interval: 10, Addresses: c.addrs}
		p := a.Append(nil, src, dst)
		got, fault := ParseVRRP(p, 5, src, dst)
		if fault != FaultNone || !reflect.DeepEqual(got, a) {
			t.Errorf("%+v, %v", got, fault)
		}
		if _, fault := ParseVRRP(p, 5, src.Next(), dst); fault != FaultChecksum {
			t.Errorf("from another address: %v", fault)
		}
		if _, fault := ParseVRRP(p, 6, src, dst); fault != FaultID {
			t.Errorf("for another group: %v", fault)
		}
		p[3]++
		if _, fault := ParseVRRP(p, 5, src, dst); fault != FaultLength {
			t.Errorf("an address too few: %v", fault)
		}
	}
}

func TestReplay(t *testing.T) {
	var r Replay
	fresh := func(n uint64, want bool) {
		t.Helper()
		if got := r.Fresh(n); got != want {
			t.Errorf("%d: %v, want %v", n, got, want)
		}
	}
	for n := uint64(1000); n < 1010; n++ {
		fresh(n, true)
		fresh(n, false)
	}
	fresh(1020, true) // some were late
	fresh(1015, true)
	fresh(1015, false)
	fresh(1005, false)
	fresh(1100, true)
	fresh(1019, false) // too late
	fresh(1098, true)
	fresh(50, true) // another start
	fresh(51, true)
	fresh(1005, false)
	fresh(1101, true)
	fresh(52, true)
	fresh(^uint64(0), true)
	fresh(^uint64(0), false)
	for i := range uint64(maxRanges / 2) {
		r.Fresh(i << 40)
	}
	fresh(52, false) // was silent for long, yet within what is remembered
	for i := range uint64(10 * maxRanges) {
		r.Fresh(i<<40 + 7)
	}
	if n := len(r.ranges); n > maxRanges {
		t.Errorf("%d ranges are kept", n)
	}
}

// Whatever comes in whatever order, no number is taken twice.
func TestReplayTakesNothingTwice(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		var r Replay
		taken, starts := map[uint64]bool{}, []uint64{0, 100, 1 << 40, ^uint64(0) - 300}
		for range 2000 {
			n := starts[rng.IntN(len(starts))] + rng.Uint64N(300)
			if r.Fresh(n) && taken[n] {
				t.Fatalf("%d was taken twice", n)
			}
			taken[n] = true
		}
	}
}

func FuzzParseCARP(f *testing.F) {
	k := NewCARPKey(7, []byte("secret"), addrs("192.0.2.10"))
	a := CARPAdvert{VHID: 7, Advbase: 1, Advskew: 100, Counter: 1}
	f.Add(a.Append(nil, k))
	f.Add([]byte{0x21})
	f.Fuzz(func(t *testing.T, p []byte) {
		got, fault := ParseCARP(p, k)
		if fault == FaultNone && !bytes.Equal(got.Append(nil, k), p) {
			t.Errorf("% x reads as %+v, which is another packet", p, got)
		}
	})
}

func FuzzParseVRRP(f *testing.F) {
	src, dst := netip.MustParseAddr("10.0.0.1"), Group4
	src6, dst6 := netip.MustParseAddr("fe80::1"), Group6
	a := VRRPAdvert{VRID: 5, Priority: 100, Interval: 100, Addresses: addrs("192.0.2.10")}
	f.Add(a.Append(nil, src, dst), false)
	b := VRRPAdvert{VRID: 5, Priority: 100, Interval: 100, Addresses: addrs("fe80::10")}
	f.Add(b.Append(nil, src6, dst6), true)
	f.Fuzz(func(t *testing.T, p []byte, six bool) {
		from, to := src, dst
		if six {
			from, to = src6, dst6
		}
		got, fault := ParseVRRP(p, 5, from, to)
		if fault != FaultNone {
			return
		}
		again, fault := ParseVRRP(got.Append(nil, from, to), 5, from, to)
		if fault != FaultNone || !reflect.DeepEqual(got, again) {
			t.Errorf("% x reads as %+v and then as %+v, %v", p, got, again, fault)
		}
	})
}
