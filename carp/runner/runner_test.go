package runner

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"hastd/carp"
)

var (
	one   = netip.MustParseAddr("10.0.0.1")
	local = netip.MustParseAddr("fe80::1")
	key   = carp.NewCARPKey(7, []byte("secret"), []netip.Addr{netip.MustParseAddr("10.0.0.100")})
)

// ip4 puts a payload behind a header of so many bytes.
func ip4(head int, payload []byte) []byte {
	b := make([]byte, head, head+len(payload))
	b[0], b[8], b[9] = 4<<4|byte(head/4), carp.TTL, carp.IPProtocol
	binary.BigEndian.PutUint16(b[2:], uint16(head+len(payload)))
	copy(b[12:], one.AsSlice())
	copy(b[16:], carp.Group4.AsSlice())
	return append(b, payload...)
}

func TestFilterPassesItsGroupAlone(t *testing.T) {
	for _, six := range []bool{false, true} {
		vm, err := bpf.NewVM(filter(six, 7))
		if err != nil {
			t.Fatal(err)
		}
		for id := range 256 {
			payload := []byte{0x31, byte(id), 7, 7, 7, 7, 7, 7}
			packets := [][]byte{payload}
			if !six {
				packets = [][]byte{ip4(20, payload), ip4(24, payload), ip4(60, payload)}
			}
			for _, p := range packets {
				n, err := vm.Run(p)
				if err != nil || (n >= len(p)) != (id == 7) {
					t.Errorf("%d bytes for group %d: %d pass, %v", len(p), id, n, err)
				}
			}
		}
		if n, _ := vm.Run([]byte{0x45}); n != 0 {
			t.Error("a packet without a group passes")
		}
	}
}

func TestPacket4(t *testing.T) {
	good := ip4(24, []byte("payload"))
	p, ok := packet4(append(good, "padding"...))
	if !ok || p.from != one || p.to != carp.Group4 || p.ttl != carp.TTL || string(p.payload) != "payload" {
		t.Errorf("%+v, %v", p, ok)
	}
	for n := range good {
		if _, ok := packet4(good[:n]); ok {
			t.Errorf("cut to %d bytes it is read", n)
		}
	}
}

// control makes what the kernel says beside an IPv6 packet.
func control(kind int, data []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(len(data))))
	binary.NativeEndian.PutUint32(b[8:], unix.IPPROTO_IPV6)
	binary.NativeEndian.PutUint32(b[12:], uint32(kind))
	copy(b[unix.CmsgLen(0):], data)
	return b
}

func TestPacket6(t *testing.T) {
	to := control(unix.IPV6_PKTINFO, append(carp.Group6.AsSlice(), 0, 0, 0, 1))
	ttl := control(unix.IPV6_HOPLIMIT, binary.NativeEndian.AppendUint32(nil, carp.TTL))
	p, ok := packet6([]byte("payload"), append(to, ttl...), local)
	if !ok || p.from != local || p.to != carp.Group6 || p.ttl != carp.TTL || string(p.payload) != "payload" {
		t.Errorf("%+v, %v", p, ok)
	}
	if _, ok := packet6([]byte("payload"), ttl, local); ok {
		t.Error("a packet to nowhere is read")
	}
	if p, ok := packet6([]byte("payload"), to, local); !ok || p.ttl != 0 {
		t.Error("a hop limit that was not told counts as good")
	}
}

func FuzzPackets(f *testing.F) {
	a := carp.CARPAdvert{VHID: 7, Advbase: 1, Counter: 1}
	f.Add(ip4(20, a.Append(nil, key)), []byte{})
	f.Add([]byte("payload"), append(control(unix.IPV6_PKTINFO, append(carp.Group6.AsSlice(), 0, 0, 0, 1)), control(unix.IPV6_HOPLIMIT, []byte{255, 0, 0, 0})...))
	f.Fuzz(func(t *testing.T, b, oob []byte) {
		if p, ok := packet4(b); ok {
			carp.ParseCARP(p.payload, key)
			carp.ParseVRRP(p.payload, 7, p.from, p.to)
		}
		if p, ok := packet6(b, oob, local); ok {
			carp.ParseVRRP(p.payload, 7, p.from, p.to)
		}
	})
}

