package sim

import (
	"fmt"
	"strings"

	"hastd/metadata"
	"hastd/replicate"
)

// stepKind is one operation on a node's component or state directory, as a disk
// sees it: a commit is a write for each of its parts and a flush, opening the
// component is the open itself and five reads.
type stepKind uint8

const (
	stepRead stepKind = iota + 1
	stepWrite
	stepZero
	stepFlush
	stepMetaWrite
	stepMetaFlush
	stepMark
	stepOpen
	stepSuperRead // 2
	stepLogRead   // 2
	stepMapRead
)

var stepNames = [...]string{"", "read", "write", "zero", "flush", "metadata write", "metadata flush", "state mark", "open", "superblock read", "log read", "map read"}

// strike is what happens at the n-th operation.
type strike uint8

const (
	failNothing strike = iota // it fails, and nothing of it is on the medium
	failPart
	failAll      // it fails, although all of it is
	failStays    // reads: the place stays unreadable until it is written
	killAfter    // the daemon is gone right after it
	powerAll     // power is lost right after it, and all that no flush covered
	powerNothing // … and the cache survives as it is
	powerPart    // … and a random part of the cache
	bothAll      // both nodes, all
	bothPart     // both nodes, random parts
	failover     // power is lost, and the peer goes on alone, and writes
	strikes
)

var strikeNames = [...]string{"fails, nothing done", "fails, partly done", "fails, all done", "fails and stays so", "then killed", "then power lost, cache too", "then power lost, cache kept", "then power lost, part of the cache", "then power of both lost", "then power of both lost, part of the caches", "then power lost, the peer goes on"}

func (s strike) fails() bool { return s <= failStays }

// suits says whether a strike makes sense for an operation.
func (s strike) suits(k stepKind) bool {
	switch k {
	case stepRead:
		return s != failPart && s != failAll
	case stepSuperRead, stepLogRead, stepMapRead:
		return s == failNothing
	case stepMark:
		return s != failPart && s != failStays
	case stepOpen:
		return s != failPart && s != failAll && s != failStays
	}
	return s != failStays
}

// target is one case: what happens at which operation of which node.
type target struct {
	node   int
	n      int // counted from 1
	strike strike
}

// everyop counts the operations of a story and strikes at one of them.
type everyop struct {
	w       *World
	on      bool
	steps   [2][]stepKind
	target  *target // nil: only count
	hit     bool
	kind    stepKind // what was struck
	was     string   // the disk's state then
	after   bool     // strike when the operation was told
	told    []string // what the struck node said since, and what the other said of it
	dropped bool     // a failed flush lost what was cached
}

func (e *everyop) attach(w *World) {
	e.w = w
	w.hooks.begin, w.hooks.ended, w.hooks.image, w.hooks.report = e.begin, e.ended, e.image, e.report
	w.hooks.share = func() float64 {
		if !e.hit {
			return 0
		}
		switch e.target.strike {
		case powerNothing:
			return 2 // more than any draw
		case powerPart, bothPart:
			return w.rng.Float64()
		}
		return 0
	}
}

// step counts an operation and says whether it is the one.
func (e *everyop) step(n *node, k stepKind) bool {
	if !e.on {
		return false
	}
	e.steps[n.id] = append(e.steps[n.id], k)
	if t := e.target; t == nil || e.hit || t.node != n.id || t.n != len(e.steps[n.id]) {
		return false
	}
	e.hit, e.kind = true, k
	if n.state == running {
		e.was = n.status().Disk
	}
	e.w.tracef("%s: STRIKE at operation %d, a %s: %s", n.name, e.target.n, stepNames[k], strikeNames[e.target.strike])
	if e.target.strike.fails() {
		e.w.diskFault = true
	}
	return true
}

var dataSteps = map[replicate.DiskOp]stepKind{
	replicate.DiskRead: stepRead, replicate.DiskReadHash: stepRead, replicate.DiskCompare: stepRead,
	replicate.DiskWrite: stepWrite, replicate.DiskWriteMasked: stepWrite, replicate.DiskZero: stepZero, replicate.DiskFlush: stepFlush,
}

