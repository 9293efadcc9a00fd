package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"
)

// pipeServer is a connection over net.Pipe: no kernel socket, so that everything
// goes through the writer.
func pipeServer(t testing.TB, d *memDevice) (client net.Conn, end func()) {
	p := &Provider{
		opts:   Options{Device: d, MaxConnections: 1, HandshakeTimeout: time.Second, stallTimeout: time.Second, minRate: minRate, closeGrace: time.Second},
		info:   d.info,
		dev:    d,
		log:    newLimitedLog(slog.New(slog.DiscardHandler)),
		closed: make(chan struct{}),
		done:   make(chan struct{}),
	}
	p.try = d
	a, b := net.Pipe()
	p.admit(a)
	return b, func() {
		b.Close()
		p.work.Wait()
	}
}

func TestPlainConnection(t *testing.T) {
	d := newMemDevice(t, 1<<20, 512, 64<<20)
	nc, end := pipeServer(t, d)
	defer end()
	nc.SetDeadline(time.Now().Add(testPatience))
	c := &testClient{Conn: nc, t: t}
	c.read(18)
	c.write(be.AppendUint32(nil, flagFixedNewstyle|flagNoZeroes))
	c.sendOption(optExportName, nil)
	c.read(10)
	c.do(cmdWrite, 0, 4096, 512<<10, pattern(512<<10, 8), 0)
	if got := c.do(cmdRead, 0, 4096, 512<<10, nil, 0); !slices.Equal(got, pattern(512<<10, 8)) {
		t.Error("read back something else")
	}
}