// A flood is no reason to allocate.
func TestRefusingAllocatesNothing(t *testing.T) {
	forged := carp.CARPAdvert{VHID: 7, Advbase: 1, Counter: 1}
	frame := ip4(20, forged.Append(nil, carp.NewCARPKey(7, []byte("Secret"), nil)))
	r := New(Options{Protocol: CARP, ID: 7, Password: []byte("secret")})
	k := r.newKey()
	n := testing.AllocsPerRun(1000, func() {
		p, _ := packet4(frame)
		if _, _, fault := r.parse(&p, k); fault != carp.FaultAuth {
			t.Fatal(fault)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for each forged packet", n)
	}
}

// A master whose runner is late by the time after which another one takes over is
// none.
func TestLateMasterIsNotRightful(t *testing.T) {
	r := New(Options{Protocol: VRRP, Election: carp.Config{Priority: 255, Interval: carp.Second}, Changed: func(_, _ carp.State, _ string) {}})
	for _, ev := range []carp.Event{{Kind: carp.EvStanding, Fit: true}, {Kind: carp.EvStart}, {Kind: carp.EvLink, Up: true, Self: one}} {
		r.step(ev)
	}
	if r.State() != carp.Master || !r.Rightful() {
		t.Fatalf("%v, rightful: %v", r.State(), r.Rightful())
	}
	in := time.Duration(r.until.Load()) - boot()
	if in < 2500*time.Millisecond || in > 3100*time.Millisecond { // three intervals from the last packet, and 1/256 of one
		t.Errorf("it is rightful for %v more", in)
	}
	r.until.Store(int64(boot()))
	if r.Rightful() {
		t.Error("a late master is rightful")
	}
	r.step(carp.Event{Kind: carp.EvStop})
	if r.Rightful() {
		t.Error("a stopped one is rightful")
	}
}

// Who writes and reads what the sightings keep: one number is good once, a copy on
// the next interface is none, an echo is a replay.
func TestSightings(t *testing.T) {
	var s sightings
	other := one.Next()
	for _, x := range []struct {
		from netip.Addr
		n    uint64
		on   string
		want seen
	}{
		{one, 5, "eth0", seenNew}, {one, 5, "eth1", seenElsewhere}, {one, 5, "eth0", seenBefore},
		{other, 5, "eth1", seenBefore}, {one, 6, "eth1", seenNew}, {one, 5, "eth1", seenBefore},
	} {
		if got := s.see(x.from, x.n, x.on); got != x.want {
			t.Errorf("%d from %v on %s: %v, want %v", x.n, x.from, x.on, got, x.want)
		}
	}
	s.sent(9)
	if s.see(other, 9, "eth0") != seenBefore {
		t.Error("an own packet's echo is believed")
	}
	a := one
	for n := range uint64(1000) {
		a = a.Next()
		s.see(a, n<<40, "eth0")
	}
	if len(s.last) > maxSenders {
		t.Errorf("%d senders are kept", len(s.last))
	}
}

// An appointed master is rightful until its appointment ends, whether its runner is on
// time or not, and no longer than any master if it has no end.
func TestAppointedIsRightfulToTheEnd(t *testing.T) {
	for _, s := range []struct{ until, most time.Duration }{
		{time.Minute, 3100 * time.Millisecond}, {time.Second, time.Second}, {0, 3100 * time.Millisecond},
	} {
		var states []carp.State
		r := New(Options{Protocol: VRRP, Election: carp.Config{Priority: 255, Interval: carp.Second, Appointed: true},
			Changed: func(_, to carp.State, _ string) { states = append(states, to) }})
		for _, ev := range []carp.Event{{Kind: carp.EvStanding, Fit: true}, {Kind: carp.EvStart}, {Kind: carp.EvLink, Up: true, Self: one}, {Kind: carp.EvTake}} {
			r.step(ev)
		}
		if r.State() != carp.Backup || r.Rightful() {
			t.Fatalf("%v before it is appointed, rightful: %v", r.State(), r.Rightful())
		}
		now := boot()
		ev := carp.Event{Kind: carp.EvAppoint, Up: true}
		if s.until != 0 {
			ev.Until = carp.Instant(now + s.until)
		}
		r.step(ev)
		if r.State() != carp.Master || !r.Rightful() {
			t.Fatalf("appointed: %v, rightful: %v", r.State(), r.Rightful())
		}
		if in := time.Duration(r.until.Load()) - now; in < s.most-600*time.Millisecond || in > s.most {
			t.Errorf("appointed for %v it is rightful for %v, want %v", s.until, in, s.most)
		}
		r.step(carp.Event{Kind: carp.EvAppoint, Reason: "not the owner"})
		if r.State() != carp.Backup || r.Rightful() || len(states) != 3 {
			t.Errorf("dismissed: %v, rightful: %v, after %v", r.State(), r.Rightful(), states)
		}
	}
}
