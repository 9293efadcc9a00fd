package transport

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// Kinds of frames on the control connection. Those with a bodily reason carry it
// uncompressed and without a digest.
const (
	ctlPing uint8 = 1 // aux: the sender's clock, nanoseconds
	ctlPong uint8 = 2 // aux: of the ping answered
	ctlBye  uint8 = 3 // body: why the session ends
)

// byeWait bounds what a bye may wait for the socket: whoever says it has a reason
// to be gone soon.
const byeWait = 200 * time.Millisecond

// sendControl writes one frame within wait.
func (s *Session) sendControl(kind uint8, aux uint64, body string, wait time.Duration) error {
	s.ctlMu.Lock()
	defer s.ctlMu.Unlock()
	h := header{Frame: Frame{Kind: kind, Aux: aux}, raw: uint32(len(body)), wire: uint32(len(body))}
	h.put(s.ctlOut[:])
	n := headerSize + copy(s.ctlOut[headerSize:], body)
	if err := s.ctl.SetWriteDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	_, err := s.ctl.Write(s.ctlOut[:n])
	return err
}

// bye tells the peer why and ends our half of the control connection. Best effort.
func (s *Session) bye() {
	s.mu.Lock()
	reason := s.reason
	s.mu.Unlock()
	if s.sendControl(ctlBye, 0, reason, min(byeWait, s.o.Timeout)) == nil {
		_ = s.ctl.CloseWrite()
	}
}

// pingLoop sends keepalives and watches the data connection's writer.
func (s *Session) pingLoop() {
	t := time.NewTicker(s.o.pingEvery())
	defer t.Stop()
	for {
		// Failures show in controlLoop, which may find a bye before them.
		err := s.sendControl(ctlPing, uint64(s.now()), "", s.o.Timeout)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.end(fmt.Errorf("%w: it took no keepalive for %v", ErrPeerSilent, s.o.Timeout))
		}
		if since := s.progress.Load(); since != 0 && time.Duration(s.now()-since) > s.o.Timeout {
			s.fail(fmt.Errorf("%w for %v", ErrPeerStalled, s.o.Timeout))
		}
		select {
		case <-t.C:
		case <-s.ended:
			return
		}
	}
}

// controlLoop hears keepalives and the peer's goodbye.
func (s *Session) controlLoop() {
	in := bufio.NewReaderSize(s.ctl, 4*headerSize)
	var buf [headerSize + maxControl]byte
	for {
		h, body, err := s.readControl(in, buf[:])
		if err != nil {
			s.controlEnd(err)
			return
		}
		switch h.Kind {
		case ctlPing:
			_ = s.sendControl(ctlPong, h.Aux, "", s.o.Timeout) // a failure shows at the next read
		case ctlPong:
			if d := s.now() - int64(h.Aux); d > 0 && int64(h.Aux) > 0 {
				if old := s.rtt.Load(); old > 0 {
					d = old + (d-old)/8
				}
				s.rtt.Store(d)
			}
		case ctlBye:
			s.peerBye(printable(string(body), maxReason))
			return
		default: // a later version's word that was not negotiated
			s.fail(fmt.Errorf("%w: control frame of kind %d", ErrProtocol, h.Kind))
			return
		}
	}
}

func (s *Session) readControl(in *bufio.Reader, buf []byte) (h header, body []byte, err error) {
	if err = s.ctl.SetReadDeadline(time.Now().Add(s.o.Timeout)); err != nil {
		return
	}
	if _, err = io.ReadFull(in, buf[:headerSize]); err != nil {
		return
	}
	if err = h.parse(buf, maxControl); err != nil {
		return
	}
	if h.pack != packNone || h.sum != sumNone {
		return h, nil, fmt.Errorf("%w: a control frame in disguise", errHeader)
	}
	body = buf[headerSize : headerSize+h.wire]
	_, err = io.ReadFull(in, body)
	return
}

// controlEnd sorts out why nothing more is heard.
func (s *Session) controlEnd(err error) {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.end(fmt.Errorf("%w: nothing heard from node %s for %v", ErrPeerSilent, s.o.Peer, s.o.Timeout))
	case errors.Is(err, errHeader):
		s.fail(fmt.Errorf("%w on the control connection: %w", ErrProtocol, err))
	default:
		s.end(lostError("control", err))
	}
}

// peerBye keeps the reason and lets the data connection run dry: what the peer
// sent before its goodbye is delivered.
func (s *Session) peerBye(reason string) {
	s.mu.Lock()
	over := s.dry || s.state == stateClosing // or both said it
	s.setErr(&PeerClosed{Reason: reason})
	s.lingerLocked()
	s.mu.Unlock()
	if over {
		s.end(nil)
	}
}

func lostError(which string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the peer closed the %s connection without a word", ErrLost, which)
	}
	var op *net.OpError
	if errors.As(err, &op) { // the addresses are the session's, known and long
		err = op.Err
	}
	return fmt.Errorf("%w: %s connection: %w", ErrLost, which, err)
}
