package nbd

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hastd/blockdev"
)

// phase is where a connection stands; the provider's mutex guards it.
type phase uint8

const (
	phaseHandshake phase = iota
	phaseServing
	phaseLeaving // the client has gone or said so; what is under way still ends
)

// request is one request of a client, from its header to its reply. They are kept
// in conn.table and used again.
type request struct {
	blockdev.Request
	wire    wireRequest
	payload int    // bytes it counts for in conn.held
	extra   []byte // payload of a reply to BLOCK_STATUS
}

// conn is one client. Its reader (run) owns the first group of fields; replies
// are reply.go's.
type conn struct {
	p    *Provider
	nc   net.Conn
	raw  syscall.RawConn // nil when nc cannot be written without waiting
	peer peer

	phase phase // guarded by p.mu

	rules    rules
	buf      []byte // what was read lies in buf[pos:end]
	pos, end int
	free     []*request
	made     int         // requests in table
	held     int         // bytes of payload that our requests stand for
	late     bool        // the reader waited and has not caught up: gone.go
	still    func() bool // not endIfGone, made once as an allocation a call would be too much
	look     *time.Timer // when to call it, while the reader waits for room
	batch    []*blockdev.Request
	single   [1]*blockdev.Request

	table [MaxInFlight]*request // by Tag

	// The gate is between us and the device: once it is shut, nothing goes through.
	gate sync.Mutex
	shut bool

	open atomic.Int64  // requests submitted or refused, and not answered on the wire yet
	idle chan struct{} // open came to 0
	gone chan struct{} // run has ended
	cutc chan struct{} // cut was called
	once sync.Once

	replies
}

func newConn(p *Provider, nc net.Conn) *conn {
	c := &conn{
		p:    p,
		nc:   nc,
		peer: peerOf(nc),
		rules: rules{
			size:   uint64(p.info.Size),
			sector: uint64(p.info.SectorSize),
			maxLen: blockdev.MaxTransfer,
		},
		idle: make(chan struct{}, 1),
		gone: make(chan struct{}),
		cutc: make(chan struct{}),
	}
	if sc, ok := nc.(syscall.Conn); ok {
		c.raw, _ = sc.SyscallConn()
	}
	c.initReplies()
	return c
}

// run is the connection's goroutine: handshake, then reading requests.
func (c *conn) run() {
	defer close(c.gone)
	defer c.p.forget(c)
	defer c.cut()
	if err := c.handshake(); err != nil {
		if !errors.Is(err, errLeft) && !c.isCut() {
			c.p.log.Error("handshake", "a client did not get through the handshake", "client", c.peer.String(), "error", err)
		}
		return
	}
	c.buf = make([]byte, readBuffer)
	c.still = func() bool { return !c.endIfGone() }
	c.look = time.NewTimer(lookEvery)
	defer c.look.Stop()
	var writer sync.WaitGroup
	writer.Go(c.writer)
	err := c.serve()
	c.buf = nil // requests that the device keeps keep c
	c.p.leave(c)
	if err == nil {
		// The client left in good order: what it asked for is still done and
		// answered. If nobody reads the answers, the writer notices.
		c.submit()
		c.awaitIdle(nil)
	} else if !c.isCut() {
		c.p.log.Error("transmission", "a client's connection had to end", "client", c.peer.String(), "error", err)
	}
	c.cut()
	c.dropUnsubmitted()
	writer.Wait()
}

// serve reads requests until the client leaves (nil) or the connection is of no
// use any more.
func (c *conn) serve() error {
	for {
		done, err := c.parse()
		if err != nil {
			return err
		}
		c.submit()
		if done {
			return nil
		}
		if c.pos == c.end {
			c.pos, c.end = 0, 0
		} else if len(c.buf)-c.pos < requestSize+copyMax {
			c.end = copy(c.buf, c.buf[c.pos:c.end])
			c.pos = 0
		}
		n, err := c.nc.Read(c.buf[c.end:])
		c.caughtUp()
		c.end += n
		if n > 0 {
			continue
		}
		if errors.Is(err, io.EOF) {
			if c.pos == c.end {
				return nil
			}
			return errors.New("the client vanished in the middle of a request")
		}
		return err
	}
}

