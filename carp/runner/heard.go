package runner

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hastd/carp"
)

// sightings tell a packet that was sent again from one that reached two interfaces
// on the same network.
type sightings struct {
	mu     sync.Mutex
	replay carp.Replay
	last   map[netip.Addr]sighting
}

type sighting struct {
	counter uint64
	on      string
	at      time.Duration
}

type seen uint8

const (
	seenNew seen = iota
	seenBefore
	seenElsewhere // a moment ago, on another interface
)

const (
	// copyGap is how much later a packet may arrive on the next interface.
	copyGap = 100 * time.Millisecond
	// maxSenders bounds who is remembered. With CARP they know the password; with
	// VRRP anybody on the network may fill it.
	maxSenders = 64
)

func (s *sightings) see(from netip.Addr, counter uint64, on string) seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := boot()
	if s.replay.Fresh(counter) {
		if s.last == nil || len(s.last) >= maxSenders {
			s.last = map[netip.Addr]sighting{}
		}
		s.last[from] = sighting{counter, on, at}
		return seenNew
	}
	if l, ok := s.last[from]; ok && l.counter == counter && l.on != on && at-l.at < copyGap {
		return seenElsewhere
	}
	return seenBefore
}

// sent notes an own packet: its echo is a replay.
func (s *sightings) sent(counter uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replay.Fresh(counter)
}

// senders are the nodes whose good packets were heard.
type senders struct {
	mu sync.Mutex
	on map[netip.Addr]int // interface
}

// note remembers a sender, and has the kernel find its MAC: packets to a group do
// not tell it.
func (s *senders) note(from netip.Addr, index int) {
	s.mu.Lock()
	before, known := s.on[from]
	if known && before == index || !known && len(s.on) >= maxSenders {
		s.mu.Unlock()
		return
	}
	if s.on == nil {
		s.on = map[netip.Addr]int{}
	}
	s.on[from] = index
	s.mu.Unlock()
	resolve(from, index)
}

func resolve(a netip.Addr, index int) {
	// Without an entry the node counts as a stranger: the safe side.
	_ = netlink.NeighSet(&netlink.Neigh{LinkIndex: index, Family: family(a), Flags: unix.NTF_USE, State: netlink.NUD_NONE, IP: a.AsSlice()})
}

func family(a netip.Addr) int {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

const (
	// resolveTime is how long a node may take to tell its MAC.
	resolveTime  = 100 * time.Millisecond
	resolveTries = 5
)

// Ours says whether a MAC is that of another node of the cluster: one that is named
// in the options or whose adverts were heard, by the kernel's table of neighbours.
// It waits resolveTime at most for those that are not in it. With VRRP anybody may
// send adverts: it tells mistakes from the cluster, not enemies.
func (r *Runner) Ours(mac net.HardwareAddr) bool {
	for i := range resolveTries {
		found, missing := r.lookFor(mac)
		if found || !missing {
			return found
		}
		if i < resolveTries-1 {
			time.Sleep(resolveTime / resolveTries)
		}
	}
	return false
}

// place is an address on an interface.
type place struct {
	a     netip.Addr
	index int
}

// nodes are where the other nodes may be.
func (r *Runner) nodes() (list []place) {
	r.senders.mu.Lock()
	for a, index := range r.senders.on {
		list = append(list, place{a, index})
	}
	r.senders.mu.Unlock()
	for _, name := range r.o.Interfaces {
		if ifc, err := net.InterfaceByName(name); err == nil {
			for _, a := range append(slices.Clone(r.o.Nodes), r.o.Peers...) {
				list = append(list, place{a, ifc.Index})
			}
		}
	}
	return list
}

// lookFor looks for a node with a MAC; missing says that one's is not known yet.
func (r *Runner) lookFor(mac net.HardwareAddr) (found, missing bool) {
	for _, p := range r.nodes() {
		list, err := netlink.NeighList(p.index, family(p.a))
		if err != nil {
			continue
		}
		known := false
		for _, n := range list {
			if n.IP.Equal(p.a.AsSlice()) && len(n.HardwareAddr) > 0 {
				known = true
				if bytes.Equal(n.HardwareAddr, mac) {
					return true, false
				}
			}
		}
		if !known {
			missing = true
			resolve(p.a, p.index)
		}
	}
	return false, missing
}
