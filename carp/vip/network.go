package vip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
)

// probeTime is how long somebody who has an address may take to say so.
const probeTime = 200 * time.Millisecond

// Conflict says who has an address already.
type Conflict struct {
	Address netip.Addr
	MAC     net.HardwareAddr
	On      string
}

func (c *Conflict) Error() string {
	return fmt.Sprintf("address %s is in use by %s on %s", c.Address, c.MAC, c.On)
}

// probe asks on an interface who has the addresses. It takes probeTime, or less
// when somebody answers.
func probe(ctx context.Context, ifc *net.Interface, addrs []netip.Addr) (*Conflict, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	type answer struct {
		c   *Conflict
		err error
	}
	answers := make(chan answer, 2)
	asked := 0
	for _, six := range []bool{false, true} {
		var list []netip.Addr
		for _, a := range addrs {
			if a.Is6() == six {
				list = append(list, a)
			}
		}
		if len(list) == 0 {
			continue
		}
		asked++
		go func() {
			c, err := probeFamily(ctx, ifc, list, six)
			answers <- answer{c, err}
		}()
	}
	var first answer
	for range asked {
		if a := <-answers; a.c != nil || a.err != nil && first.c == nil {
			first = a
			if a.c != nil {
				cancel()
			}
		}
	}
	return first.c, first.err
}

// advertisements lets the kernel pass on neighbour advertisements alone: among the
// other traffic of a busy interface an answer might be lost.
var advertisements = func() []bpf.RawInstruction {
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 14 + 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: nextICMP, SkipTrue: 3},
		bpf.LoadAbsolute{Off: 14 + ipv6Head, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: icmpAdvertise, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		panic("vip: " + err.Error())
	}
	return raw
}()

func probeFamily(ctx context.Context, ifc *net.Interface, addrs []netip.Addr, six bool) (*Conflict, error) {
	kind := etherARP
	if six {
		kind = etherIPv6
	}
	var only *packet.Config
	if six {
		only = &packet.Config{Filter: advertisements}
	}
	c, err := packet.Listen(ifc, packet.Raw, kind, only)
	if err != nil {
		return nil, fmt.Errorf("look for others with the address on %s: %w", ifc.Name, err)
	}
	defer c.Close()
	for _, a := range addrs {
		frame, to := question(ifc.HardwareAddr, a), broadcast
		if six {
			frame, to = question6(a)
		}
		if _, err := c.WriteTo(ethernet(frame, ifc.HardwareAddr, to, kind), &packet.Addr{HardwareAddr: to}); err != nil {
			return nil, fmt.Errorf("look for others with the address on %s: %w", ifc.Name, err)
		}
	}
	deadline, _ := ctx.Deadline()
	c.SetReadDeadline(deadline)
	buf := make([]byte, 2048)
	for {
		n, _, err := c.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("look for others with the address on %s: %w", ifc.Name, err)
		}
		if n < 14 {
			continue
		}
		mac := net.HardwareAddr(append([]byte(nil), buf[6:12]...))
		var ip netip.Addr
		if six {
			x, ok := parseAdvertisement(buf[14:n])
			if !ok {
				continue
			}
			ip = x
		} else {
			a, ok := parseARP(buf[14:n])
			if !ok || a.senderIP.IsUnspecified() {
				continue
			}
			ip, mac = a.senderIP, append(net.HardwareAddr(nil), a.sender...)
		}
		if own(mac) {
			continue
		}
		for _, a := range addrs {
			if a == ip {
				return &Conflict{Address: ip, MAC: mac, On: ifc.Name}, nil
			}
		}
	}
}

// own says whether a MAC is of one of this machine's interfaces: with standby
// interfaces on one network, the one that had the address answers.
func own(mac net.HardwareAddr) bool {
	list, err := net.Interfaces()
	return err == nil && slices.ContainsFunc(list, func(i net.Interface) bool { return bytes.Equal(i.HardwareAddr, mac) })
}

// ethernet puts a payload into a frame.
func ethernet(payload []byte, from, to net.HardwareAddr, kind int) []byte {
	b := make([]byte, 0, 14+len(payload))
	b = append(b, to...)
	b = append(b, from...)
	b = append(b, byte(kind>>8), byte(kind))
	return append(b, payload...)
}

// announce tells the network once where the addresses are.
func announce(ifc *net.Interface, addrs []netip.Addr) error {
	var errs []error
	send := func(kind int, to net.HardwareAddr, payloads ...[]byte) {
		c, err := packet.Listen(ifc, packet.Raw, kind, nil)
		if err != nil {
			errs = append(errs, err)
			return
		}
		defer c.Close()
		for _, p := range payloads {
			if _, err := c.WriteTo(ethernet(p, ifc.HardwareAddr, to, kind), &packet.Addr{HardwareAddr: to}); err != nil {
				errs = append(errs, err)
			}
		}
	}
	for _, a := range addrs {
		if a.Is6() {
			send(etherIPv6, allNodesMAC, unsolicited(ifc.HardwareAddr, a))
		} else {
			send(etherARP, broadcast, gratuitous(arpRequest, ifc.HardwareAddr, a), gratuitous(arpReply, ifc.HardwareAddr, a))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("announce the addresses on %s: %w", ifc.Name, err)
	}
	return nil
}
