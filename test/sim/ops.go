package sim

import (
	"bytes"
	"math/bits"
	"strings"

	"hastd/metadata"
	"hastd/replicate"
)

type opKind uint8

const (
	opData opKind = iota + 1
	opCommit
	opOpen
	opClose
	opMark
	opProvUp
	opProvDown
)

// op is an effect under way that will be answered.
type op struct {
	used   bool
	lost   bool // the device vanished: the answer is an error whatever happens
	kind   opKind
	eff    replicate.Effect
	upTo   int // a flush: what it covers
	writes []metaWrite
	copied []byte
	sess   *session // data: the connection on which a secondary began it
}

// maxOps bounds what a machine may have under way. Honest runs stay below 100.
const maxOps = 256

// carryOut begins one effect.
func (n *node) carryOut(e *replicate.Effect) {
	w := n.w
	w.cover.effect(e)
	if w.trace != nil {
		w.tracef("%s: %s", n.name, w.effectString(e))
	}
	switch e.Kind {
	case replicate.EffDisk:
		n.startData(e)
	case replicate.EffCommit:
		n.startCommit(e)
	case replicate.EffSend:
		w.link.send(n, e)
	case replicate.EffReply:
		n.decided(e)
	case replicate.EffRelease:
		n.giveBack(e.Buf, false, "EffRelease")
	case replicate.EffOpen:
		if n.opened {
			w.violate("shell", "%s: EffOpen while the component is open", n.name)
		}
		n.startOp(opOpen, e, w.span(microsecond, 2*millisecond))
	case replicate.EffClose:
		if !n.opened || (n.busy > 0 || n.commit) && !n.toldFailed && !n.hadError {
			w.violate("shell", "%s: EffClose with open=%v, %d operations and commit=%v under way", n.name, n.opened, n.busy, n.commit)
		}
		n.startOp(opClose, e, w.span(microsecond, millisecond))
	case replicate.EffStateMark:
		n.startOp(opMark, e, w.span(100*microsecond, 5*millisecond))
	case replicate.EffConnect:
		n.connect(e.Now)
	case replicate.EffDisconnect:
		n.disconnect(e)
	case replicate.EffProviderStart:
		if n.prov != provNone {
			w.violate("shell", "%s: EffProviderStart while a provider exists", n.name)
		}
		n.prov, n.lease.leaving = provStarting, false
		n.oraclePromotion(e)
		n.startOp(opProvUp, e, w.span(10*microsecond, 5*millisecond))
	case replicate.EffProviderStop:
		if n.prov == provNone {
			w.violate("shell", "%s: EffProviderStop without a provider", n.name)
		}
		n.lease.leaving = true
		d := w.span(10*microsecond, 5*millisecond)
		if !w.scripted && w.chance(0.05) {
			d = w.span(0, 3*second) // it gives the requests under way that long to end
		}
		n.startOp(opProvDown, e, max(n.stopTime, d))
	case replicate.EffAnswer:
		n.answer(e)
	case replicate.EffReport:
		if e.Report.Kind == replicate.ReportDisk {
			n.toldFailed = e.Report.New == "failed"
			if n.toldFailed && w.prof.Mode == replicate.Memsync {
				w.keptLoses(n) // what it had received and not written
			}
		}
		if e.Report.Kind == replicate.ReportWarning && strings.HasPrefix(e.Report.Reason, "the peer sent") {
			w.violate("protocol", "%s: %s, although both daemons are honest", n.name, e.Report.Reason)
		}
		if e.Report.Kind == replicate.ReportDataLoss {
			w.eioOK = true
		}
		w.cover.report(e.Report)
		w.oracleReport(n, e.Report)
		if w.hooks.report != nil {
			w.hooks.report(n, e.Report)
		}
	default:
		w.violate("shell", "%s: unknown effect %d", n.name, e.Kind)
	}
}

func (n *node) startOp(k opKind, e *replicate.Effect, d int64) *op {
	var i int32
	if len(n.freeOps) > 0 {
		i = n.freeOps[len(n.freeOps)-1]
		n.freeOps = n.freeOps[:len(n.freeOps)-1]
	} else {
		if len(n.ops) == maxOps {
			n.w.violate("bounds", "%s: %d operations under way", n.name, len(n.ops))
		}
		if len(n.ops) < cap(n.ops) {
			n.ops = n.ops[:len(n.ops)+1] // with the buffers it had
		} else {
			n.ops = append(n.ops, op{})
		}
		i = int32(len(n.ops) - 1)
	}
	o := &n.ops[i]
	o.used, o.lost, o.kind, o.eff = true, false, k, *e
	o.writes, o.copied = o.writes[:0], o.copied[:0]
	n.w.at(event{at: n.w.now + d, kind: kOp, node: uint8(n.id), life: n.life, x: uint32(i)})
	return o
}

