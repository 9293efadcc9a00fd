package interop

import (
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// holder starts an elector that holds the addresses without an election.
func holder(t *testing.T, h *host, more ...string) *process {
	t.Helper()
	p := h.start(t, "elector", append([]string{elector(t), "-external", "-if", "eth0", "-addr", service4 + "/24," + service6 + "/64"}, more...)...)
	eventually(t, 10*time.Second, "the addresses are up", func() bool { return h.has(service4) && h.has(service6) })
	return p
}

// frozen stops a process until the kernel took its addresses away.
func frozen(t *testing.T, p *process, lifetime time.Duration) {
	t.Helper()
	p.signal(syscall.SIGSTOP)
	eventually(t, lifetime+5*time.Second, "the addresses run out", func() bool { return !p.host.has(service4) && !p.host.has(service6) })
	// Whatever rounds up, the process finds that the time is over.
	time.Sleep(200 * time.Millisecond)
}

// Without an election nobody else says that this node may no longer have its addresses:
// what ran out while it stood still comes back.
func TestThawedHolderPutsBack(t *testing.T) {
	needNet(t)
	t.Parallel()
	const lifetime = time.Second
	l := newLAN(t, 2, 1)
	a, c := l.hosts[0], l.hosts[1]
	p := holder(t, a, "-lifetime", lifetime.String())
	frozen(t, p, lifetime)
	for _, s := range both {
		c.knows(s, c.mac("eth0")) // a wrong one
	}
	p.signal(syscall.SIGCONT)
	d := eventually(t, 5*time.Second, "both come back", func() bool { return a.has(service4) && a.has(service6) })
	t.Logf("they are back %v after it went on", d)
	eventually(t, 5*time.Second, "they are announced", func() bool {
		return c.neighbour(service4) == a.mac("eth0").String() && c.neighbour(service6) == a.mac("eth0").String()
	})
	holds(t, 2*lifetime, "they stay", func() bool { return a.has(service4) && a.has(service6) })
	if n := p.count(func(e *event) bool { return e.Event == "lost" }); n != 2 {
		t.Errorf("told %d times that an address was lost, want once of each", n)
	}
}

// Unless somebody else has one by then: all stay down, it is told, and they come back
// when he is gone.
func TestThawedHolderYieldsToAnother(t *testing.T) {
	needNet(t)
	t.Parallel()
	const lifetime = time.Second
	l := newLAN(t, 2, 1)
	a, b := l.hosts[0], l.hosts[1]
	p := holder(t, a, "-lifetime", lifetime.String())
	frozen(t, p, lifetime)
	b.sh("ip addr add " + service4 + "/24 dev eth0")
	p.signal(syscall.SIGCONT)
	eventually(t, 5*time.Second, "it is told", func() bool {
		return p.count(func(e *event) bool { return e.Event == "taken" && e.Address == service4 }) == 1
	})
	holds(t, 2*lifetime, "the addresses stay with the other", func() bool { return !a.has(service4) && !a.has(service6) })
	if n := p.count(func(e *event) bool { return e.Event == "taken" || e.Event == "lost" }); n != 1 {
		t.Errorf("it was told of %d times", n)
	}
	b.sh("ip addr del " + service4 + "/24 dev eth0")
	eventually(t, 5*time.Second, "both come back", func() bool { return a.has(service4) && a.has(service6) })
	p.terminate()
	if a.has(service4) || a.has(service6) {
		t.Error("the addresses stay after a clean stop")
	}
}

// An address that cannot be put back is told of again and again, and takes none of the
// others with it. When none can be, that is told as often.
func TestAddressThatCannotBePutBack(t *testing.T) {
	needNet(t)
	t.Parallel()
	a := newLAN(t, 1, 1).hosts[0]
	p := holder(t, a, "-lifetime", "1s")
	lost := func(address string) func(e *event) bool {
		return func(e *event) bool { return e.Event == "lost" && e.Address == address }
	}
	a.sh("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1")
	eventually(t, 10*time.Second, "the lost one is told of", func() bool {
		if !a.has(service4) {
			t.Fatal("the other address went, too")
		}
		return p.count(lost(service6+"/64")) > 8
	})
	if n := p.count(lost(service4 + "/24")); n != 0 {
		t.Errorf("told %d times that the other one was lost", n)
	}
	a.sh("ip link del eth0")
	eventually(t, 10*time.Second, "both are told of", func() bool { return p.count(lost(service4+"/24")) > 8 })
}

// The kernel is told how much longer this node is rightful, and no more: it takes the
// addresses away although nobody takes them down. They come back with the lease.
func TestLifetimeFollowsTheLease(t *testing.T) {
	needNet(t)
	t.Parallel()
	a := newLAN(t, 1, 1).hosts[0]
	p := holder(t, a, "-appointed", "-lifetime", "2s")
	for _, s := range both {
		if n := a.lifetime(s); n < 1 || n > 2 {
			t.Errorf("%s has %d s to live, want the lifetime of 2", s, n)
		}
	}
	p.order("appoint 1ms")
	began := time.Now()
	eventually(t, 10*time.Second, "they are gone", func() bool { return !a.has(service4) && !a.has(service6) })
	t.Logf("gone after %v", time.Since(began))
	holds(t, time.Second, "none comes back", func() bool { return !a.has(service4) && !a.has(service6) })
	p.order("appoint 60s")
	eventually(t, 10*time.Second, "they are back", func() bool { return a.has(service4) && a.has(service6) })
}

// Frozen, it keeps them for the rest of its lease, rounded up, although its lifetime is
// longer; and its lease being over, it leaves them alone when it goes on.
func TestFrozenOwnerLosesThemWithTheLease(t *testing.T) {
	needNet(t)
	t.Parallel()
	const lease = 3 * time.Second
	l := newLAN(t, 1, 1)
	a := l.hosts[0]
	p := a.vrrp(t, "-appointed", "-lifetime", "30s")
	p.order("appoint " + lease.String())
	began := time.Now()
	eventually(t, 10*time.Second, "the addresses are up", func() bool { return a.has(service4) && a.has(service6) })
	for _, s := range both {
		if n := a.lifetime(s); n > 3 {
			t.Errorf("%s has %d s to live, want 3 at most", s, n)
		}
	}
	p.signal(syscall.SIGSTOP)
	eventually(t, 10*time.Second, "the addresses go", func() bool { return !a.has(service4) && !a.has(service6) })
	if d := time.Since(began); d > lease+2*time.Second {
		t.Errorf("gone after %v, want the lease of %v, rounded up", d, lease)
	}
	p.signal(syscall.SIGCONT)
	eventually(t, 10*time.Second, "BACKUP", func() bool { return p.state() == "BACKUP" })
	sent := p.stats().Sent
	holds(t, time.Second, "none comes back", func() bool { return !a.has(service4) && !a.has(service6) })
	if now := p.stats().Sent; now != sent {
		t.Errorf("it sent %d adverts after its lease", now-sent)
	}
}

// lifetime is what the kernel says an address has left, in seconds; 0 if it is not there.
func (h *host) lifetime(address string) int {
	h.t.Helper()
	list, err := h.nl.AddrList(nil, netlink.FAMILY_ALL)
	must(h.t, err)
	for _, a := range list {
		if a.IP.Equal(net.ParseIP(address)) {
			return a.ValidLft
		}
	}
	return 0
}
