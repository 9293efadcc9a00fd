package runner

import (
	"fmt"

	"golang.org/x/sys/unix"

	"hastd/blockdev"
	"hastd/replicate"
)

// export is what the provider serves at present.
type export struct {
	size   int64
	sector int
}

// request is an application request until all its parts are answered.
type request struct {
	req   *blockdev.Request
	mem   *memory
	start replicate.Instant
	next  int64 // bytes of it the machine was asked for
	left  int   // parts the machine has
	err   replicate.Err
}

// part is what the machine knows of a request: all of it, or a piece no longer
// than it takes.
type part struct {
	id  replicate.ReqID
	of  *request
	mem *memory
	off int64
	len int64
}

// front keeps the application requests under way. Owner only.
type front struct {
	parts    []*part // by ReqID - 1
	idle     []*part
	requests []*request // idle ones
	done     []*blockdev.Request
	withheld []*blockdev.Request // done well, but there is no lease to say so
	group    []*blockdev.Request
	inflight int
}

// Info describes the device being served.
func (r *Resource) Info() blockdev.DeviceInfo {
	info := blockdev.DeviceInfo{Name: r.opts.Resource, SectorSize: 512}
	if e := r.export.Load(); e != nil {
		info.Size, info.SectorSize = e.size, e.sector
	}
	return info
}

// Alloc gives memory for the payload of a request; it waits while all is in use.
func (r *Resource) Alloc(n int) []byte { return r.appMem.Get(n) }

// TryAlloc is Alloc that returns nil instead of waiting.
func (r *Resource) TryAlloc(n int) []byte { return r.appMem.TryGet(n) }

// AllocWhile is Alloc that returns nil once still, asked now and then, says false.
func (r *Resource) AllocWhile(n int, still func() bool) []byte { return r.appMem.GetWhile(n, still) }

// Free takes it back.
func (r *Resource) Free(buf []byte) {
	if buf != nil {
		r.mem.free(buf)
	}
}

// Submit hands requests to the machine.
func (r *Resource) Submit(batch []*blockdev.Request) {
	if len(batch) > 0 {
		r.box.postRequests(batch, r.now())
	}
}

// Allocated tells data from holes where the local replica can speak for the
// device; else it is all data.
func (r *Resource) Allocated(off, n int64) ([]blockdev.Run, error) {
	e := r.export.Load()
	if e == nil || off < 0 || n <= 0 || off > e.size || n > e.size-off {
		return nil, fmt.Errorf("describe %s at %d: %d bytes reach beyond the device: %w", r.opts.Resource, off, n, unix.EINVAL)
	}
	if r.localSpeaks() {
		if d := r.pin(); d != nil {
			defer d.pins.Done()
			// Asked again, as after a read: it may have stood still meanwhile.
			if runs, err := d.data.Holes(off, n); err == nil && r.localSpeaks() {
				return runs, nil
			}
		}
	}
	return []blockdev.Run{{Len: n}}, nil
}

// errnoOf is what applications see.
func errnoOf(e replicate.Err) error {
	switch e {
	case replicate.OK:
		return nil
	case replicate.ErrBusy:
		return unix.EBUSY
	case replicate.ErrShut:
		return unix.ESHUTDOWN
	}
	return unix.EIO
}

// admit takes a new request and turns it into events.
func (r *Resource) admit(a arrival, evs []replicate.Event) []replicate.Event {
	q := r.newRequest(a)
	e := r.export.Load()
	switch req := a.req; {
	case e == nil:
		q.err = replicate.ErrShut
	case req.Op == blockdev.OpFlush:
		req.Off, req.Len = 0, 0
		q.mem = nil
	case req.Off < 0 || req.Len < 0 || req.Off > e.size || req.Len > e.size-req.Off ||
		(req.Off|req.Len)%int64(e.sector) != 0:
		req.Err = unix.EINVAL
		q.err = replicate.ErrOther
	case req.Op == blockdev.OpRead || req.Op == blockdev.OpWrite:
		if int64(len(req.Buf)) != req.Len {
			req.Err = unix.EINVAL
			q.err = replicate.ErrOther
		} else if req.Len > 0 {
			q.mem = r.mem.add(req.Buf, nil)
			q.mem.app = true
		}
	}
	if q.err != replicate.OK || a.req.Len == 0 && a.req.Op != blockdev.OpFlush {
		r.finish(q)
		return evs
	}
	return r.feed(q, evs)
}