func (n *node) diskDelay() int64 {
	w := n.w
	d := w.span(w.prof.DiskTime/4, w.prof.DiskTime*2)
	if w.rng.IntN(50) == 0 {
		d *= 10
	}
	return d * n.disk.slow
}

func (n *node) startData(e *replicate.Effect) {
	w := n.w
	if !n.opened {
		w.violate("shell", "%s: disk operation %d while the component is closed", n.name, e.Disk)
	}
	size := int64(len(n.disk.cur)) * sectorSize
	switch e.Disk {
	case replicate.DiskFlush:
	case replicate.DiskRead, replicate.DiskWrite, replicate.DiskZero:
		if e.Off < 0 || e.Len <= 0 || e.Off+e.Len > size || e.Off%int64(w.prof.Sector) != 0 || e.Len%int64(w.prof.Sector) != 0 {
			w.violate("shell", "%s: disk operation %d on [%d,+%d) of %d", n.name, e.Disk, e.Off, e.Len, size)
		}
	default:
		if e.Off < 0 || e.Off%replicate.WindowSize != 0 || e.Mask == 0 || e.Off+int64(bits.Len64(e.Mask))*metadata.BlockSize > size {
			w.violate("shell", "%s: masked operation %d on window %d mask %#x of %d", n.name, e.Disk, e.Off, e.Mask, size)
		}
	}
	n.hold(e.Buf, "EffDisk")
	n.hold(e.Aux, "EffDisk")
	n.busy++
	d := n.diskDelay()
	if n.hashTime > 0 && e.Disk == replicate.DiskReadHash {
		n.hashFree = max(n.hashFree, w.now) + n.hashTime
		d = n.hashFree - w.now
	}
	o := n.startOp(opData, e, d)
	if o.sess = nil; n.prov == provNone && n.app.pending == 0 && !n.primary {
		o.sess = n.sess
	}
	if e.Disk == replicate.DiskFlush {
		o.upTo = n.disk.position()
	}
	n.oracleDiskStart(e)
}

func (n *node) startCommit(e *replicate.Effect) {
	w := n.w
	if n.commit {
		w.violate("bounds", "%s: two commits under way", n.name)
	}
	if !n.opened {
		w.violate("shell", "%s: EffCommit while the component is closed", n.name)
	}
	n.commit = true
	o := n.startOp(opCommit, e, n.diskDelay()*2)
	for _, wr := range e.Writes {
		if wr.Offset%int64(w.prof.Sector) != 0 || len(wr.Data)%int(w.prof.Sector) != 0 {
			w.violate("shell", "%s: metadata write [%d,+%d) is not aligned", n.name, wr.Offset, len(wr.Data))
		}
		o.writes = append(o.writes, metaWrite{n.disk.place(wr.Offset), len(o.copied), len(wr.Data)})
		o.copied = append(o.copied, wr.Data...)
	}
}

// opDone ends an operation and tells the machine.
func (n *node) opDone(life uint32, i int) {
	if n.life != life || n.state != running || !n.ops[i].used {
		return
	}
	o := &n.ops[i]
	if o.kind == opClose && (n.busy > 0 || n.commit) {
		// A failed component is given up with operations under way: closing it waits.
		n.w.at(event{at: n.w.now + 100*microsecond, kind: kOp, node: uint8(n.id), life: life, x: uint32(i)})
		return
	}
	if f := n.w.hooks.begin; f != nil && !f(n, o) {
		return // a script ended the process within the operation
	}
	ev := replicate.Event{Op: o.eff.Op}
	switch o.kind {
	case opData:
		n.busy--
		n.lateIO(o)
		n.dataDone(o, &ev)
	case opCommit:
		n.commitDone(o, &ev)
	case opOpen:
		n.openDone(o, &ev)
	case opClose:
		n.opened = false
		ev.Kind = replicate.EvClosed
	case opMark:
		ev.Kind = replicate.EvMarked
		if o.lost {
			ev.Err, ev.Text = replicate.ErrOther, "the state directory cannot be written"
		} else {
			n.mark = o.eff.Set
		}
	case opProvUp:
		n.provUp(&ev)
	case opProvDown:
		n.provDown(o, &ev)
	}
	o.used = false
	n.freeOps = append(n.freeOps, int32(i))
	if n.w.trace != nil {
		n.w.tracef("%s: op %d ended err %d", n.name, ev.Op, ev.Err)
	}
	kindDone := o.kind
	n.push(ev)
	if kindDone == opCommit {
		n.afterCommit(ev.Err)
	}
	if f := n.w.hooks.ended; f != nil {
		f(n)
	}
}