// begin is told of an operation before it has its effect.
func (e *everyop) begin(n *node, o *op) bool {
	switch o.kind {
	case opData:
		k := dataSteps[o.eff.Disk]
		if !e.step(n, k) {
			return true
		}
		if e.target.strike.fails() {
			o.lost = true
			e.failData(n, o)
		} else {
			e.after = true
		}
	case opCommit:
		return e.beginCommit(n, o)
	case opMark:
		if !e.step(n, stepMark) {
			return true
		}
		switch e.target.strike {
		case failNothing:
			o.lost = true
		case failAll:
			o.lost, n.mark = true, o.eff.Set
		default:
			e.after = true
		}
	case opOpen:
		if !e.step(n, stepOpen) {
			return true
		}
		if e.target.strike.fails() {
			o.lost = true
		} else {
			e.after = true
		}
	}
	return true
}

// failData leaves on the medium what the strike says of an operation that fails.
func (e *everyop) failData(n *node, o *op) {
	s := e.target.strike
	d, eff := &n.disk, &o.eff
	sec, cnt := int(eff.Off)/sectorSize, int(eff.Len)/sectorSize
	switch dataSteps[eff.Disk] {
	case stepRead:
		if s == failStays {
			first, blocks := sec/sectorsPerBlock, max(1, cnt/sectorsPerBlock)
			if eff.Mask != 0 {
				first, blocks = first+trailing(eff.Mask), 1
			}
			for b := first; b < min(first+blocks, len(d.bad)); b++ {
				if !d.bad[b] {
					d.bad[b] = true
					d.badCount++
				}
			}
		}
	case stepFlush:
		switch s {
		case failAll:
			d.flushed(o.upTo)
		case failPart:
			e.dropCache(d)
		}
	default:
		switch s {
		case failAll:
			n.eachPart(o, d.put)
		case failPart:
			n.eachPart(o, func(sec, cnt int, stamps []uint32) {
				half := cnt / 2
				if e.w.chance(0.5) {
					d.put(sec, half, stamps)
				} else if stamps == nil {
					d.put(sec+half, cnt-half, nil)
				} else {
					d.put(sec+half, cnt-half, stamps[half:])
				}
			})
		}
		o.eff.Disk = replicate.DiskFlush // what is on the medium is decided: dataDone only tells
	}
}

func trailing(mask uint64) int {
	i := 0
	for mask&1 == 0 {
		mask >>= 1
		i++
	}
	return i
}

// eachPart goes over what a write operation writes.
func (n *node) eachPart(o *op, f func(sec, cnt int, stamps []uint32)) {
	e := &o.eff
	sec, cnt := int(e.Off)/sectorSize, int(e.Len)/sectorSize
	switch e.Disk {
	case replicate.DiskZero:
		f(sec, cnt, nil)
	case replicate.DiskWrite:
		f(sec, cnt, n.lookup(e.Buf).stamps)
	case replicate.DiskWriteMasked:
		n.eachBlock(e.Off, e.Mask, func(b, at int) {
			if e.Zeroes&(1<<uint(at)) != 0 {
				f(b*sectorsPerBlock, sectorsPerBlock, nil)
			} else {
				f(b*sectorsPerBlock, sectorsPerBlock, n.lookup(e.Buf).stamps[at*sectorsPerBlock:])
			}
		})
	}
}

// dropCache is what a kernel does after a failed flush: what it had cached is
// forgotten, and later reads show what is on the medium.
func (e *everyop) dropCache(d *disk) {
	for _, c := range d.journal {
		if e.w.chance(0.5) {
			d.keep(c)
		}
	}
	d.base += len(d.journal)
	d.journal, d.arena = d.journal[:0], d.arena[:0]
	copy(d.cur, d.stable)
	e.dropped = true
}

// beginCommit goes through a commit write by write.
func (e *everyop) beginCommit(n *node, o *op) bool {
	d := &n.disk
	for i := range len(o.writes) + 1 {
		k := stepMetaFlush
		if i < len(o.writes) {
			k = stepMetaWrite
		}
		if !e.step(n, k) {
			continue
		}
		if !e.target.strike.fails() {
			if i == len(o.writes) {
				e.after = true
				return true
			}
			d.cacheMeta(o.writes[:i+1], o.copied, func() bool { return true })
			o.used = false
			e.strikeNode(n)
			return false
		}
		switch s := e.target.strike; {
		case i < len(o.writes):
			d.cacheMeta(o.writes[:i], o.copied, func() bool { return true })
			d.cacheMeta(o.writes[i:i+1], o.copied, e.part(s))
		case s == failAll:
			d.putMeta(o.writes, o.copied, true)
		default:
			d.cacheMeta(o.writes, o.copied, e.part(s))
		}
		n.judgeSuper()
		o.lost = true
		o.writes, o.eff.Writes = o.writes[:0], nil // decided: commitDone only tells
		return true
	}
	return true
}

