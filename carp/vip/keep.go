package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
)

// keeping is what the goroutine that keeps addresses knows.
type keeping struct {
	k       *Keeper
	on      string
	until   time.Duration // boot time at which the kernel removes what it has of them
	failing string        // what was logged last of what cannot be done
}

// leastGap bounds how often a lifetime is refreshed: that of the shortest there is.
const leastGap = time.Second / refreshes

// next is the time to the next refresh.
func (g *keeping) next() time.Duration {
	if left := g.until - boot(); left > 0 {
		return max(left/refreshes, leastGap)
	}
	return g.k.Lifetime() / refreshes
}

// ranOut says whether the kernel has removed the addresses, unless it was suspended.
func (g *keeping) ranOut() bool { return boot() >= g.until }

// keep refreshes the lifetime, puts back what is taken away, and announces.
func (k *Keeper) keep(ctx context.Context, name string, until time.Duration) {
	g := &keeping{k: k, on: name, until: until}
	select {
	case <-k.again: // what was asked for while they were down is in the plan
	default:
	}
	changes, end := k.follow()
	defer end()
	refresh := time.NewTimer(g.next())
	defer refresh.Stop()
	putBack, lastPut := time.NewTimer(time.Hour), time.Time{}
	defer putBack.Stop()
	plan := []time.Duration{0, announceSoon, announceLater, announceLast}
	tell, told := time.NewTimer(0), time.Now()
	defer tell.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-refresh.C:
			g.refresh(ctx)
			refresh.Reset(g.next())
		case u, ok := <-changes:
			switch {
			case !ok: // netlink lost messages; the refresh notices, too
				changes = nil
			case !u.NewAddr && k.has(u.LinkAddress.IP):
				putBack.Reset(max(0, putBackGap-time.Since(lastPut)))
			}
		case <-putBack.C:
			g.refresh(ctx)
			lastPut = time.Now()
		case <-k.again:
			plan, told = []time.Duration{0, announceLater}, time.Now()
			tell.Reset(0)
		case <-tell.C:
			g.announce()
			if plan = plan[1:]; len(plan) > 0 {
				tell.Reset(max(0, plan[0]-time.Since(told)))
			}
		}
	}
}

// follow has the kernel tell of addresses that come and go.
func (k *Keeper) follow() (changes chan netlink.AddrUpdate, end func()) {
	changes, done := make(chan netlink.AddrUpdate, 64), make(chan struct{})
	if err := netlink.AddrSubscribe(changes, done); err != nil {
		k.o.Log.Warn("addresses that are taken away are noticed late", "group", k.o.Group, "error", err)
		return nil, func() {}
	}
	return changes, func() {
		close(done)
		for range changes {
		}
	}
}

func (k *Keeper) has(ip net.IP) bool {
	return slices.ContainsFunc(k.addrs(), func(a netip.Addr) bool { return ip.Equal(a.AsSlice()) })
}

// refresh sets the lifetime anew, while this node is rightful.
func (g *keeping) refresh(ctx context.Context) {
	k := g.k
	seconds := k.left()
	if seconds == 0 {
		g.lapse()
		return
	}
	if g.ranOut() {
		g.back(ctx)
		return
	}
	if k.lapsed.Swap(false) {
		k.Announce()
	}
	k.notice()
	until, err := k.add(g.on, seconds)
	if until != 0 {
		g.until = until
	}
	g.say(err)
}

// say logs what cannot be done when it begins, changes and ends, and whether it did.
func (g *keeping) say(err error) (changed bool) {
	k, text := g.k, ""
	if err != nil {
		text = err.Error()
	}
	if text == g.failing {
		return false
	}
	if g.failing = text; text != "" {
		k.o.Log.Error("the service address cannot be kept", "group", k.o.Group, "error", text)
		return true
	}
	k.o.Log.Info("the service address can be kept again", "group", k.o.Group)
	return true
}

// lapse leaves the addresses to the kernel, which removes them at the end of their
// lifetime: unless it was suspended, too.
func (g *keeping) lapse() {
	k := g.k
	first := !k.lapsed.Swap(true)
	if first {
		k.o.Log.Warn("the service address is not kept: this node stood still or is no longer rightful", "group", k.o.Group)
	}
	if !g.ranOut() {
		return
	}
	if err := k.removeBut(""); err != nil && first {
		k.o.Log.Error("the service address cannot be taken down", "group", k.o.Group, "error", err)
	}
}

// back puts up what ran out, as this process stood still or was not rightful for a
// while. Nobody has kept it here since: as before an Up, somebody else may have it.
func (g *keeping) back(ctx context.Context) {
	k := g.k
	if !k.lapsed.Swap(true) {
		k.o.Log.Warn("the service address ran out while this node stood still: putting it back", "group", k.o.Group)
	}
	until, err := g.replace(ctx)
	if ctx.Err() != nil {
		return // they are to go down
	}
	news := g.say(err)
	if taken := (*Conflict)(nil); errors.As(err, &taken) && k.o.Taken != nil {
		if news {
			k.o.Taken(taken)
		}
		return
	}
	if k.o.Lost != nil {
		for _, p := range k.o.Addresses {
			k.o.Lost(p)
		}
	}
	if until != 0 {
		g.until = until
		k.lapsed.Store(false)
		k.Announce()
	}
}

// replace is Up for addresses that nobody took down. Its results are those of add.
func (g *keeping) replace(ctx context.Context) (until time.Duration, err error) {
	k := g.k
	if err := k.removeBut(""); err != nil { // a kernel that was suspended has them still
		return 0, err
	}
	ifc, err := net.InterfaceByName(g.on)
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", g.on, err)
	}
	asked := boot()
	if err := k.ask(ctx, ifc); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil { // a probe that is given up has found nobody
		return 0, err
	}
	return k.put(asked, g.on)
}

func (g *keeping) announce() {
	k := g.k
	if k.lapsed.Load() || g.ranOut() || k.left() == 0 {
		return
	}
	ifc, err := net.InterfaceByName(g.on)
	if err != nil || len(ifc.HardwareAddr) != 6 {
		return
	}
	if err := announce(ifc, k.addrs()); err != nil {
		k.o.Log.Warn("cannot announce the service address", "group", k.o.Group, "error", err)
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