// feed asks the machine for as much of a request as it may have at once.
func (r *Resource) feed(q *request, evs []replicate.Event) []replicate.Event {
	req := q.req
	for first := true; first || q.next < req.Len; first = false {
		if q.left >= maxParts {
			break
		}
		n := min(req.Len-q.next, r.maxRequest)
		p := r.newPart()
		p.of, p.off, p.len = q, req.Off+q.next, n
		if q.mem != nil {
			if n == req.Len {
				p.mem = q.mem
			} else {
				p.mem = r.mem.part(q.mem, q.next, q.next+n)
			}
		}
		q.next += n
		q.left++
		ev := replicate.Event{Kind: replicate.EvRequest, Req: p.id, Off: p.off, Len: n}
		switch req.Op {
		case blockdev.OpRead:
			ev.Request = replicate.ReqRead
		case blockdev.OpWrite:
			ev.Request = replicate.ReqWrite
		case blockdev.OpFlush:
			ev.Request = replicate.ReqFlush
		default:
			ev.Request = replicate.ReqZero
		}
		if req.FUA {
			ev.Flags |= replicate.FUA
		}
		if req.NoHole && req.Op == blockdev.OpZero {
			ev.Flags |= replicate.NoHole
		}
		if p.mem != nil {
			ev.Buf = p.mem.handle
		}
		evs = append(evs, ev)
	}
	return evs
}

// fill gives a part of a read what the peer read for it. If a local operation of
// the part is still in progress (the disk failed or hangs) it may write into the
// request's memory for as long as the front end sends it: then the request is
// answered from other memory.
func (r *Resource) fill(p *part, from []byte) {
	q := p.of
	if (p.mem == q.mem || p.mem.parent == q.mem) && p.mem.refs.Load() > 1 {
		r.moveAway(q)
	}
	at := p.off - q.req.Off
	copy(q.req.Buf[at:at+p.len], from)
}

// moveAway gives a request other memory, with what its finished parts have read.
func (r *Resource) moveAway(q *request) {
	old, from := q.mem, q.req.Buf
	to := r.mem.replace(old)
	reading := map[int64]bool{}
	for _, p := range r.front.parts {
		if p.of == q {
			reading[p.off-q.req.Off] = true
			if p.mem == old {
				p.mem = to
			}
		}
	}
	for at := int64(0); at < q.next; at += r.maxRequest {
		if !reading[at] {
			copy(to.buf[at:min(at+r.maxRequest, q.next)], from[at:])
		}
	}
	q.mem, q.req.Buf = to, to.buf
}

// reply ends a part, and its request with the last one. It returns events for
// what was held back of a long request.
func (r *Resource) reply(id replicate.ReqID, e replicate.Err, evs []replicate.Event) []replicate.Event {
	p := r.front.parts[id-1]
	q := p.of
	if q == nil {
		panic("runner: the machine answered a request twice")
	}
	if p.mem != nil && p.mem != q.mem {
		r.mem.drop(p.mem)
	}
	p.of, p.mem = nil, nil
	r.front.idle = append(r.front.idle, p)
	q.left--
	if e != replicate.OK && q.err == replicate.OK {
		q.err = e
		q.next = q.req.Len // what was not begun is not begun any more
	}
	if q.next < q.req.Len && r.export.Load() == nil {
		q.err = replicate.ErrShut // the provider is gone: the machine takes nothing more
		q.next = q.req.Len
	}
	if q.next < q.req.Len {
		return r.feed(q, evs)
	}
	if q.left == 0 {
		r.finish(q)
	}
	return evs
}

// finish ends a request; its owner is told at the end of the turn.
func (r *Resource) finish(q *request) {
	if q.mem != nil {
		r.mem.settle(q.mem)
	}
	if q.err != replicate.OK && q.req.Err == nil {
		q.req.Err = errnoOf(q.err)
	}
	r.metrics.request(q.req, r.turnAt-q.start)
	r.front.done = append(r.front.done, q.req)
	r.front.inflight--
	*q = request{}
	r.front.requests = append(r.front.requests, q)
}

// complete tells each front end of its finished requests.
func (r *Resource) complete() {
	f := &r.front
	r.withhold()
	for len(f.done) > 0 {
		owner := f.done[0].Owner
		f.group = f.group[:0]
		rest := f.done[:0]
		for _, q := range f.done {
			if q.Owner == owner {
				f.group = append(f.group, q)
			} else {
				rest = append(rest, q)
			}
		}
		clear(f.done[len(rest):])
		f.done = rest
		owner.Complete(f.group)
		clear(f.group)
	}
}

func (r *Resource) newRequest(a arrival) *request {
	f := &r.front
	var q *request
	if n := len(f.requests); n > 0 {
		q, f.requests = f.requests[n-1], f.requests[:n-1]
	} else {
		q = new(request)
	}
	a.req.Err = nil
	q.req, q.start = a.req, a.at
	f.inflight++
	return q
}

func (r *Resource) newPart() *part {
	f := &r.front
	if n := len(f.idle); n > 0 {
		p := f.idle[n-1]
		f.idle = f.idle[:n-1]
		return p
	}
	p := &part{id: replicate.ReqID(len(f.parts) + 1)}
	f.parts = append(f.parts, p)
	return p
}
