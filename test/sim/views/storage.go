package views

import (
	"fmt"
	mathbits "math/bits"
	"slices"

	"hastd/cluster/view"
)

// bits is a set of writes. Copies share nothing.
type bits struct{ words []uint64 }

func (b *bits) add(i int) {
	for len(b.words) <= i/64 {
		b.words = append(b.words, 0)
	}
	b.words[i/64] |= 1 << (i % 64)
}

// join adds all of another set.
func (b *bits) join(c bits) {
	for i, x := range c.words {
		if i == len(b.words) {
			b.words = append(b.words, 0)
		}
		b.words[i] |= x
	}
}

func (b *bits) clone() bits { return bits{slices.Clone(b.words)} }

func (b *bits) count() int {
	n := 0
	for _, x := range b.words {
		n += mathbits.OnesCount64(x)
	}
	return n
}

// missing is a write of b that c lacks, or -1.
func (b *bits) missing(c *bits) int {
	for i, x := range b.words {
		if i < len(c.words) {
			x &^= c.words[i]
		}
		if x != 0 {
			return 64*i + mathbits.TrailingZeros64(x)
		}
	}
	return -1
}

// write is one that was not acknowledged yet.
type write struct {
	id     int
	issued view.Instant
}

// replica is one resource on one node: what the disk has, and, as an owner, what may be
// acknowledged.
type replica struct {
	name    string
	content bits
	epoch   uint64 // on disk: the newest generation that this replica was written in

	told    bool // since the daemon started: what the generation is
	primary bool
	hold    bool
	number  uint64 // of the newest view that the daemon was told
	peer    view.NodeID
	peerInc view.Incarnation // whose confirmation counts
	synced  view.Incarnation // of the peer that has everything acknowledged
	session int              // the copying that is under way; 0: none
	asked   view.Instant     // when it began
	waiting []write
}

// storage is a node's storage daemon.
type storage struct {
	n        *node
	life     int
	replicas []*replica
}

// Times of the model of storage.
const (
	patience  = 400 * millisecond // a write waits as long before its owner asks to go on alone
	copyAgain = 700 * millisecond
	retryTick = 100 * millisecond
)

func newStorage(n *node) *storage {
	s := &storage{n: n}
	for _, r := range n.w.cfg.Resources {
		if slices.Contains(r.Nodes, n.id) {
			s.replicas = append(s.replicas, &replica{name: r.Name})
		}
	}
	return s
}

func (s *storage) replica(name string) *replica {
	for _, r := range s.replicas {
		if r.name == name {
			return r
		}
	}
	return nil
}

// stop ends the daemon; what the disks have stays.
func (s *storage) stop() {
	s.life++
	s.n.ordered = 0
	for i, r := range s.replicas {
		s.replicas[i] = &replica{name: r.name, content: r.content, epoch: r.epoch}
	}
}

func (s *storage) wipe() {
	for _, r := range s.replicas {
		r.content, r.epoch = bits{}, 0
	}
}

// known is the generation that vipd has stored.
func (s *storage) known(number uint64) {
	for _, r := range s.replicas {
		r.told, r.number = true, max(r.number, number)
	}
}

// floor is what the disks say of the generation.
func (s *storage) floor() uint64 {
	var f uint64
	for _, r := range s.replicas {
		f = max(f, r.epoch)
	}
	return f
}

// learned carries out what a view says of this node.
func (s *storage) learned(l view.Learned) {
	w := s.n.w
	for _, r := range s.replicas {
		i := slices.IndexFunc(l.Mine, func(g view.Grant) bool { return g.Resource == r.name })
		r.told, r.number = true, max(r.number, l.View.Stamp.Number())
		if i < 0 {
			if r.primary {
				w.count("storage demoted")
			}
			r.primary, r.hold, r.synced, r.session, r.waiting = false, false, 0, 0, nil
			continue
		}
		g := l.Mine[i]
		if !r.primary {
			r.synced, r.session, r.waiting = 0, 0, nil
			w.count("storage promoted")
		}
		r.primary, r.hold, r.epoch = true, g.Hold, r.number
		if r.peerInc != g.PeerInc {
			r.session = 0
		}
		if g.PeerInc != 0 && r.synced != g.PeerInc {
			r.synced = 0 // it was another life of the peer that had everything
		}
		r.peer, r.peerInc = g.Peer, g.PeerInc
		if !r.hold && r.synced != 0 {
			s.n.tell(view.Synced{Resource: r.name, Inc: r.synced})
		}
		w.tracef("  node %d is primary of %s, hold %v", s.n.id, r.name, r.hold)
	}
	w.oracleAlone()
}

// holdFor begins to wait for the peer, if it still has everything.
func (s *storage) holdFor(h view.Hold) {
	r := s.replica(h.Resource)
	ok := r.primary && r.number == h.Number && (r.hold || h.Inc != 0 && r.synced == h.Inc)
	if ok {
		r.hold = true
	} else {
		s.n.w.count("storage hold refused")
	}
	s.n.tell(view.Held{Resource: h.Resource, Number: h.Number, OK: ok})
}