// part says of each sector whether it got through.
func (e *everyop) part(s strike) func() bool {
	switch s {
	case failNothing:
		return func() bool { return false }
	case failAll:
		return func() bool { return true }
	}
	return func() bool { return e.w.chance(0.5) }
}

// cacheMeta puts sectors of a commit into the cache.
func (d *disk) cacheMeta(writes []metaWrite, buf []byte, through func() bool) {
	for _, m := range writes {
		for i := 0; i < m.n; i += sectorSize {
			if !through() {
				continue
			}
			b := buf[m.at+i:][:sectorSize]
			copy(d.metaCur[m.place+i:], b)
			d.metaLog = append(d.metaLog, metaCached{int32((m.place + i) / sectorSize), int32(len(d.metaArena))})
			d.metaArena = append(d.metaArena, b...)
		}
	}
}

// image: the five reads of opening.
func (e *everyop) image(n *node, img *metadata.Image) {
	if e.dropped && n.id == e.target.node {
		// What it acknowledged and no flush covered may be gone, as after a power loss:
		// the daemon said that its disk failed, and its provider went.
		e.dropped = false
		n.judge.gone += len(n.judge.pending)
		n.judge.pending = n.judge.pending[:0]
	}
	for i := range img.Super {
		if e.step(n, stepSuperRead) {
			img.Super[i] = nil
		}
	}
	for i := range img.Log {
		if e.step(n, stepLogRead) {
			img.Log[i] = nil
		}
	}
	if e.step(n, stepMapRead) {
		clear(img.Map)
	}
}

func (e *everyop) ended(n *node) {
	if e.after {
		e.after = false
		e.strikeNode(n)
	}
}

// strikeNode ends a process, or the power.
func (e *everyop) strikeNode(n *node) {
	e.w.oracleDirty("before the strike", false)
	switch e.target.strike {
	case killAfter:
		n.die()
	case bothAll, bothPart:
		n.powerLoss()
		e.w.peerOf(n).powerLoss()
	default:
		n.powerLoss()
	}
}

// report collects what is said after a failure.
func (e *everyop) report(n *node, r *replicate.Report) {
	if !e.hit || !e.target.strike.fails() {
		return
	}
	name := e.w.nodes[e.target.node].name
	switch {
	case n.id != e.target.node:
		if r.Kind == replicate.ReportWarning && strings.Contains(r.Reason, name) {
			e.told = append(e.told, "peer warning: "+r.Reason)
		}
	case r.Kind == replicate.ReportDisk && r.New == "failed" && r.Reason != "":
		e.told = append(e.told, "disk failed: "+r.Reason)
	case r.Kind == replicate.ReportRepaired:
		e.told = append(e.told, "repaired")
	case r.Kind == replicate.ReportWarning:
		e.told = append(e.told, "warning: "+r.Reason)
	}
}

// said says whether a node told of the failure as it must. What counts:
//
//   - a write, zeroing, flush or commit that fails, and a component that cannot be
//     opened: the report that the disk failed, with the reason, unless the disk
//     counted as failed (or was not in use any more) before;
//   - a read: the report of a repair, a warning of the node itself, or that the disk
//     failed;
//   - a part of the metadata that cannot be read at opening: a warning, or that the
//     disk failed;
//   - the mark in the state directory: a warning, or that the disk failed, now or
//     before.
func (e *everyop) said() bool {
	failed := e.was == "failed"
	own := false
	for _, t := range e.told {
		failed = failed || strings.HasPrefix(t, "disk failed")
		own = own || strings.HasPrefix(t, "warning") || t == "repaired"
	}
	switch e.kind {
	case stepRead, stepSuperRead, stepLogRead, stepMapRead, stepMark:
		return failed || own
	}
	return failed
}

func (e *everyop) silence() string {
	return fmt.Sprintf("a %s failed on %s (its disk was %q) and nobody was told; heard since: %q", stepNames[e.kind], e.w.nodes[e.target.node].name, e.was, e.told)
}
