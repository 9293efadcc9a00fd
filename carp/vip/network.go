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
	"sync"
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

// maxConflicts bounds what a probe reports.
const maxConflicts = 16

// probe asks on an interface who has the addresses. It takes probeTime.
func probe(ctx context.Context, ifc *net.Interface, addrs []netip.Addr) ([]Conflict, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	var found [2][]Conflict
	var errs [2]error
	var wg sync.WaitGroup
	for i, six := range []bool{false, true} {
		var list []netip.Addr
		for _, a := range addrs {
			if a.Is6() == six {
				list = append(list, a)
			}
		}
		if len(list) > 0 {
			wg.Go(func() { found[i], errs[i] = probeFamily(ctx, ifc, list, six) })
		}
	}
	wg.Wait()
	return append(found[0], found[1]...), errors.Join(errs[:]...)
}

// advertisements lets the kernel pass on neighbour advertisements alone: among the
// other traffic of a busy interface an answer might be lost.
var advertisements = func() []bpf.RawInstruction {
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: etherHead + 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: nextICMP, SkipTrue: 3},
		bpf.LoadAbsolute{Off: etherHead + ipv6Head, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: icmpAdvertise, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		panic("vip: " + err.Error())
	}
	return raw
}()

func probeFamily(ctx context.Context, ifc *net.Interface, addrs []netip.Addr, six bool) (found []Conflict, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("look for others with the address on %s: %w", ifc.Name, err)
		}
	}()
	kind := etherARP
	var only *packet.Config
	if six {
		kind, only = etherIPv6, &packet.Config{Filter: advertisements}
	}
	c, err := packet.Listen(ifc, packet.Raw, kind, only)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for _, a := range addrs {
		frame, to := question(ifc.HardwareAddr, a), broadcast
		if six {
			frame, to = question6(a)
		}
		if _, err := c.WriteTo(ethernet(frame, ifc.HardwareAddr, to, kind), &packet.Addr{HardwareAddr: to}); err != nil {
			return nil, err
		}
	}
	// A probe that is given up ends at once.
	defer context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Now()) })()
	buf := make([]byte, 2048)
	for len(found) < maxConflicts {
		n, _, err := c.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
			break
		}
		if err != nil {
			return found, err
		}
		ip, mac, ok := claim(buf[:n], six)
		if !ok || !slices.Contains(addrs, ip) || own(mac) {
			continue
		}
		same := func(x Conflict) bool { return x.Address == ip && bytes.Equal(x.MAC, mac) }
		if !slices.ContainsFunc(found, same) {
			found = append(found, Conflict{Address: ip, MAC: mac, On: ifc.Name})
		}
	}
	return found, nil
}

const etherHead = 14

// claim reads from a frame who says to have which address.
func claim(frame []byte, six bool) (netip.Addr, net.HardwareAddr, bool) {
	if len(frame) < etherHead {
		return netip.Addr{}, nil, false
	}
	if six {
		ip, ok := parseAdvertisement(frame[etherHead:])
		return ip, bytes.Clone(frame[6:12]), ok
	}
	a, ok := parseARP(frame[etherHead:])
	return a.senderIP, bytes.Clone(a.sender), ok && !a.senderIP.IsUnspecified()
}

// own says whether a MAC is of one of this machine's interfaces: with standby
// interfaces on one network, the one that had the address answers.
func own(mac net.HardwareAddr) bool {
	list, err := net.Interfaces()
	return err == nil && slices.ContainsFunc(list, func(i net.Interface) bool { return bytes.Equal(i.HardwareAddr, mac) })
}

// ethernet puts a payload into a frame.
func ethernet(payload []byte, from, to net.HardwareAddr, kind int) []byte {
	b := make([]byte, 0, etherHead+len(payload))
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
