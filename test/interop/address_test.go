package interop

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"hastd/carp/vip"
)

// master starts an elector of VRRP that becomes one.
func master(t *testing.T, h *host, more ...string) *process {
	t.Helper()
	p := h.vrrp(t, append([]string{"-priority", "200", "-preempt"}, more...)...)
	eventually(t, 15*time.Second, "MASTER with its addresses", func() bool {
		return p.state() == "MASTER" && h.has(service4) && h.has(service6)
	})
	return p
}

// Linux looks for addresses whose lifetime is over in one deferred piece of work
// (check_lifetime in net/ipv4/devinet.c, addrconf_verify_rtnl in net/ipv6/addrconf.c). It
// moves its next look to a whole second that is less than a quarter later
// (ADDRCONF_TIMER_FUZZ), and does not look again within a second (ADDRCONF_TIMER_FUZZ_MAX)
// unless an address changes: addresses that it saw a moment before, in older kernels those
// of any namespace, may delay it by that second. Alone only the quarter is seen.
const (
	kernelRounds = 250 * time.Millisecond
	kernelRests  = time.Second
	// expirySlack is for the work to be scheduled, and for this test to look.
	expirySlack = 200 * time.Millisecond
)

// expired is when an address with a lifetime is gone at the latest. LAB_STRICT=1 is for a
// machine that does nothing else.
func expired(lifetime time.Duration) time.Duration {
	if os.Getenv("LAB_STRICT") == "1" {
		return lifetime + kernelRounds + expirySlack
	}
	return lifetime + kernelRests + expirySlack
}

func TestAddressesOutliveNobody(t *testing.T) {
	needNet(t)
	t.Parallel()
	const lifetime = 2 * time.Second
	for _, s := range []struct {
		name   string
		signal syscall.Signal
	}{{"killed", syscall.SIGKILL}, {"frozen", syscall.SIGSTOP}} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			l := newLAN(t, 1, 1)
			a := l.hosts[0]
			p := master(t, a, "-lifetime", lifetime.String())
			holds(t, expired(lifetime), "the addresses stay while they are refreshed", func() bool { return a.has(service4) && a.has(service6) })
			p.signal(s.signal)
			began := time.Now()
			// What this test itself is late by, on a busy machine, is not the kernel's.
			looked, late := began, time.Duration(0)
			gone := func(address string) time.Duration {
				eventually(t, 10*time.Second, address+" is gone", func() bool {
					late = max(late, time.Since(looked)-pollGap)
					looked = time.Now()
					return !a.has(address)
				})
				return time.Since(began)
			}
			four := gone(service4)
			six := gone(service6)
			t.Logf("lifetime %v: IPv4 gone after %v, IPv6 after %v, seen %v late at most", lifetime, four, six, late)
			if limit := expired(lifetime); max(four, six) > limit+late {
				t.Errorf("gone after %v and %v, want %v at most", four, six, limit)
			}
		})
	}
}

// A machine's own address that was set after the service address is a secondary one of its
// subnet, and Linux takes those away with the first.
func TestOwnAddressOutlivesTheServiceAddress(t *testing.T) {
	needNet(t)
	t.Parallel()
	for _, s := range []struct {
		name string
		end  func(*process)
	}{
		{"taken down", func(p *process) { p.terminate() }},
		{"expired", func(p *process) { p.signal(syscall.SIGKILL) }},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			l := newLAN(t, 1, 1)
			a := l.hosts[0]
			const own = "10.9.0.1"
			p := master(t, a, "-lifetime", "2s")
			a.sh("ip addr del " + own + "/24 dev eth0")
			eventually(t, 10*time.Second, "the service address is there without it", func() bool { return a.has(service4) && !a.has(own) })
			a.sh("ip addr add " + own + "/24 dev eth0")
			s.end(p)
			eventually(t, 10*time.Second, "the service address is gone", func() bool { return !a.has(service4) })
			if !a.has(own) {
				t.Error("the machine's own address went with it")
			}
		})
	}
}

