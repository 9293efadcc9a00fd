package runner

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hastd/cluster/beat"
)

// ownNet puts the test's thread into a network namespace of its own, which ends with it,
// and gives it pairs of interfaces. What the test opens itself stands there; goroutines
// that it starts do not.
func ownNet(t *testing.T, addresses map[string]string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes a network namespace")
	}
	runtime.LockOSThread() // for good: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	for name, a := range addresses {
		must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-far"}))
		p, err := netlink.ParseAddr(a)
		must(t, err)
		must(t, netlink.AddrAdd(iface(t, name), p))
		must(t, netlink.LinkSetUp(iface(t, name)))
		must(t, netlink.LinkSetUp(iface(t, name+"-far")))
	}
}

func iface(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	must(t, err)
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// linked makes a runner of alpha whose peers have these addresses on its only link. It is
// not run: the test does what its owner would.
func linked(t *testing.T, own string, peers ...string) *Runner {
	t.Helper()
	o := Options{
		Cluster: "red", Self: Node{ID: 0, Name: "alpha", Addresses: []netip.Addr{netip.MustParseAddr(own)}}, Port: 8458,
		Interval: 500 * time.Millisecond, Trouble: time.Second, Timeout: 2 * time.Second, Shared: beat.Shared{}, Log: slog.New(slog.DiscardHandler),
	}
	for i, a := range peers {
		o.Peers = append(o.Peers, Node{ID: i + 1, Name: []string{"bravo", "charlie"}[i], Addresses: []netip.Addr{netip.MustParseAddr(a)}})
	}
	r, err := New(o)
	must(t, err)
	r.carriers = carriers{changed: make(chan struct{}, 1), told: map[beat.LinkID]bool{}}
	t.Cleanup(r.closeLinks)
	return r
}

// An interface that takes nothing holds nobody up: what it has no room for is lost.
func TestInterfaceThatTakesNothing(t *testing.T) {
	t.Parallel()
	ownNet(t, map[string]string{"one": "10.9.0.1/24"})
	const rate = 100 // bytes a second: next to nothing
	must(t, netlink.QdiscAdd(&netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: iface(t, "one").Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       rate, Buffer: netlink.Xmittime(rate, 1600), Limit: 1 << 30,
	}))
	far, err := net.ParseMAC("02:00:00:00:00:02")
	must(t, err)
	must(t, netlink.NeighAdd(&netlink.Neigh{LinkIndex: iface(t, "one").Attrs().Index, IP: net.IPv4(10, 9, 0, 2), HardwareAddr: far, State: netlink.NUD_PERMANENT}))
	r := linked(t, "10.9.0.1", "10.9.0.2")
	r.lookAtLinks()
	body := beat.Effect{Node: 1, Packet: beat.Packet{Kind: beat.KindBeat}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2000 {
			r.send(&body)
		}
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Error("it waits for the interface")
		r.closeLinks()
		<-done
	}
	for what, why := range r.faults {
		if strings.HasPrefix(what, "send to bravo") && strings.Contains(why, unix.EAGAIN.Error()) {
			return
		}
	}
	t.Errorf("what cannot be sent is not said: %v", r.faults)
}

// A witness behind a router leaves the link to the routes, at every look alike. A lost
// carrier is told although routes over another link are left.
func TestRoutesOfALink(t *testing.T) {
	t.Parallel()
	ownNet(t, map[string]string{"one": "10.9.0.1/24", "two": "10.9.1.1/24"})
	must(t, netlink.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Gw: net.IPv4(10, 9, 1, 254)}))
	for _, c := range []struct {
		peers []string
		on    string // with a carrier
	}{
		{[]string{"10.9.0.2"}, "one"},
		{[]string{"10.9.0.2", "172.30.0.3"}, ""},
		{[]string{"172.30.0.3"}, ""},
	} {
		r := linked(t, "10.9.0.1", c.peers...)
		l := r.links[0]
		r.lookAtLinks()
		opened := l.conn
		for range 20 {
			r.lookAtLinks()
		}
		if l.conn != opened {
			t.Errorf("%v: opened anew, though nothing changed", c.peers)
		}
		if l.on != c.on {
			t.Errorf("%v: on %q, want %q", c.peers, l.on, c.on)
		}
		must(t, netlink.LinkSetDown(iface(t, "one")))
		r.lookAtLinks()
		if up, known := r.carriers.told[l.id]; l.on != "one" || up || !known {
			t.Errorf("%v: without a carrier on %q, told %v, up %v", c.peers, l.on, known, up)
		}
		must(t, netlink.LinkSetUp(iface(t, "one")))
		eventually(t, 5*time.Second, "the carrier is back", func() bool {
			r.lookAtLinks()
			return l.on == c.on && r.carriers.told[l.id]
		})
		r.closeLinks()
	}
}
