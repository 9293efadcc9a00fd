package sim

import (
	"hastd/replicate"
)

// app is the application on one node: it uses the provider while there is one.
type app struct {
	n       *node
	opened  bool // holds the device open
	closing bool // stops asking, closes when all is answered
	pending int
	armed   bool  // a kClient stands in the queue
	manual  bool  // a script drives it
	atOnce  int   // how many requests it keeps under way
	last    int64 // when a request last ended
	held    int64 // it leaves the device alone until then
}

func (a *app) reset(n *node) {
	*a = app{n: n, manual: n.w.scripted, atOnce: 1 + n.w.rng.IntN(24)}
}

// providerUp lets the application open its device, mostly.
func (a *app) providerUp() {
	a.last = a.n.w.now
	if a.manual {
		return
	}
	if a.n.w.prof.Quorum || a.n.w.chance(0.9) {
		a.open()
	}
}

func (a *app) open() {
	if a.n.prov == provUp && !a.opened && a.n.w.now >= a.held {
		a.opened, a.closing = true, false
		a.arm(a.n.w.span(0, a.n.w.prof.Think))
	}
}

// hold lets the device rest for a while.
func (a *app) hold(d int64) {
	a.close()
	a.held = a.n.w.now + d
}

// close stops asking; the device is closed when all is answered.
func (a *app) close() {
	if a.pending == 0 {
		a.opened, a.closing = false, false
		return
	}
	a.closing = true
}

// providerDown cuts the users; their requests still get an answer.
func (a *app) providerDown() { a.opened, a.closing = false, false }

// cutOff: the daemon died, and with it whatever waited.
func (a *app) cutOff() {
	l := &a.n.w.ledger
	if a.pending > 0 {
		for i := len(l.reqs) - 1; i > 0 && a.pending > 0; i-- {
			r := &l.reqs[i]
			if int(r.node) == a.n.id && !r.done {
				r.done = true
				a.pending--
				if r.write != 0 && l.writes[r.write].zero {
					for j, z := range l.zeroes {
						if z == r.write {
							l.zeroes = append(l.zeroes[:j], l.zeroes[j+1:]...)
							break
						}
					}
				}
			}
		}
	}
	a.opened, a.closing, a.pending, a.armed = false, false, 0, false
}

func (a *app) arm(d int64) {
	if !a.armed {
		a.armed = true
		a.n.w.at(event{at: a.n.w.now + d, kind: kClient, node: uint8(a.n.id), life: a.n.life})
	}
}

func (a *app) think(life uint32) {
	n, w := a.n, a.n.w
	if n.life != life {
		return
	}
	a.armed = false
	if a.manual || !a.opened || a.closing || n.prov != provUp {
		return
	}
	if a.pending < a.atOnce {
		a.ask()
	}
	d := w.span(w.prof.Think/8, w.prof.Think*2)
	if w.rng.IntN(4) == 0 && !w.quiet {
		d = 0 // a burst
	}
	if a.pending >= a.atOnce {
		return // the next answer arms it
	}
	a.arm(d)
}

// ask issues a random request.
func (a *app) ask() {
	w := a.n.w
	unit := int(w.prof.Sector) / sectorSize
	total := a.n.w.providerSectors(a.n)
	sec, cnt := 0, 0
	switch x := w.rng.IntN(40); {
	case x < 24: // around a hot block
		b := w.hotBlock(total)
		if unit == 1 && w.chance(0.4) {
			sec = b*sectorsPerBlock + w.rng.IntN(sectorsPerBlock)
			cnt = 1 + w.rng.IntN(12)
		} else {
			sec, cnt = b*sectorsPerBlock, sectorsPerBlock*(1+w.rng.IntN(3))
		}
	case x < 38: // anywhere
		sec, cnt = w.rng.IntN(total/sectorsPerBlock)*sectorsPerBlock, sectorsPerBlock*(1+w.rng.IntN(2))
		if unit == 1 && w.chance(0.3) {
			sec, cnt = w.rng.IntN(total), 1+w.rng.IntN(16)
		}
	default: // large
		sec, cnt = w.rng.IntN(total/unit)*unit, int(replicate.MaxRequest(a.n.log(), extentSize))/sectorSize
	}
	cnt = min(cnt, total-sec)
	kind, flags := replicate.ReqWrite, replicate.Flags(0)
	switch x := w.rng.Float64(); {
	case x < w.prof.Reads:
		kind = replicate.ReqRead
	case x < w.prof.Reads+0.10:
		kind = replicate.ReqFlush
	case x < w.prof.Reads+0.16:
		kind = replicate.ReqZero
		if w.chance(0.3) {
			flags |= replicate.NoHole
		}
	}
	if kind != replicate.ReqRead && kind != replicate.ReqFlush && w.rng.IntN(10) == 0 {
		flags |= replicate.FUA
	}
	a.issue(kind, flags, sec, cnt)
}

