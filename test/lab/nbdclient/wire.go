package nbdclient

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"
)

// The numbers of the protocol document (doc/proto.md of NBD).
const (
	initMagic       = 0x4e42444d41474943 // "NBDMAGIC"
	optionMagic     = 0x49484156454f5054 // "IHAVEOPT"
	optReplyMagic   = 0x3e889045565a9
	requestMagic    = 0x25609513
	simpleMagic     = 0x67446698
	structuredMagic = 0x668e33ef

	optGo         = 7
	optStructured = 8
	optSetMeta    = 10

	repAck      = 1
	repInfo     = 3
	repMetaCtx  = 4
	repErrorBit = 1 << 31

	infoExport    = 0
	infoBlockSize = 3

	chunkNone      = 0
	chunkData      = 1
	chunkHole      = 2
	chunkStatus    = 5
	chunkError     = 1<<15 + 1
	chunkErrorAt   = 1<<15 + 2
	chunkFlagDone  = 1
	maxOptionReply = 64 << 10
	maxChunk       = 64 << 20

	baseAllocation = "base:allocation"
)

func (c *Client) handshake(o Options) error {
	var h [18]byte
	if _, err := io.ReadFull(c.in, h[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(h[:]) != initMagic || binary.BigEndian.Uint64(h[8:]) != optionMagic {
		return errors.New("not a newstyle NBD server")
	}
	if flags := binary.BigEndian.Uint16(h[16:]); flags&1 == 0 {
		return errors.New("the server is not fixed newstyle")
	}
	var flags [4]byte
	binary.BigEndian.PutUint32(flags[:], 3) // fixed newstyle, no zeroes
	if _, err := c.out.Write(flags[:]); err != nil {
		return err
	}
	if !o.Simple {
		ok, err := c.option(optStructured, nil, nil)
		if err != nil {
			return err
		}
		c.structured = ok
	}
	name := binary.BigEndian.AppendUint32(nil, uint32(len(o.Export)))
	name = append(name, o.Export...)
	if o.BlockStatus && c.structured {
		q := binary.BigEndian.AppendUint32(name[:len(name):len(name)], 1)
		q = binary.BigEndian.AppendUint32(q, uint32(len(baseAllocation)))
		q = append(q, baseAllocation...)
		_, err := c.option(optSetMeta, q, func(kind uint32, b []byte) error {
			if kind == repMetaCtx && len(b) >= 4 {
				c.allocationContext, c.haveBlockStatus = binary.BigEndian.Uint32(b), true
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	info := binary.BigEndian.AppendUint16(name[:len(name):len(name)], 1)
	info = binary.BigEndian.AppendUint16(info, infoBlockSize)
	ok, err := c.option(optGo, info, c.info)
	if err == nil && !ok {
		err = fmt.Errorf("the server does not serve export %q", o.Export)
	}
	return err
}

func (c *Client) info(kind uint32, b []byte) error {
	if kind != repInfo || len(b) < 2 {
		return nil
	}
	switch t := binary.BigEndian.Uint16(b); {
	case t == infoExport && len(b) == 12:
		c.Size = int64(binary.BigEndian.Uint64(b[2:]))
		c.Flags = binary.BigEndian.Uint16(b[10:])
	case t == infoBlockSize && len(b) == 14:
		c.MinBlock = binary.BigEndian.Uint32(b[2:])
		c.PreferredBlock = binary.BigEndian.Uint32(b[6:])
		c.MaxPayload = binary.BigEndian.Uint32(b[10:])
	}
	return nil
}

// option sends one option and takes its replies; false is the server's refusal.
func (c *Client) option(opt uint32, data []byte, each func(kind uint32, b []byte) error) (bool, error) {
	b := binary.BigEndian.AppendUint64(nil, optionMagic)
	b = binary.BigEndian.AppendUint32(b, opt)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	if _, err := c.out.Write(append(b, data...)); err != nil {
		return false, err
	}
	if err := c.out.Flush(); err != nil {
		return false, err
	}
	for {
		var h [20]byte
		if _, err := io.ReadFull(c.in, h[:]); err != nil {
			return false, err
		}
		kind, n := binary.BigEndian.Uint32(h[12:]), binary.BigEndian.Uint32(h[16:])
		if binary.BigEndian.Uint64(h[:]) != optReplyMagic || binary.BigEndian.Uint32(h[8:]) != opt || n > maxOptionReply {
			return false, errors.New("malformed reply to an option")
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(c.in, body); err != nil {
			return false, err
		}
		switch {
		case kind == repAck:
			return true, nil
		case kind&repErrorBit != 0:
			return false, nil
		case each != nil:
			if err := each(kind, body); err != nil {
				return false, err
			}
		}
	}
}

func (c *Client) readReply() error {
	var h [20]byte
	if _, err := io.ReadFull(c.in, h[:4]); err != nil {
		return err
	}
	switch binary.BigEndian.Uint32(h[:]) {
	case simpleMagic:
		if _, err := io.ReadFull(c.in, h[4:16]); err != nil {
			return err
		}
		return c.simple(syscall.Errno(binary.BigEndian.Uint32(h[4:])), binary.BigEndian.Uint64(h[8:]))
	case structuredMagic:
		if !c.structured {
			return errors.New("a structured reply without agreement")
		}
		if _, err := io.ReadFull(c.in, h[4:20]); err != nil {
			return err
		}
		return c.chunk(binary.BigEndian.Uint16(h[4:]), binary.BigEndian.Uint16(h[6:]),
			binary.BigEndian.Uint64(h[8:]), binary.BigEndian.Uint32(h[16:]))
	}
	return fmt.Errorf("reply magic %x", h[:4])
}

func (c *Client) simple(errno syscall.Errno, cookie uint64) error {
	call, err := c.lookup(cookie)
	if err != nil {
		return err
	}
	if errno != 0 {
		c.finish(cookie, call, &ServerError{Errno: errno})
		return nil
	}
	if call.Cmd == Read {
		if c.structured {
			return errors.New("a simple reply to a read although structured ones were agreed")
		}
		if _, err := io.ReadFull(c.in, call.Data); err != nil {
			return err
		}
	}
	c.finish(cookie, call, nil)
	return nil
}

func (c *Client) chunk(flags, kind uint16, cookie uint64, n uint32) error {
	call, err := c.lookup(cookie)
	if err != nil {
		return err
	}
	if n > maxChunk {
		return fmt.Errorf("a chunk of %d bytes", n)
	}
	switch {
	case kind == chunkData && n >= 8:
		var at [8]byte
		if _, err := io.ReadFull(c.in, at[:]); err != nil {
			return err
		}
		b, err := call.part(binary.BigEndian.Uint64(at[:]), n-8)
		if err != nil {
			return err
		}
		if _, err := io.ReadFull(c.in, b); err != nil {
			return err
		}
	default:
		body := make([]byte, n)
		if _, err := io.ReadFull(c.in, body); err != nil {
			return err
		}
		if err := c.chunkBody(call, kind, body); err != nil {
			return err
		}
	}
	if flags&chunkFlagDone == 0 {
		return nil
	}
	if call.Cmd == Read && call.Err == nil && call.got != call.length {
		return fmt.Errorf("a read of %d bytes was answered with %d", call.length, call.got)
	}
	c.finish(cookie, call, nil)
	return nil
}

// chunkBody takes every chunk but data.
func (c *Client) chunkBody(call *Call, kind uint16, body []byte) error {
	switch {
	case kind == chunkNone && len(body) == 0:
	case kind == chunkHole && len(body) == 12:
		b, err := call.part(binary.BigEndian.Uint64(body), binary.BigEndian.Uint32(body[8:]))
		if err != nil {
			return err
		}
		clear(b)
	case kind == chunkStatus && len(body) >= 4 && call.Cmd == BlockStatus:
		for b := body[4:]; len(b) >= 8; b = b[8:] {
			call.Extents = append(call.Extents, Extent{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])})
		}
	case (kind == chunkError || kind == chunkErrorAt) && len(body) >= 6:
		text := body[6:]
		if n := int(binary.BigEndian.Uint16(body[4:])); n <= len(text) {
			text = text[:n]
		}
		call.Err = &ServerError{Errno: syscall.Errno(binary.BigEndian.Uint32(body)), Text: string(text)}
	default:
		return fmt.Errorf("a chunk of kind %d and %d bytes", kind, len(body))
	}
	return nil
}

// part is where a chunk's bytes go.
func (call *Call) part(at uint64, n uint32) ([]byte, error) {
	if call.Cmd != Read || at < call.Off || at-call.Off > uint64(call.length) || uint64(n) > uint64(call.length)-(at-call.Off) {
		return nil, fmt.Errorf("data for [%d, +%d), which was not asked for", at, n)
	}
	call.got += n
	from := at - call.Off
	return call.Data[from : from+uint64(n)], nil
}
