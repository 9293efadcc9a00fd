package transport

import (
	"fmt"
	"io"
)

const (
	readBuffer = 256 << 10
	// A body's rest of this size or more is read straight to its place; less
	// goes through the buffer, so that one read brings the frames behind it too.
	readDirect = readBuffer / 4
)

// reader cuts the data connection into frames.
type reader struct {
	s       *Session
	h       Handler
	conn    io.Reader
	buf     []byte
	r, w    int    // buf[r:w] is unread
	head    header // the frame at hand; here, as the handler gets a pointer to it
	news    bool   // frames were delivered since the last Batch
	un      unpacker
	dig     digester
	scratch []byte // the wire form of a compressed body longer than buf

	frames, bodies, holes uint64 // not yet added to the metrics
}

// readLoop delivers frames until the session ends.
func (s *Session) readLoop(h Handler) {
	r := &reader{s: s, h: h, conn: s.data, buf: make([]byte, readBuffer)}
	defer r.un.close()
	for {
		err := r.frame()
		switch e := err.(type) {
		case nil:
			continue
		case *readError:
			r.count(0)
			s.dataEnd(e.err)
		default:
			s.fail(err)
		}
		return
	}
}

// dataEnd: no more can be read. Unless the session is ended or about to be, its
// reason may still be under way on control.
func (s *Session) dataEnd(err error) {
	s.mu.Lock()
	byeHeard := s.state == stateOpen && s.err != nil
	s.dry = true
	s.mu.Unlock()
	if byeHeard {
		s.end(nil)
		return
	}
	s.lost(lostError("data", err))
}

// readError sets a broken connection apart from broken content.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }

// frame reads and delivers one frame.
func (r *reader) frame() error {
	if err := r.ensure(headerSize); err != nil {
		return err
	}
	h := &r.head
	if err := h.parse(r.buf[r.r:], MaxBody); err != nil {
		return fmt.Errorf("%w on the data connection: %w", ErrProtocol, err)
	}
	r.r += headerSize
	body, err := r.body(h)
	if err != nil {
		return err
	}
	if r.s.quiet.Load() {
		<-r.s.ended // closing: the writer and the control connection finish it
		return &readError{io.EOF}
	}
	r.frames++
	r.bodies += uint64(h.raw)
	r.news = true
	r.h.Frame(&h.Frame, body)
	return nil
}

// body reads digest and body and checks one against the other.
func (r *reader) body(h *header) ([]byte, error) {
	if h.raw == 0 {
		return nil, nil
	}
	var want [digestMax]byte
	n := sumSize[h.sum]
	if err := r.ensure(n); err != nil {
		return nil, err
	}
	copy(want[:n], r.buf[r.r:])
	r.r += n
	if r.s.quiet.Load() {
		<-r.s.ended
		return nil, &readError{io.EOF}
	}
	body := r.h.Body(&h.Frame, int(h.raw))
	if len(body) != int(h.raw) {
		return nil, fmt.Errorf("%w: no memory for a frame of kind %d with %d bytes", ErrBodyRefused, h.Kind, h.raw)
	}
	switch h.pack {
	case packNone:
		if err := r.full(body); err != nil {
			return nil, err
		}
	case packHole:
		clear(body)
		r.holes++
		return body, nil
	default:
		wire, err := r.wire(int(h.wire))
		if err != nil {
			return nil, err
		}
		if err := r.un.unpack(h.pack, body, wire); err != nil {
			return nil, fmt.Errorf("%w: frame of kind %d: %w", ErrProtocol, h.Kind, err)
		}
	}
	if h.sum != sumNone && string(r.dig.sum(h.sum, body)) != string(want[:n]) {
		r.s.o.Metrics.ChecksumErrors.Add(1)
		return nil, fmt.Errorf("%w: the body of a frame of kind %d (sequence %d, offset %d, %d bytes) arrived with a wrong checksum",
			ErrProtocol, h.Kind, h.Seq, h.Off, h.raw)
	}
	return body, nil
}

// wire returns n contiguous bytes, valid until the next read.
func (r *reader) wire(n int) ([]byte, error) {
	if n <= len(r.buf) {
		if err := r.ensure(n); err != nil {
			return nil, err
		}
		r.r += n
		return r.buf[r.r-n : r.r], nil
	}
	if cap(r.scratch) < n {
		r.scratch = make([]byte, n)
	}
	b := r.scratch[:n]
	return b, r.full(b)
}

// ensure makes at least n ≤ len(buf) bytes available in the buffer.
func (r *reader) ensure(n int) error {
	if r.w-r.r >= n {
		return nil
	}
	r.w = copy(r.buf, r.buf[r.r:r.w])
	r.r = 0
	for r.w < n {
		m, err := r.read(r.buf[r.w:])
		r.w += m
		if err != nil {
			return err
		}
	}
	return nil
}

// full fills b from the buffer and then from the connection.
func (r *reader) full(b []byte) error {
	for {
		n := copy(b, r.buf[r.r:r.w])
		r.r += n
		b = b[n:]
		if len(b) == 0 {
			return nil
		}
		if len(b) >= readDirect {
			n, err := r.read(b)
			b = b[n:]
			if err != nil && len(b) > 0 {
				return err
			}
			continue
		}
		if err := r.ensure(1); err != nil {
			return err
		}
	}
}

// read waits for bytes; before that, what was delivered is to be acted on.
func (r *reader) read(b []byte) (int, error) {
	if r.news {
		r.news = false
		r.h.Batch()
	}
	n, err := r.conn.Read(b)
	r.count(n)
	if err != nil {
		return n, &readError{err}
	}
	return n, nil
}

// count adds to the metrics once a read, not once a frame.
func (r *reader) count(n int) {
	m := r.s.o.Metrics
	m.Reads.Add(1)
	m.BytesReceived.Add(uint64(n))
	m.FramesReceived.Add(r.frames)
	m.BodyReceived.Add(r.bodies)
	m.HolesReceived.Add(r.holes)
	r.frames, r.bodies, r.holes = 0, 0, 0
}