// providerSectors is how large the device is that an application sees.
func (w *World) providerSectors(n *node) int {
	return n.judge.sectors
}

// hotBlock picks one of a few dozen blocks, spread so that more extents than the
// log has slots are hot.
func (w *World) hotBlock(sectors int) int {
	blocks := sectors / sectorsPerBlock
	return (w.rng.IntN(w.prof.Hot) * 67) % blocks
}

// issue gives a request to the machine.
func (a *app) issue(kind replicate.Request, flags replicate.Flags, sec, cnt int) *request {
	n, w := a.n, a.n.w
	l := &w.ledger
	id := len(l.reqs)
	w.tick++
	r := request{node: uint8(n.id), kind: kind, flags: flags, sec: int32(sec), n: int32(cnt), life: n.life, term: n.judge.term, issue: w.tick, at: w.now}
	ev := replicate.Event{Kind: replicate.EvRequest, Request: kind, Flags: flags, Req: replicate.ReqID(id), Off: int64(sec) * sectorSize, Len: int64(cnt) * sectorSize}
	switch kind {
	case replicate.ReqWrite, replicate.ReqZero:
		r.write = l.issueWrite(n, sec, cnt, kind == replicate.ReqZero, flags&replicate.FUA != 0, w.tick)
		if kind == replicate.ReqWrite {
			h, m := n.alloc(memPayload, cnt)
			for i := range m.stamps {
				m.stamps[i] = l.writes[r.write].base + uint32(i)
			}
			r.buf = h
		}
	case replicate.ReqRead:
		h, m := n.alloc(memPayload, cnt)
		for i := range m.stamps {
			m.stamps[i] = poison
		}
		r.buf = h
	case replicate.ReqFlush:
		ev.Off, ev.Len, r.sec, r.n, sec, cnt = 0, 0, 0, 0, 0, 0
		r.pend, r.seen = n.judge.marks()
	}
	ev.Buf = r.buf
	l.reqs = append(l.reqs, r)
	if w.hooks.issue != nil {
		w.hooks.issue(&l.reqs[id])
	}
	a.pending++
	w.cover.request(kind)
	if w.trace != nil {
		w.tracef("%s: request %d %s sector %d +%d flags %d write %d", n.name, id, requestNames[kind], sec, cnt, flags, r.write)
	}
	n.push(ev)
	return &l.reqs[id]
}

var requestNames = [...]string{"", "read", "write", "zero", "flush"}

// reply is EffReply.
func (n *node) reply(e *replicate.Effect) {
	w := n.w
	l := &w.ledger
	if int(e.Req) >= len(l.reqs) || e.Req == 0 {
		w.violate("commands", "%s: reply to request %d, which nobody issued", n.name, e.Req)
	}
	r := &l.reqs[e.Req]
	if r.done || int(r.node) != n.id || r.life != n.life {
		w.violate("commands", "%s: second reply to request %d", n.name, e.Req)
	}
	r.done = true
	w.tick++
	l.note(uint64(e.Req)<<8 | uint64(e.Err))
	a := &n.app
	a.pending--
	a.last = w.now
	w.cover.replied(r.kind, e.Err)
	n.oracleReply(r, e)
	if r.buf != 0 {
		n.giveBack(r.buf, true, "EffReply")
	}
	if w.hooks.reply != nil {
		w.hooks.reply(n, r, e.Err)
	}
	if a.manual {
		return
	}
	if a.closing && a.pending == 0 {
		a.opened, a.closing = false, false
	}
	if a.opened && !a.closing {
		a.arm(w.span(0, w.prof.Think))
	}
}