// put is an application's write.
func (s *storage) put(r *replica) {
	w := s.n.w
	w.books.writes++
	x := write{w.books.writes, w.now}
	r.content.add(x.id)
	r.waiting = append(r.waiting, x)
	w.count("write")
	s.replicate(r, x)
	if !r.hold && (r.synced == 0 && r.session == 0 || w.chance(0.1)) {
		s.alone(r)
		return
	}
	s.retryLater(r)
}

func (s *storage) retryLater(r *replica) {
	life := s.life
	s.n.w.after(retryTick, func() {
		if life == s.life {
			s.n.whenAwake(false, func() { s.retry(r) })
		}
	})
}

// retry sends again what waits, and gives up the peer after a while.
func (s *storage) retry(r *replica) {
	if !r.primary || len(r.waiting) == 0 || s.replica(r.name) != r {
		return
	}
	if s.n.w.now-r.waiting[0].issued > view.Instant(patience) {
		if !r.hold {
			s.alone(r)
			return
		}
		s.n.tell(view.Drop{Resource: r.name})
	}
	for _, x := range r.waiting {
		s.replicate(r, x)
	}
	s.retryLater(r)
}

// alone acknowledges everything that waits, without the peer.
func (s *storage) alone(r *replica) {
	w := s.n.w
	if r.hold {
		panic("views: alone while holding")
	}
	if r.synced != 0 {
		s.n.tell(view.Alone{Resource: r.name})
	}
	r.synced, r.session = 0, 0
	for _, x := range r.waiting {
		w.acknowledged(s.n, r, x.id, true, 0)
	}
	r.waiting = nil
}

// replicate sends a write to the peer, which answers with who it is.
func (s *storage) replicate(r *replica, x write) {
	if r.peer == view.Nobody || r.peerInc == 0 {
		return
	}
	w, from, name, number := s.n.w, s.n.id, r.name, r.number
	w.deliver(from, r.peer, true, func(to *node) {
		p := to.store.replica(name)
		if !to.store.accepts(p, number) {
			w.count("storage write refused")
			return
		}
		p.content.add(x.id)
		p.epoch = max(p.epoch, number)
		inc, highest := to.inc(), w.books.highest(name)
		w.deliver(to.id, from, true, func(back *node) { back.store.confirmed(name, x.id, inc, highest) })
	})
}

// accepts says whether a replica takes what an owner of a generation sends.
func (s *storage) accepts(r *replica, number uint64) bool {
	return s.n.on && r.told && !r.primary && number >= r.number
}

// confirmed acknowledges a write that the peer has, if it is the peer of the view.
func (s *storage) confirmed(name string, id int, inc view.Incarnation, highest uint64) {
	r := s.replica(name)
	if !r.primary || inc != r.peerInc {
		s.n.w.count("storage confirmation refused")
		return
	}
	for i, x := range r.waiting {
		if x.id == id {
			r.waiting = slices.Delete(r.waiting, i, i+1)
			s.n.w.acknowledged(s.n, r, id, false, highest)
			return
		}
	}
}

// copyOver brings the peer up to date while nothing is held for it.
func (s *storage) copyOver(r *replica) {
	w := s.n.w
	if !r.primary || r.hold || r.synced != 0 || r.peerInc == 0 {
		return
	}
	if r.session != 0 && w.now-r.asked < view.Instant(copyAgain) {
		return
	}
	w.books.sessions++
	session := w.books.sessions
	r.session, r.asked = session, w.now
	all, from, name, number := r.content.clone(), s.n.id, r.name, r.number
	w.deliver(from, r.peer, true, func(to *node) {
		p := to.store.replica(name)
		if !to.store.accepts(p, number) {
			w.count("storage copy refused")
			return
		}
		p.content.join(all)
		p.epoch = max(p.epoch, number)
		inc := to.inc()
		w.deliver(to.id, from, true, func(back *node) { back.store.copied(name, session, inc) })
	})
}

func (s *storage) copied(name string, session int, inc view.Incarnation) {
	r := s.replica(name)
	if !r.primary || r.hold || r.session != session || inc != r.peerInc {
		return
	}
	r.session, r.synced = 0, inc
	s.n.w.count("storage synced")
	s.n.tell(view.Synced{Resource: name, Inc: inc})
}

func (s *storage) describe() string {
	t := ""
	for _, r := range s.replicas {
		t += fmt.Sprintf("; %s: %d writes", r.name, r.content.count())
		if r.primary {
			t += fmt.Sprintf(", primary by %d.%d, hold %v, synced %04x, %d wait", r.number>>32, uint32(r.number), r.hold, uint16(r.synced), len(r.waiting))
		}
	}
	return t
}

// has says whether a write is in the set.
func (b *bits) has(i int) bool { return i/64 < len(b.words) && b.words[i/64]>>(i%64)&1 == 1 }
