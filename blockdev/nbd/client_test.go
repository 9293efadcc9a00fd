package nbd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// testClient speaks the protocol byte by byte, right or wrong.
type testClient struct {
	net.Conn
	t          testing.TB
	structured bool
	handle     uint64
}

const testPatience = 10 * time.Second

// connect dials and reads the greeting.
func connect(t testing.TB, p *Provider) *testClient {
	t.Helper()
	nc, err := net.Dial(p.opts.Network, p.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(testPatience))
	c := &testClient{Conn: nc, t: t}
	if b := c.read(18); be.Uint64(b) != magicInit || be.Uint64(b[8:]) != magicOption || be.Uint16(b[16:]) != flagFixedNewstyle|flagNoZeroes {
		t.Fatalf("greeting % x", b)
	}
	c.write(be.AppendUint32(nil, flagFixedNewstyle|flagNoZeroes))
	return c
}

// enter connects and goes to the transmission phase.
func enter(t testing.TB, p *Provider, structured bool) *testClient {
	t.Helper()
	c := connect(t, p)
	if structured {
		c.structured = true
		c.option(optStructuredReply, nil, repAck)
		c.option(optSetMetaContext, metaData("data", allocationName), repMetaContext)
		c.optReply(optSetMetaContext, repAck)
	}
	c.sendOption(optGo, infoData("data"))
	for {
		if kind, _ := c.readOptReply(optGo); kind == repAck {
			return c
		} else if kind != repInfo {
			t.Fatalf("reply %#x to NBD_OPT_GO", kind)
		}
	}
}

func infoData(name string, infos ...uint16) []byte {
	b := be.AppendUint32(nil, uint32(len(name)))
	b = append(b, name...)
	b = be.AppendUint16(b, uint16(len(infos)))
	for _, i := range infos {
		b = be.AppendUint16(b, i)
	}
	return b
}

func metaData(name string, queries ...string) []byte {
	b := be.AppendUint32(nil, uint32(len(name)))
	b = append(b, name...)
	b = be.AppendUint32(b, uint32(len(queries)))
	for _, q := range queries {
		b = be.AppendUint32(b, uint32(len(q)))
		b = append(b, q...)
	}
	return b
}

func (c *testClient) write(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *testClient) read(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c.Conn, b); err != nil {
		c.t.Fatal(err)
	}
	return b
}

// ended waits until the server has closed the connection.
func (c *testClient) ended() {
	c.t.Helper()
	_, err := io.Copy(io.Discard, c.Conn)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatal("the server did not end the connection")
	}
}

func (c *testClient) sendOption(opt uint32, data []byte) {
	c.t.Helper()
	b := be.AppendUint64(nil, magicOption)
	b = be.AppendUint32(b, opt)
	b = be.AppendUint32(b, uint32(len(data)))
	c.write(append(b, data...))
}

func (c *testClient) readOptReply(opt uint32) (uint32, []byte) {
	c.t.Helper()
	h := c.read(20)
	if be.Uint64(h) != magicOptReply || be.Uint32(h[8:]) != opt {
		c.t.Fatalf("reply to option %d: % x", opt, h)
	}
	return be.Uint32(h[12:]), c.read(int(be.Uint32(h[16:])))
}

func (c *testClient) optReply(opt, want uint32) []byte {
	c.t.Helper()
	kind, data := c.readOptReply(opt)
	if kind != want {
		c.t.Fatalf("option %d: reply %#x %q, want %#x", opt, kind, data, want)
	}
	return data
}

func (c *testClient) option(opt uint32, data []byte, want uint32) []byte {
	c.t.Helper()
	c.sendOption(opt, data)
	return c.optReply(opt, want)
}

// send sends a request and returns its handle.
func (c *testClient) send(cmd, flags uint16, off uint64, n uint32, data []byte) uint64 {
	c.t.Helper()
	c.handle++
	b := make([]byte, requestSize, requestSize+len(data))
	putRequest(b, wireRequest{cmd: cmd, flags: flags, handle: c.handle, off: off, len: n})
	c.write(append(b, data...))
	return c.handle
}

type testReply struct {
	handle uint64
	errno  uint32
	data   []byte
}

// reply reads the next reply; reads is how long the payload of a simple one is.
func (c *testClient) reply(reads int) testReply {
	c.t.Helper()
	switch b := c.read(16); be.Uint32(b) {
	case magicSimple:
		r := testReply{handle: be.Uint64(b[8:]), errno: be.Uint32(b[4:])}
		if r.errno == 0 && !c.structured {
			r.data = c.read(reads)
		}
		return r
	case magicStructured:
		r := testReply{handle: be.Uint64(b[8:])}
		data := c.read(int(be.Uint32(c.read(4))))
		if be.Uint16(b[4:]) != replyFlagDone || !c.structured {
			c.t.Fatalf("chunk % x", b)
		}
		switch be.Uint16(b[6:]) {
		case replyTypeOffsetData:
			r.data = data[8:]
		case replyTypeBlockStatus:
			r.data = data[4:]
		case replyTypeError:
			r.errno = be.Uint32(data)
		}
		return r
	default:
		c.t.Fatalf("reply % x", b)
	}
	return testReply{}
}

// do sends a request and expects its reply next, with this error.
func (c *testClient) do(cmd, flags uint16, off uint64, n uint32, data []byte, errno uint32) []byte {
	c.t.Helper()
	h := c.send(cmd, flags, off, n, data)
	reads := 0
	if cmd == cmdRead {
		reads = int(n)
	}
	r := c.reply(reads)
	if r.handle != h || r.errno != errno {
		c.t.Fatalf("command %d flags %d at %d+%d: errno %d (handle %d), want %d (%d)", cmd, flags, off, n, r.errno, r.handle, errno, h)
	}
	return r.data
}

func pattern(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }

func states(b []byte) string {
	s := ""
	for ; len(b) >= 8; b = b[8:] {
		s += fmt.Sprintf("%d:%d ", be.Uint32(b), be.Uint32(b[4:]))
	}
	return s
}
