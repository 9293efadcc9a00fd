package nbd

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hastd/blockdev"
)

func TestDisconnectInTheMiddleOfARequest(t *testing.T) {
	d := newMemDevice(t, 16<<20, 512, 64<<20)
	p := serveTest(t, d)
	for _, n := range []int{4096, 1 << 20} { // in the buffer, and straight into the device's memory
		for _, sent := range []int{0, 100} {
			c := enter(t, p, true)
			c.send(cmdWrite, 0, 0, 4096, pattern(4096, 1)) // complete: is done
			c.send(cmdWrite, 0, 4096, uint32(n), pattern(sent, 2))
			c.Close()
		}
		c := enter(t, p, true)
		c.write([]byte{0x25, 0x60}) // half a header
		c.Close()
	}
	good := enter(t, p, true)
	good.do(cmdFlush, 0, 0, 0, nil, 0)
	if err := p.Close(true); err != nil {
		t.Fatal(err)
	}
	if got := d.content()[4096:8192]; !bytes.Equal(got, make([]byte, 4096)) {
		t.Error("half a write reached the device")
	}
	if n := d.liveBuffers(); n != 0 {
		t.Errorf("%d buffers are lost", n)
	}
}

// However long a payload is, and the time it is given: one that stops is cut off soon.
func TestPayloadThatStallsIsCutOff(t *testing.T) {
	var log logLines
	d := newMemDevice(t, 16<<20, 512, 64<<20)
	p := serveTest(t, d, func(o *Options) {
		o.stallTimeout, o.minRate = 50*time.Millisecond, 1
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	c := enter(t, p, true)
	c.send(cmdWrite, 0, 0, 1<<20, pattern(1000, 1))
	c.ended()
	if log.count("the client stopped in the middle of a request") != 1 {
		t.Error(log.b.String())
	}
	idle := enter(t, p, true) // idle between requests is fine
	time.Sleep(2 * p.opts.stallTimeout)
	idle.do(cmdFlush, 0, 0, 0, nil, 0)
}

// A large payload may take longer than a stall, as long as it goes on, but not for ever.
func TestPayloadIsGivenTimeByItsLength(t *testing.T) {
	const pieces = 16
	for minRate, cut := range map[int]bool{1 << 19: false, 1 << 30: true} {
		d := newMemDevice(t, 16<<20, 512, 64<<20)
		p := serveTest(t, d, func(o *Options) { o.stallTimeout, o.minRate = 400*time.Millisecond, minRate })
		c := enter(t, p, true)
		c.send(cmdWrite, 0, 0, 1<<20, nil)
		var err error
		for i := 0; i < pieces && err == nil; i++ {
			time.Sleep(p.opts.stallTimeout / 8)
			_, err = c.Write(pattern(1<<20/pieces, 1))
		}
		if (err != nil) != cut {
			t.Errorf("at a rate of %d: %v", minRate, err)
		}
		if err == nil && !cut {
			if r := c.reply(0); r.errno != 0 {
				t.Errorf("%+v", r)
			}
		}
	}
}

func TestClientThatNeverReadsHurtsNobody(t *testing.T) {
	const pool = 64 << 20
	var log logLines
	d := newMemDevice(t, 16<<20, 512, pool)
	p := serveTest(t, d, func(o *Options) {
		o.stallTimeout, o.minRate = time.Second, 1
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	stuck := enter(t, p, true)
	var asked []byte
	for i := range 4 * MaxInFlight { // 256 MiB asked for
		b := make([]byte, requestSize)
		putRequest(b, wireRequest{cmd: cmdRead, handle: uint64(i), len: 256 << 10})
		asked = append(asked, b...)
	}
	stuck.write(asked) // 28 KiB: the socket takes it
	good := enter(t, p, true)
	for i := range uint64(200) {
		good.do(cmdWrite, 0, i*4096, 4096, pattern(4096, 3), 0)
		good.do(cmdRead, 0, i*4096, 4096, nil, 0)
	}
	d.set(func() {
		if d.seen > 400+MaxInFlight {
			t.Errorf("%d requests taken from a client that does not read", d.seen-400)
		}
	})
	if p.connections() != 2 {
		t.Error("the others had to wait until the stuck client was cut off")
	}
	if held := pool - d.free(); held > MaxInFlightBytes+4096 {
		t.Errorf("%d bytes of the device's memory are held", held)
	}
	for { // until the server has given it up
		if u := p.connections(); u == 1 {
			break
		}
		runtime.Gosched()
	}
	stuck.ended()
	good.do(cmdFlush, 0, 0, 0, nil, 0)
	if log.count("stopped reading") != 1 {
		t.Error(log.b.String())
	}
	if held := pool - d.free(); held != 0 {
		t.Errorf("%d bytes of the device's memory are held after the client was cut", held)
	}
}

// trickle reads n bytes of replies at a rate in bytes a second.
func (c *testClient) trickle(n, rate int) error {
	const pause = 10 * time.Millisecond
	for step := rate / int(time.Second/pause); n > 0; time.Sleep(pause) {
		got, err := io.CopyN(io.Discard, c, int64(min(step, n)))
		n -= int(got)
		if err != nil {
			return err
		}
	}
	return nil
}

// What a client asked for is the device's memory until it has read it: it is given
// time by the amount, and making some progress does not give it more.
func TestClientThatReadsTooSlowlyIsCutOff(t *testing.T) {
	const asked, each, rate = 8, 1 << 20, 16 << 20
	for name, e := range map[string]struct {
		rate int
		cut  bool
	}{
		"too slow":    {rate / 8, true},
		"slow enough": {2 * rate, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newMemDevice(t, 16<<20, 512, 64<<20)
			p := serveTest(t, d, func(o *Options) { o.stallTimeout, o.minRate = 500*time.Millisecond, rate })
			c := enter(t, p, true)
			d.set(func() { d.held = true })
			for range asked {
				c.send(cmdRead, 0, 0, each, nil)
			}
			d.await(func() bool { return d.seen == asked })
			d.set(func() { d.held = false })
			if err := c.trickle(asked*(offsetDataSize+each), e.rate); (err != nil) != e.cut {
				t.Errorf("read the replies: %v", err)
			}
		})
	}
}

func (d *memDevice) free() int {
	d.poolMu.Lock()
	defer d.poolMu.Unlock()
	return d.room
}

func (p *Provider) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// More is asked for than the socket holds: short writes are continued where they
// ended.
func TestRepliesSurviveAFullSocket(t *testing.T) {
	d := newMemDevice(t, 16<<20, 512, 64<<20)
	copy(d.data, randomImage(16<<20))
	for _, structured := range []bool{false, true} {
		c := enter(t, serveTest(t, d), structured)
		want := make(map[uint64]uint64)
		for i := range uint64(30) {
			off := i * 300 << 10
			want[c.send(cmdRead, 0, off, 300<<10, nil)] = off
		}
		for range 30 {
			r := c.reply(300 << 10)
			if off := want[r.handle]; !bytes.Equal(r.data, d.data[off:off+300<<10]) {
				t.Fatal("wrong data")
			}
		}
	}
}

func TestIdleConnectionsAreLimited(t *testing.T) {
	d := newMemDevice(t, 1<<20, 512, 64<<20)
	p := serveTest(t, d, func(o *Options) { o.MaxConnections = 50 })
	good := enter(t, p, true)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 1000 {
		nc, err := net.Dial("unix", p.Path())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	for range 3 { // still room for a client that means it
		late := enter(t, p, true)
		late.do(cmdFlush, 0, 0, 0, nil, 0)
		late.Close()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := p.connections(); n > 50 {
		t.Errorf("%d connections", n)
	}
	if grown := int64(after.HeapInuse+after.StackInuse) - int64(before.HeapInuse+before.StackInuse); grown > 8<<20 {
		t.Errorf("%d bytes of memory for idle connections", grown)
	}
	good.do(cmdFlush, 0, 0, 0, nil, 0)
}

func TestClientsBeyondTheLimitAreTurnedAway(t *testing.T) {
	d := newMemDevice(t, 1<<20, 512, 64<<20)
	p := serveTest(t, d, func(o *Options) { o.MaxConnections = 2 })
	a, b := enter(t, p, true), enter(t, p, true)
	nc, err := net.Dial("unix", p.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(testPatience))
	if n, err := nc.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read %d bytes, %v, from a full server", n, err)
	}
	a.do(cmdFlush, 0, 0, 0, nil, 0)
	b.do(cmdFlush, 0, 0, 0, nil, 0)
}

func TestHandshakeTakesBoundedTime(t *testing.T) {
	d := newMemDevice(t, 1<<20, 512, 64<<20)
	p := serveTest(t, d, func(o *Options) { o.HandshakeTimeout = 30 * time.Millisecond })
	connect(t, p).ended()
}

// A pool smaller than what the clients ask for makes them wait, never lock up: not
// with TryAlloc and not without.
func TestSmallPoolDelaysOnly(t *testing.T) {
	for name, hide := range map[string]bool{"TryAlloc": false, "Alloc alone": true} {
		t.Run(name, func(t *testing.T) {
			d := newMemDevice(t, 16<<20, 512, 3*4096)
			p := serveTest(t, d, func(o *Options) {
				if hide {
					o.Device = struct{ blockdev.Device }{d}
				}
			})
			var clients []*testClient
			const each = 100
			for range 3 {
				c := enter(t, p, true)
				clients = append(clients, c)
				var b []byte
				for i := range uint64(each) {
					h := make([]byte, requestSize)
					putRequest(h, wireRequest{cmd: uint16(i % 2), handle: i, off: i * 4096, len: 4096})
					b = append(b, h...)
					if i%2 == cmdWrite {
						b = append(b, pattern(4096, byte(i))...)
					}
				}
				go c.Write(b)
			}
			// All at once: a client that does not read keeps its buffers, and here
			// three are all there are.
			var readers sync.WaitGroup
			for _, c := range clients {
				readers.Go(func() {
					// Reads of 4 KiB in chunks, and simple replies to writes.
					const total = each / 2 * (offsetDataSize + 4096 + simpleSize)
					if n, err := io.CopyN(io.Discard, c, total); err != nil {
						t.Errorf("%d bytes of replies, then %v", n, err)
					}
				})
			}
			readers.Wait()
		})
	}
}

func TestForcedCloseEndsWhatIsUnderWay(t *testing.T) {
	d := newMemDevice(t, 1<<20, 512, 64<<20)
	p := serveTest(t, d, func(o *Options) { o.closeGrace = testPatience })
	c := enter(t, p, true)
	d.set(func() { d.held = true })
	under := c.send(cmdWrite, 0, 0, 4096, pattern(4096, 1))
	d.await(func() bool { return d.seen == 1 })
	closed := make(chan error, 1)
	go func() { closed <- p.Close(true) }()
	awaitShut(p)
	refused := c.send(cmdWrite, 0, 4096, 4096, pattern(4096, 1))
	if r := c.reply(0); r.handle != refused || r.errno != uint32(unix.ESHUTDOWN) {
		t.Errorf("a request while closing: %+v", r)
	}
	d.set(func() { d.held = false })
	if r := c.reply(0); r.handle != under || r.errno != 0 {
		t.Errorf("the request under way: %+v", r)
	}
	c.ended()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	d.set(func() {
		if d.seen != 1 {
			t.Errorf("%d requests reached the device", d.seen)
		}
	})
}

// awaitShut returns once Close has shut every gate.
func awaitShut(p *Provider) {
	<-p.closed
	p.mu.Lock()
	conns := p.conns
	p.mu.Unlock()
	for _, c := range conns {
		for shut := false; !shut; runtime.Gosched() {
			c.gate.Lock()
			shut = c.shut
			c.gate.Unlock()
		}
	}
}

func TestForcedCloseDoesNotHangWithTheDevice(t *testing.T) {
	d := newMemDevice(t, 1<<20, 512, 8192)
	p := serveTest(t, d, func(o *Options) { o.closeGrace = 50 * time.Millisecond })
	a, b := enter(t, p, true), enter(t, p, true)
	d.set(func() { d.held = true })
	a.send(cmdWrite, 0, 0, 4096, pattern(4096, 1))
	a.send(cmdRead, 0, 0, 4096, nil)
	d.await(func() bool { return d.seen == 2 })
	b.send(cmdRead, 0, 0, 4096, nil) // waits in Alloc
	d.awaitPool(func() bool { return d.waiting == 1 })
	if err := p.Close(true); err != nil {
		t.Fatal(err)
	}
	a.ended()
	b.ended()
	d.set(func() { d.held = false }) // late completions, and a late buffer, go nowhere
	p.work.Wait()
	d.set(func() {
		if d.seen != 2 {
			t.Errorf("%d requests reached the device", d.seen)
		}
	})
}

func TestDeviceClosingAnswersShutdown(t *testing.T) {
	d := newMemDevice(t, 1<<20, 512, 64<<20)
	c := enter(t, serveTest(t, d), true)
	d.shutPool()
	c.do(cmdRead, 0, 0, 4096, nil, uint32(unix.ESHUTDOWN))
	c.do(cmdWrite, 0, 0, 4096, pattern(4096, 1), uint32(unix.ESHUTDOWN))
	c.do(cmdWrite, 0, 0, 1<<20, pattern(1<<20, 1), uint32(unix.ESHUTDOWN))
	c.do(cmdFlush, 0, 0, 0, nil, 0)
}

func TestUnixSocketStaleAliveForeign(t *testing.T) {
	d := newMemDevice(t, 1<<20, 512, 64<<20)
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	opts := Options{Device: d, Network: "unix", Address: path, Mode: 0o660}
	if _, err := Serve(opts); err == nil || !strings.Contains(err.Error(), "being served already") {
		t.Errorf("a live socket: %v", err)
	}
	ln.Close() // as a killed daemon leaves it
	p, err := Serve(opts)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(path); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	// What is put in our place is not ours to remove.
	os.Remove(path)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(false); err != nil {
		t.Error(err)
	}
	if _, err := Serve(opts); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file in the way: %v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("somebody else's file was removed: %v", err)
	}
}
