package runner

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"hastd/carp"
)

// packet is what a socket received, before anything of it is believed.
type packet struct {
	from, to netip.Addr
	ttl      int
	payload  []byte // valid until the next receive
}

// socket is a raw IP socket for protocol 112 on one interface, in one family.
type socket struct {
	fd    int
	six   bool
	index int
	name  string // of the interface
	self  netip.Addr
	buf   []byte
	oob   []byte
	iov   unix.Iovec
	msg   unix.Msghdr
	from  unix.RawSockaddrInet6 // or an IPv4 one, which is shorter
}

// maxPacket is the longest packet of either protocol with its IPv4 header, and more
// than that: what is longer is no packet of ours.
const maxPacket = 8 << 10

// queue is how many bytes may wait in a socket: good packets among a flood of bad
// ones are not lost before they are read.
const queue = 1 << 20

// openSocket opens one on an interface that has an address of the family. Without
// peers it listens to the protocol's multicast group. Addresses of the service are
// not its own.
func openSocket(ifc *net.Interface, six bool, o *Options) (*socket, error) {
	s := &socket{six: six, index: ifc.Index, name: ifc.Name, fd: -1, buf: make([]byte, maxPacket), oob: make([]byte, 256)}
	if err := s.chooseAddress(ifc, o); err != nil {
		return nil, err
	}
	family := unix.AF_INET
	if six {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, carp.IPProtocol)
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			err = fmt.Errorf("%w (CAP_NET_RAW is needed)", err)
		}
		return nil, fmt.Errorf("raw socket for protocol %d: %w", carp.IPProtocol, err)
	}
	s.fd = fd
	if err := errors.Join(unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, ifc.Name), s.options(len(o.Peers) == 0),
		attach(fd, filter(six, o.ID))); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("socket options on %s: %w", ifc.Name, err)
	}
	// Only a larger queue needs the right to have one.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queue)
	return s, nil
}

// addresses of an interface.
func addresses(ifc *net.Interface) ([]netip.Addr, error) {
	list, err := ifc.Addrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of %s: %w", ifc.Name, err)
	}
	var out []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap().WithZone(""))
		}
	}
	return out, nil
}

// stands says whether the interface still has the socket's address.
func (s *socket) stands(ifc *net.Interface) bool {
	list, err := addresses(ifc)
	return err != nil || slices.Contains(list, s.self)
}

// chooseAddress finds where packets of this node come from: the first address of
// the interface; with IPv6 the link-local one (RFC 9568, 5.1.2.1), unless the peers
// are named by others.
func (s *socket) chooseAddress(ifc *net.Interface, o *Options) error {
	list, err := addresses(ifc)
	if err != nil {
		return err
	}
	local := s.six && !slices.ContainsFunc(o.Peers, func(a netip.Addr) bool { return a.Is6() && !a.IsLinkLocalUnicast() })
	for _, x := range list {
		if x.Is6() == s.six && (!s.six || x.IsLinkLocalUnicast() == local) && !slices.Contains(o.Addresses, x) {
			s.self = x
			return nil
		}
	}
	if s.six {
		return fmt.Errorf("interface %s has no IPv6 address of its own to send from: the election needs a link-local one (with peers named by others, one like theirs)", ifc.Name)
	}
	return fmt.Errorf("interface %s has no IPv4 address of its own: the election needs one besides the service address", ifc.Name)
}

func (s *socket) options(group bool) error {
	if s.six {
		err := errors.Join(
			unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, carp.TTL),
			unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, carp.TTL),
			unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0),
			unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, s.index),
			unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1),
			unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1))
		if group {
			err = errors.Join(err, unix.SetsockoptIPv6Mreq(s.fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP,
				&unix.IPv6Mreq{Multiaddr: carp.Group6.As16(), Interface: uint32(s.index)}))
		}
		return err
	}
	m := &unix.IPMreqn{Multiaddr: carp.Group4.As4(), Ifindex: int32(s.index)}
	err := errors.Join(
		unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, carp.TTL),
		unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_TTL, carp.TTL),
		unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 0),
		unix.SetsockoptIPMreqn(s.fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, m))
	if group {
		err = errors.Join(err, unix.SetsockoptIPMreqn(s.fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, m))
	}
	return err
}

