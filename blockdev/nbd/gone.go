package nbd

import (
	"time"

	"golang.org/x/sys/unix"

	"hastd/blockdev"
)

// A reader that waits for room, for memory or for a disk does not read, and so does
// not see its client go. What the client sent last then lies in our buffer and in
// the socket, and was never answered. By the time the reader goes on, the client may
// be back on another connection, with newer writes that were acknowledged and
// flushed: the old ones must not come after them. From a wait on, until it has caught
// up, the reader is late, and looks at the client before it submits a change.

// lookEvery is how often a reader that waits for room looks at its client, so
// that one who has gone does not stay a connection until the device goes on.
const lookEvery = time.Second

// endIfGone cuts the connection if nobody is at its other end any more.
func (c *conn) endIfGone() bool {
	if c.isCut() {
		return true
	}
	if !c.clientGone() {
		return false
	}
	c.p.log.Error("gone", "a client has gone; what it asked for and was not begun is dropped", "client", c.peer.String())
	c.cut()
	return true
}

// clientGone tells without reading whether nobody is at the other end any more.
//
// A Unix socket tells a client that has gone from one that sends no more and waits
// for answers. TCP does not: its FIN may be either and counts as gone, because to
// drop what was never answered is safe and to do it late is not. The protocol
// advises clients to wait for all answers before they say goodbye.
func (c *conn) clientGone() bool {
	if c.raw == nil {
		return false
	}
	var hungUp bool
	err := c.raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}} // POLLHUP and POLLERR are always told
		if !c.peer.local {
			fds[0].Events = unix.POLLRDHUP
		}
		for {
			_, err := unix.Poll(fds, 0)
			if err != unix.EINTR {
				hungUp = err == nil && fds[0].Revents != 0
				return
			}
		}
	})
	return hungUp || err != nil
}

// changes says whether what the device holds may be another after a request.
func changes(r *blockdev.Request) bool { return r.Op != blockdev.OpRead && r.Op != blockdev.OpFlush }

// caughtUp ends being late, after a read: the client was answered all that we took from it
// before, and is still there. That it was answered does not tell: TCP takes answers to one
// who has gone. Who is not there may be leaving in good order, with nothing left to do.
func (c *conn) caughtUp() {
	if c.late && c.pos == c.end && c.open.Load() == 0 && !c.clientGone() {
		c.late = false
	}
}
