package runner

import (
	"time"

	"hastd/blockdev"
	"hastd/replicate"
)

// maxIdle is how much the mailbox's and the owner's slices may keep.
const maxIdle = 1 << 14

// run is the owner: one turn for everything that came since the last.
func (r *Resource) run() {
	defer close(r.ended)
	var w word
	for r.box.take(&w) {
		r.turn(&w)
		w.reset()
	}
	r.timer.Stop()
}

// turn makes events of what came, steps the machine and carries out its effects.
func (r *Resource) turn(w *word) {
	now := r.now()
	r.turnAt = now
	evs := r.events[:0]
	for _, io := range w.ios {
		evs = r.endedIO(io, evs)
	}
	for _, a := range w.reqs {
		evs = r.admit(a, evs)
	}
	calls := false
	for i := range w.items {
		it := &w.items[i]
		switch {
		case it.call != nil:
			calls = true
		case it.op != nil:
			evs = r.endedOp(it.op, evs)
		default:
			evs = r.arrive(it, w, evs)
		}
	}
	if calls {
		// Who asks is told what holds now: the timer may be late, and this process may
		// have stood still.
		evs = append(evs, replicate.Event{Kind: replicate.EvTick})
	}
	for len(evs) > 0 {
		eff := r.machine.Step(now, evs, r.effects[:0])
		clear(evs)
		evs = r.carryOut(eff, evs[:0])
		clear(eff)
		r.effects = keep(eff)
		r.events = keep(evs)
	}
	r.complete()
	if calls {
		for i := range w.items {
			if f := w.items[i].call; f != nil {
				f()
			}
		}
	}
	r.arm()
}

// keep is a slice to be used again, unless it grew out of proportion.
func keep[T any](s []T) []T {
	if cap(s) > maxIdle {
		return nil
	}
	return s[:0]
}

func (r *Resource) endedIO(io *blockdev.IO, evs []replicate.Event) []replicate.Event {
	return r.endedOp(r.ops[io.Tag], evs)
}

// arrive takes notice of what concerns the shell itself, and names memory.
func (r *Resource) arrive(it *item, w *word, evs []replicate.Event) []replicate.Event {
	ev := &it.ev
	switch ev.Kind {
	case replicate.EvMessage:
		if it.body != nil {
			m := r.mem.add(it.body, it.from)
			m.mask = ev.Msg.Mask
			ev.Msg.Buf = m.handle
		}
		if it.seqs[1] > it.seqs[0] {
			ev.Msg.Seqs = w.seqs[it.seqs[0]:it.seqs[1]]
		}
		r.received(&ev.Msg)
	case replicate.EvSessionUp:
		r.session = it.session
		r.watch.peerAddress(it.session.s.Hello().Remote)
	case replicate.EvSessionDown:
		if r.session != nil && r.session.id == ev.Session {
			r.session = nil
		}
	case replicate.EvOpened:
		r.opened(it.disk)
	case replicate.EvCommand:
		r.answers[ev.Command.ID] = it.answer
	case replicate.EvProviderUp, replicate.EvProviderDown:
		switch {
		case ev.Err == replicate.OK:
			r.provider = it.provider
		case ev.Kind == replicate.EvProviderDown:
			r.leaving = false // it stays
		}
	}
	return append(evs, *ev)
}

// received notes what the shell needs of a message.
func (r *Resource) received(m *replicate.Msg) {
	switch m.Kind {
	case replicate.MsgBegin:
		r.hashSeed = m.Control.(*replicate.Begin).HashSeed
	case replicate.MsgWrote:
		for _, s := range m.Seqs {
			r.metrics.answered(s, r.turnAt)
		}
	case replicate.MsgFlushed, replicate.MsgData:
		r.metrics.answered(m.Seq, r.turnAt)
	}
}

func (r *Resource) opened(d *disk) {
	if d == nil {
		return
	}
	r.disk = d
	r.current.Store(d)
	r.deviceSize.Store(d.image.Layout.DataSize)
	if sb, found, _ := newest(d.image); found {
		r.maxRequest = replicate.MaxRequest(sb.Keepdirty, sb.ExtentSize)
	}
}

