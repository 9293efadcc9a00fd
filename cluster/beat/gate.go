package beat

// Gate is what packets pass before anything of them is believed, on one link. It
// bounds what strangers cost: comparisons first, then a budget, then the code. It
// serves one goroutine and allocates nothing for a bad packet.
type Gate struct {
	codec     *Codec
	known     [MaxID + 1]knownStarts
	strangers bucket
}

// knownStarts are the incarnations of a node whose packets had a right code, with
// their sequences.
type knownStarts struct {
	start  [3]knownStart
	next   int
	budget bucket
}

type knownStart struct {
	incarnation uint64
	in          window
}

// Budgets of packets whose code is computed, in packets a second for each link. One
// costs a microsecond or two. Most of a blind flood goes into the second: a real
// packet names an incarnation that nobody can guess, and a sequence that was not seen.
const (
	perKnown     = 20000 // of each node that was heard before
	perStrangers = 2000  // of all others: starts, and forgeries
)

// NewGate makes one with a codec of its own.
func NewGate(c *Codec) *Gate {
	g := &Gate{codec: c, strangers: newBucket(perStrangers)}
	for i := range g.known {
		g.known[i].budget = newBucket(perKnown)
	}
	return g
}

// Admit reads a packet or says why not. The payload is part of b. from is whose
// address it came from, if addresses tell; else anybody.
func (g *Gate) Admit(now Instant, from NodeID, self NodeID, b []byte) (Packet, Fault) {
	p, fault := g.codec.peek(b)
	switch {
	case fault != FaultNone:
		return Packet{}, fault
	case from != Anybody && p.From != from || p.From > MaxID || p.From == self || p.To != self:
		return Packet{}, FaultNode
	}
	k := &g.known[p.From]
	s := k.find(p.Incarnation)
	budget := &k.budget
	switch {
	case s == nil:
		budget = &g.strangers
	case !s.in.fresh(p.Sequence):
		return Packet{}, FaultReplay
	}
	if !budget.take(now) {
		return Packet{}, FaultRate
	}
	if fault := g.codec.open(b, &p); fault != FaultNone {
		return Packet{}, fault
	}
	if s == nil {
		s = &k.start[k.next]
		k.next = (k.next + 1) % len(k.start)
		*s = knownStart{incarnation: p.Incarnation}
	}
	s.in.see(p.Sequence)
	return p, FaultNone
}

// Anybody may have sent it: a serial line has no addresses.
const Anybody NodeID = 0xff

func (k *knownStarts) find(incarnation uint64) *knownStart {
	for i := range k.start {
		if k.start[i].incarnation == incarnation {
			return &k.start[i]
		}
	}
	return nil
}

// bucket is a token bucket: so many a second, and as many at once after a second of
// rest.
type bucket struct {
	gap  Duration
	free Instant // when what was taken so far would be due at the steady rate
}

func newBucket(perSecond int) bucket { return bucket{gap: Second / Duration(perSecond)} }

func (b *bucket) take(now Instant) bool {
	b.free = max(b.free, now)
	if b.free.since(now) >= Second {
		return false
	}
	b.free = b.free.add(b.gap)
	return true
}
