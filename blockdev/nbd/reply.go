package nbd

import (
	"errors"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"hastd/blockdev"
)

// replies is the way back of a connection. At most one goroutine at a time, the
// drainer, writes to the socket: whoever completes requests becomes it when there
// is none, and hands the part over to the connection's writer when the socket is
// full or there is much to send.
type replies struct {
	mu       sync.Mutex
	ready    []*request // complete, not taken by the drainer yet
	spent    []*request // answered; the reader takes them back
	freed    int        // bytes that the requests in spent stood for
	draining bool       // there is a drainer
	dead     bool       // the connection was cut: replies are dropped
	waiting  bool       // the reader waits for room

	room chan struct{} // something was spent while the reader waited
	wake chan struct{} // the writer is the drainer now

	// The drainer's.
	taken   []*request
	heads   []byte // headers of taken, one after the other
	iov     []unix.Iovec
	next    int // first of iov that is not written completely
	left    int // bytes not written yet
	werr    error
	tryOnce func(fd uintptr) bool // made once: a closure a call would be an allocation a call
	tryWait func(fd uintptr) bool
}

func (c *conn) initReplies() {
	c.room = make(chan struct{}, 1)
	c.wake = make(chan struct{}, 1)
	c.tryOnce = func(fd uintptr) bool {
		c.writev(int(fd))
		return true
	}
	c.tryWait = func(fd uintptr) bool {
		before := c.left
		c.writev(int(fd))
		return c.left < before || c.werr != unix.EAGAIN
	}
}

// Complete takes in finished requests and never waits: it runs on the goroutine of
// the resource. It makes one attempt to send what is there, so that at low depth
// no other goroutine has to wake up; the socket does not block.
func (c *conn) Complete(done []*blockdev.Request) {
	c.mu.Lock()
	for _, d := range done {
		c.ready = append(c.ready, c.table[d.Tag])
	}
	if c.draining {
		c.mu.Unlock()
		return
	}
	c.draining = true
	c.mu.Unlock()

	c.load()
	if c.left > 0 && c.left <= inlineMax && c.raw != nil {
		if err := c.raw.Write(c.tryOnce); err != nil {
			c.werr = err
		}
	}
	// One round only: a client must not be able to keep this goroutine here.
	if c.left > 0 || c.more() {
		c.handOver()
	}
}

// handOver makes the writer the drainer.
func (c *conn) handOver() {
	c.mu.Lock()
	dead := c.dead
	if !dead {
		c.wake <- struct{}{} // room for one, and there is one drainer
	}
	c.mu.Unlock()
	if dead { // the writer may have gone already
		c.discard()
	}
}

// writer is the goroutine that sends what Complete did not.
func (c *conn) writer() {
	for {
		select {
		case <-c.wake:
			c.drain()
		case <-c.cutc:
			select {
			case <-c.wake:
				c.drain()
			default:
			}
			return
		}
	}
}

// drain sends until nothing is left.
func (c *conn) drain() {
	for {
		if err := c.send(); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				c.p.log.Error("stalled", "a client stopped reading its replies, or reads too slowly, and was disconnected", "client", c.peer.String())
			}
			c.cut()
			c.discard()
			return
		}
		if !c.more() {
			return
		}
		c.load()
	}
}

// send writes what is left, waiting for the socket if need be.
func (c *conn) send() error {
	if c.left == 0 {
		return nil
	}
	if c.raw == nil {
		return c.sendPlain()
	}
	if err := c.raw.Write(c.tryOnce); err != nil {
		return err
	}
	if c.left == 0 {
		return nil
	}
	for limit := c.p.limitFor(c.left); c.left > 0; {
		if c.werr != unix.EAGAIN {
			return c.werr
		}
		if err := c.nc.SetWriteDeadline(c.p.nextBefore(limit)); err != nil {
			return err
		}
		if err := c.raw.Write(c.tryWait); err != nil {
			return err
		}
	}
	return c.nc.SetWriteDeadline(time.Time{})
}

// sendPlain is send for a connection that is no socket of the kernel's.
func (c *conn) sendPlain() error {
	for limit := c.p.limitFor(c.left); c.left > 0; {
		if err := c.nc.SetWriteDeadline(c.p.nextBefore(limit)); err != nil {
			return err
		}
		v := c.iov[c.next]
		n, err := c.nc.Write(unsafe.Slice(v.Base, min(v.Len, inlineMax))) // little at once: progress shows
		c.advance(n)
		if err != nil {
			return err
		}
	}
	return c.nc.SetWriteDeadline(time.Time{})
}

