package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Client is a third host on the nodes' switch. It knows nothing but the service
// address: it sends a small request to it every few milliseconds and keeps when it was
// answered by whom. What answers on each node is an idle service, which needs no
// storage. Watch has it ask the network who has the address, too.
type Client struct {
	service netip.Addr
	conn    *net.UDPConn // to the service
	echo    [2]net.PacketConn
	asker   int // socket that asks for the address; its own thread reads it
	mac     net.HardwareAddr
	link    int
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu      sync.Mutex
	began   time.Time
	answers []Answer // of the service
	holders []Holder // of the address
}

// Answer is one of the service's.
type Answer struct {
	At time.Time
	By Side
}

// Holder says that a card answered for the address.
type Holder struct {
	At  time.Time
	MAC string
}

const (
	// requestEvery and askEvery are the client's pace.
	requestEvery = 10 * time.Millisecond
	askEvery     = 20 * time.Millisecond
	echoPort     = 7
	// readPause bounds how long a reader takes to notice its end.
	readPause = 200 * time.Millisecond
)

// NewClient starts a client of one service address, in a lab with a LAN.
func NewClient(l *Lab, service string) (*Client, error) {
	lan, ok := l.net.(*LAN)
	if !ok {
		return nil, errors.New("lab: a client needs a LAN")
	}
	c := &Client{service: netip.MustParseAddr(service), asker: -1, began: time.Now()}
	addr := netip.AddrPortFrom(c.service, echoPort)
	for s := range c.echo {
		err := lan.onNode(Side(s), func() (err error) {
			// The address is not there yet.
			free := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
				var err error
				return errors.Join(raw.Control(func(fd uintptr) {
					if c.service.Is6() {
						err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
					} else {
						err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
					}
				}), err)
			}}
			c.echo[s], err = free.ListenPacket(context.Background(), "udp", addr.String())
			return err
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lab: service on %v: %w", Side(s), err), c.Close())
		}
	}
	err := lan.onClient(func() (err error) {
		if c.conn, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr)); err != nil {
			return err
		}
		ifc, err := net.InterfaceByName(linkName)
		if err != nil {
			return err
		}
		c.mac, c.link = ifc.HardwareAddr, ifc.Index
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lab: client: %w", err), c.Close())
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	for s := range c.echo {
		c.wg.Go(func() { c.serve(Side(s)) })
	}
	c.wg.Go(func() { c.request(c.ctx) })
	c.wg.Go(c.listen)
	return c, nil
}

// Watch begins to ask who has the address. Who is measured by its pause must not: the
// answers tell its kernel what the nodes are to announce.
func (c *Client) Watch(l *Lab) error {
	err := l.net.(*LAN).onClient(func() (err error) {
		c.asker, err = openAsker(c.service, c.link)
		return err
	})
	if err != nil {
		return fmt.Errorf("lab: client: %w", err)
	}
	c.wg.Go(func() { c.ask(c.ctx) })
	c.wg.Go(func() { c.hear(c.ctx) })
	return nil
}

// Close ends it.
func (c *Client) Close() error {
	if c.cancel != nil {
		c.cancel()
	}
	for _, e := range c.echo {
		if e != nil {
			e.Close()
		}
	}
	if c.conn != nil {
		c.conn.Close()
	}
	c.wg.Wait()
	if c.asker >= 0 {
		unix.Close(c.asker)
	}
	return nil
}

// serve is the idle service of a node: who asks is told the node.
func (c *Client) serve(s Side) {
	b := make([]byte, 64)
	for {
		_, from, err := c.echo[s].ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			c.echo[s].WriteTo([]byte{byte(s)}, from) // one that is lost is a pause
		}
	}
}

func (c *Client) request(ctx context.Context) {
	tick := time.NewTicker(requestEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.conn.Write([]byte{0}) // an error is a pause, too
		}
	}
}

func (c *Client) listen() {
	b := make([]byte, 64)
	for {
		n, err := c.conn.Read(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && n == 1 && b[0] <= byte(Bravo) {
			c.mu.Lock()
			c.answers = append(c.answers, Answer{time.Now(), Side(b[0])})
			c.mu.Unlock()
		}
	}
}

func (c *Client) ask(ctx context.Context) {
	question, to := arpQuestion(c.service, c.mac, c.link)
	if c.service.Is6() {
		question, to = neighbourQuestion(c.service, c.mac, c.link)
	}
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			unix.Sendto(c.asker, question, 0, to) // the next one comes soon
		}
	}
}