// lateIO notes an operation of a secondary that was begun for an earlier connection
// and ends on a newer one: the machine waits for it before it agrees to anything.
func (n *node) lateIO(o *op) {
	if s := n.sess; o.sess != nil && s != nil && s != o.sess && s.side[n.id].state == sideUp {
		n.w.cover.fault("late-io")
		if n.inFlow() && writesData(o.eff.Disk) {
			n.w.violate("protocol", "%s: data flows, and %s of an earlier connection is still under way", n.name, diskNames[o.eff.Disk])
		}
	}
}

func (n *node) dataDone(o *op, ev *replicate.Event) {
	e, d := &o.eff, &n.disk
	ev.Kind = replicate.EvDone
	sec, cnt := int(e.Off)/sectorSize, int(e.Len)/sectorSize
	failed := d.gone || o.lost
	switch e.Disk {
	case replicate.DiskRead:
		failed = failed || take(&d.failReads) || d.unreadable(sec, cnt)
		if !failed {
			var m *mem
			if e.Buf == 0 {
				ev.Buf, m = n.alloc(memBlocks, cnt)
			} else if m = n.lookup(e.Buf); len(m.stamps) < cnt {
				n.w.violate("handles", "%s: read of %d sectors into a buffer of %d", n.name, cnt, len(m.stamps))
			}
			failed = !n.readAll(m.stamps[:cnt], sec)
			if failed && e.Buf == 0 {
				n.giveBack(ev.Buf, false, "a read that failed")
				ev.Buf = 0
			}
		}
	case replicate.DiskWrite, replicate.DiskZero, replicate.DiskWriteMasked:
		if failed = failed || take(&d.failWrites); failed {
			n.tearOp(o)
		} else {
			n.writeDone(o, sec, cnt)
		}
	case replicate.DiskFlush:
		if failed = failed || take(&d.failFlushes); !failed {
			d.flushed(o.upTo)
		}
	case replicate.DiskReadHash, replicate.DiskCompare:
		n.eachBlock(e.Off, e.Mask, func(b, _ int) { failed = failed || d.unreadable(b*sectorsPerBlock, sectorsPerBlock) })
		if failed = failed || take(&d.failReads) || take(&d.shortReads) && !n.goesOn(); !failed {
			n.readWindow(e, ev)
		}
	default:
		n.w.violate("shell", "%s: unknown disk operation %d", n.name, e.Disk)
	}
	if failed {
		n.hadError = true
		ev.Err = replicate.ErrIO
		n.w.cover.fault("disk-error")
	}
	n.drop(e.Buf)
	n.drop(e.Aux)
}

func take(n *int) bool {
	if *n > 0 {
		*n--
		return true
	}
	return false
}

func (d *disk) unreadable(sec, cnt int) bool {
	if d.badCount == 0 {
		return false
	}
	for b := sec / sectorsPerBlock; b*sectorsPerBlock < sec+cnt; b++ {
		if d.bad[b] {
			return true
		}
	}
	return false
}

// writeDone applies a write that ended well.
func (n *node) writeDone(o *op, sec, cnt int) {
	e, d := &o.eff, &n.disk
	switch e.Disk {
	case replicate.DiskZero:
		d.put(sec, cnt, nil)
		n.w.ledger.zeroed(n, sec, cnt)
	case replicate.DiskWrite:
		m := n.lookup(e.Buf)
		if len(m.stamps) < cnt {
			n.w.violate("handles", "%s: write of %d sectors from a buffer of %d", n.name, cnt, len(m.stamps))
		}
		n.checkStamps(m.stamps[:cnt], sec)
		n.countCopied(m.stamps[:cnt])
		d.put(sec, cnt, m.stamps)
		n.w.ledger.wrote(n, sec, m.stamps[:cnt])
	default:
		var m *mem
		if e.Buf != 0 {
			m = n.lookup(e.Buf)
		}
		n.eachBlock(e.Off, e.Mask, func(b, at int) {
			if e.Zeroes&(1<<uint(at)) != 0 {
				d.put(b*sectorsPerBlock, sectorsPerBlock, nil)
				return
			}
			st := m.stamps[at*sectorsPerBlock:][:sectorsPerBlock]
			n.checkStamps(st, b*sectorsPerBlock)
			n.countCopied(st)
			d.put(b*sectorsPerBlock, sectorsPerBlock, st)
		})
	}
}

