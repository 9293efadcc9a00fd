package runner

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linkState is what the kernel says of an interface.
type linkState struct {
	name string
	up   bool
}

// subscription is netlink's stream of changes of links.
type subscription struct {
	updates chan netlink.LinkUpdate
	done    chan struct{}
}

func subscribe() (*subscription, error) {
	s := &subscription{updates: make(chan netlink.LinkUpdate, 64), done: make(chan struct{})}
	err := netlink.LinkSubscribeWithOptions(s.updates, s.done, netlink.LinkSubscribeOptions{ListExisting: true})
	if err != nil {
		close(s.done)
		return nil, fmt.Errorf("follow the links of interfaces: %w", err)
	}
	return s, nil
}

// end waits until the stream has ended.
func (s *subscription) end() {
	close(s.done)
	for range s.updates {
	}
}

// watchLinks follows the links of the interfaces. A stream that broke off (netlink
// loses messages when its reader is slow) is opened again.
func (r *Runner) watchLinks(ctx context.Context, wg *sync.WaitGroup) error {
	s, err := subscribe()
	if err != nil {
		return err
	}
	wg.Go(func() {
		for {
			if s != nil {
				r.follow(ctx, s)
				s.end()
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(retryLinks):
			}
			if s, err = subscribe(); err != nil {
				r.o.Log.Warn("links are looked at once a second only", "group", r.o.Group, "error", err)
			}
		}
	})
	return nil
}

func (r *Runner) follow(ctx context.Context, s *subscription) {
	for {
		select {
		case <-ctx.Done():
			return
		case u, ok := <-s.updates:
			if !ok {
				return
			}
			name := u.Attrs().Name
			// A bridge that gives up a port says so as if the interface were gone.
			if u.Family == unix.AF_BRIDGE || !slices.Contains(r.o.Interfaces, name) {
				continue
			}
			l := linkState{name: name, up: u.Header.Type != unix.RTM_DELLINK && linkUp(u.Attrs())}
			select {
			case r.links <- l:
			case <-ctx.Done():
				return
			}
		}
	}
}

// lookAtLinks asks for what no message told.
func (r *Runner) lookAtLinks() {
	for _, name := range r.o.Interfaces {
		link, err := netlink.LinkByName(name)
		switch {
		case err == nil:
			r.onLink(linkState{name: name, up: linkUp(link.Attrs())})
		case errors.As(err, &netlink.LinkNotFoundError{}):
			r.onLink(linkState{name: name})
		}
	}
}

// linkUp: administratively up, and with a carrier as far as the driver knows.
func linkUp(a *netlink.LinkAttrs) bool {
	return a.Flags&net.FlagUp != 0 && (a.OperState == netlink.OperUp || a.OperState == netlink.OperUnknown && a.RawFlags&unix.IFF_LOWER_UP != 0)
}

func (r *Runner) onLink(l linkState) {
	if r.up[l.name] == l.up {
		return
	}
	r.up[l.name] = l.up
	r.o.Log.Info("link", "group", r.o.Group, "interface", l.name, "up", l.up)
	if !l.up {
		r.closeListeners(l.name)
	}
	r.choose()
}
