// Package nbdclient is the lab's NBD client: pipelined, and exact about what was
// acknowledged. Of each request it tells one of three ends: answered well,
// answered with an error, or never answered because the connection ended. The
// ledger needs the difference, and common clients hide it behind reconnections.
//
// It speaks fixed newstyle with simple and structured replies. It never retries
// and never reconnects by itself.
package nbdclient

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// Cmd is a request's kind, as on the wire.
type Cmd uint16

// The commands of the NBD protocol that the lab uses.
const (
	Read        Cmd = 0
	Write       Cmd = 1
	disconnect  Cmd = 2
	Flush       Cmd = 3
	Trim        Cmd = 4
	WriteZeroes Cmd = 6
	BlockStatus Cmd = 7
)

// Command flags.
const (
	FlagFUA    = 1 << 0
	FlagNoHole = 1 << 1
)

// Transmission flags a server may tell.
const (
	HasFlags     = 1 << 0
	ReadOnly     = 1 << 1
	SendFlush    = 1 << 2
	SendFUA      = 1 << 3
	SendTrim     = 1 << 5
	SendZeroes   = 1 << 6
	CanMultiConn = 1 << 8
)

// ErrDisconnected is the end of a request that was never answered: it may have
// been carried out or not, or be carried out later.
var ErrDisconnected = errors.New("nbd: the connection ended before an answer")

// ServerError is the server's refusal of one request.
type ServerError struct {
	Errno syscall.Errno
	Text  string
}

func (e *ServerError) Error() string {
	if e.Text != "" {
		return fmt.Sprintf("nbd: server answered: %v (%s)", e.Errno, e.Text)
	}
	return fmt.Sprintf("nbd: server answered: %v", e.Errno)
}

// Call is one request. It belongs to the client until it arrives at Done.
type Call struct {
	Cmd   Cmd
	Flags uint16
	Off   uint64
	Len   uint32 // of Trim, WriteZeroes, BlockStatus; Read and Write take len(Data)
	Data  []byte // to be written, or read into
	Err   error  // nil, a *ServerError, or one that is ErrDisconnected
	Done  chan *Call

	// Extents are the answer to BlockStatus.
	Extents []Extent

	length uint32
	got    uint32 // bytes of a read that came in chunks
}

// Extent is a run of base:allocation: bit 0 a hole, bit 1 reads as zeroes.
type Extent struct{ Len, Flags uint32 }

// Options name a server.
type Options struct {
	Network, Addr string // "unix" or "tcp"
	Export        string
	Simple        bool // do not ask for structured replies
	BlockStatus   bool // ask for base:allocation (not with Simple)
	Timeout       time.Duration
}

// Client is one connection. Its methods may be called by many goroutines.
type Client struct {
	// What the server told; fixed once dialled.
	Size           int64
	Flags          uint16
	MinBlock       uint32
	PreferredBlock uint32
	MaxPayload     uint32

	structured        bool
	haveBlockStatus   bool
	allocationContext uint32
	conn              net.Conn
	in                *bufio.Reader
	readerEnded       chan struct{}
	closeOnce         sync.Once

	sendMu sync.Mutex // held while writing to the socket; taken before mu
	out    *bufio.Writer

	mu      sync.Mutex
	pending map[uint64]*Call
	cookie  uint64
	err     error
}

// DefaultTimeout bounds connecting and the handshake.
const DefaultTimeout = 5 * time.Second

// Dial connects, agrees on everything and is ready for requests.
func Dial(ctx context.Context, o Options) (*Client, error) {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, o.Network, o.Addr)
	if err != nil {
		return nil, fmt.Errorf("nbd: %w", err)
	}
	// A server that accepts and says nothing is left at the deadline, or when ctx
	// is cancelled.
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	c := &Client{
		conn: conn, in: bufio.NewReaderSize(conn, 256<<10), out: bufio.NewWriterSize(conn, 256<<10),
		pending: map[uint64]*Call{}, readerEnded: make(chan struct{}),
		MinBlock: 1, PreferredBlock: 4096, MaxPayload: 32 << 20,
	}
	if err := c.handshake(o); err != nil {
		stop()
		conn.Close()
		return nil, fmt.Errorf("nbd: handshake with %s: %w", o.Addr, err)
	}
	if !stop() {
		conn.Close()
		return nil, fmt.Errorf("nbd: handshake with %s: %w", o.Addr, ctx.Err())
	}
	go c.read()
	return c, nil
}

// Close says goodbye and ends the connection; requests still in flight end with
// ErrDisconnected.
func (c *Client) Close() error {
	c.closeOnce.Do(func() {
		c.conn.SetWriteDeadline(time.Now().Add(time.Second))
		c.sendMu.Lock()
		c.put(disconnect, 0, 0, 0, 0)
		c.out.Flush()
		c.sendMu.Unlock()
		c.conn.Close()
		<-c.readerEnded
	})
	return nil
}

