package runner

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hastd/cluster/beat"
)

// udpLink is one link: a socket on this node's address of it.
type udpLink struct {
	r     *Runner
	id    beat.LinkID
	own   netip.Addr
	peers map[beat.NodeID]netip.Addr
	froms map[netip.Addr]beat.NodeID

	conn  *net.UDPConn // nil: not open
	on    string       // the interface that it is bound to, "" for none
	index int
	wg    sync.WaitGroup
}

// socketQueue is how many bytes may wait in a socket: good packets among a flood of
// bad ones are not lost before they are read.
const socketQueue = 1 << 20

func (r *Runner) newLink(i int) *udpLink {
	l := &udpLink{r: r, id: beat.LinkID(i), own: r.o.Self.Addresses[i], peers: map[beat.NodeID]netip.Addr{}, froms: map[netip.Addr]beat.NodeID{}}
	for _, p := range r.o.Peers {
		if i < len(p.Addresses) && p.Addresses[i].Is4() == l.own.Is4() {
			l.peers[beat.NodeID(p.ID)], l.froms[p.Addresses[i]] = p.Addresses[i], beat.NodeID(p.ID)
		}
	}
	return l
}

// route finds the interface by which a link's nodes are reached. A packet must not
// leave by another one: what looks like two links would be one. The socket is bound to
// the interface if that has the link's own address. Where any node is reached by another
// one (a witness behind a router, an own address on the loopback interface of a host with
// routes of its own) everything is left to the routes: bound, it would not be reached.
func (l *udpLink) route() (name string, index int, err error) {
	elsewhere := false
	for _, to := range l.peers {
		routes, e := netlink.RouteGetWithOptions(to.AsSlice(), &netlink.RouteGetOptions{SrcAddr: l.own.AsSlice()})
		if e != nil || len(routes) == 0 {
			err = fmt.Errorf("no route to %v from %v: %w", to, l.own, e)
			continue
		}
		ifc, e := net.InterfaceByIndex(routes[0].LinkIndex)
		if e != nil {
			err = e
			continue
		}
		list, e := ifc.Addrs()
		if e != nil {
			err = e
			continue
		}
		if slices.ContainsFunc(list, func(a net.Addr) bool {
			p, e := netip.ParsePrefix(a.String())
			return e == nil && p.Addr().Unmap().WithZone("") == l.own
		}) {
			name, index = ifc.Name, ifc.Index
		} else {
			elsewhere = true
		}
	}
	if name != "" && !elsewhere {
		return name, index, nil
	}
	if name, index, ok := l.unplugged(); ok {
		return name, index, nil
	}
	if elsewhere {
		return "", 0, nil
	}
	return "", 0, err
}

// unplugged is the interface with the link's own address, if it has no carrier. Its routes
// went with that; those that are left lead over another link.
func (l *udpLink) unplugged() (name string, index int, ok bool) {
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return "", 0, false
	}
	for _, a := range list {
		if own, _ := netip.AddrFromSlice(a.IP); own.Unmap() != l.own {
			continue
		}
		link, err := netlink.LinkByIndex(a.LinkIndex)
		if err != nil || linkUp(link.Attrs()) {
			return "", 0, false
		}
		name, index, ok = link.Attrs().Name, a.LinkIndex, true
	}
	return name, index, ok
}

// lookAtLinks opens what is not open, and anew what is bound to an interface that is
// no longer the link's.
func (r *Runner) lookAtLinks() {
	for _, l := range r.links {
		if len(l.peers) == 0 {
			continue
		}
		name, index, err := l.route()
		if err != nil && l.conn != nil {
			continue // without a route there is nothing better; a lost carrier takes it too
		}
		if l.conn != nil && (l.on != name || l.index != index) {
			l.close()
		}
		if l.conn == nil {
			l.on, l.index = name, index
			r.complain(fmt.Sprintf("listen on %v (%v)", l.id, l.own), l.open())
		}
	}
	r.carry()
}

func (l *udpLink) open() error {
	network := "udp4"
	if l.own.Is6() {
		network = "udp6"
	}
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var bound error
		err := raw.Control(func(fd uintptr) {
			if l.on != "" {
				bound = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, l.on)
			}
			// Only a larger queue needs the right to have one.
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketQueue)
			// Heartbeats go before what fills the link (class selector 6).
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY, 6)
			if network == "udp4" {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, 0xc0)
			} else {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 0xc0)
			}
		})
		return errors.Join(err, bound)
	}}
	p, err := c.ListenPacket(noContext, network, netip.AddrPortFrom(l.own, uint16(l.r.o.Port)).String())
	if err != nil {
		return err
	}
	l.conn = p.(*net.UDPConn)
	conn, gate := l.conn, beat.NewGate(beat.NewCodec(l.r.o.Cluster, l.r.o.Key))
	l.wg.Go(func() { l.listen(conn, gate) })
	return nil
}

// send does not wait for room in the socket: an interface that takes nothing must silence
// neither the other links nor the serial line.
func (l *udpLink) send(b []byte, to netip.Addr) error {
	var at unix.Sockaddr = &unix.SockaddrInet6{Port: l.r.o.Port, Addr: to.As16()}
	if to.Is4() {
		at = &unix.SockaddrInet4{Port: l.r.o.Port, Addr: to.As4()}
	}
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) { sent = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, at) })
	return errors.Join(err, os.NewSyscallError("sendto", sent))
}

func (l *udpLink) close() {
	if l.conn != nil {
		l.conn.Close()
		l.wg.Wait()
		l.conn = nil
	}
}

func (r *Runner) closeLinks() {
	for _, l := range r.links {
		l.close()
	}
}

// A flood costs half a processor at most, however fast it is: after so many packets
// with bad ones among them nothing is read for a nap. Good ones wait in the socket.
const (
	maxDrain = 256
	nap      = time.Millisecond
	drainFor = 5 * time.Millisecond
)

// listen reads packets until the socket is closed. Bad ones end here.
func (l *udpLink) listen(conn *net.UDPConn, gate *beat.Gate) {
	buf := make([]byte, beat.MaxPacket+1)
	bad, began := 0, time.Now()
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as an ICMP error that came back
			time.Sleep(nap)
			continue
		}
		fault := l.take(gate, buf[:n], from)
		if fault == beat.FaultNone {
			continue
		}
		if bad++; bad%maxDrain == 0 {
			if time.Since(began) < drainFor {
				time.Sleep(nap)
			}
			began = time.Now()
		}
	}
}

// take hands a good packet to the owner.
func (l *udpLink) take(gate *beat.Gate, b []byte, from netip.AddrPort) beat.Fault {
	id, ok := l.froms[from.Addr().Unmap().WithZone("")]
	if !ok {
		l.r.refuse(beat.FaultSource, l.id, beat.Anybody, from)
		return beat.FaultSource
	}
	p, fault := gate.Admit(boot(), id, beat.NodeID(l.r.o.Self.ID), b)
	if fault != beat.FaultNone {
		l.r.refuse(fault, l.id, id, from)
		return fault
	}
	l.r.queue(p, l.id)
	return beat.FaultNone
}
