package interop

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"hastd/carp"
)

// inside runs f in the host's namespace; sockets opened there stay there.
func (h *host) inside(f func() error) error {
	done := make(chan error)
	go func() {
		// Not unlocked: a thread that cannot go back is thrown away.
		runtime.LockOSThread()
		back, err := netns.Get()
		if err != nil {
			done <- err
			return
		}
		defer back.Close()
		ns, err := netns.GetFromPid(h.hold.Process.Pid)
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		if err = netns.Set(ns); err == nil {
			err = f()
			if netns.Set(back) == nil {
				runtime.UnlockOSThread()
			}
		}
		done <- err
	}()
	return <-done
}

// wire is a socket for whole frames on a host's eth0.
type wire struct {
	t     *testing.T
	h     *host
	fd    int
	index int
	mac   net.HardwareAddr
}

func (h *host) wire(t *testing.T) *wire {
	t.Helper()
	w := &wire{t: t, h: h, mac: h.mac("eth0")}
	link, err := h.nl.LinkByName("eth0")
	must(t, err)
	w.index = link.Attrs().Index
	must(t, h.inside(func() (err error) {
		const everything = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // network order
		if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
		return unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: w.index})
	}))
	t.Cleanup(func() { unix.Close(w.fd) })
	return w
}

// frame puts a packet of protocol 112 into IP and Ethernet.
func (w *wire) frame(src, dst netip.Addr, ttl uint8, payload []byte) []byte {
	to := net.HardwareAddr{0x01, 0x00, 0x5e, 0x00, 0x00, 0x12}
	if dst.Is6() {
		to = net.HardwareAddr{0x33, 0x33, 0x00, 0x00, 0x00, 0x12}
	}
	b := append(slices.Clone(to), w.mac...)
	if dst.Is6() {
		b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, byte(len(payload)>>8), byte(len(payload)), carp.IPProtocol, ttl)
		b = append(b, src.AsSlice()...)
		b = append(b, dst.AsSlice()...)
		return append(b, payload...)
	}
	b = append(b, 0x08, 0x00)
	ip := []byte{0x45, 0, 0, byte(20 + len(payload)), 0, 0, 0, 0, ttl, carp.IPProtocol, 0, 0}
	ip = append(ip, src.AsSlice()...)
	ip = append(ip, dst.AsSlice()...)
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	return append(append(b, ip...), payload...)
}

func (w *wire) send(frame []byte) error {
	err := unix.Sendto(w.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: w.index, Halen: 6})
	if errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EAGAIN) {
		return nil
	}
	return err
}

// flood sends frames in turn at a rate, as well as the machine can, and counts.
func (w *wire) flood(d time.Duration, rate int, frames ...[]byte) (sent int) {
	began := time.Now()
	for time.Since(began) < d {
		due := int(time.Since(began).Seconds() * float64(rate))
		for ; sent < due; sent++ {
			if err := w.send(frames[sent%len(frames)]); err != nil {
				w.t.Error(err)
				return sent
			}
			if sent%64 == 0 && time.Since(began) > d {
				return sent
			}
		}
		time.Sleep(time.Millisecond)
	}
	return sent
}