// parse takes all complete requests out of the buffer; done means that the client
// said goodbye.
func (c *conn) parse() (done bool, err error) {
	for c.end-c.pos >= requestSize {
		w, err := decodeRequest(c.buf[c.pos:])
		if err != nil {
			return false, err
		}
		if w.cmd == cmdDisc {
			return true, nil
		}
		errno := w.check(&c.rules)
		if w.cmd == cmdWrite && errno == 0 && w.len <= copyMax && c.end-c.pos < requestSize+int(w.len) {
			return false, nil // a short payload is waited for in the buffer, not in the device's memory
		}
		c.pos += requestSize
		if err := c.take(w, errno); err != nil {
			return false, err
		}
	}
	return false, nil
}

// take makes a request of w, whose header has been consumed.
func (c *conn) take(w wireRequest, errno unix.Errno) error {
	payload := 0
	if errno == 0 && (w.cmd == cmdRead || w.cmd == cmdWrite) {
		payload = int(w.len)
	}
	r := c.request(payload)
	if r == nil {
		return net.ErrClosed
	}
	r.wire, r.payload = w, payload
	r.Op, r.Err = 0, nil
	if errno != 0 {
		if w.cmd == cmdWrite {
			if err := c.skip(int64(w.len)); err != nil {
				return err
			}
		}
		c.answer(r, errno)
		return nil
	}
	if w.cmd == cmdBlockStatus {
		c.submit()
		c.late = true // for how long a disk keeps us nobody knows: the client may be back sooner
		c.answer(r, c.blockStatus(r))
		return nil
	}
	r.Op = ops[w.cmd]
	r.FUA = w.flags&cmdFlagFUA != 0
	r.NoHole = w.flags&cmdFlagNoHole != 0
	r.Off = int64(w.off)
	r.Len = int64(w.len)
	if payload > 0 {
		if r.Buf = c.alloc(payload); r.Buf == nil {
			if c.isCut() { // else the next request would wait as long once more
				return net.ErrClosed
			}
			if w.cmd == cmdWrite {
				if err := c.skip(int64(payload)); err != nil {
					c.freeBuf(r)
					return err
				}
			}
			c.answer(r, unix.ESHUTDOWN)
			return nil
		}
		if w.cmd == cmdWrite {
			n := copy(r.Buf, c.buf[c.pos:c.end])
			c.pos += n
			if n < payload {
				if err := c.readPayload(r.Buf[n:]); err != nil {
					c.freeBuf(r)
					return err
				}
			}
		}
	}
	c.batch = append(c.batch, &r.Request)
	return nil
}

var ops = [...]blockdev.Op{
	cmdRead:        blockdev.OpRead,
	cmdWrite:       blockdev.OpWrite,
	cmdFlush:       blockdev.OpFlush,
	cmdTrim:        blockdev.OpTrim,
	cmdWriteZeroes: blockdev.OpZero,
}

// request gives a free request, waiting while the connection has its share under
// way; nil when the connection was cut.
func (c *conn) request(payload int) *request {
	for {
		if len(c.free) == 0 || c.held+payload > MaxInFlightBytes {
			c.reclaim()
		}
		if c.held == 0 || c.held+payload <= MaxInFlightBytes {
			if n := len(c.free); n > 0 {
				r := c.free[n-1]
				c.free = c.free[:n-1]
				c.held += payload
				return r
			}
			if c.made < MaxInFlight {
				r := &request{}
				r.Owner = c
				r.Tag = uint64(c.made)
				c.table[c.made] = r
				c.made++
				c.held += payload
				return r
			}
		}
		if !c.awaitRoom() {
			return nil
		}
	}
}

// alloc gets memory from the device; what was parsed is submitted before that can
// wait. Nil means that the device is closing, or that the connection was cut.
func (c *conn) alloc(n int) []byte {
	if c.p.try != nil {
		if b := c.p.try.TryAlloc(n); b != nil {
			return b
		}
	}
	c.submit()
	c.late = true
	if c.p.try != nil {
		return c.p.try.AllocWhile(n, c.still)
	}
	return c.p.dev.Alloc(n)
}

// submit hands over what was parsed, unless the gate is shut or the client has gone.
func (c *conn) submit() {
	if len(c.batch) == 0 {
		return
	}
	if c.late && slices.ContainsFunc(c.batch, changes) {
		c.endIfGone()
	}
	c.open.Add(int64(len(c.batch)))
	c.gate.Lock()
	if c.shut {
		c.gate.Unlock()
		for _, r := range c.batch {
			r.Err = unix.ESHUTDOWN
		}
		c.Complete(c.batch)
	} else {
		c.p.dev.Submit(c.batch)
		c.gate.Unlock()
	}
	c.batch = c.batch[:0]
}