func (s *socket) close() { unix.Close(s.fd) }

// wait waits until something can be received, or until stop is written to.
func (s *socket) wait(stop int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return false, os.NewSyscallError("poll", err)
		}
		return fds[1].Revents == 0, nil
	}
}

// got is what came of a receive.
type got uint8

const (
	nothing got = iota // there is none now
	rubbish
	aPacket
)

// receive takes the next packet. It allocates nothing: there may be floods.
func (s *socket) receive() (packet, got, error) {
	n, oobn, errno := s.recvmsg()
	switch errno {
	case 0:
	case unix.EAGAIN:
		return packet{}, nothing, nil
	case unix.EINTR:
		return packet{}, rubbish, nil
	default:
		return packet{}, nothing, os.NewSyscallError("recvmsg", errno)
	}
	var p packet
	var good bool
	if s.six {
		p, good = packet6(s.buf[:n], s.oob[:oobn], netip.AddrFrom16(s.from.Addr))
	} else {
		p, good = packet4(s.buf[:n])
	}
	if !good {
		return packet{}, rubbish, nil
	}
	return p, aPacket, nil
}

// recvmsg is unix.Recvmsg into buffers that are kept.
func (s *socket) recvmsg() (n, oobn int, errno unix.Errno) {
	s.iov.Base = &s.buf[0]
	s.iov.SetLen(len(s.buf))
	s.msg = unix.Msghdr{Iov: &s.iov, Name: (*byte)(unsafe.Pointer(&s.from)), Namelen: unix.SizeofSockaddrInet6}
	s.msg.SetIovlen(1)
	if s.six {
		s.msg.Control = &s.oob[0]
		s.msg.SetControllen(len(s.oob))
	}
	r, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.msg)), unix.MSG_DONTWAIT)
	return int(r), int(s.msg.Controllen), errno
}

// packet4 splits what a raw IPv4 socket gives: header and payload.
func packet4(b []byte) (packet, bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return packet{}, false
	}
	head := int(b[0]&15) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	if head < 20 || total < head || total > len(b) {
		return packet{}, false
	}
	return packet{
		from: netip.AddrFrom4([4]byte(b[12:16])), to: netip.AddrFrom4([4]byte(b[16:20])),
		ttl: int(b[8]), payload: b[head:total],
	}, true
}

// packet6 takes what a raw IPv6 socket gives: the payload, and hop limit and
// destination beside it.
func packet6(b, oob []byte, from netip.Addr) (packet, bool) {
	p := packet{from: from, payload: b}
	for len(oob) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return packet{}, false
		}
		switch {
		case h.Level != unix.IPPROTO_IPV6:
		case h.Type == unix.IPV6_HOPLIMIT && len(data) >= 4:
			p.ttl = int(binary.NativeEndian.Uint32(data))
		case h.Type == unix.IPV6_PKTINFO && len(data) >= 16:
			p.to = netip.AddrFrom16([16]byte(data[:16]))
		}
		oob = rest
	}
	return p, p.to.IsValid()
}

// send sends a payload from the socket's own address.
func (s *socket) send(payload []byte, to netip.Addr) error {
	var err error
	if s.six {
		oob := unix.PktInfo6(&unix.Inet6Pktinfo{Addr: s.self.As16(), Ifindex: uint32(s.index)})
		err = unix.Sendmsg(s.fd, payload, oob, &unix.SockaddrInet6{Addr: to.As16(), ZoneId: uint32(s.index)}, unix.MSG_DONTWAIT)
	} else {
		oob := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: s.self.As4(), Ifindex: int32(s.index)})
		err = unix.Sendmsg(s.fd, payload, oob, &unix.SockaddrInet4{Addr: to.As4()}, unix.MSG_DONTWAIT)
	}
	if err != nil {
		return fmt.Errorf("send to %s on %s: %w", to, s.name, err)
	}
	return nil
}
