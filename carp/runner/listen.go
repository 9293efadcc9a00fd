package runner

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hastd/carp"
)

// listener is a socket with the goroutine that reads it.
type listener struct {
	s      *socket
	stop   int // written to end it
	key    *carp.CARPKey
	wg     sync.WaitGroup
	failed atomic.Bool // it reads no more
}

// listen reads packets until it is stopped. Bad ones end here.
func (r *Runner) listen(s *socket) (*listener, error) {
	read, write, err := stopPipe()
	if err != nil {
		return nil, err
	}
	l := &listener{s: s, stop: write, key: r.newKey()}
	l.wg.Go(func() {
		defer unix.Close(read)
		defer l.failed.Store(true)
		for {
			more, err := s.wait(read)
			bad := 0
			if err == nil && more {
				bad, err = r.drain(l)
			}
			if err != nil {
				r.o.Log.Warn("adverts cannot be received", "group", r.o.Group, "interface", s.name, "error", err)
				return
			}
			if !more {
				return
			}
			if bad > 0 {
				time.Sleep(nap)
			}
		}
	})
	return l, nil
}

// A flood of bad packets costs half a processor at most, however fast it is: after
// maxDrain packets with bad ones among them nothing is read for a nap. Good packets
// wait in the socket meanwhile.
const (
	maxDrain = 512
	nap      = time.Millisecond
)

// drain reads what is there, and counts what was bad of it.
func (r *Runner) drain(l *listener) (bad int, err error) {
	for range maxDrain {
		p, got, err := l.s.receive()
		if err != nil || got == nothing {
			return bad, err
		}
		if got != aPacket || !r.take(&p, l) {
			bad++
		}
	}
	return bad, nil
}

// take hands a good packet to the owner. If the owner is behind, the packet is
// lost, as it may be on any network.
func (r *Runner) take(p *packet, l *listener) (good bool) {
	if r.isSelf(p.from) {
		return true
	}
	a, counter, fault := r.parse(p, l.key)
	if fault == carp.FaultNone && r.o.Protocol == CARP {
		switch r.sightings.see(p.from, counter, l.s.name) {
		case seenElsewhere:
			return true
		case seenBefore:
			fault = carp.FaultReplay
		}
	}
	if fault != carp.FaultNone {
		r.refuse(p, fault, l.s.name)
		return false
	}
	r.received.Add(1)
	r.senders.note(p.from, l.s.index)
	select {
	case r.heard <- a:
	default:
	}
	return true
}

func (r *Runner) isSelf(a netip.Addr) bool {
	own := r.selves.Load()
	return own != nil && slices.Contains(*own, a)
}

func (l *listener) close() {
	unix.Write(l.stop, []byte{0})
	l.wg.Wait()
	unix.Close(l.stop)
	l.s.close()
}

// families are the indices of an interface's listeners.
var families = [2]bool{false, true} // six

// choose opens the sockets that should be open and are not, and takes the first
// interface that has one for sending.
func (r *Runner) choose() {
	active, self := "", netip.Addr{}
	var own []netip.Addr
	for _, name := range r.o.Interfaces {
		if !r.up[name] {
			continue
		}
		r.open(name)
		for _, l := range r.listens[name] {
			if l == nil {
				continue
			}
			own = append(own, l.s.self)
			if active == "" {
				active = name
			}
			if active == name && !self.IsValid() {
				self = l.s.self
			}
		}
	}
	r.selves.Store(&own)
	moved := active != r.active
	if !moved && self == r.self {
		return
	}
	r.active, r.self = active, self
	if moved && r.o.Active != nil {
		r.o.Active(active)
	}
	r.step(carp.Event{Kind: carp.EvLink, Up: active != "", Self: self})
}

// open opens an interface's sockets that are missing, that failed, or whose address
// is no longer its own.
func (r *Runner) open(name string) {
	ifc, err := net.InterfaceByName(name)
	if err != nil {
		return // it is on its way out
	}
	var failed [len(families)]error
	for i, six := range families {
		if r.wanted(six) {
			failed[i] = r.openOne(ifc, i)
		}
	}
	// A group without addresses goes by the families that there are.
	if r.listens[name] != [len(families)]*listener{} && len(r.o.Addresses) == 0 {
		failed = [len(families)]error{}
	}
	for i, six := range families {
		r.complain("open", name, six, failed[i])
	}
}

// openOne opens the socket of one family.
func (r *Runner) openOne(ifc *net.Interface, i int) error {
	was := r.listens[ifc.Name][i]
	if was != nil && !was.failed.Load() && was.s.index == ifc.Index && was.s.stands(ifc) {
		return nil
	}
	r.put(ifc.Name, i, nil)
	s, err := openSocket(ifc, families[i], &r.o)
	if err != nil {
		return err
	}
	l, err := r.listen(s)
	if err != nil {
		s.close()
		return err
	}
	r.put(ifc.Name, i, l)
	return nil
}

// put replaces a listener.
func (r *Runner) put(name string, i int, l *listener) {
	both := r.listens[name]
	if both[i] != nil {
		both[i].close()
	}
	both[i] = l
	r.listens[name] = both
}

// wanted says whether the group uses a family: that of its addresses. Without any
// (nodes elect who has the storage and the services) it uses both, as far as an
// interface has addresses of its own.
func (r *Runner) wanted(six bool) bool {
	return (len(r.o.Addresses) == 0 || len(r.family(six)) > 0) && len(r.targets(six)) > 0
}

func (r *Runner) closeListeners(name string) {
	for i := range families {
		r.put(name, i, nil)
	}
}

func (r *Runner) closeAll() {
	for _, name := range r.o.Interfaces {
		r.closeListeners(name)
	}
}
