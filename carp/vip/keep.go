package vip

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
)

// keeping is what the goroutine that keeps addresses knows.
type keeping struct {
	k         *Keeper
	on        string
	refreshed time.Duration // boot time when the kernel was told the lifetime last
	failing   string        // what was logged last of that
}

// keep refreshes the lifetime, puts back what is taken away, and announces.
func (k *Keeper) keep(ctx context.Context, name string) {
	g := &keeping{k: k, on: name, refreshed: boot()}
	changes, end := k.follow()
	defer end()
	refresh := time.NewTicker(k.Lifetime() / refreshes)
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
			g.refresh()
		case u, ok := <-changes:
			switch {
			case !ok: // netlink lost messages; the refresh notices, too
				changes = nil
			case !u.NewAddr && k.has(u.LinkAddress.IP):
				putBack.Reset(max(0, putBackGap-time.Since(lastPut)))
			}
		case <-putBack.C:
			g.refresh()
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
func (g *keeping) refresh() {
	k := g.k
	if !k.may(g.refreshed) {
		g.lapse()
		return
	}
	if k.lapsed.Swap(false) {
		k.Announce()
	}
	k.notice()
	text := ""
	if err := k.add(g.on); err != nil {
		text = err.Error()
	} else {
		g.refreshed = boot()
	}
	if text == g.failing {
		return
	}
	if g.failing = text; text != "" {
		k.o.Log.Error("the service address cannot be kept", "group", k.o.Group, "error", text)
		return
	}
	k.o.Log.Info("the service address can be kept again", "group", k.o.Group)
}

// lapse leaves the addresses to the kernel, which removes them at the end of their
// lifetime: unless it was suspended, too.
func (g *keeping) lapse() {
	k := g.k
	first := !k.lapsed.Swap(true)
	if first {
		k.o.Log.Warn("the service address is not kept: this node stood still or is no longer rightful", "group", k.o.Group)
	}
	if boot()-g.refreshed < k.Lifetime() {
		return
	}
	if err := k.removeBut(""); err != nil && first {
		k.o.Log.Error("the service address cannot be taken down", "group", k.o.Group, "error", err)
	}
	if first && k.o.Rightful == nil && k.o.Lost != nil {
		for _, p := range k.o.Addresses {
			k.o.Lost(p)
		}
	}
}

func (g *keeping) announce() {
	k := g.k
	if k.lapsed.Load() || !k.may(g.refreshed) {
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