// So it is with a service address that somebody else has left, as soon as one looks.
func TestOwnAddressOutlivesOneThatWasLeft(t *testing.T) {
	needNet(t)
	t.Parallel()
	for name, look := range map[string]func(*vip.Keeper) error{
		"looked at":  func(k *vip.Keeper) error { _, err := k.Present(); return err },
		"taken down": func(k *vip.Keeper) error { return k.Down() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLAN(t, 1, 1)
			a := l.hosts[0]
			const own = "10.9.0.1"
			a.sh("ip addr del " + own + "/24 dev eth0")
			a.sh("ip addr add " + service4 + "/24 dev eth0 valid_lft 2 preferred_lft 2")
			a.sh("ip addr add " + own + "/24 dev eth0")
			k := vip.New(vip.Options{
				Group: "g", Addresses: []netip.Prefix{netip.MustParsePrefix(service4 + "/24")}, Interfaces: []string{"eth0"},
				Lifetime: time.Second, Log: slog.New(slog.DiscardHandler),
			})
			must(t, a.inside(func() error { return look(k) }))
			eventually(t, 10*time.Second, "the service address is gone", func() bool { return !a.has(service4) })
			if !a.has(own) {
				t.Error("the machine's own address went with it")
			}
		})
	}
}

// Who gives up while it asks whether somebody has the address does not know, and must not
// set it.
func TestUpThatIsGivenUp(t *testing.T) {
	needNet(t)
	t.Parallel()
	l := newLAN(t, 1, 1)
	a := l.hosts[0]
	k := vip.New(vip.Options{
		Group: "g", Addresses: []netip.Prefix{netip.MustParsePrefix(service4 + "/24")}, Interfaces: []string{"eth0"},
		Lifetime: time.Second, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, a.inside(func() error {
		if err := k.Up(ctx, "eth0"); !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
		if a.has(service4) || k.On() != "" {
			t.Error("the address was set")
		}
		return k.Down()
	}))
}

// Who was frozen finds another master when it goes on. Not for a moment may it put
// back the address or announce it.
func TestThawedMasterKeepsStill(t *testing.T) {
	needNet(t)
	t.Parallel()
	l := newLAN(t, 3, 1)
	a, b, c := l.hosts[0], l.hosts[1], l.hosts[2]
	p := master(t, a)
	q := b.vrrp(t, "-priority", "100")
	eventually(t, 10*time.Second, "BACKUP", func() bool { return q.state() == "BACKUP" && q.stats().Received > 0 })
	p.signal(syscall.SIGSTOP)
	eventually(t, 10*time.Second, "the other takes over", func() bool { return b.has(service4) && b.has(service6) && !a.has(service4) && !a.has(service6) })
	c.knows(service4, b.mac("eth0"))
	c.knows(service6, b.mac("eth0"))
	// It would preempt: let it find a better master.
	q.terminate()
	q = b.vrrp(t, "-priority", "250", "-preempt")
	eventually(t, 10*time.Second, "a better master", func() bool { return q.state() == "MASTER" && b.has(service4) })
	changed := c.follow(t)
	p.signal(syscall.SIGCONT)
	eventually(t, 10*time.Second, "it steps down", func() bool { return p.state() == "BACKUP" })
	time.Sleep(time.Second)
	for _, e := range changed() {
		if strings.Contains(e, a.mac("eth0").String()) {
			t.Errorf("the frozen master announced the address: %s", e)
		}
	}
	if p.count(func(e *event) bool { return e.Event == "up" && e.Error == "" }) != 1 || a.has(service4) || a.has(service6) {
		t.Error("the frozen master has taken the address again")
	}
}

// Who is no longer rightful lets the addresses go although nobody takes them down.
func TestWrongfulKeepsNothing(t *testing.T) {
	needNet(t)
	t.Parallel()
	const lifetime = 2 * time.Second
	l := newLAN(t, 1, 1)
	a := l.hosts[0]
	p := master(t, a, "-lifetime", lifetime.String())
	p.order("wrongful")
	p.stats() // the order has been read
	a.sh("ip addr del " + service6 + "/64 dev eth0")
	eventually(t, expired(lifetime), "the address that is there goes with its lifetime", func() bool { return !a.has(service4) })
	holds(t, time.Second, "none is put back", func() bool { return !a.has(service4) && !a.has(service6) })
	p.order("rightful")
	eventually(t, lifetime, "both are back", func() bool { return a.has(service4) && a.has(service6) })
	if n := p.count(func(e *event) bool { return e.Event == "lost" }); n > 2 {
		t.Errorf("told %d times that an address was taken away", n)
	}
}

// What a run that was killed left on the interface is taken down at the start.
func TestLeftoverIsCleaned(t *testing.T) {
	needNet(t)
	t.Parallel()
	l := newLAN(t, 1, 1)
	a := l.hosts[0]
	p := master(t, a, "-lifetime", "60s")
	p.kill()
	time.Sleep(100 * time.Millisecond)
	if !a.has(service4) || !a.has(service6) {
		t.Fatal("the kernel did not keep the addresses for their lifetime")
	}
	p = a.carp(t, "-addr", service4+"/24,"+service6+"/64", "-advbase", "10")
	eventually(t, 5*time.Second, "the addresses are cleaned", func() bool { return !a.has(service4) && !a.has(service6) })
	if p.state() == "MASTER" {
		t.Error("it is MASTER already: nothing is shown")
	}
}

func TestStrangersConflictStopsUs(t *testing.T) {
	needNet(t)
	t.Parallel()
	for _, address := range both {
		t.Run(address, func(t *testing.T) {
			t.Parallel()
			l := newLAN(t, 2, 1)
			a, stranger := l.hosts[0], l.hosts[1]
			stranger.sh("ip addr add " + address + " dev eth0")
			p := a.vrrp(t, "-priority", "200")
			refused := func(e *event) bool { return e.Event == "up" && e.Error != "" }
			eventually(t, 10*time.Second, "a conflict", func() bool { return p.count(refused) > 0 })
			want := "address " + address + " is in use by " + stranger.mac("eth0").String() + " on eth0"
			if n := p.count(func(e *event) bool { return refused(e) && e.Error == want }); n != 1 {
				t.Errorf("not said: %s", want)
			}
			holds(t, time.Second, "the address stays with the stranger", func() bool { return !a.has(service4) && !a.has(service6) })
			if s := p.state(); s != "BACKUP" {
				t.Errorf("it is %s", s)
			}
		})
	}
}

// A node of the cluster that froze before this one heard it is known by its address.
func TestNamedNodeIsNoStranger(t *testing.T) {
	needNet(t)
	t.Parallel()
	l := newLAN(t, 2, 1)
	a, b := l.hosts[0], l.hosts[1]
	p := master(t, a, "-lifetime", "60s")
	p.signal(syscall.SIGSTOP)
	q := b.vrrp(t, "-priority", "100", "-nodes", "10.9.0.1")
	eventually(t, 10*time.Second, "it takes over", func() bool { return q.state() == "MASTER" && b.has(service4) && b.has(service6) })
	announcedOver(t, q)
}

// Without a conflict the address is there soon: the probe takes 200 ms.
func TestAddressAndAnnouncement(t *testing.T) {
	needNet(t)
	t.Parallel()
	l := newLAN(t, 3, 1)
	a, b, c := l.hosts[0], l.hosts[1], l.hosts[2]
	q := master(t, b)
	for _, s := range both {
		c.knows(s, b.mac("eth0"))
	}
	// It says that it leaves; the other is there at once, and tells everybody.
	p := a.vrrp(t, "-priority", "150")
	eventually(t, 10*time.Second, "BACKUP", func() bool { return p.state() == "BACKUP" })
	q.terminate()
	began := time.Now()
	eventually(t, 5*time.Second, "the addresses move", func() bool { return a.has(service4) && a.has(service6) })
	moved := time.Since(began)
	eventually(t, 5*time.Second, "the third host's table of neighbours changes", func() bool {
		return c.neighbour(service4) == a.mac("eth0").String() && c.neighbour(service6) == a.mac("eth0").String()
	})
	told := time.Since(began)
	t.Logf("after a stop: moved after %v, the third host knows after %v", moved, told)
	if told > 2*time.Second {
		t.Error("that is too long")
	}
	// It says that the addresses are up after it has announced them.
	won, up := p.time("state", "MASTER"), p.time("up", "")
	if d := up.Sub(won); d < 150*time.Millisecond || d > time.Second {
		t.Errorf("the probe and the address took %v, want about 200 ms", d)
	}
}

func TestRemovedByHandComesBack(t *testing.T) {
	needNet(t)
	t.Parallel()
	l := newLAN(t, 1, 1)
	a := l.hosts[0]
	p := master(t, a, "-lifetime", "30s")
	for _, s := range []string{service4 + "/24", service6 + "/64"} {
		a.sh("ip addr del " + s + " dev eth0")
		bare, _, _ := strings.Cut(s, "/")
		d := eventually(t, 5*time.Second, s+" comes back", func() bool { return a.has(bare) })
		t.Logf("%s is back after %v", s, d)
		if d > time.Second {
			t.Error("that is too long: it was the refresh")
		}
		eventually(t, time.Second, "it is told", func() bool {
			return p.count(func(e *event) bool { return e.Event == "lost" && e.Address == s }) == 1
		})
	}
}

func TestStandbyInterface(t *testing.T) {
	needNet(t)
	t.Parallel()
	l := newLAN(t, 3, 2)
	a, b, c := l.hosts[0], l.hosts[1], l.hosts[2]
	p := master(t, a, "-if", "eth0,eth1")
	q := b.vrrp(t, "-priority", "100", "-if", "eth0,eth1")
	eventually(t, 10*time.Second, "BACKUP", func() bool { return q.state() == "BACKUP" })
	is := func(name string) func() bool {
		return func() bool {
			four, six := a.where(service4), a.where(service6)
			return join(four...) == name && join(six...) == name && c.neighbour(service4) == a.mac(name).String() && c.neighbour(service6) == a.mac(name).String()
		}
	}
	for _, s := range both {
		c.knows(s, a.mac("eth0"))
	}
	before, others := p.changes(), q.changes()
	l.link(a, 0, false)
	d := eventually(t, 5*time.Second, "the addresses move to eth1", is("eth1"))
	t.Logf("link lost: the addresses are on eth1 and announced after %v", d)
	if d > time.Second {
		t.Error("that is too long")
	}
	sent := p.stats().Sent
	holds(t, 2*time.Second, "no failover", func() bool { return q.state() == "BACKUP" })
	if now := p.stats().Sent; now <= sent {
		t.Error("nothing is sent from the next interface")
	}
	l.link(a, 0, true)
	eventually(t, 5*time.Second, "the addresses move back", is("eth0"))
	holds(t, 2*time.Second, "no failover", func() bool { return q.state() == "BACKUP" })
	if p.changes() != before || q.changes() != others {
		t.Error("the state changed although one interface was there all the time")
	}
	if s := p.stats(); s.Refused != ([len(s.Refused)]uint64{}) {
		t.Errorf("refused %v: the same packet reaches both interfaces", s.Refused)
	}
	l.link(a, 0, false)
	l.link(a, 1, false)
	d = eventually(t, 5*time.Second, "INIT", func() bool { return p.state() == "INIT" })
	eventually(t, 5*time.Second, "the other takes over", func() bool { return one(both, a, b) == b })
	t.Logf("no link: INIT after %v", d)
	l.link(a, 1, true)
	eventually(t, 10*time.Second, "it comes back by its second interface", func() bool { return one(both, a, b) == a && is("eth1")() })
}

// CAP_NET_RAW and CAP_NET_ADMIN are all that is needed.
func TestCapabilities(t *testing.T) {
	needNet(t, "setpriv")
	t.Parallel()
	l := newLAN(t, 1, 1)
	a := l.hosts[0]
	caps := "-all,+net_raw,+net_admin"
	p := a.start(t, "elector", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps="+caps, "--ambient-caps="+caps, "--bounding-set="+caps, "--no-new-privs",
		elector(t), "-proto", "vrrp", "-interval", "200ms", "-if", "eth0", "-addr", service4+"/24,"+service6+"/64")
	eventually(t, 10*time.Second, "MASTER with its addresses", func() bool { return p.state() == "MASTER" && a.has(service4) && a.has(service6) })
	p.terminate()
	if a.has(service4) || a.has(service6) {
		t.Error("the addresses stay after a clean stop")
	}
	for _, word := range []string{"level=WARN", "level=ERROR"} {
		if strings.Contains(p.output(), word) {
			t.Errorf("it complains: %s", p.output())
		}
	}
}

// On two interfaces of one network each advert is heard twice: that is no replay.
func TestCopyOnTheNextInterfaceIsNoReplay(t *testing.T) {
	needNet(t)
	t.Parallel()
	l := newLAN(t, 2, 2)
	a, b := l.hosts[0], l.hosts[1]
	p := a.carp(t, "-if", "eth0,eth1")
	eventually(t, 15*time.Second, "MASTER", func() bool { return p.state() == "MASTER" })
	q := b.carp(t, "-if", "eth0,eth1", "-advskew", "50")
	eventually(t, 15*time.Second, "adverts", func() bool { return q.state() == "BACKUP" && q.stats().Received >= 3 })
	for _, x := range []*process{p, q} {
		if s := x.stats(); s.Refused != ([len(s.Refused)]uint64{}) {
			t.Errorf("refused %v", s.Refused)
		}
	}
}
