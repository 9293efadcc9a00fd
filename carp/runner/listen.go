package runner

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hastd/carp"
)

// listener is a socket with the goroutine that reads it.
type listener struct {
	s    *socket
	stop int // written to end it
	wg   sync.WaitGroup
}

// listen reads packets until it is stopped. Bad ones end here.
func (r *Runner) listen(s *socket) (*listener, error) {
	read, write, err := stopPipe()
	if err != nil {
		return nil, err
	}
	l := &listener{s: s, stop: write}
	l.wg.Go(func() {
		defer unix.Close(read)
		for {
			more, err := s.wait(read)
			if err != nil || !more {
				return
			}
			for {
				p, ok, err := s.receive()
				if err != nil {
					r.o.Log.Warn("adverts cannot be received", "group", r.o.Group, "interface", s.name, "error", err)
					return
				}
				if !ok {
					break
				}
				r.take(&p, s)
			}
		}
	})
	return l, nil
}

// take hands a good packet to the owner. If the owner is behind, the packet is
// lost, as it may be on any network.
func (r *Runner) take(p *packet, s *socket) {
	if p.from == s.self {
		return
	}
	a, counter, fault := r.parse(p)
	if fault == carp.FaultNone && r.o.Protocol == CARP {
		r.mu.Lock()
		if !r.replay.Fresh(p.from, counter) {
			fault = carp.FaultReplay
		}
		r.mu.Unlock()
	}
	if fault != carp.FaultNone {
		r.refuse(p, fault, s.name)
		return
	}
	r.received.Add(1)
	select {
	case r.heard <- a:
	default:
	}
}

func (l *listener) close() {
	unix.Write(l.stop, []byte{0})
	l.wg.Wait()
	unix.Close(l.stop)
	l.s.close()
}

// linkState is what netlink says of an interface.
type linkState struct {
	name string
	up   bool
}

// watchLinks follows the links of the interfaces.
func (r *Runner) watchLinks(ctx context.Context, wg *sync.WaitGroup) error {
	updates, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{ListExisting: true})
	if err != nil {
		close(done)
		return fmt.Errorf("follow the links of interfaces: %w", err)
	}
	wg.Go(func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case u, ok := <-updates:
				if !ok {
					return
				}
				name := u.Attrs().Name
				if !slices.Contains(r.o.Interfaces, name) {
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
	})
	return nil
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
	r.openMissing()
}

// openMissing opens the sockets that should be open and are not, and chooses the
// interface that packets go out on.
func (r *Runner) openMissing() {
	active := ""
	for _, name := range r.o.Interfaces {
		if !r.up[name] {
			continue
		}
		if len(r.listens[name]) == 0 {
			r.open(name)
		}
		if active == "" && len(r.listens[name]) > 0 {
			active = name
		}
	}
	if active == r.active {
		return
	}
	r.active = active
	if r.o.Active != nil {
		r.o.Active(active)
	}
	ev := carp.Event{Kind: carp.EvLink, Up: active != ""}
	if active != "" {
		ev.Self = r.listens[active][0].s.self
	}
	r.step(ev)
}

func (r *Runner) open(name string) {
	ifc, err := net.InterfaceByName(name)
	if err != nil {
		return // it is on its way out
	}
	for _, six := range []bool{false, true} {
		if len(r.family(six)) == 0 && !slices.ContainsFunc(r.o.Peers, func(a netip.Addr) bool { return a.Is6() == six }) {
			continue
		}
		s, err := openSocket(ifc, six, len(r.o.Peers) == 0, r.o.Addresses)
		if err != nil {
			r.sayOnce(err)
			continue
		}
		l, err := r.listen(s)
		if err != nil {
			s.close()
			r.sayOnce(err)
			continue
		}
		r.listens[name] = append(r.listens[name], l)
	}
}

func (r *Runner) closeListeners(name string) {
	for _, l := range r.listens[name] {
		l.close()
	}
	delete(r.listens, name)
}

func (r *Runner) closeAll() {
	for name := range r.listens {
		r.closeListeners(name)
	}
}