// capture gives the frames of protocol 112 from an IPv4 address, so many of them.
func (w *wire) capture(from netip.Addr, n int) (frames [][]byte) {
	w.t.Helper()
	tv := unix.NsecToTimeval(int64(100 * time.Millisecond))
	must(w.t, unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
	buf := make([]byte, 2048)
	eventually(w.t, 20*time.Second, "packets to capture", func() bool {
		size, _, err := unix.Recvfrom(w.fd, buf, 0)
		if err == nil && size >= 34 && buf[12] == 0x08 && buf[13] == 0 && buf[23] == carp.IPProtocol && netip.AddrFrom4([4]byte(buf[26:30])) == from {
			frames = append(frames, slices.Clone(buf[:size]))
		}
		return len(frames) >= n
	})
	return frames
}

var (
	hostA   = netip.MustParseAddr("10.9.0.1")
	hostC   = netip.MustParseAddr("10.9.0.3")
	serve4  = netip.MustParseAddr(service4)
	serve6  = netip.MustParseAddr(service6)
	goodKey = carp.NewCARPKey(1, []byte("secret"), []netip.Addr{serve4})
	badKey  = carp.NewCARPKey(1, []byte("Secret"), []netip.Addr{serve4})
)

// carpPair is a master on host a, a backup on b that has heard it, and a third host.
func carpPair(t *testing.T) (l *lan, p, q *process) {
	t.Helper()
	l = newLAN(t, 3, 1)
	p = l.hosts[0].carp(t)
	eventually(t, 15*time.Second, "MASTER", func() bool { return p.state() == "MASTER" && l.hosts[0].has(service4) })
	q = l.hosts[1].carp(t, "-advskew", "50")
	eventually(t, 15*time.Second, "BACKUP", func() bool { return q.state() == "BACKUP" && q.stats().Received > 0 })
	return l, p, q
}

// refusals are the elector's log lines about refused packets.
func refusals(p *process) int { return strings.Count(p.output(), "an advert was refused") }

// A better master that is none: another password, another TTL, another length. It is
// counted, said once, and nothing moves.
func TestForgedAdvertsAreRefused(t *testing.T) {
	needNet(t)
	t.Parallel()
	l, p, q := carpPair(t)
	w := l.hosts[2].wire(t)
	better := carp.CARPAdvert{VHID: 1, Advbase: 0, Advskew: 1}
	next := func(k *carp.CARPKey) []byte {
		better.Counter++
		return better.Append(nil, k)
	}
	const each = 50
	for range each {
		for _, f := range [][]byte{
			w.frame(hostC, carp.Group4, carp.TTL, next(badKey)),
			w.frame(hostC, carp.Group4, carp.TTL-1, next(goodKey)),
			w.frame(hostC, carp.Group4, carp.TTL, next(goodKey)[:20]),
		} {
			must(t, w.send(f))
		}
		time.Sleep(10 * time.Millisecond)
	}
	holds(t, 4*time.Second, "nothing moves", func() bool { return p.state() == "MASTER" && q.state() == "BACKUP" })
	for _, x := range []*process{p, q} {
		s := x.stats()
		if s.Refused[carp.FaultAuth] != each || s.Refused[carp.FaultTTL] != each || s.Refused[carp.FaultLength] != each {
			t.Errorf("%s refused %v", x.host.name, s.Refused)
		}
		if n := refusals(x); n != 1 {
			t.Errorf("%s said so %d times", x.host.name, n)
		}
	}
	// The same with the right password moves both: the forgery was good but for that.
	must(t, w.send(w.frame(hostC, carp.Group4, carp.TTL, next(goodKey))))
	eventually(t, time.Second, "a better master is believed", func() bool { return p.state() == "BACKUP" })
}

// Recorded packets move nothing, whoever seems to send them: an old master's against
// the new one, and a master's own against itself.
func TestReplayedAdvertsAreRefused(t *testing.T) {
	needNet(t)
	t.Parallel()
	l, p, q := carpPair(t)
	w := l.hosts[2].wire(t)
	recorded := w.capture(hostA, 3)
	again := func() {
		for _, f := range recorded {
			must(t, w.send(f))
			must(t, w.send(w.frame(hostC, carp.Group4, carp.TTL, f[34:70])))
		}
	}
	again()
	holds(t, time.Second, "a master believes no echo of itself", func() bool { return p.state() == "MASTER" })
	// From its own address the packet is dropped before it is looked at.
	if s := p.stats(); s.Refused[carp.FaultReplay] < 3 {
		t.Errorf("the master refused %v", s.Refused)
	}
	p.terminate()
	eventually(t, 5*time.Second, "the backup takes over", func() bool { return q.state() == "MASTER" })
	before := q.stats().Refused[carp.FaultReplay]
	again()
	holds(t, time.Second, "the new master believes no old packet", func() bool { return q.state() == "MASTER" })
	if n := q.stats().Refused[carp.FaultReplay] - before; n != 6 {
		t.Errorf("%d replays were counted, want 6", n)
	}
	if n := refusals(q); n != 1 {
		t.Errorf("said so %d times", n)
	}
}

// A forged VRRP packet of the highest priority wins: VRRP has no password. It is
// reported as what it says it is.
func TestForgedPriority(t *testing.T) {
	needNet(t)
	t.Parallel()
	l := newLAN(t, 3, 1)
	p := master(t, l.hosts[0])
	w := l.hosts[2].wire(t)
	a := carp.VRRPAdvert{VRID: 1, Priority: 255, Interval: 20, Addresses: []netip.Addr{serve4}}
	must(t, w.send(w.frame(hostC, carp.Group4, carp.TTL, a.Append(nil, hostC, carp.Group4))))
	eventually(t, 5*time.Second, "it is reported", func() bool {
		return p.count(func(e *event) bool { return e.To == "BACKUP" && e.Reason == "a better master advertises: 10.9.0.3" }) == 1
	})
	eventually(t, 5*time.Second, "the addresses go", func() bool { return !l.hosts[0].has(service4) && !l.hosts[0].has(service6) })
}

// perPacket is the processor time that a refused packet may cost: half a processor
// at a hundred thousand a second.
const perPacket = 5 * time.Microsecond

// flooded has a pair stand a flood, and looks at what it costs.
func flooded(t *testing.T, p, q *process, w *wire, frames ...[]byte) {
	t.Helper()
	const rate, d = 100_000, 3 * time.Second
	type cost struct {
		cpu     time.Duration
		refused uint64
	}
	look := func(x *process) (c cost) {
		for _, n := range x.stats().Refused {
			c.refused += n
		}
		c.cpu = x.processor()
		return c
	}
	wasP, wasQ := look(p), look(q)
	done := make(chan int)
	go func() { done <- w.flood(d, rate, frames...) }()
	holds(t, d, "nothing moves under the flood", func() bool { return p.state() == "MASTER" && q.state() == "BACKUP" })
	sent := <-done
	t.Logf("%d packets a second were sent", sent/int(d/time.Second))
	for i, x := range []*process{p, q} {
		was := []cost{wasP, wasQ}[i]
		now := look(x)
		n := now.refused - was.refused
		if n < uint64(sent)/4 {
			t.Errorf("%s looked at %d of %d packets", x.host.name, n, sent)
			continue
		}
		each := (now.cpu - was.cpu) / time.Duration(n)
		t.Logf("%s: %d refused, %v of processor time, %v each: %.0f %% of a processor at %d a second",
			x.name, n, now.cpu-was.cpu, each, 100*each.Seconds()*rate, rate)
		if each > perPacket && !raced() {
			t.Errorf("%s: a forged packet costs %v, want %v at most", x.host.name, each, perPacket)
		}
		if n := refusals(x); n > 1 {
			t.Errorf("%s said so %d times", x.host.name, n)
		}
	}
}

func TestFloodOfWrongCodes(t *testing.T) {
	needNet(t)
	l, p, q := carpPair(t)
	w := l.hosts[2].wire(t)
	var frames [][]byte
	for i := range 256 {
		better := carp.CARPAdvert{VHID: 1, Advskew: 1, Counter: uint64(i)}
		frames = append(frames, w.frame(hostC, carp.Group4, carp.TTL, better.Append(nil, badKey)))
	}
	flooded(t, p, q, w, frames...)
	if s := p.stats(); s.Refused[carp.FaultAuth] == 0 {
		t.Errorf("refused %v", s.Refused)
	}
}

func TestFloodOfVRRP(t *testing.T) {
	needNet(t)
	l := newLAN(t, 3, 1)
	p := master(t, l.hosts[0])
	q := l.hosts[1].vrrp(t, "-priority", "100")
	eventually(t, 15*time.Second, "BACKUP", func() bool { return q.state() == "BACKUP" && q.stats().Received > 0 })
	w := l.hosts[2].wire(t)
	local6 := netip.MustParseAddr("fe80::3")
	var frames [][]byte
	for _, id := range []uint8{1, 2} {
		four := carp.VRRPAdvert{VRID: id, Priority: 255, Interval: 20, Addresses: []netip.Addr{serve4}}
		six := carp.VRRPAdvert{VRID: id, Priority: 255, Interval: 20, Addresses: []netip.Addr{serve6}}
		b, c := four.Append(nil, hostC, carp.Group4), six.Append(nil, local6, carp.Group6)
		if id == 1 {
			b[6] ^= 1 // the checksum
			c[6] ^= 1
		}
		frames = append(frames, w.frame(hostC, carp.Group4, carp.TTL, b), w.frame(local6, carp.Group6, carp.TTL, c))
	}
	flooded(t, p, q, w, frames...)
	if s := p.stats(); s.Refused[carp.FaultChecksum] == 0 || s.Refused[carp.FaultID] != 0 {
		t.Errorf("refused %v", s.Refused)
	}
}

// Nodes of one rank with addresses of both families, over multicast and by unicast:
// one master, and nothing moves.
func TestEqualsWithBothFamilies(t *testing.T) {
	needNet(t)
	t.Parallel()
	for name, more := range map[string][2][]string{
		"multicast": {},
		"unicast":   {{"-peers", "10.9.0.2,fd09::2"}, {"-peers", "10.9.0.1,fd09::1"}},
	} {
		for _, proto := range []string{"carp", "vrrp"} {
			t.Run(proto+" "+name, func(t *testing.T) {
				t.Parallel()
				l := newLAN(t, 2, 1)
				a, b := l.hosts[0], l.hosts[1]
				args := []string{"-proto", proto, "-pass", "x", "-preempt"}
				p := a.vrrp(t, append(args, more[0]...)...)
				eventually(t, 15*time.Second, "MASTER", func() bool { return p.state() == "MASTER" && a.has(service4) && a.has(service6) })
				q := b.vrrp(t, append(args, more[1]...)...)
				// The higher address is the better one: at once or never.
				eventually(t, 10*time.Second, "one master", func() bool { return q.state() != "INIT" && q.stats().Received > 0 })
				time.Sleep(4 * time.Second)
				before := p.changes() + q.changes()
				if p.state() == q.state() || one(both, a, b) == nil {
					t.Fatalf("both are %s", p.state())
				}
				holds(t, 3*time.Second, "nothing moves", func() bool { return p.changes()+q.changes() == before })
				var dead, next *process = p, q
				if q.state() == "MASTER" {
					dead, next = q, p
				}
				for _, s := range [2]*process{p, q} {
					if n := s.stats().Refused; n != ([len(n)]uint64{}) {
						t.Errorf("refused %v", n)
					}
				}
				dead.terminate()
				eventually(t, 5*time.Second, "the other takes over", func() bool { return one(both, a, b) == next.host })
			})
		}
	}
}