// readAll reads as blockdev.Component does: a read that ends after a part goes on
// behind it, and one that gives nothing more is an error. What was read before
// stands in the memory.
func (n *node) readAll(to []uint32, sec int) bool {
	all, first := to, sec
	if take(&n.disk.shortReads) {
		k := n.w.rng.IntN(len(to))
		n.readInto(to[:k], sec)
		if !n.goesOn() {
			return false
		}
		to, sec = to[k:], sec+k
	}
	n.readInto(to, sec)
	if n.disk.lies > 0 {
		n.lie(all, first)
	}
	return true
}

// goesOn says whether there is more behind the part that a short read gave.
func (n *node) goesOn() bool {
	if n.w.chance(0.5) {
		n.w.cover.fault("short-read-goes-on")
		return true
	}
	n.w.cover.fault("short-read-ends")
	return false
}

// readInto reads what the disk holds now; a write under way may show already.
func (n *node) readInto(to []uint32, sec int) {
	n.poke(sec, len(to))
	copy(to, n.disk.cur[sec:])
}

// poke lets parts of overlapping writes under way reach the disk before they end.
func (n *node) poke(sec, cnt int) {
	for i := range n.ops {
		o := &n.ops[i]
		if !o.used || o.kind != opData || o.eff.Disk != replicate.DiskWrite && o.eff.Disk != replicate.DiskZero {
			continue
		}
		a, b := int(o.eff.Off)/sectorSize, int(o.eff.Off+o.eff.Len)/sectorSize
		a, b = max(a, sec), min(b, sec+cnt)
		if a >= b || !n.w.chance(0.5) {
			continue
		}
		if o.eff.Disk == replicate.DiskZero {
			n.disk.put(a, b-a, nil)
		} else {
			n.disk.put(a, b-a, n.lookup(o.eff.Buf).stamps[a-int(o.eff.Off)/sectorSize:])
		}
	}
}

// readWindow is DiskReadHash and DiskCompare.
func (n *node) readWindow(e *replicate.Effect, ev *replicate.Event) {
	first := int(e.Off) / sectorSize
	size := min(replicate.WindowSize/sectorSize, len(n.disk.cur)-first)
	h, m := n.alloc(memBlocks, size)
	m.mask = e.Mask
	ev.Buf = h
	for i := range m.stamps {
		m.stamps[i] = poison
	}
	var hashes *mem
	compare := e.Disk == replicate.DiskCompare
	if compare {
		hashes = n.lookup(e.Aux)
		if e.Aux != 0 && (hashes == nil || hashes.kind != memHashes || e.Mask&^hashes.mask != 0) {
			n.w.violate("handles", "%s: comparison of blocks %#x with a body that has not their hashes", n.name, e.Mask)
		}
	}
	n.eachBlock(e.Off, e.Mask, func(b, at int) {
		st := m.stamps[at*sectorsPerBlock:][:sectorsPerBlock]
		n.readInto(st, b*sectorsPerBlock)
		if n.disk.lies > 0 && n.w.chance(0.3) {
			n.lie(st, b*sectorsPerBlock)
		}
		if !compare {
			for _, s := range st { // (a mark would not travel with zeroes)
				if s != 0 {
					return
				}
			}
			ev.Mask |= 1 << uint(at)
			return
		}
		differs, zero := compare && hashes == nil, true
		for i, s := range st {
			differs = differs || (hashes.stamps[at*sectorsPerBlock+i]^s)&^lieMark != 0
			zero = zero && s == 0
		}
		if !differs && (n.w.prof.Lies || n.w.prof.MetaLies) {
			n.foundEqual(hashes, b, at, st)
		}
		if differs {
			ev.Mask |= 1 << uint(at)
			if zero {
				ev.Zeroes |= 1 << uint(at)
			}
		}
	})
}

// checkStamps catches memory that never held this data.
func (n *node) checkStamps(stamps []uint32, sec int) {
	for i, s := range stamps {
		if s == 0 || lied(s) {
			continue
		}
		if at, ok := n.w.ledger.place(s); !ok || at != sec+i {
			n.w.violate("garbage", "%s: sector %d is to be written with what was never written there (stamp %#x)", n.name, sec+i, s)
		}
	}
}

