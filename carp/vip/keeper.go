package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Options of a Keeper.
type Options struct {
	Group     string
	Addresses []netip.Prefix
	// Interfaces on which the addresses may stand: others are none of ours.
	Interfaces []string
	// Lifetime is for how long the kernel keeps an address that is not refreshed. It
	// is rounded up to seconds.
	Lifetime time.Duration
	// Ours says whether a machine that has one of the addresses is a node of this
	// cluster: then the address is announced over it, not left to it.
	Ours func(net.HardwareAddr) bool
	// Lost is told when an address vanished without being taken down. It must not
	// block.
	Lost func(netip.Prefix)
	Log  *slog.Logger
}

// Keeper holds a group's addresses.
type Keeper struct {
	o        Options
	lifetime int // seconds

	mu     sync.Mutex
	on     string // interface; "": the addresses are down
	cancel context.CancelFunc
	wg     sync.WaitGroup
	again  chan struct{} // announce now
}

const (
	// refreshes is how often an address is refreshed within its lifetime: two may
	// fail.
	refreshes = 3
	// announceTimes are when the network is told after an address was added: a
	// switch that was just plugged in forwards nothing at first.
	announceSoon  = 100 * time.Millisecond
	announceLater = time.Second
	announceLast  = 5 * time.Second
	// noDAD: the kernel does not look for duplicates itself, which takes a second;
	// probe did.
	noDAD = unix.IFA_F_NODAD
)

// New makes a keeper. It changes nothing yet.
func New(o Options) *Keeper {
	return &Keeper{o: o, lifetime: max(1, int((o.Lifetime+time.Second-1)/time.Second)), again: make(chan struct{}, 1)}
}

// Lifetime is what the kernel is told.
func (k *Keeper) Lifetime() time.Duration { return time.Duration(k.lifetime) * time.Second }

// On is the interface that has the addresses, "" if they are down.
func (k *Keeper) On() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.on
}

func (k *Keeper) addrs() []netip.Addr {
	list := make([]netip.Addr, len(k.o.Addresses))
	for i, p := range k.o.Addresses {
		list[i] = p.Addr()
	}
	return list
}

// Up puts the addresses on an interface, unless a stranger has one.
func (k *Keeper) Up(ctx context.Context, name string) error {
	ifc, err := net.InterfaceByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.on == name {
		return nil
	}
	if len(ifc.HardwareAddr) == 6 {
		c, err := probe(ctx, ifc, k.addrs())
		switch {
		case err != nil:
			k.o.Log.Warn("cannot look for others with the address", "group", k.o.Group, "error", err)
		case c == nil:
		case k.o.Ours != nil && k.o.Ours(c.MAC):
			k.o.Log.Warn("the other node still has the address: announcing over it", "group", k.o.Group, "address", c.Address.String(), "mac", c.MAC.String())
		default:
			return c
		}
	}
	k.stop()
	if err := k.add(name); err != nil {
		return errors.Join(err, k.remove())
	}
	k.on = name
	ctx, k.cancel = context.WithCancel(context.WithoutCancel(ctx))
	k.wg.Go(func() { k.keep(ctx, name) })
	return nil
}

// stop ends keeping; the addresses stay until removed or expired.
func (k *Keeper) stop() {
	if k.cancel != nil {
		k.cancel()
		k.wg.Wait()
		k.cancel = nil
	}
	k.on = ""
}

// Down takes the addresses off every interface.
func (k *Keeper) Down() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stop()
	return k.remove()
}

// Abandon stops keeping the addresses without taking them off: the kernel will.
func (k *Keeper) Abandon() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stop()
}

// Announce tells the network again where the addresses are, soon.
func (k *Keeper) Announce() {
	select {
	case k.again <- struct{}{}:
	default:
	}
}

// add sets the addresses, or their lifetime anew.
func (k *Keeper) add(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	for _, p := range k.o.Addresses {
		a := k.addr(p)
		if err := netlink.AddrReplace(link, a); err != nil {
			return fmt.Errorf("add %s to %s: %w", p, name, err)
		}
	}
	return nil
}

func (k *Keeper) addr(p netip.Prefix) *netlink.Addr {
	ip := p.Addr().AsSlice()
	a := &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(p.Bits(), 8*len(ip))}, ValidLft: k.lifetime, PreferedLft: k.lifetime}
	if p.Addr().Is6() {
		a.Flags = noDAD
	}
	return a
}

// Present tells which of the addresses stand on which interface, whoever put them
// there.
func (k *Keeper) Present() (map[netip.Prefix]string, error) {
	found := map[netip.Prefix]string{}
	for _, name := range k.o.Interfaces {
		link, err := netlink.LinkByName(name)
		if err != nil {
			continue
		}
		list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("addresses of %s: %w", name, err)
		}
		for _, a := range list {
			ip, ok := netip.AddrFromSlice(a.IP)
			if !ok {
				continue
			}
			for _, p := range k.o.Addresses {
				if p.Addr() == ip.Unmap() {
					found[p] = name
				}
			}
		}
	}
	return found, nil
}

// remove takes the addresses off, as often as they are there.
func (k *Keeper) remove() error {
	var errs []error
	for _, name := range k.o.Interfaces {
		link, err := netlink.LinkByName(name)
		if err != nil {
			continue // it took them with it
		}
		list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			errs = append(errs, fmt.Errorf("addresses of %s: %w", name, err))
			continue
		}
		for _, a := range list {
			ip, _ := netip.AddrFromSlice(a.IP)
			for _, p := range k.o.Addresses {
				if p.Addr() != ip.Unmap() {
					continue
				}
				if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
					errs = append(errs, fmt.Errorf("take %s off %s: %w", p, name, err))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// keep refreshes the lifetime, notices what is taken away, and announces.
func (k *Keeper) keep(ctx context.Context, name string) {
	refresh := time.NewTicker(k.Lifetime() / refreshes)
	defer refresh.Stop()
	plan := []time.Duration{0, announceSoon, announceLater, announceLast}
	tell := time.NewTimer(0)
	defer tell.Stop()
	told := time.Now()
	failing := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-refresh.C:
			k.notice()
			text := ""
			if err := k.add(name); err != nil {
				text = err.Error()
			}
			if text != failing {
				if failing = text; text != "" {
					k.o.Log.Error("the service address cannot be kept", "group", k.o.Group, "error", text)
				}
			}
		case <-k.again:
			plan, told = []time.Duration{0, announceLater}, time.Now()
			tell.Reset(0)
		case <-tell.C:
			if ifc, err := net.InterfaceByName(name); err == nil && len(ifc.HardwareAddr) == 6 {
				if err := announce(ifc, k.addrs()); err != nil {
					k.o.Log.Warn("cannot announce the service address", "group", k.o.Group, "error", err)
				}
			}
			if plan = plan[1:]; len(plan) > 0 {
				tell.Reset(max(0, plan[0]-time.Since(told)))
			}
		}
	}
}

// notice tells of addresses that are not there although they were kept.
func (k *Keeper) notice() {
	found, err := k.Present()
	if err != nil {
		return
	}
	for _, p := range k.o.Addresses {
		if _, ok := found[p]; !ok {
			k.o.Log.Warn("the service address was taken away: putting it back", "group", k.o.Group, "address", p.String())
			if k.o.Lost != nil {
				k.o.Lost(p)
			}
			k.Announce()
		}
	}
}
