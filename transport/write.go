package transport

import (
	"fmt"
	"io"
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
)

// writer turns queued frames into system calls. Its buffers are reused, so a
// frame costs no allocation.
type writer struct {
	s     *Session
	raw   syscall.RawConn
	step  func(fd uintptr) bool // made once: a closure a call would allocate
	iov   []unix.Iovec
	rest  []unix.Iovec // what step has still to write
	left  int          // bytes in iov
	errno error

	heads []byte // headers and digests of the batch
	arena []byte // compressed bodies of the batch
	used  int    // of arena
	pk    packer
	dig   digester
}

// writeLoop sends what Send queues until the session ends.
func (s *Session) writeLoop() {
	w := &writer{
		s:     s,
		iov:   make([]unix.Iovec, 0, batchPieces),
		heads: make([]byte, 0, batchFrames*(headerSize+digestMax)),
	}
	w.step = w.writev
	defer w.pk.close()
	raw, err := s.data.SyscallConn()
	if err != nil {
		s.end(lostError("data", err))
		return
	}
	w.raw = raw
	var batch []Out
	for {
		s.mu.Lock()
		batch, s.queue = s.queue, batch[:0]
		st := s.state
		s.mu.Unlock()
		switch {
		case st == stateEnded:
			release(batch)
			return
		case len(batch) > 0:
			if err := w.send(batch); err != nil {
				s.writeFailed(err)
			}
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
	var bodies, holes uint64
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
		bodies += uint64(raw)
		if hole {
			holes++
		}
	}
	if err := w.flush(); err != nil {
		return err
	}
	m := w.s.o.Metrics
	m.FramesSent.Add(uint64(len(batch)))
	m.BodySent.Add(bodies)
	m.HolesSent.Add(holes)
	return nil
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
	w.rest, w.errno = w.iov, nil
	w.s.progress.Store(w.s.now())
	err := w.raw.Write(w.step)
	w.s.progress.Store(0)
	clear(w.iov) // hold on to nobody's memory
	w.iov, w.rest, w.left = w.iov[:0], nil, 0
	if err == nil {
		err = w.errno
	}
	if err != nil {
		return &readError{err}
	}
	w.s.o.Metrics.BytesSent.Add(uint64(total))
	return nil
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
