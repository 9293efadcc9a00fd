package nbd

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"hastd/blockdev"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHandshakeOptions(t *testing.T) {
	p := serveTest(t, newMemDevice(t, 1<<20, 512, 64<<20))
	c := connect(t, p)
	c.option(99, []byte("what"), repErrUnsup)
	c.option(5, nil, repErrUnsup) // STARTTLS
	c.option(optList, []byte{1}, repErrInvalid)
	if b := c.option(optList, nil, repServer); string(b) != "\x00\x00\x00\x04data" {
		t.Errorf("list %q", b)
	}
	c.optReply(optList, repAck)
	c.option(optSetMetaContext, metaData("", allocationName), repErrInvalid) // before structured replies
	c.option(optStructuredReply, []byte{1}, repErrInvalid)
	c.option(optStructuredReply, nil, repAck)
	c.option(optInfo, []byte{0, 0, 0, 9, 'x'}, repErrInvalid)
	c.option(optInfo, infoData("nobody"), repErrUnknown)
	c.option(optGo, infoData("nobody"), repErrUnknown)
	c.option(optListMetaContext, metaData("nobody"), repErrUnknown)
	c.option(optListMetaContext, metaData("data")[:9], repErrInvalid)
	c.option(optListMetaContext, metaData("data", "x-none:"), repAck)
	for _, q := range [][]string{{}, {"base:"}, {allocationName}, {"x:", "base:"}} {
		if b := c.option(optListMetaContext, metaData("", q...), repMetaContext); string(b) != "\x00\x00\x00\x00base:allocation" {
			t.Errorf("contexts %q", b)
		}
		c.optReply(optListMetaContext, repAck)
	}
	c.option(optSetMetaContext, metaData("data", "base:"), repAck) // no wildcard in a choice
	c.option(77, make([]byte, maxOption+1), repErrTooBig)
	c.sendOption(optInfo, infoData("", infoName, infoDescription, infoBlockSize, 1000))
	var infos []string
	for range 4 {
		infos = append(infos, fmt.Sprintf("%x", c.optReply(optInfo, repInfo)))
	}
	c.optReply(optInfo, repAck)
	want := []string{
		"0000" + "0000000000100000" + "01ed", "0003" + "00000200" + "00001000" + "02000000",
		fmt.Sprintf("0001%x", "data"), fmt.Sprintf("0002%x", "replicated resource data"),
	}
	if fmt.Sprint(infos) != fmt.Sprint(want) {
		t.Errorf("infos %v, want %v", infos, want)
	}
	c.option(optAbort, nil, repAck)
	c.ended()
}