// Abort ends the connection without a word, as a client that dies does.
func (c *Client) Abort() {
	c.closeOnce.Do(func() {
		c.conn.Close()
		<-c.readerEnded
	})
}

// Ended is closed once the connection is over.
func (c *Client) Ended() <-chan struct{} { return c.readerEnded }

func (c *Client) put(cmd Cmd, flags uint16, cookie, off uint64, n uint32) error {
	var h [28]byte
	binary.BigEndian.PutUint32(h[0:], requestMagic)
	binary.BigEndian.PutUint16(h[4:], flags)
	binary.BigEndian.PutUint16(h[6:], uint16(cmd))
	binary.BigEndian.PutUint64(h[8:], cookie)
	binary.BigEndian.PutUint64(h[16:], off)
	binary.BigEndian.PutUint32(h[24:], n)
	_, err := c.out.Write(h[:])
	return err
}

// Go sends a request. The call comes to its Done channel, which must have room,
// when it has ended. Go waits only for the socket.
func (c *Client) Go(call *Call) {
	call.length, call.got, call.Extents = call.Len, 0, nil
	if call.Cmd == Read || call.Cmd == Write {
		call.length = uint32(len(call.Data))
	}
	// The reader needs mu while a writer may wait for the socket: a server that
	// stops reading until its answers are taken would block both for ever.
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	c.mu.Lock()
	if c.err != nil {
		call.Err = c.err
		c.mu.Unlock()
		call.Done <- call
		return
	}
	c.cookie++
	cookie := c.cookie
	c.pending[cookie] = call
	// Once mu is free the call may end, and change hands, at any moment.
	cmd, flags, off, n, data := call.Cmd, call.Flags, call.Off, call.length, call.Data
	c.mu.Unlock()
	err := c.put(cmd, flags, cookie, off, n)
	if err == nil && cmd == Write {
		_, err = c.out.Write(data)
	}
	if err == nil {
		err = c.out.Flush()
	}
	if err != nil {
		c.conn.Close() // the reader ends every pending call, this one too
	}
}

func (c *Client) do(call *Call) error {
	call.Done = make(chan *Call, 1)
	c.Go(call)
	<-call.Done
	return call.Err
}

// ReadAt reads len(p) bytes.
func (c *Client) ReadAt(p []byte, off int64) (int, error) {
	if err := c.do(&Call{Cmd: Read, Off: uint64(off), Data: p}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteAt writes p.
func (c *Client) WriteAt(p []byte, off int64) (int, error) {
	if err := c.do(&Call{Cmd: Write, Off: uint64(off), Data: p}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush makes everything acknowledged so far durable.
func (c *Client) Flush() error { return c.do(&Call{Cmd: Flush}) }

// Trim discards a range.
func (c *Client) Trim(off, n int64) error {
	return c.do(&Call{Cmd: Trim, Off: uint64(off), Len: uint32(n)})
}

// Zero writes zeroes.
func (c *Client) Zero(off, n int64, flags uint16) error {
	return c.do(&Call{Cmd: WriteZeroes, Flags: flags, Off: uint64(off), Len: uint32(n)})
}

// Status asks for the allocation of a range (Options.BlockStatus).
func (c *Client) Status(off, n int64) ([]Extent, error) {
	if !c.haveBlockStatus {
		return nil, errors.New("nbd: the server has no base:allocation")
	}
	call := &Call{Cmd: BlockStatus, Off: uint64(off), Len: uint32(n)}
	err := c.do(call)
	return call.Extents, err
}

// read takes replies until the connection ends, and then ends what is pending.
func (c *Client) read() {
	defer close(c.readerEnded)
	var err error
	for err == nil {
		err = c.readReply()
	}
	c.conn.Close()
	if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
		err = ErrDisconnected
	} else {
		err = fmt.Errorf("%w: %w", ErrDisconnected, err)
	}
	c.mu.Lock()
	c.err = err
	pending := c.pending
	c.pending = nil
	c.mu.Unlock()
	for _, call := range pending {
		call.Err = err
		call.Done <- call
	}
}

func (c *Client) lookup(cookie uint64) (*Call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	call := c.pending[cookie]
	if call == nil {
		return nil, fmt.Errorf("a reply to request %d, which is not in flight", cookie)
	}
	return call, nil
}

func (c *Client) finish(cookie uint64, call *Call, err error) {
	c.mu.Lock()
	delete(c.pending, cookie)
	c.mu.Unlock()
	if call.Err == nil {
		call.Err = err
	}
	call.Done <- call
}