func (n *node) commitDone(o *op, ev *replicate.Event) {
	ev.Kind = replicate.EvCommitted
	n.commit = false
	for i, wr := range o.eff.Writes {
		m := o.writes[i]
		if !bytes.Equal(wr.Data, o.copied[m.at:m.at+m.n]) {
			n.w.violate("shell", "%s: a commit's bytes changed while it was under way", n.name)
		}
	}
	if n.disk.gone || o.lost || take(&n.disk.failMeta) {
		n.disk.putMeta(o.writes, o.copied, false)
		n.hadError = true
		ev.Err = replicate.ErrIO
		n.w.cover.fault("metadata-error")
		return
	}
	n.disk.putMeta(o.writes, o.copied, true)
}

func (n *node) afterCommit(err replicate.Err) {
	if err == replicate.OK {
		n.committed = true
		n.judgeSuper()
		n.committed = false
	}
	if n.w.hooks.commit != nil {
		n.w.hooks.commit(n)
	}
}

func (n *node) openDone(o *op, ev *replicate.Event) {
	ev.Kind = replicate.EvOpened
	if n.disk.gone || o.lost {
		ev.Err, ev.Text = replicate.ErrIO, "the component does not answer"
		return
	}
	img := n.disk.image(n.disk.metaCur, n.mark)
	if n.w.hooks.image != nil {
		n.w.hooks.image(n, img)
	}
	n.markBelieved()
	n.believed = [2]*metadata.Map{}
	if n.disk.metaLie != tellTruth {
		n.lieAtOpen(img)
	}
	if _, err := metadata.Inspect(img); err != nil {
		ev.Err, ev.Text = replicate.ErrNoData, err.Error()
		return
	}
	n.opened, n.hadError = true, false
	if sb, ok := newestSuper(n.disk.metaCur); ok {
		// What its last life began counts from now on.
		j := &n.judge
		j.unheard = sb.Marks.Has(metadata.Raised) && (j.unheard || !j.sb.Marks.Has(metadata.Raised))
	}
	ev.Image = img
}

func (n *node) connect(now bool) {
	first := !n.wantConnect
	n.wantConnect = true
	if now {
		n.scheduleAttempt(n.w.span(10*microsecond, millisecond))
	} else if first {
		n.scheduleAttempt(n.w.span(millisecond, 100*millisecond))
	}
}

func (n *node) disconnect(e *replicate.Effect) {
	if e.Stop {
		n.wantConnect = false
		n.heardOfPeer() // parted by order: nobody is asked
	}
	if e.Session != 0 && n.sess != nil && n.sess.id == e.Session {
		n.w.link.down(n, "closed: "+e.Text)
	}
}

func (n *node) provUp(ev *replicate.Event) {
	ev.Kind = replicate.EvProviderUp
	if n.w.prof.Enabled[faultProvider] && !n.w.quiet && !n.w.scripted && n.w.chance(0.03) {
		n.w.cover.fault("provider")
		n.prov = provNone
		ev.Err, ev.Text = replicate.ErrOther, "no free device"
		n.oracleTermEnds()
		return
	}
	n.prov = provUp
	n.provOp = ev.Op
	n.app.providerUp()
}

func (n *node) provDown(o *op, ev *replicate.Event) {
	ev.Kind = replicate.EvProviderDown
	if !o.eff.Force && (n.app.opened || n.app.pending > 0) {
		n.w.cover.fault("provider-busy")
		ev.Err, ev.Text = replicate.ErrBusy, "process 42 (app)"
		n.lease.leaving = false
		return
	}
	n.prov = provNone
	n.app.providerDown()
	n.oracleTermEnds()
}

func (n *node) answer(e *replicate.Effect) {
	for i, o := range n.commands {
		if o.id != e.Command {
			continue
		}
		n.granted()
		o.done, o.answer = true, e.Refusal
		n.commands = append(n.commands[:i], n.commands[i+1:]...)
		n.w.cover.answer(o, e.Refusal)
		n.oracleAnswer(o)
		if f := n.w.hooks.answered; f != nil {
			f(o.id, e.Refusal)
		}
		return
	}
	n.w.violate("commands", "%s: answer to command %d, which is not under way", n.name, e.Command)
}

// oracleDiskStart looks at operations when they begin.
func (n *node) oracleDiskStart(e *replicate.Effect) {}

func writesData(k replicate.DiskOp) bool {
	return k == replicate.DiskWrite || k == replicate.DiskZero || k == replicate.DiskWriteMasked
}