// writev writes until all is sent or the socket takes no more.
func (c *conn) writev(fd int) {
	c.werr = nil
	for c.left > 0 {
		iov := c.iov[c.next:]
		n, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
		switch errno {
		case 0:
			c.advance(int(n))
		case unix.EINTR:
		default:
			c.werr = errno
			return
		}
	}
}

// advance takes n written bytes off the front of iov.
func (c *conn) advance(n int) {
	c.left -= n
	for n > 0 {
		v := &c.iov[c.next]
		if uint64(n) < v.Len {
			v.Base = (*byte)(unsafe.Add(unsafe.Pointer(v.Base), n))
			v.Len -= uint64(n)
			return
		}
		n -= int(v.Len)
		c.next++
	}
}

// load takes what is ready and prepares it for writing.
func (c *conn) load() {
	c.mu.Lock()
	c.taken, c.ready = c.ready, c.taken[:0]
	dead := c.dead
	c.mu.Unlock()
	for _, r := range c.taken {
		if r.Op == blockdev.OpWrite {
			c.freeBuf(r) // others wait for it; the reply does not need it
		}
	}
	if !dead {
		c.encode()
	}
}

// encode lays out the replies of taken: headers together in heads, payloads where
// they are.
func (c *conn) encode() {
	if need := len(c.taken) * maxHeader; cap(c.heads) < need {
		c.heads = make([]byte, 0, need) // iov points into it, so it must not move
	}
	b := c.heads[:0]
	c.iov = c.iov[:0]
	c.next, c.left = 0, 0
	from := 0
	for _, r := range c.taken {
		h, errno := r.wire.handle, wireErrno(r.Err)
		var payload []byte
		switch {
		case r.wire.cmd == cmdRead && !c.rules.structured:
			b = appendSimple(b, h, errno)
			if errno == 0 {
				payload = r.Buf
			}
		case r.wire.cmd != cmdRead && r.wire.cmd != cmdBlockStatus, !c.rules.structured:
			b = appendSimple(b, h, errno)
		case errno != 0:
			b = appendErrorChunk(b, h, errno)
		case r.wire.cmd == cmdRead:
			b = appendChunk(b, replyTypeOffsetData, h, 8+len(r.Buf))
			b = be.AppendUint64(b, r.wire.off)
			payload = r.Buf
		default:
			b = appendChunk(b, replyTypeBlockStatus, h, len(r.extra))
			payload = r.extra
		}
		if len(payload) > 0 {
			c.vector(b[from:])
			c.vector(payload)
			from = len(b)
		}
	}
	if from < len(b) {
		c.vector(b[from:])
	}
	c.heads = b
}

func (c *conn) vector(b []byte) {
	c.iov = append(c.iov, unix.Iovec{Base: &b[0], Len: uint64(len(b))})
	c.left += len(b)
}

// more retires what was taken; false means that nothing else is ready and there is
// no drainer any more.
func (c *conn) more() bool {
	n, bytes := len(c.taken), 0
	for _, r := range c.taken {
		c.freeBuf(r)
		r.extra = nil
		bytes += r.payload
	}
	c.mu.Lock()
	c.spent = append(c.spent, c.taken...)
	c.freed += bytes
	c.taken = c.taken[:0]
	if c.waiting && n > 0 {
		c.waiting = false
		signal(c.room)
	}
	c.draining = len(c.ready) > 0
	more := c.draining
	c.mu.Unlock()
	if n > 0 && c.open.Add(int64(-n)) == 0 {
		signal(c.idle)
	}
	return more
}

// discard drops what is and becomes ready, once the connection is dead.
func (c *conn) discard() {
	c.left = 0
	for c.more() {
		c.load()
	}
}

func (c *conn) freeBuf(r *request) {
	if r.Buf != nil {
		c.p.dev.Free(r.Buf)
		r.Buf = nil
	}
}

func (c *conn) dropReplies() {
	c.mu.Lock()
	c.dead = true
	c.mu.Unlock()
}

// reclaim takes answered requests back, for the reader.
func (c *conn) reclaim() {
	c.mu.Lock()
	c.free = append(c.free, c.spent...)
	c.spent = c.spent[:0]
	c.held -= c.freed
	c.freed = 0
	c.mu.Unlock()
}

// awaitRoom waits until something was answered; false when the connection was cut.
func (c *conn) awaitRoom() bool {
	c.mu.Lock()
	c.waiting = len(c.spent) == 0
	wait := c.waiting
	c.mu.Unlock()
	if !wait {
		return true
	}
	c.submit()
	c.late = true
	c.look.Reset(lookEvery)
	for {
		select {
		case <-c.room:
			return true
		case <-c.cutc:
			return false
		case <-c.look.C:
			c.endIfGone() // closes cutc
			c.look.Reset(lookEvery)
		}
	}
}

// signal leaves a token in a channel of capacity 1.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