func TestHandshakeExportNamePadsWithZeroes(t *testing.T) {
	p := serveTest(t, newMemDevice(t, 1<<20, 512, 64<<20))
	nc, err := net.Dial("unix", p.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := &testClient{Conn: nc, t: t}
	c.read(18)
	c.write(be.AppendUint32(nil, flagFixedNewstyle))
	c.sendOption(optExportName, []byte("data"))
	if b := c.read(10 + 124); be.Uint64(b) != 1<<20 || be.Uint16(b[8:]) != 0x16d || !bytes.Equal(b[10:], make([]byte, 124)) {
		t.Errorf("export % x", b)
	}
	c.do(cmdWrite, 0, 512, 512, pattern(512, 7), 0)
	if got := c.do(cmdRead, 0, 512, 512, nil, 0); !bytes.Equal(got, pattern(512, 7)) {
		t.Error("read back something else")
	}
}

func TestMalformedInputEndsThatConnectionOnly(t *testing.T) {
	var log logLines
	p := serveTest(t, newMemDevice(t, 1<<20, 512, 64<<20), func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	good := enter(t, p, true)
	for name, f := range map[string]func(){
		"client flags": func() {
			nc, _ := net.Dial("unix", p.Path())
			defer nc.Close()
			c := &testClient{Conn: nc, t: t}
			c.read(18)
			c.write([]byte{0xff, 0, 0, 3})
			c.ended()
		},
		"option magic": func() { c := connect(t, p); c.write(pattern(16, 1)); c.ended() },
		"option of 4 GiB": func() {
			c := connect(t, p)
			c.write(be.AppendUint32(be.AppendUint32(be.AppendUint64(nil, magicOption), 7), 1<<32-1))
			c.ended()
		},
		"unknown name":  func() { c := connect(t, p); c.sendOption(optExportName, []byte("nobody")); c.ended() },
		"request magic": func() { c := enter(t, p, false); c.write(pattern(requestSize, 1)); c.ended() },
		"too many options": func() {
			c := connect(t, p)
			for range maxOptions {
				c.option(1000, nil, repErrUnsup)
			}
			c.ended()
		},
	} {
		t.Run(name, func(*testing.T) { f() })
	}
	good.do(cmdFlush, 0, 0, 0, nil, 0)
	if n := log.count("handshake"); n > 1 {
		t.Errorf("%d lines for one cause", n)
	}
}

type logLines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logLines) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

func TestLogOncePerCauseAndInterval(t *testing.T) {
	var out logLines
	l := newLimitedLog(slog.New(slog.NewTextHandler(&out, nil)))
	now := time.Now()
	l.now = func() time.Time { return now }
	for range 5 {
		l.Error("one", "message one")
	}
	l.Error("two", "message two")
	now = now.Add(logInterval)
	l.Error("one", "message one")
	if out.count("message one") != 2 || out.count("message two") != 1 || out.count("alike=4") != 1 {
		t.Error(out.b.String())
	}
}

func TestRequestErrors(t *testing.T) {
	for _, structured := range []bool{false, true} {
		t.Run(fmt.Sprintf("structured=%v", structured), func(t *testing.T) {
			d := newMemDevice(t, 1<<20, 512, 64<<20)
			c := enter(t, serveTest(t, d), structured)
			const size = 1 << 20
			inval, nospc := uint32(unix.EINVAL), uint32(unix.ENOSPC)
			c.do(cmdRead, 0, size, 512, nil, inval)
			c.do(cmdRead, 0, 1<<63, 512, nil, inval)
			c.do(cmdRead, 0, size-512, 1024, nil, inval)
			c.do(cmdRead, 0, 1, 512, nil, inval)
			c.do(cmdRead, 0, 0, 100, nil, inval)
			c.do(cmdRead, 0, 0, 0, nil, inval)
			c.do(cmdRead, cmdFlagReqOne, 0, 512, nil, inval)
			c.do(cmdRead, 0, 0, 1<<32-512, nil, inval)
			c.do(cmdWrite, 0, size, 512, pattern(512, 1), nospc)
			c.do(cmdWrite, 0, 1<<64-512, 512, pattern(512, 1), nospc)
			c.do(cmdWrite, 0, 3, 512, pattern(512, 1), inval)
			c.do(cmdWrite, 0, 0, 33<<20, pattern(33<<20, 1), inval)
			c.do(cmdWrite, 1<<9, 0, 512, pattern(512, 1), inval)
			c.do(cmdWriteZeroes, 0, size-512, 1024, nil, nospc)
			c.do(cmdWriteZeroes, 1<<4, 0, 512, nil, inval) // FAST_ZERO is not offered
			c.do(cmdTrim, 0, size, 512, nil, inval)
			c.do(cmdTrim, cmdFlagNoHole, 0, 512, nil, inval)
			c.do(cmdFlush, 0, 1, 0, nil, inval)
			c.do(5, 0, 0, 512, nil, inval) // CACHE is not offered
			c.do(99, 0, 0, 512, nil, inval)
			df := inval
			if structured {
				df = 0
			}
			c.do(cmdRead, cmdFlagDF, 0, 512, nil, df)
			c.do(cmdBlockStatus, 0, 0, 512, nil, df)
			c.do(cmdBlockStatus, 0, size, 512, nil, inval)
			c.do(cmdRead, 0, size-512, 512, nil, 0)
			want := 1
			if structured {
				want = 2
			}
			d.set(func() {
				if d.seen != want {
					t.Errorf("%d requests reached the device, want %d", d.seen, want)
				}
			})
		})
	}
}

func TestDeviceErrorsReachTheClient(t *testing.T) {
	d := newMemDevice(t, 1<<20, 512, 64<<20)
	p := serveTest(t, d)
	for _, e := range []struct {
		err  error
		want unix.Errno
	}{
		{unix.EIO, unix.EIO}, {unix.ENOSPC, unix.ENOSPC}, {unix.EINVAL, unix.EINVAL}, {unix.EPERM, unix.EPERM},
		{unix.ESHUTDOWN, unix.ESHUTDOWN}, {unix.ENOMEM, unix.ENOMEM}, {unix.EOVERFLOW, unix.EOVERFLOW},
		{unix.ENOTSUP, unix.ENOTSUP}, {unix.EDQUOT, unix.ENOSPC}, {unix.EROFS, unix.EPERM},
		{unix.EXDEV, unix.EIO}, {fmt.Errorf("disk: %w", unix.ENOSPC), unix.ENOSPC}, {fmt.Errorf("boom"), unix.EIO},
	} {
		d.set(func() {
			d.fail = failOp(e.err, blockdev.OpRead, blockdev.OpWrite, blockdev.OpFlush, blockdev.OpTrim, blockdev.OpZero)
		})
		for _, structured := range []bool{false, true} {
			c := enter(t, p, structured)
			c.do(cmdRead, 0, 0, 4096, nil, uint32(e.want))
			c.do(cmdWrite, 0, 0, 4096, pattern(4096, 1), uint32(e.want))
			c.do(cmdFlush, 0, 0, 0, nil, uint32(e.want))
			c.do(cmdTrim, 0, 0, 4096, nil, uint32(e.want))
			c.do(cmdWriteZeroes, 0, 0, 4096, nil, uint32(e.want))
			c.Close()
		}
	}
}

func TestFlagsAndBlockStatus(t *testing.T) {
	d := newMemDevice(t, 1<<20, 512, 64<<20)
	c := enter(t, serveTest(t, d), true)
	c.do(cmdWrite, cmdFlagFUA, 512, 1024, pattern(1024, 9), 0)
	d.set(func() {
		if len(d.dirty) != 0 {
			t.Error("FUA did not reach the device")
		}
	})
	c.do(cmdWriteZeroes, cmdFlagNoHole, 4096, 512, nil, 0)
	c.do(cmdWriteZeroes, 0, 8192, 512, nil, 0)
	if got, want := states(c.do(cmdBlockStatus, 0, 0, 1<<20, nil, 0)), "512:3 1024:0 2560:3 512:0 1043968:3 "; got != want {
		t.Errorf("status %s, want %s", got, want)
	}
	if got, want := states(c.do(cmdBlockStatus, cmdFlagReqOne, 512, 4096, nil, 0)), "1024:0 "; got != want {
		t.Errorf("status of one %s, want %s", got, want)
	}
	c.do(cmdTrim, 0, 512, 512, nil, 0)
	if got, want := states(c.do(cmdBlockStatus, 0, 0, 2048, nil, 0)), "1024:3 512:0 512:3 "; got != want {
		t.Errorf("status after trim %s, want %s", got, want)
	}
}

func TestExtentsAreBoundedAndMerged(t *testing.T) {
	run := func(n int64, hole bool) blockdev.Run { return blockdev.Run{Len: n, Hole: hole} }
	for _, e := range []struct {
		runs []blockdev.Run
		n    int64
		most int
		want string
	}{
		{nil, 4096, 9, "4096:0 "},
		{[]blockdev.Run{run(0, true), run(-1, true)}, 4096, 9, "4096:0 "},
		{[]blockdev.Run{run(512, true), run(512, true), run(0, false), run(512, true)}, 4096, 9, "1536:3 "},
		{[]blockdev.Run{run(512, true), run(1<<40, false), run(512, true)}, 4096, 9, "512:3 3584:0 "},
		{[]blockdev.Run{run(512, true), run(512, false), run(512, true)}, 4096, 2, "512:3 512:0 "},
		{[]blockdev.Run{run(512, false), run(512, false), run(512, true)}, 4096, 1, "1024:0 "},
	} {
		b := appendExtents(nil, e.runs, e.n, e.most)
		if got := states(b[4:]); got != e.want || be.Uint32(b) != allocationID {
			t.Errorf("%v: %s, want %s", e.runs, got, e.want)
		}
	}
}

func TestFlushCoversWhatAnyConnectionWasAnswered(t *testing.T) {
	d := newMemDevice(t, 1<<20, 512, 64<<20)
	p := serveTest(t, d)
	a, b := enter(t, p, true), enter(t, p, false)
	for i := range uint64(64) {
		a.do(cmdWrite, 0, i*4096, 4096, pattern(4096, byte(i)), 0)
		b.do(cmdFlush, 0, 0, 0, nil, 0)
		if !d.flushed() {
			t.Fatal("a flush was answered before the other connection's write was stable")
		}
	}
}

func TestUsersAndClose(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			d := newMemDevice(t, 1<<20, 512, 64<<20)
			p := serveTest(t, d, func(o *Options) { useNetwork(o, network) })
			connect(t, p) // chose nothing yet: no user
			if u, _ := p.Users(); len(u) != 0 {
				t.Errorf("users %v before anybody came", u)
			}
			c, _ := enter(t, p, true), enter(t, p, true)
			u, _ := p.Users()
			if network == "unix" {
				if want := fmt.Sprintf("nbd.test (pid %d)", unix.Getpid()); len(u) != 1 || u[0] != want {
					t.Errorf("users %v, want %s", u, want)
				}
			} else if len(u) != 2 || u[0] != c.LocalAddr().String() {
				t.Errorf("users %v, want %s first", u, c.LocalAddr())
			}
			err := p.Close(false)
			inUse, ok := err.(*blockdev.InUseError)
			if !ok || inUse.Path != p.Path() || fmt.Sprint(inUse.Users) != fmt.Sprint(u) {
				t.Fatalf("close while in use: %v", err)
			}
			c.do(cmdFlush, 0, 0, 0, nil, 0) // still served
			if err := p.Close(true); err != nil {
				t.Fatal(err)
			}
			c.ended()
			if _, err := net.Dial(network, p.Path()); err == nil {
				t.Error("the socket still answers")
			}
			if err := p.Close(false); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestGoodbyeIsNoUserAnyMore(t *testing.T) {
	type halfCloser interface{ CloseWrite() error }
	for name, bye := range map[string]func(*testClient){
		"disc": func(c *testClient) { c.send(cmdDisc, 0, 0, 0, nil) },
		"eof":  func(c *testClient) { c.Conn.(halfCloser).CloseWrite() },
		"both": func(c *testClient) { c.send(cmdDisc, 0, 0, 0, nil); c.Conn.(halfCloser).CloseWrite() },
	} {
		for _, network := range []string{"unix", "tcp"} {
			t.Run(network+" "+name, func(t *testing.T) {
				d := newMemDevice(t, 1<<20, 512, 64<<20)
				p := serveTest(t, d, func(o *Options) { useNetwork(o, network) })
				d.set(func() { d.held = true })
				c := enter(t, p, true)
				h := c.send(cmdWrite, 0, 0, 4096, pattern(4096, 5))
				bye(c)
				d.await(func() bool { return d.seen == 1 })
				for { // the reader is about to see it
					if u, _ := p.Users(); len(u) == 0 {
						break
					}
				}
				d.set(func() { d.held = false })
				if r := c.reply(0); r.handle != h || r.errno != 0 {
					t.Errorf("what was under way at the goodbye was answered %+v", r)
				}
				c.ended()
				if err := p.Close(false); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// What goes wrong when nothing is served any more is no refusal to close.
func TestClosedIsClosedWhateverIsLeft(t *testing.T) {
	p := serveTest(t, newMemDevice(t, 1<<20, 512, 64<<20))
	p.ln.Close() // closing it again is an error
	if err := p.Close(false); err != nil {
		t.Errorf("closed with %v", err)
	}
}
