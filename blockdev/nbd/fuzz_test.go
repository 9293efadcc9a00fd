package nbd

import (
	"encoding/binary"
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
		opts:   Options{Device: d, MaxConnections: 1, HandshakeTimeout: time.Second, stallTimeout: time.Second, closeGrace: time.Second},
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
		exchange(t, d, msg)
	})
}

// FuzzRequests: whatever a client sends in the transmission phase, the server
// neither panics nor loses memory, and the device sees only valid requests (it
// panics else).
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
		exchange(t, d, append(msg, data...))
	})
}

// exchange says msg to a fresh server, reading whatever comes back, and waits for
// the connection's end.
func exchange(t testing.TB, d *memDevice, msg []byte) {
	nc, end := pipeServer(t, d)
	read := make(chan struct{})
	go func() { io.Copy(io.Discard, nc); close(read) }()
	nc.Write(msg)
	end()
	<-read
}