// carryOut does what the machine wants, grouped by where it goes. It returns
// events for what can be answered at once.
func (r *Resource) carryOut(eff []replicate.Effect, evs []replicate.Event) []replicate.Event {
	for i := range eff {
		e := &eff[i]
		switch e.Kind {
		case replicate.EffDisk:
			r.begin(e)
		case replicate.EffSend:
			r.send(e)
		case replicate.EffReply:
			if e.Buf != 0 && e.Err == replicate.OK {
				r.fill(r.front.parts[e.Req-1], r.mem.get(e.Buf).buf)
			}
			evs = r.reply(e.Req, e.Err, evs)
		case replicate.EffRelease:
			r.mem.drop(r.mem.get(e.Buf))
		default:
			// The rest is rare; what was collected goes out first where order may
			// matter.
			r.flushOut()
			r.carryOutRare(e)
		}
	}
	r.flushOut()
	for _, io := range r.failedOps {
		evs = r.endedIO(io, evs)
	}
	clear(r.failedOps)
	r.failedOps = r.failedOps[:0]
	return evs
}

// flushOut submits and sends what was collected.
func (r *Resource) flushOut() {
	if len(r.ios) > 0 {
		r.disk.queue.Submit(r.ios)
		clear(r.ios)
		r.ios = r.ios[:0]
	}
	if len(r.out) > 0 {
		r.session.s.Send(r.out)
		clear(r.out)
		r.out = r.out[:0]
	}
}

func (r *Resource) send(e *replicate.Effect) {
	m := &e.Msg
	var mem *memory
	if m.Buf != 0 {
		mem = r.mem.get(m.Buf)
	}
	if r.session == nil || r.session.id != e.Session {
		return // it has ended; the machine will hear of it
	}
	switch m.Kind {
	case replicate.MsgBegin:
		r.hashSeed = m.Control.(*replicate.Begin).HashSeed
	case replicate.MsgWrite, replicate.MsgZero, replicate.MsgFlush, replicate.MsgRead:
		r.metrics.asked(m, r.turnAt)
	}
	r.out = pack(r.out, r.mem, m, mem)
}

func (r *Resource) carryOutRare(e *replicate.Effect) {
	switch op := e.Op; e.Kind {
	case replicate.EffCommit:
		r.order(r.disk, commitJob{op, e.Writes})
	case replicate.EffOpen:
		r.helpers.Go(func() { r.open(op) })
	case replicate.EffClose:
		d := r.disk
		r.disk = nil
		r.current.Store(nil)
		r.helpers.Go(func() { r.shut(d, op) })
	case replicate.EffStateMark:
		set, resuid := e.Set, r.machine.Status(r.turnAt).Resuid
		r.helpers.Go(func() { r.mark(op, set, resuid) })
	case replicate.EffConnect:
		r.role.Store(uint32(r.machine.Status(r.turnAt).Role)) // the hello tells it
		r.link.enable(e.Now)
	case replicate.EffDisconnect:
		if e.Stop {
			r.link.disable()
		}
		if r.session != nil && e.Session == r.session.id {
			r.session.s.Close(e.Text)
		}
	case replicate.EffProviderStart:
		r.leaving = false
		ex := &export{size: e.Size, sector: int(e.SectorSize)}
		r.helpers.Go(func() { r.startProvider(op, ex) })
	case replicate.EffProviderStop:
		r.leaving = true
		p, force := r.provider, e.Force
		r.helpers.Go(func() { r.stopProvider(p, op, force) })
	case replicate.EffAnswer:
		if c := r.answers[e.Command]; c != nil {
			delete(r.answers, e.Command)
			r.granted()
			if e.Refusal != nil {
				c <- e.Refusal
			} else {
				c <- nil
			}
		}
	case replicate.EffReport:
		r.report(e.Report)
	default:
		panic("runner: the machine wants something unknown")
	}
}

// report tells the observer, with the epoch of the moment.
func (r *Resource) report(rep *replicate.Report) {
	st := r.machine.Status(r.turnAt)
	r.role.Store(uint32(st.Role))
	r.watch.tell(*rep, st.Epoch.Number)
}

// arm sets the timer for the machine's deadline. It is not set back when the
// deadline moves away: it then goes off once for nothing.
func (r *Resource) arm() {
	at, ok := r.machine.Deadline()
	now := r.now()
	if r.armed != 0 && r.armed <= now {
		r.armed = 0
	}
	if !ok || r.armed != 0 && r.armed <= at {
		return
	}
	r.armed = max(at, now+1)
	r.timer.Reset(time.Duration(r.armed - now))
}
