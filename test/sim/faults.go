package sim

// faultKind is something that goes wrong.
type faultKind uint8

const (
	faultCrash     faultKind = iota // the daemon is killed
	faultPower                      // a node loses power
	faultBothPower                  // both do
	faultCut                        // the link is cut both ways
	faultHalfOpen                   // one way
	faultFlap                       // a session ends, the link is fine
	faultSlowNet
	faultFreeze // the daemon stands still for a while
	faultDiskWrite
	faultDiskRead
	faultDiskFlush
	faultDiskMeta
	faultDiskGone
	faultBadBlock // blocks that cannot be read until they are written
	faultSlowDisk
	faultProvider // a provider cannot be started
	faultShortRead
	faultLeap    // a node's clock leaps forward, as after a suspended machine resumed
	faultWall    // a node's wall clock is set anew
	faultDup     // a connection is made while the one before still stands
	faultLateWay // what one node sends is on its way for minutes
	faultMisRead // reads give the data of another place (lies.go)
	faultOldRead // reads give the data of an earlier time
	faultMisMeta // at the next opening a part of the metadata is that of another place (metalies.go)
	faultOldMeta // or an older one
	faultSkew    // a daemon of another release is started (versions.go)
	faultKinds
)

var faultNames = [...]string{"crash", "power", "both-power", "cut", "half-open", "flap", "slow-net", "freeze", "disk-write", "disk-read", "disk-flush", "disk-meta", "disk-gone", "bad-block", "slow-disk", "provider",
	"short-read", "clock-leap", "wall-jump", "duplicate-connection", "late-way", "misdirected-read", "stale-read",
	"misdirected-meta", "stale-meta", "version-skew"}

var faultWeights = [faultKinds]int{8, 8, 3, 10, 5, 8, 4, 6, 3, 3, 2, 2, 1, 3, 4, 0, 3, 3, 2, 5, 2, 20, 20, 15, 15, 10}

// injectFault makes something go wrong.
func (w *World) injectFault() {
	k := faultCrash
	if w.site != nil || w.crashes > 0 || w.chance(0.7) {
		total := 0
		for i, x := range faultWeights {
			if w.prof.Enabled[i] {
				total += x
			}
		}
		if total > 0 {
			x := w.rng.IntN(total)
			for i, wt := range faultWeights {
				if !w.prof.Enabled[i] {
					continue
				}
				if x -= wt; x < 0 {
					k = faultKind(i)
					break
				}
			}
		}
	}
	n := &w.nodes[w.rng.IntN(2)]
	if w.prof.Lies && w.chance(0.3) {
		n.disk.keepOld()
	}
	if w.prof.MetaLies && w.chance(0.3) {
		n.disk.keepOldMeta()
	}
	w.fault(k, n)
}

// fault makes one thing go wrong; n is where, if it happens on a node.
func (w *World) fault(k faultKind, n *node) {
	w.faults++
	w.forkSince = 0
	w.cover.fault(faultNames[k])
	w.tracef("FAULT %s at %s", faultNames[k], n.name)
	d := w.span(5*millisecond, 300*millisecond)
	if w.chance(0.3) {
		d = w.span(300*millisecond, 4*second)
	}
	switch k {
	case faultCrash:
		if n.state == running {
			w.crashes++
			n.die()
		}
	case faultPower:
		w.crashes++
		n.powerLoss()
	case faultBothPower:
		w.crashes++
		n.powerLoss()
		if w.chance(0.5) {
			w.peerOf(n).powerLoss()
		} else {
			p := w.peerOf(n)
			w.after(w.span(0, 5*millisecond), func() {
				if !w.quiet {
					p.powerLoss()
				}
			})
		}
	case faultCut:
		w.link.setCut(0, true)
		w.link.setCut(1, true)
		w.after(d, func() { w.link.setCut(0, false); w.link.setCut(1, false) })
	case faultHalfOpen:
		w.link.setCut(n.id, true)
		id := n.id
		w.after(d, func() { w.link.setCut(id, false) })
	case faultFlap:
		if n.sess != nil {
			w.link.down(n, "connection reset")
		}
	case faultSlowNet:
		w.link.slow = w.span(2, 60)
		w.after(d, func() { w.link.slow = 1 })
	case faultFreeze:
		if n.state == running {
			n.thaw = w.now + d
			n.asleep = max(n.asleep, n.thaw) // an earlier one may be the longer
			n.frozenNow()
			n.frozenPeer(d)
		}
	case faultDiskWrite:
		w.diskFault = true
		n.disk.failWrites = 1 + w.rng.IntN(3)
	case faultDiskRead:
		w.diskFault = true
		n.disk.failReads = 1 + w.rng.IntN(3)
	case faultShortRead:
		w.diskFault = true
		n.disk.shortReads = 1 + w.rng.IntN(3)
	case faultMisRead, faultOldRead:
		n.disk.lies, n.disk.lieOld = 1+w.rng.IntN(6), k == faultOldRead
	case faultSkew:
		if w.site == nil {
			n.otherRelease()
		}
	case faultMisMeta:
		n.disk.metaLie = tellOther
	case faultOldMeta:
		n.disk.metaLie = tellOld
	case faultLeap:
		n.leap(w.span(second, 5*60*second))
		if n.state == running && w.chance(0.5) {
			n.thaw = w.now + d
			n.asleep = max(n.asleep, n.thaw) // an earlier one may be the longer
			n.frozenNow()
			n.frozenPeer(d)
		}
	case faultWall:
		n.wall = w.span(-wallJump, wallJump)
	case faultDup:
		w.link.duplicate(n)
	case faultLateWay:
		id := n.id
		w.link.late[id] = w.span(2*second, 180*second)
		w.after(d, func() { w.link.late[id] = 0 })
	case faultDiskFlush:
		w.diskFault = true
		n.disk.failFlushes = 1
	case faultDiskMeta:
		w.diskFault = true
		n.disk.failMeta = 1 + w.rng.IntN(2)
	case faultDiskGone:
		w.diskFault = true
		n.disk.gone = true
		w.after(d, func() { n.disk.gone = false })
	case faultBadBlock:
		w.diskFault = true
		for range 1 + w.rng.IntN(4) {
			b := w.hotBlock(n.judge.sectors)
			if !n.disk.bad[b] {
				n.disk.bad[b] = true
				n.disk.badCount++
			}
		}
	case faultSlowDisk:
		n.disk.slow = w.span(3, 100)
		w.after(d, func() { n.disk.slow = 1 })
	}
}

// wallJump is how far from the truth a wall clock may be set, in seconds.
const wallJump = 30 * 365 * 24 * 3600

// frozenPeer lets the peer of a frozen daemon notice its silence.
func (n *node) frozenPeer(d int64) {
	w := n.w
	s, p := n.sess, w.peerOf(n)
	if s == nil {
		return
	}
	life, late := p.life, w.link.detect()
	if late > d {
		return
	}
	w.after(late, func() {
		if p.life == life && p.sess == s && n.frozen() {
			w.link.down(p, "no word from the peer")
		}
	})
}

// healAll ends what was injected.
func (w *World) healAll() {
	w.link.setCut(0, false)
	w.link.setCut(1, false)
	w.link.slow = 1
	w.link.hurry()
	for i := range w.nodes {
		n := &w.nodes[i]
		n.disk.heal()
		n.thaw = min(n.thaw, w.now)
	}
}
