package runner

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hastd/cluster/beat"
)

// carriers follows the interfaces of links.
type carriers struct {
	changed chan struct{}
	told    map[beat.LinkID]bool
}

// watchCarriers wakes the owner when any interface changes. What is missed is seen
// with the next look.
func (r *Runner) watchCarriers(ctx context.Context, wg *sync.WaitGroup) {
	r.carriers = carriers{changed: make(chan struct{}, 1), told: map[beat.LinkID]bool{}}
	wg.Go(func() {
		for ctx.Err() == nil {
			r.followCarriers(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(look):
			}
		}
	})
}

func (r *Runner) followCarriers(ctx context.Context) {
	updates, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		close(done)
		return
	}
	defer func() {
		close(done)
		for range updates { // until the stream has ended
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-updates:
			if !ok {
				return
			}
			select {
			case r.carriers.changed <- struct{}{}:
			default:
			}
		}
	}
}

// carry tells the machine which links have a carrier. A link without an interface of
// its own has one as far as anybody knows.
func (r *Runner) carry() {
	for _, l := range r.links {
		up := true
		if l.on != "" {
			link, err := netlink.LinkByIndex(l.index)
			up = err == nil && linkUp(link.Attrs())
		}
		if was, known := r.carriers.told[l.id]; known && was == up || !known && up {
			continue
		}
		r.carriers.told[l.id] = up
		r.o.Log.Info("carrier of "+l.id.String(), "interface", l.on, "up", up)
		r.step(beat.Event{Kind: beat.EvCarrier, Link: l.id, Up: up})
	}
}

// linkUp: administratively up, and with a carrier as far as the driver knows.
func linkUp(a *netlink.LinkAttrs) bool {
	return a.Flags&net.FlagUp != 0 && (a.OperState == netlink.OperUp || a.OperState == netlink.OperUnknown && a.RawFlags&unix.IFF_LOWER_UP != 0)
}
