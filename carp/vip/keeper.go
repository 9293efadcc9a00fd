package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	// Rightful says whether this node may have the addresses now, or nil. It is asked
	// before each refresh: a process that stood still must not put back what the
	// kernel has removed and another node has taken. It must not block.
	Rightful func() bool
	// Until says for how much longer this node may have the addresses, or nil: the
	// kernel is told Lifetime or that, whichever is shorter, rounded up to a second. With
	// 0 and less nothing is added, refreshed or announced. It is asked when Rightful is,
	// both must agree, and it must not block.
	Until func() time.Duration
	// Lost is told when an address vanished without being taken down, as often as it is
	// tried to put it back. It must not block.
	Lost func(netip.Prefix)
	// Taken is told instead, once, when addresses that ran out (this process stood still,
	// or Until was over for a while) cannot be put back, as somebody else has one. All are
	// down then; it is tried again until an Up or a Down. nil: Lost is told of that, too.
	// It must not block.
	Taken func(*Conflict)
	Log   *slog.Logger
}

// Keeper holds a group's addresses.
type Keeper struct {
	o        Options
	lifetime int // seconds

	mu     sync.Mutex // over the addresses: one change at a time
	on     string     // interface; "": the addresses are down
	cancel context.CancelFunc
	wg     sync.WaitGroup
	again  chan struct{} // announce now

	lapsed atomic.Bool // the addresses are not kept although they are not down
	warned sync.Once   // that other addresses may go with ours
}

const (
	// refreshes is how often an address is refreshed within what the kernel was told:
	// two may fail.
	refreshes = 3
	// putBackGap bounds how often an address that is taken away is put back.
	putBackGap = 100 * time.Millisecond
	// announceSoon and those below are when the network is told after an address was
	// added: a switch that was just plugged in forwards nothing at first.
	announceSoon  = 100 * time.Millisecond
	announceLater = time.Second
	announceLast  = 5 * time.Second
	// noDAD: the kernel does not look for duplicates itself, which takes a second;
	// probe did.
	noDAD = unix.IFA_F_NODAD
)

// New makes a keeper. It changes nothing yet.
func New(o Options) *Keeper {
	return &Keeper{o: o, lifetime: max(1, seconds(o.Lifetime)), again: make(chan struct{}, 1)}
}

// Lifetime is the most that the kernel is told.
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
	if k.on == name && !k.lapsed.Load() {
		return nil
	}
	began := boot()
	if err := k.ask(ctx, ifc); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // a probe that is given up has found nobody
		return err
	}
	k.stop()
	until, err := k.put(began, name)
	if err != nil {
		return errors.Join(err, k.removeBut(""))
	}
	k.on = name
	k.lapsed.Store(false)
	ctx, k.cancel = context.WithCancel(context.WithoutCancel(ctx))
	k.wg.Go(func() { k.keep(ctx, name, until) })
	return nil
}

// put adds the addresses to one interface alone, after others were asked for at a boot
// time, and says until when the kernel keeps them. Since then this process may have
// stood still, and another node taken over.
func (k *Keeper) put(asked time.Duration, name string) (until time.Duration, err error) {
	seconds := k.left()
	if !k.told() && boot()-asked >= k.Lifetime() {
		seconds = 0
	}
	if seconds == 0 {
		return 0, fmt.Errorf("the addresses of %s were not added: this node stood still or is no longer rightful", k.o.Group)
	}
	if err := k.removeBut(name); err != nil {
		return 0, err
	}
	return k.add(name, seconds)
}

// ask looks for others with the addresses. Only a stranger is an error.
func (k *Keeper) ask(ctx context.Context, ifc *net.Interface) error {
	if len(ifc.HardwareAddr) != 6 {
		return nil
	}
	found, err := probe(ctx, ifc, k.addrs())
	if err != nil {
		k.o.Log.Warn("cannot look for others with the address", "group", k.o.Group, "error", err)
	}
	for _, c := range found {
		if k.o.Ours == nil || !k.o.Ours(c.MAC) {
			return &c
		}
		k.o.Log.Warn("the other node still has the address: announcing over it", "group", k.o.Group, "address", c.Address.String(), "mac", c.MAC.String())
	}
	return nil
}

// told says whether anybody says if this node is rightful. If not, it is until its
// addresses are taken down.
func (k *Keeper) told() bool { return k.o.Rightful != nil || k.o.Until != nil }

// left is for how many seconds the kernel is to keep the addresses from now on; 0: this
// node may not have them.
func (k *Keeper) left() int {
	if k.o.Rightful != nil && !k.o.Rightful() {
		return 0
	}
	if k.o.Until == nil {
		return k.lifetime
	}
	return max(0, seconds(min(k.Lifetime(), k.o.Until())))
}

// seconds rounds up.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// boot is the time since this machine started, with that in which it was suspended.
func boot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("clock_gettime: " + err.Error()) // the clock is part of every kernel
	}
	return time.Duration(ts.Nano())
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
	return k.removeBut("")
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

// add sets the addresses, or their lifetime anew, and says until when those stand that
// the kernel took; 0: none. That counts from its end: on a busy machine the kernel is
// late, and what it still has is not to be taken for gone.
func (k *Keeper) add(name string, seconds int) (until time.Duration, err error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	k.promote(name)
	var errs []error
	for _, p := range k.o.Addresses {
		if err := netlink.AddrReplace(link, addr(p, seconds)); err != nil {
			errs = append(errs, fmt.Errorf("add %s to %s: %w", p, name, err))
		}
	}
	if len(errs) == 0 || len(errs) < len(k.o.Addresses) {
		until = boot() + time.Duration(seconds)*time.Second
	}
	return until, errors.Join(errs...)
}

// promote has the kernel keep the other IPv4 addresses of an interface when one of ours
// goes, by our hand or at the end of its lifetime. Without it they go along where ours
// was there before them, this machine's own among them.
func (k *Keeper) promote(name string) {
	if !slices.ContainsFunc(k.addrs(), netip.Addr.Is4) {
		return
	}
	// Of this thread's namespace, as the addresses are.
	path := "/proc/sys/net/ipv4/conf/" + name + "/promote_secondaries"
	if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) == "1" {
		return
	}
	if err := os.WriteFile(path, []byte("1"), 0); err != nil {
		k.warned.Do(func() {
			k.o.Log.Warn("when the service address goes, other IPv4 addresses of the interface may go with it: write 1 into the file yourself", "group", k.o.Group, "error", err)
		})
	}
}

func addr(p netip.Prefix, seconds int) *netlink.Addr {
	ip := p.Addr().AsSlice()
	a := &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(p.Bits(), 8*len(ip))}, ValidLft: seconds, PreferedLft: seconds}
	if p.Addr().Is6() {
		a.Flags = noDAD
	}
	return a
}

// Present tells which of the addresses stand on which interface, whoever put them
// there: one that a dead process left runs out, and must take no other along.
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
					k.promote(name)
					found[p] = name
				}
			}
		}
	}
	return found, nil
}

// removeBut takes the addresses off all interfaces but one, as often as they are
// there.
func (k *Keeper) removeBut(but string) error {
	var errs []error
	for _, name := range k.o.Interfaces {
		if name == but {
			continue
		}
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
				k.promote(name) // whoever put it there may not have
				if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
					errs = append(errs, fmt.Errorf("take %s off %s: %w", p, name, err))
				}
			}
		}
	}
	return errors.Join(errs...)
}
