package transport

import (
	"fmt"
	"io"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// What one writev carries at most. More would only delay the tokens of its first
// frames.
const (
	batchFrames = 256
	batchPieces = 1024 // IOV_MAX
	batchBytes  = 4 << 20
	packArena   = 1 << 20
	// nowBytes is how much Send writes by itself. Waking the writer costs more
	// than copying so much into the socket; with more, the caller has better to do
	// meanwhile.
	nowBytes = 160 << 10
)

// writer turns frames into system calls. Its buffers are reused, so a frame costs
// no allocation. Whoever holds the lock writes: writeLoop, or Send when nothing
// waits and little is to be sent.
type writer struct {
	mu    sync.Mutex
	s     *Session
	raw   syscall.RawConn
	step  func(fd uintptr) bool // made once: a closure a call would allocate
	once  func(fd uintptr) bool // likewise: step that never waits
	cheap bool                  // encoding a body costs little
	late  []Out                 // frames that Send began and the socket did not take
	iov   []unix.Iovec
	rest  []unix.Iovec // what step has still to write
	left  int          // bytes in iov
	errno error

	frames, bodies, holes uint64 // not yet added to the metrics

	heads []byte // headers and digests of the batch
	arena []byte // compressed bodies of the batch
	used  int    // of arena
	pk    packer
	dig   digester
}

func newWriter(s *Session) (*writer, error) {
	raw, err := s.data.SyscallConn()
	if err != nil {
		return nil, err
	}
	w := &writer{
		s:     s,
		raw:   raw,
		iov:   make([]unix.Iovec, 0, batchPieces),
		heads: make([]byte, 0, batchFrames*(headerSize+digestMax)),
	}
	pack := packByName[s.o.Compression]
	w.cheap = (pack == packNone || pack == packHole) && sumByName[s.o.Checksum] != sumSHA256
	w.step = w.writev
	w.once = func(fd uintptr) bool { w.writev(fd); return true }
	return w, nil
}

// writeLoop sends what Send queues or could not finish, until the session ends.
func (s *Session) writeLoop() {
	w := s.w
	var batch []Out
	for {
		w.mu.Lock()
		s.mu.Lock()
		batch, s.queue = s.queue, batch[:0]
		st := s.state
		s.mu.Unlock()
		if st == stateEnded {
			w.mu.Unlock()
			release(batch)
			return
		}
		worked := len(batch)+len(w.late) > 0
		err := w.finish()
		if err == nil {
			err = w.send(batch)
		} else {
			release(batch)
		}
		w.mu.Unlock()
		switch {
		case err != nil:
			s.writeFailed(err)
			continue
		case worked:
			continue
		case st == stateClosing:
			_ = s.data.CloseWrite() // the peer sees that it has everything
			s.bye()
			return
		}
		select {
		case <-s.wake:
		case <-s.ended:
		}
	}
}

// fits says whether Send may write these frames by itself.
func (w *writer) fits(out []Out) bool {
	if !w.cheap || len(w.late) > 0 || len(out) > batchFrames {
		return false
	}
	bytes, pieces := 0, len(out)
	for i := range out {
		pieces += len(out[i].Body)
		for _, p := range out[i].Body {
			bytes += len(p)
		}
	}
	return bytes <= nowBytes && pieces <= batchPieces
}

// now sends frames that fit as far as the socket takes them without waiting.
// False means that writeLoop must finish it. Called with the lock.
func (w *writer) now(out []Out) bool {
	for i := range out {
		raw, hole, err := w.add(&out[i])
		if err != nil {
			panic("transport: a frame that fits cannot be encoded: " + err.Error())
		}
		w.count(raw, hole)
	}
	total := w.left
	w.rest, w.errno = w.iov, nil
	if err := w.raw.Write(w.once); err == nil && len(w.rest) == 0 {
		w.s.progress.Store(0)
		w.written(total)
		w.heads = w.heads[:0]
		release(out)
		return true
	}
	// A broken connection shows itself to writeLoop again.
	w.s.progress.Store(w.s.now())
	w.late = append(w.late, out...)
	return false
}

// finish writes what now began. Called with the lock.
func (w *writer) finish() error {
	if len(w.late) == 0 {
		return nil
	}
	defer w.drop()
	return w.flush()
}

// drop releases what now began.
func (w *writer) drop() {
	release(w.late)
	w.late = w.late[:0]
}

// close waits for whoever writes and releases what is left.
func (w *writer) close() {
	w.mu.Lock()
	w.drop()
	w.pk.close()
	w.mu.Unlock()
}

// writeFailed ends the session. A connection that broke below the writer may have
// the peer's goodbye waiting on the other one.
func (s *Session) writeFailed(err error) {
	if _, ok := err.(*readError); !ok {
		s.fail(err)
		return
	}
	s.lost(lostError("data", err.(*readError).err))
}

// send writes and releases the whole batch, also when it fails.
func (w *writer) send(batch []Out) error {
	first := 0 // batch[first:] is not released
	defer func() { release(batch[first:]) }()
	for i := range batch {
		if i-first >= batchFrames || w.left >= batchBytes {
			if err := w.flush(); err != nil {
				return err
			}
			release(batch[first:i])
			first = i
		}
		raw, hole, err := w.add(&batch[i])
		if err != nil {
			return err
		}
		w.count(raw, hole)
	}
	return w.flush()
}

// count takes in a frame for the metrics, which learn of it once a system call.
func (w *writer) count(raw int, hole bool) {
	w.frames++
	w.bodies += uint64(raw)
	if hole {
		w.holes++
	}
}

// add encodes one frame behind the others of this system call.
func (w *writer) add(o *Out) (raw int, hole bool, err error) {
	for _, p := range o.Body {
		raw += len(p)
	}
	if raw > MaxBody {
		return 0, false, fmt.Errorf("cannot send a frame of kind %d with a body of %d bytes, at most %d", o.Kind, raw, MaxBody)
	}
	h := header{Frame: o.Frame, raw: uint32(raw), wire: uint32(raw)}
	pieces := o.Body
	var packed []byte
	if raw > 0 {
		if packed, err = w.compress(&h, pieces, raw); err != nil {
			return 0, false, err
		}
	}
	at := len(w.heads)
	w.heads = w.heads[:at+headerSize]
	if raw > 0 && h.pack != packHole {
		h.sum = sumByName[w.s.o.Checksum]
		if h.sum != sumNone {
			w.heads = append(w.heads, w.dig.sum(h.sum, pieces...)...)
		}
	}
	h.put(w.heads[at:])
	if err = w.head(w.heads[at:]); err != nil {
		return
	}
	switch {
	case h.pack == packHole:
		return raw, true, nil
	case h.pack != packNone:
		return raw, false, w.piece(packed)
	}
	for _, p := range pieces {
		if len(p) > 0 {
			if err = w.piece(p); err != nil {
				return
			}
		}
	}
	return raw, false, nil
}

// compress chooses how the body travels and fills h accordingly.
func (w *writer) compress(h *header, pieces [][]byte, raw int) ([]byte, error) {
	kind := packByName[w.s.o.Compression]
	if kind == packNone {
		return nil, nil
	}
	if allZero(pieces) {
		h.pack, h.wire = packHole, 0
		return nil, nil
	}
	if kind == packHole || raw < packMin {
		return nil, nil
	}
	if w.used+raw > len(w.arena) {
		// The arena is in use up to here: let it leave before it is reused.
		if err := w.write(); err != nil {
			return nil, err
		}
		w.used = 0
		if raw > len(w.arena) {
			w.arena = make([]byte, max(raw, packArena))
		}
	}
	dst := w.arena[w.used : w.used+raw]
	n, err := w.pk.pack(kind, dst, w.pk.one(pieces, raw))
	if err != nil || n == 0 {
		return nil, err
	}
	w.used += n
	h.pack, h.wire = kind, uint32(n)
	return dst[:n], nil
}

// head appends a header; frames without bodies share one piece.
func (w *writer) head(p []byte) error {
	if n := len(w.iov); n > 0 && follows(&w.iov[n-1], p) {
		w.iov[n-1].SetLen(int(w.iov[n-1].Len) + len(p))
		w.left += len(p)
		return nil
	}
	return w.piece(p)
}

// piece appends memory to the system call.
func (w *writer) piece(p []byte) error {
	if len(w.iov) == batchPieces {
		if err := w.write(); err != nil {
			return err
		}
	}
	v := unix.Iovec{Base: &p[0]}
	v.SetLen(len(p))
	w.iov = append(w.iov, v)
	w.left += len(p)
	return nil
}

// flush writes everything; its buffers are free afterwards.
func (w *writer) flush() error {
	err := w.write()
	w.heads, w.used = w.heads[:0], 0
	return err
}

// write hands the pieces to the kernel, waiting for room.
func (w *writer) write() error {
	if len(w.iov) == 0 {
		return nil
	}
	total := w.left
	if len(w.late) == 0 { // else now has begun
		w.rest = w.iov
	}
	w.errno = nil
	w.s.progress.Store(w.s.now())
	err := w.raw.Write(w.step)
	w.s.progress.Store(0)
	if err == nil {
		err = w.errno
	}
	if err != nil {
		total = 0
		err = &readError{err}
	}
	w.written(total)
	return err
}

// written empties iov after a write of n bytes.
func (w *writer) written(n int) {
	clear(w.iov) // hold on to nobody's memory
	w.iov, w.rest, w.left = w.iov[:0], nil, 0
	if m := w.s.o.Metrics; n > 0 {
		m.BytesSent.Add(uint64(n))
		m.FramesSent.Add(w.frames)
		m.BodySent.Add(w.bodies)
		m.HolesSent.Add(w.holes)
	}
	w.frames, w.bodies, w.holes = 0, 0, 0
}

// writev writes what the socket takes; false means wait until it takes more.
func (w *writer) writev(fd uintptr) bool {
	for len(w.rest) > 0 {
		n, errno := writevOnce(fd, w.rest)
		switch errno {
		case 0:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		default:
			w.errno = errno
			return true
		}
		if n == 0 {
			w.errno = io.ErrShortWrite
			return true
		}
		w.s.o.Metrics.Writes.Add(1)
		w.s.progress.Store(w.s.now())
		w.advance(n)
	}
	return true
}

// advance drops the first n bytes of what remains.
func (w *writer) advance(n int) {
	for n > 0 {
		v := &w.rest[0]
		if have := int(v.Len); n < have {
			skip(v, n)
			return
		} else {
			n -= have
			w.rest = w.rest[1:]
		}
	}
}