// FuzzOptions: whatever a client says in the handshake, the decoders do not panic,
// what they accept encodes to the same bytes, and the connection ends by itself.
func FuzzOptions(f *testing.F) {
	f.Add(uint32(optGo), infoData("data", infoName, infoBlockSize))
	f.Add(uint32(optSetMetaContext), metaData("data", allocationName, "base:"))
	f.Add(uint32(optExportName), []byte("data"))
	f.Add(uint32(optList), []byte{})
	f.Add(uint32(optInfo), []byte{0xff, 0xff, 0xff, 0xff, 0, 0})
	f.Add(uint32(optListMetaContext), []byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	d := newMemDevice(f, 1<<20, 512, 64<<20)
	f.Fuzz(func(t *testing.T, opt uint32, data []byte) {
		if q, err := decodeInfo(data); err == nil && !slices.Equal(infoData(q.name, q.infos...), data) {
			t.Fatalf("%+v encodes to something else than % x", q, data)
		}
		if q, err := decodeMeta(data); err == nil && !slices.Equal(metaData(q.name, q.queries...), data) {
			t.Fatalf("%+v encodes to something else than % x", q, data)
		}
		msg := binary.BigEndian.AppendUint32(nil, flagFixedNewstyle)
		for _, o := range []uint32{optStructuredReply, opt, opt} {
			var d []byte
			if o == opt {
				d = data
			}
			msg = be.AppendUint64(msg, magicOption)
			msg = be.AppendUint32(msg, o)
			msg = be.AppendUint32(msg, uint32(len(d)))
			msg = append(msg, d...)
		}
		exchange(t, d, msg, func(io.Reader) error { return nil })
	})
}

// numbered gives every request of a client's stream a handle of its own, as far as
// the stream can be followed.
func numbered(data []byte) (stream []byte, asked []wireRequest) {
	stream = slices.Clone(data)
	for at := 0; at+requestSize <= len(stream); {
		w, err := decodeRequest(stream[at:])
		if err != nil {
			break
		}
		w.handle = uint64(len(asked))
		putRequest(stream[at:], w)
		asked = append(asked, w)
		at += requestSize
		if w.cmd == cmdWrite {
			at += int(w.len)
		}
	}
	return stream, asked
}

// understand reads a server's side of the conversation as a client has to: every
// reply is to a request, there is one to each at most, and a read brings what was
// asked for. It returns when the stream ends.
func understand(r io.Reader, structured bool, asked []wireRequest) error {
	done := make([]bool, len(asked))
	var head [structuredSize]byte
	for {
		if _, err := io.ReadFull(r, head[:simpleSize]); err != nil {
			return nil // the end, or cut off
		}
		h := be.Uint64(head[8:])
		if h >= uint64(len(asked)) || done[h] {
			return fmt.Errorf("a reply % x to nothing that is open", head[:simpleSize])
		}
		w, errno, body := &asked[h], be.Uint32(head[4:]), int64(0)
		switch be.Uint32(head[:]) {
		case magicSimple:
			done[h] = true
			if w.cmd == cmdRead && errno == 0 {
				if structured {
					return errors.New("a simple reply to a read, although structured ones were agreed")
				}
				body = int64(w.len)
			}
		case magicStructured:
			if _, err := io.ReadFull(r, head[simpleSize:]); err != nil {
				return nil
			}
			flags, kind := be.Uint16(head[4:]), be.Uint16(head[6:])
			body = int64(be.Uint32(head[simpleSize:]))
			done[h] = flags&replyFlagDone != 0
			wrong := !structured ||
				kind == replyTypeOffsetData && (w.cmd != cmdRead || body != 8+int64(w.len)) ||
				kind == replyTypeBlockStatus && (w.cmd != cmdBlockStatus || body < 12 || body%8 != 4 || body > 4+8*maxStatusExtents)
			if wrong {
				return fmt.Errorf("chunk % x to command %d of %d bytes", head, w.cmd, w.len)
			}
		default:
			return fmt.Errorf("a reply begins % x", head[:simpleSize])
		}
		if _, err := io.CopyN(io.Discard, r, body); err != nil {
			return nil
		}
	}
}

// FuzzRequests: whatever a client sends in the transmission phase, the server
// neither panics nor loses memory, what it answers can be understood, and the device
// sees only valid requests (it panics else).
func FuzzRequests(f *testing.F) {
	one := func(cmd, flags uint16, off uint64, n uint32, payload int) []byte {
		b := make([]byte, requestSize+payload)
		putRequest(b, wireRequest{cmd: cmd, flags: flags, handle: 1, off: off, len: n})
		return b
	}
	f.Add(true, one(cmdRead, 0, 0, 4096, 0))
	f.Add(false, append(one(cmdWrite, cmdFlagFUA, 512, 512, 512), one(cmdFlush, 0, 0, 0, 0)...))
	f.Add(true, one(cmdBlockStatus, cmdFlagReqOne, 0, 1<<20, 0))
	f.Add(true, append(one(cmdWrite, 0, 0, 64<<10, 64<<10), one(cmdDisc, 0, 0, 0, 0)...))
	f.Add(false, one(cmdWrite, 0, 1<<63, 1<<31, 10))
	f.Add(true, one(cmdTrim, 0, 1<<20-512, 512, 0))
	f.Add(true, one(cmdWriteZeroes, cmdFlagNoHole, 1<<64-1, 1<<32-1, 0))
	d := newMemDevice(f, 1<<20, 512, 64<<20)
	f.Fuzz(func(t *testing.T, structured bool, data []byte) {
		msg := be.AppendUint32(nil, flagFixedNewstyle|flagNoZeroes)
		option := func(opt uint32, data []byte) {
			msg = be.AppendUint64(msg, magicOption)
			msg = be.AppendUint32(msg, opt)
			msg = be.AppendUint32(msg, uint32(len(data)))
			msg = append(msg, data...)
		}
		if structured {
			option(optStructuredReply, nil)
			option(optSetMetaContext, metaData("", allocationName))
		}
		option(optExportName, nil)
		stream, asked := numbered(data)
		exchange(t, d, append(msg, stream...), func(r io.Reader) error {
			head := make([]byte, 18)
			if _, err := io.ReadFull(r, head); err != nil {
				return nil
			}
			left := 0 // replies to options
			if structured {
				left = 3 // structured replies; the one context; the end of the contexts
			}
			for ; left > 0; left-- {
				var h [20]byte
				if _, err := io.ReadFull(r, h[:]); err != nil {
					return nil
				}
				if be.Uint64(h[:]) != magicOptReply {
					return fmt.Errorf("a reply to an option begins % x", h)
				}
				io.CopyN(io.Discard, r, int64(be.Uint32(h[16:])))
			}
			if _, err := io.ReadFull(r, head[:10]); err != nil {
				return nil
			}
			return understand(r, structured, asked)
		})
	})
}

// exchange says msg to a fresh server, lets judge read what comes back, and waits for
// the connection's end; no memory stays with it.
func exchange(t testing.TB, d *memDevice, msg []byte, judge func(io.Reader) error) {
	nc, end := pipeServer(t, d)
	read := make(chan error)
	go func() {
		err := judge(nc)
		io.Copy(io.Discard, nc)
		read <- err
	}()
	nc.Write(msg)
	end()
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	// What the device is still at comes back when it ends.
	free := make(chan struct{})
	go func() {
		d.awaitPool(func() bool { return d.live == 0 })
		close(free)
	}()
	select {
	case <-free:
	case <-time.After(testPatience):
		t.Fatalf("%d buffers were not given back after the end of the connection", d.liveBuffers())
	}
}