// answer ends a request that does not go to the device.
func (c *conn) answer(r *request, errno unix.Errno) {
	if errno != 0 {
		r.Err = errno
	}
	c.open.Add(1)
	c.single[0] = &r.Request
	c.Complete(c.single[:])
}

// dropUnsubmitted frees the requests that were parsed when the connection ended.
func (c *conn) dropUnsubmitted() {
	for _, d := range c.batch {
		c.freeBuf(c.table[d.Tag])
	}
	c.batch = c.batch[:0]
}

// readPayload fills b from the socket, in bounded time because b is the device's.
func (c *conn) readPayload(b []byte) error {
	c.submit()
	for limit := c.p.limitFor(len(b)); len(b) > 0; {
		if err := c.nc.SetReadDeadline(c.p.nextBefore(limit)); err != nil {
			return err
		}
		n, err := c.nc.Read(b)
		if b = b[n:]; err != nil && len(b) > 0 {
			return payloadError(err)
		}
	}
	return c.nc.SetReadDeadline(time.Time{})
}

// skip reads the payload of a refused write away.
func (c *conn) skip(n int64) error {
	have := min(n, int64(c.end-c.pos))
	c.pos += int(have)
	n -= have
	for n > 0 {
		c.submit()
		c.pos, c.end = 0, 0
		got, err := c.nc.Read(c.buf[:min(n, int64(len(c.buf)))])
		n -= int64(got)
		if err != nil {
			return payloadError(err)
		}
	}
	return nil
}

func payloadError(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("the client vanished in the middle of a request")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("the client stopped in the middle of a request")
	}
	return err
}

// refuse shuts the gate: from here on requests are answered ESHUTDOWN.
func (c *conn) refuse() {
	c.gate.Lock()
	c.shut = true
	c.gate.Unlock()
}

// awaitIdle waits until nothing is under way; false when the time is up.
func (c *conn) awaitIdle(limit <-chan time.Time) bool {
	for c.open.Load() != 0 {
		select {
		case <-c.idle:
		case <-c.gone:
			return true
		case <-c.cutc:
			return true
		case <-limit:
			return false
		}
	}
	return true
}

// cut ends the connection at once; replies to come are dropped, and what the reader
// still has in its buffer is not done any more.
func (c *conn) cut() {
	c.once.Do(func() {
		c.dropReplies() // first: the writer ends on cutc, so nothing may be handed to it after
		c.refuse()
		close(c.cutc)
		c.nc.Close()
	})
}

func (c *conn) isCut() bool {
	select {
	case <-c.cutc:
		return true
	default:
		return false
	}
}

// blockStatus makes the answer to BLOCK_STATUS.
func (c *conn) blockStatus(r *request) unix.Errno {
	w := &r.wire
	runs, err := c.p.dev.Allocated(int64(w.off), int64(w.len))
	if err != nil {
		return unix.Errno(wireErrno(err))
	}
	most := maxStatusExtents
	if w.flags&cmdFlagReqOne != 0 {
		most = 1
	}
	r.extra = appendExtents(nil, runs, int64(w.len), most)
	return 0
}

// appendExtents puts down runs as the payload of a chunk for base:allocation:
// at most so many descriptors, no two neighbours alike, together no longer than n.
func appendExtents(b []byte, runs []blockdev.Run, n int64, most int) []byte {
	b = be.AppendUint32(b, allocationID)
	var cur blockdev.Run
	put := func() {
		state := uint32(0)
		if cur.Hole {
			state = stateHole | stateZero
		}
		b = be.AppendUint32(b, uint32(cur.Len))
		b = be.AppendUint32(b, state)
		most--
	}
	for _, run := range runs {
		run.Len = min(run.Len, n)
		if run.Len <= 0 {
			continue
		}
		if cur.Len > 0 && cur.Hole != run.Hole {
			if put(); most == 0 {
				return b
			}
			cur.Len = 0
		}
		cur = blockdev.Run{Len: cur.Len + run.Len, Hole: run.Hole}
		n -= run.Len
	}
	if cur.Len == 0 {
		cur = blockdev.Run{Len: n} // nothing known: data
	}
	put()
	return b
}