func (c *Client) hear(ctx context.Context) {
	read := arpAnswer
	if c.service.Is6() {
		read = neighbourAnswer
	}
	b := make([]byte, 2048)
	for ctx.Err() == nil {
		n, _, err := unix.Recvfrom(c.asker, b, 0)
		if err != nil {
			continue // the time is over
		}
		if mac := read(b[:n], c.service); mac != nil {
			c.mu.Lock()
			c.holders = append(c.holders, Holder{time.Now(), mac.String()})
			c.mu.Unlock()
		}
	}
}

// Begin forgets what was seen so far.
func (c *Client) Begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began, c.answers, c.holders = time.Now(), nil, nil
}

// Seen is what was seen since Begin.
func (c *Client) Seen() Seen {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Seen{c.began, time.Now(), append([]Answer(nil), c.answers...), append([]Holder(nil), c.holders...)}
}

// pause is the longest time without an answer since Begin.
func (c *Client) pause() time.Duration {
	seen := c.Seen()
	return seen.Pause()
}

// served waits for an answer of a node's service.
func (c *Client) served(by Side, after time.Time) (first time.Time, err error) {
	err = poll(downLimit, func() (bool, error) {
		seen := c.Seen()
		at, ok := seen.FirstBy(by, after)
		first = at
		return ok, nil
	})
	if err != nil {
		err = fmt.Errorf("lab: the client gets no answer of %v: %w", by, err)
	}
	return first, err
}

// openAsker opens the socket of the questions who has an address.
func openAsker(service netip.Addr, link int) (int, error) {
	family, kind, proto := unix.AF_PACKET, unix.SOCK_RAW, int(htons(unix.ETH_P_ARP))
	if service.Is6() {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return -1, err
	}
	wait := unix.NsecToTimeval(int64(readPause))
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
	if service.Is6() {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MULTICAST_HOPS, 255))
	} else {
		err = errors.Join(err, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: link}))
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// Offsets in an Ethernet frame with ARP in it.
const (
	arpKind      = 20
	arpSenderMAC = 22
	arpSenderIP  = 28
	arpTargetIP  = 38
	arpSize      = 42
)

func arpQuestion(service netip.Addr, mac net.HardwareAddr, link int) ([]byte, unix.Sockaddr) {
	b := make([]byte, arpSize)
	for i := range 6 {
		b[i] = 0xff
	}
	copy(b[6:], mac)
	copy(b[12:], []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1})
	copy(b[arpSenderMAC:], mac)
	copy(b[arpSenderIP:], []byte{10, 77, 0, clientHost})
	copy(b[arpTargetIP:], service.AsSlice())
	return b, &unix.SockaddrLinklayer{Ifindex: link}
}

// arpAnswer is the card that says it has the address. What is said unasked goes to
// everybody and is no answer.
func arpAnswer(b []byte, service netip.Addr) net.HardwareAddr {
	if len(b) < arpSize || b[0] == 0xff || binary.BigEndian.Uint16(b[arpKind:]) != 2 || [4]byte(b[arpSenderIP:arpTargetIP-6]) != service.As4() {
		return nil
	}
	return append(net.HardwareAddr(nil), b[arpSenderMAC:arpSenderIP]...)
}

// Kinds and offsets of ICMPv6's neighbour messages.
const (
	solicitation  = 135
	advertisement = 136
	solicited     = 0x40 // flag of an answer
	ndTarget      = 8
	ndOption      = 24
	ndSize        = 32
)

func neighbourQuestion(service netip.Addr, mac net.HardwareAddr, link int) ([]byte, unix.Sockaddr) {
	b := make([]byte, ndSize)
	b[0] = solicitation
	copy(b[ndTarget:], service.AsSlice())
	b[ndOption], b[ndOption+1] = 1, 1
	copy(b[ndOption+2:], mac)
	x := service.As16()
	return b, &unix.SockaddrInet6{ZoneId: uint32(link), Addr: [16]byte{0xff, 2, 11: 1, 12: 0xff, 13: x[13], 14: x[14], 15: x[15]}}
}

func neighbourAnswer(b []byte, service netip.Addr) net.HardwareAddr {
	if len(b) < ndSize || b[0] != advertisement || b[4]&solicited == 0 || [16]byte(b[ndTarget:ndOption]) != service.As16() || b[ndOption] != 2 {
		return nil
	}
	return append(net.HardwareAddr(nil), b[ndOption+2:ndSize]...)
}
