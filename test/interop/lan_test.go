package interop

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// lan is hosts on one switch, each a network namespace held by a process: nothing
// stays behind when the test dies.
type lan struct {
	t     *testing.T
	sw    *host
	hosts []*host
}

// host is one namespace.
type host struct {
	t    *testing.T
	name string
	n    int // from 1: the last byte of its addresses
	hold *exec.Cmd
	nl   *netlink.Handle
}

// needNet skips where namespaces cannot be made or a program is missing.
func needNet(t *testing.T, programs ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("namespaces need root")
	}
	debian := map[string]string{"ip": "iproute2", "nsenter": "util-linux", "setpriv": "util-linux"}
	for _, p := range append(programs, "ip", "nsenter", "unshare") {
		if _, err := exec.LookPath(p); err != nil {
			name := p
			if d, ok := debian[p]; ok {
				name = d
			}
			t.Skipf("needs %s: install the Debian package %s", p, name)
		}
	}
}

// Addresses of the service in every test.
const (
	service4 = "10.9.0.100"
	service6 = "fd09::100"
)

// newLAN makes one with so many hosts, each with interfaces eth0 and up.
func newLAN(t *testing.T, hosts, interfaces int) *lan {
	t.Helper()
	l := &lan{t: t, sw: newHost(t, "switch", 0)}
	l.sw.sh(`ip link add br0 type bridge mcast_snooping 0 stp_state 0 forward_delay 0
		ip link set br0 up`)
	for i := range hosts {
		h := newHost(t, string(rune('a'+i)), i+1)
		l.hosts = append(l.hosts, h)
		h.sh(`echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
			ip link set lo up`)
		for j := range interfaces {
			l.sw.sh(fmt.Sprintf(`ip link add p%[1]d.%[2]d type veth peer name eth%[2]d netns %[3]d
				ip link set p%[1]d.%[2]d master br0 up`, h.n, j, h.hold.Process.Pid))
			h.sh(fmt.Sprintf(`ip addr add 10.9.0.%[1]d/24 dev eth%[2]d
				ip addr add fd09::%[1]d/64 dev eth%[2]d nodad
				ip link set eth%[2]d up`, h.n+50*j, j))
		}
	}
	return l
}

func newHost(t *testing.T, name string, n int) *host {
	t.Helper()
	h := &host{t: t, name: name, n: n, hold: exec.Command("unshare", "--net", "--", "sleep", "infinity")}
	h.hold.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	must(t, h.hold.Start())
	t.Cleanup(func() {
		if h.nl != nil {
			h.nl.Close()
		}
		h.hold.Process.Kill()
		h.hold.Wait() // killed: its error says nothing
	})
	// Not /proc/self: that is the first thread, which may be in another test's namespace
	// for a moment. The holder would count as gone there while it still has ours, and what
	// is meant for its namespace would be done to the machine's.
	own, err := os.Readlink("/proc/thread-self/ns/net")
	must(t, err)
	eventually(t, 10*time.Second, "a namespace", func() bool {
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", h.hold.Process.Pid))
		return err == nil && ns != own
	})
	ns, err := netns.GetFromPid(h.hold.Process.Pid)
	must(t, err)
	defer ns.Close()
	h.nl, err = netlink.NewHandleAt(ns)
	must(t, err)
	return h
}

func (h *host) command(argv ...string) []string {
	return append([]string{"nsenter", "--net=/proc/" + strconv.Itoa(h.hold.Process.Pid) + "/ns/net", "--"}, argv...)
}

// sh runs shell lines on the host.
func (h *host) sh(script string) {
	h.t.Helper()
	argv := h.command("sh", "-ec", script)
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		h.t.Fatalf("on %s: %s: %v: %s", h.name, script, err, out)
	}
}

// link puts a host's cable in or out.
func (l *lan) link(h *host, i int, up bool) {
	l.t.Helper()
	state := "down"
	if up {
		state = "up"
	}
	l.sw.sh(fmt.Sprintf("ip link set p%d.%d %s", h.n, i, state))
}

// mac is an interface's.
func (h *host) mac(name string) net.HardwareAddr {
	h.t.Helper()
	link, err := h.nl.LinkByName(name)
	must(h.t, err)
	return link.Attrs().HardwareAddr
}

// where are the interfaces that have an address.
func (h *host) where(address string) (names []string) {
	want := net.ParseIP(address)
	list, err := h.nl.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		h.t.Error(err)
	}
	for _, a := range list {
		if a.IP.Equal(want) {
			if link, err := h.nl.LinkByIndex(a.LinkIndex); err == nil {
				names = append(names, link.Attrs().Name)
			}
		}
	}
	return names
}

func (h *host) has(address string) bool { return len(h.where(address)) > 0 }

// neighbour is the MAC that the host believes an address to have.
func (h *host) neighbour(address string) string {
	list, err := h.nl.NeighList(0, netlink.FAMILY_ALL)
	if err != nil {
		h.t.Error(err)
	}
	for _, n := range list {
		if n.IP.Equal(net.ParseIP(address)) {
			return n.HardwareAddr.String()
		}
	}
	return ""
}

// knows puts an address into the host's table of neighbours.
func (h *host) knows(address string, mac net.HardwareAddr) {
	h.t.Helper()
	link, err := h.nl.LinkByName("eth0")
	must(h.t, err)
	family := netlink.FAMILY_V4
	if netip.MustParseAddr(address).Is6() {
		family = netlink.FAMILY_V6
	}
	must(h.t, h.nl.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, Family: family, State: netlink.NUD_STALE, IP: net.ParseIP(address), HardwareAddr: mac}))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const pollGap = 5 * time.Millisecond

// within is how long it took until ok.
func within(limit time.Duration, ok func() bool) (time.Duration, bool) {
	began := time.Now()
	for {
		if ok() {
			return time.Since(began), true
		}
		if time.Since(began) > limit {
			return limit, false
		}
		time.Sleep(pollGap)
	}
}

// eventually fails the test unless ok comes true.
func eventually(t testing.TB, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	d, good := within(limit, ok)
	if !good {
		t.Fatalf("%s: not within %v", what, limit)
	}
	return d
}

// holds fails the test if ok is false once.
func holds(t testing.TB, d time.Duration, what string, ok func() bool) {
	t.Helper()
	if _, bad := within(d, func() bool { return !ok() }); bad {
		t.Fatalf("%s: not all the time", what)
	}
}

func join(s ...string) string { return strings.Join(s, ",") }

// follow notes what becomes of the host's table of neighbours.
func (h *host) follow(t *testing.T) func() []string {
	t.Helper()
	var mu sync.Mutex
	var list []string
	ns, err := netns.GetFromPid(h.hold.Process.Pid)
	must(t, err)
	defer ns.Close()
	changes, done := make(chan netlink.NeighUpdate, 64), make(chan struct{})
	must(t, netlink.NeighSubscribeAt(ns, changes, done))
	go func() {
		for u := range changes {
			mu.Lock()
			list = append(list, fmt.Sprintf("%v is at %v", u.IP, u.HardwareAddr))
			mu.Unlock()
		}
	}()
	t.Cleanup(func() { close(done) })
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(list)
	}
}
