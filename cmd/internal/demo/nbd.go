package demo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// nbdClient is the smallest client that will do: one request at a time, simple
// replies. It never reconnects: the end of the connection is an end worth seeing.
type nbdClient struct {
	conn   net.Conn
	size   int64
	cookie uint64
}

// The NBD protocol, as far as it is spoken here.
const (
	nbdMagic        = 0x4e42444d41474943 // NBDMAGIC
	nbdOptionMagic  = 0x49484156454f5054 // IHAVEOPT
	nbdOptionReply  = 0x0003e889045565a9
	nbdRequest      = 0x25609513
	nbdSimpleReply  = 0x67446698
	nbdFixed        = 1 << 0
	nbdNoZeroes     = 1 << 1
	nbdGo           = 7
	nbdAck          = 1
	nbdInfo         = 3
	nbdInfoExport   = 0
	nbdRead         = 0
	nbdWrite        = 1
	nbdDisconnect   = 2
	nbdFlush        = 3
	nbdCanFlush     = 1 << 2
	nbdMaxTransfer  = 1 << 20
	nbdMaxReply     = 64 << 10 // of the handshake
	nbdRequestLimit = 20 * time.Second
)

func dialNBD(ctx context.Context, socket, export string) (*nbdClient, error) {
	var d net.Dialer
	ctx, cancel := context.WithTimeout(ctx, nbdRequestLimit)
	defer cancel()
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	c := &nbdClient{conn: conn}
	conn.SetDeadline(time.Now().Add(nbdRequestLimit))
	if err := c.handshake(export); err != nil {
		conn.Close()
		return nil, fmt.Errorf("NBD handshake with %s: %w", socket, err)
	}
	return c, nil
}

func (c *nbdClient) handshake(export string) error {
	var hello [18]byte
	if _, err := io.ReadFull(c.conn, hello[:]); err != nil {
		return err
	}
	be := binary.BigEndian
	if be.Uint64(hello[0:]) != nbdMagic || be.Uint64(hello[8:]) != nbdOptionMagic || be.Uint16(hello[16:])&nbdFixed == 0 {
		return errors.New("this is no NBD server of the fixed newstyle kind")
	}
	b := be.AppendUint32(nil, nbdFixed|nbdNoZeroes)
	b = be.AppendUint64(b, nbdOptionMagic)
	b = be.AppendUint32(b, nbdGo)
	b = be.AppendUint32(b, uint32(4+len(export)+2))
	b = be.AppendUint32(b, uint32(len(export)))
	b = append(b, export...)
	b = be.AppendUint16(b, 0) // no further information asked for
	if _, err := c.conn.Write(b); err != nil {
		return err
	}
	for {
		var head [20]byte
		if _, err := io.ReadFull(c.conn, head[:]); err != nil {
			return err
		}
		kind, n := be.Uint32(head[12:]), be.Uint32(head[16:])
		if be.Uint64(head[0:]) != nbdOptionReply || n > nbdMaxReply {
			return errors.New("the answer is not understood")
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(c.conn, body); err != nil {
			return err
		}
		switch {
		case kind == nbdAck && c.size > 0:
			return nil
		case kind == nbdInfo && n >= 12 && be.Uint16(body) == nbdInfoExport:
			c.size = int64(be.Uint64(body[2:]))
			if be.Uint16(body[10:])&nbdCanFlush == 0 {
				return errors.New("the server cannot flush")
			}
		case kind&(1<<31) != 0:
			return fmt.Errorf("the export %q is refused: %s", export, body)
		}
	}
}

// do sends one request and waits for its answer; p is written from or read into.
func (c *nbdClient) do(command uint16, p []byte, off int64) error {
	c.conn.SetDeadline(time.Now().Add(nbdRequestLimit))
	c.cookie++
	be := binary.BigEndian
	b := be.AppendUint32(nil, nbdRequest)
	b = be.AppendUint16(b, 0)
	b = be.AppendUint16(b, command)
	b = be.AppendUint64(b, c.cookie)
	b = be.AppendUint64(b, uint64(off))
	b = be.AppendUint32(b, uint32(len(p)))
	if command == nbdWrite {
		b = append(b, p...)
	}
	if _, err := c.conn.Write(b); err != nil {
		return err
	}
	var reply [16]byte
	if _, err := io.ReadFull(c.conn, reply[:]); err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	if be.Uint32(reply[0:]) != nbdSimpleReply || be.Uint64(reply[8:]) != c.cookie {
		return errors.New("the answer is not to what was asked")
	}
	if errno := be.Uint32(reply[4:]); errno != 0 {
		return fmt.Errorf("the device answers: %w", syscall.Errno(errno))
	}
	if command == nbdRead {
		if _, err := io.ReadFull(c.conn, p); err != nil {
			return fmt.Errorf("half an answer: %w", err)
		}
	}
	return nil
}

// transfer does a request of any length in pieces the server takes.
func (c *nbdClient) transfer(command uint16, p []byte, off int64) error {
	for len(p) > 0 {
		n := min(len(p), nbdMaxTransfer)
		if err := c.do(command, p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (c *nbdClient) readAt(p []byte, off int64) error  { return c.transfer(nbdRead, p, off) }
func (c *nbdClient) writeAt(p []byte, off int64) error { return c.transfer(nbdWrite, p, off) }
func (c *nbdClient) flush() error                      { return c.do(nbdFlush, nil, 0) }

// abandon ends the connection without a word.
func (c *nbdClient) abandon() { c.conn.Close() }

// close says goodbye.
func (c *nbdClient) close() error {
	b := binary.BigEndian.AppendUint32(nil, nbdRequest)
	b = binary.BigEndian.AppendUint32(b, nbdDisconnect)
	b = append(b, make([]byte, 20)...)
	c.conn.SetDeadline(time.Now().Add(nbdRequestLimit))
	_, err := c.conn.Write(b)
	return errors.Join(err, c.conn.Close())
}
