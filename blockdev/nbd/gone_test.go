package nbd

import (
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"hastd/blockdev"
)

// A client dies while its reader waits, comes back, and writes what it had written
// last once more. When the device goes on, the old write must not come after the
// new one, which was acknowledged and flushed.
func TestBacklogOfAClientThatHasGoneIsDropped(t *testing.T) {
	const big, block, at = 4 << 20, 4096, 32 << 20
	for _, network := range []string{"unix", "tcp"} {
		for name, e := range map[string]struct {
			pool, sent int
			size       uint32
			hide       bool // TryAlloc
		}{
			"bytes":        {256 << 20, MaxInFlightBytes / big, big, false},
			"requests":     {256 << 20, MaxInFlight, 512, false},
			"memory":       {3 * big, 3, big, false},
			"memory alone": {3 * big, 3, big, true},
		} {
			t.Run(network+" "+name, func(t *testing.T) {
				d := newMemDevice(t, 64<<20, 512, e.pool)
				p := serveTest(t, d, func(o *Options) {
					useNetwork(o, network)
					if e.hide {
						o.Device = struct{ blockdev.Device }{d}
					}
				})
				d.set(func() { d.held = true })
				old := enter(t, p, false)
				for i := range uint64(e.sent) {
					old.send(cmdWrite, 0, i*uint64(e.size), e.size, pattern(int(e.size), 'x'))
				}
				old.send(cmdWrite, 0, at, block, pattern(block, 'o'))
				p.awaitReaderWaiting(d)
				old.Close()
				again := enter(t, p, false)
				// Zeroes need no memory, which there may be none of.
				again.send(cmdWriteZeroes, cmdFlagFUA, at, block, nil)
				d.await(func() bool { return d.seen == e.sent+1 })
				d.set(func() { d.held = false })
				if r := again.reply(0); r.errno != 0 {
					t.Fatalf("%+v", r)
				}
				again.do(cmdFlush, 0, 0, 0, nil, 0)
				p.awaitConnections(1)
				if got := again.do(cmdRead, 0, at, block, nil, 0); got[0] != 0 {
					t.Errorf("reads %q where zeroes were written and acknowledged", got[0])
				}
			})
		}
	}
}

// Over TCP the end of a client that was killed stands behind what its socket still
// has to send: it shows only once that has been read, which is before it is done.
func TestWriteStuckInTheSocketOfAClientThatHasGone(t *testing.T) {
	const block, at = 1 << 20, 32 << 20
	d := newMemDevice(t, 64<<20, 512, block)
	p := serveTest(t, d, func(o *Options) { useNetwork(o, "tcp") })
	d.set(func() { d.held = true })
	other := enter(t, p, false)
	other.send(cmdWrite, 0, 0, block, pattern(block, 'x'))
	d.await(func() bool { return d.seen == 1 })
	old := enter(t, p, false)
	old.send(cmdWrite, 0, at, block, pattern(block, 'o'))
	d.awaitPool(func() bool { return d.waiting == 1 })
	old.Close()
	d.set(func() { d.held = false })
	p.awaitConnections(1)
	d.set(func() {
		if d.seen != 1 || d.data[at] != 0 {
			t.Errorf("%d requests reached the device", d.seen)
		}
	})
}

func useNetwork(o *Options, network string) {
	if o.Network = network; network == "tcp" {
		o.Address = "127.0.0.1:0"
	}
}

// awaitReaderWaiting returns once the reader of the only connection waits for room
// or for memory.
func (p *Provider) awaitReaderWaiting(d *memDevice) {
	p.mu.Lock()
	c := p.conns[0]
	p.mu.Unlock()
	for waits := false; !waits; runtime.Gosched() {
		c.mu.Lock()
		waits = c.waiting
		c.mu.Unlock()
		d.poolMu.Lock()
		waits = waits || d.waiting > 0
		d.poolMu.Unlock()
	}
}

func (p *Provider) awaitConnections(n int) {
	for p.connections() != n {
		runtime.Gosched()
	}
}

// On a Unix socket a client that says goodbye with much under way, sends no more
// and waits for the answers can be told from one that has gone.
func TestBacklogOfAClientThatStaysForTheAnswersIsDone(t *testing.T) {
	const big = 4 << 20
	d := newMemDevice(t, 64<<20, 512, 256<<20)
	p := serveTest(t, d)
	d.set(func() { d.held = true })
	c := enter(t, p, false)
	const sent = 2 * MaxInFlightBytes / big
	go func() {
		for i := range uint64(sent) {
			c.send(cmdWrite, 0, i*big, big, pattern(big, 'x'))
		}
		c.send(cmdDisc, 0, 0, 0, nil)
		c.Conn.(*net.UnixConn).CloseWrite()
	}()
	p.awaitReaderWaiting(d)
	d.set(func() { d.held = false })
	for i := range sent {
		if r := c.reply(0); r.errno != 0 {
			t.Errorf("answer %d: %+v", i, r)
		}
	}
	c.ended()
}

// A client that has gone is no user from that moment on, and its connection ends
// soon, although the device answers nothing.
func TestClientThatHasGoneIsNoUser(t *testing.T) {
	const big = 4 << 20
	for _, network := range []string{"unix", "tcp"} {
		for name, pool := range map[string]int{"room": 256 << 20, "memory": 2 * big} {
			t.Run(network+" "+name, func(t *testing.T) {
				d := newMemDevice(t, 64<<20, 512, pool)
				p := serveTest(t, d, func(o *Options) { useNetwork(o, network) })
				d.set(func() { d.held = true })
				c := enter(t, p, false)
				under := min(pool, MaxInFlightBytes) / big
				for i := range uint64(under) {
					c.send(cmdWrite, 0, i*big, big, pattern(big, 'x'))
				}
				c.send(cmdWrite, 0, 32<<20, 4096, pattern(4096, 'o'))
				p.awaitReaderWaiting(d)
				if u, _ := p.Users(); len(u) != 1 {
					t.Errorf("users %v while the client is there", u)
				}
				c.Close()
				if u, _ := p.Users(); len(u) != 0 {
					t.Errorf("users %v after the client has gone", u)
				}
				for limit := time.Now().Add(testPatience); p.connections() != 0; time.Sleep(time.Millisecond) {
					if time.Now().After(limit) {
						t.Fatal("the connection of a client that has gone stays")
					}
				}
				if n := d.liveBuffers(); n != under {
					t.Errorf("%d buffers in use, and the device works on %d", n, under)
				}
				if err := p.Close(false); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// asked is a device that counts how often somebody waits for memory.
type asked struct {
	*memDevice
	waits atomic.Int64
}

func (a *asked) AllocWhile(n int, still func() bool) []byte {
	a.waits.Add(1)
	return a.memDevice.AllocWhile(n, still)
}

// However many requests a client left behind when it went, its reader waits for memory
// for one of them.
func TestReaderOfAClientThatHasGoneWaitsOnce(t *testing.T) {
	const block = 4096
	d := &asked{memDevice: newMemDevice(t, 1<<20, 512, block)}
	p := serveTest(t, d.memDevice, func(o *Options) { o.Device = d })
	d.set(func() { d.held = true })
	other := enter(t, p, false)
	other.send(cmdRead, 0, 0, block, nil)
	d.await(func() bool { return d.seen == 1 })
	c := enter(t, p, false)
	b := make([]byte, 8*requestSize)
	for i := range 8 {
		putRequest(b[i*requestSize:], wireRequest{cmd: cmdRead, handle: uint64(i), len: block})
	}
	c.write(b) // one write(2): they are read together
	d.awaitPool(func() bool { return d.waiting == 1 })
	c.Close()
	p.awaitConnections(1)
	if n := d.waits.Load(); n != 1 {
		t.Errorf("its reader waited for memory %d times", n)
	}
	d.set(func() { d.held = false })
}

// Clients that have gone and whose requests the device does not answer make room for
// those who come.
func TestClientsThatHaveGoneDoNotCountAgainstTheLimit(t *testing.T) {
	d := newMemDevice(t, 1<<20, 512, 64<<20)
	p := serveTest(t, d, func(o *Options) { o.MaxConnections = 4 })
	d.set(func() { d.held = true })
	stays := enter(t, p, true)
	for i := range 5 {
		c := enter(t, p, true)
		c.send(cmdWrite, 0, 0, 4096, pattern(4096, byte(i)))
		d.await(func() bool { return d.seen == i+1 })
		c.Close()
		for users := 2; users > 1; runtime.Gosched() {
			users = p.serving()
		}
	}
	d.set(func() { d.held = false })
	stays.do(cmdFlush, 0, 0, 0, nil, 0)
	if got := d.content(); got[0] != 4 {
		t.Errorf("the last write of the clients was %d", got[0])
	}
}

// Nor may they come, ask and go for ever: what they leave behind stays with the device.
func TestWhatClientsLeaveBehindIsLimited(t *testing.T) {
	const limit = 2
	d := newMemDevice(t, 1<<20, 512, 64<<20)
	p := serveTest(t, d, func(o *Options) { o.MaxConnections = limit })
	d.set(func() { d.held = true })
	comeAndGo := func(n int) {
		c := enter(t, p, true)
		c.send(cmdFlush, 0, 0, 0, nil) // needs no memory, of which there is only so much
		d.await(func() bool { return d.seen == n })
		c.Close()
	}
	for i := range 2 * limit {
		comeAndGo(i + 1)
		for p.serving() != 0 || p.leftBehind() != max(0, i+1-limit) {
			runtime.Gosched()
		}
	}
	nc, err := net.Dial("unix", p.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(testPatience))
	if n, err := nc.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read %d bytes, %v, while %d connections are owed answers", n, err, 2*limit)
	}
	d.set(func() { d.held = false })
	p.awaitConnections(0)
	comeAndGo(2*limit + 1)
}

// leftBehind counts the connections that ended with requests under way.
func (p *Provider) leftBehind() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.owed)
}

// serving counts the connections whose client is not known to leave.
func (p *Provider) serving() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		if c.phase == phaseServing {
			n++
		}
	}
	return n
}

// slowStatus is a device that takes its time to tell data from holes.
type slowStatus struct {
	*memDevice
	asked, answer chan struct{}
}

func (s *slowStatus) Allocated(off, n int64) ([]blockdev.Run, error) {
	close(s.asked)
	<-s.answer
	return s.memDevice.Allocated(off, n)
}

// A connection may end while its reader waits for a disk, or for a reason that the
// reader does not see: what that has in its buffer is not done any more.
func TestRequestsInTheBufferOfADeadConnectionAreDropped(t *testing.T) {
	for name, end := range map[string]func(*testClient, *conn){
		"cut":             func(_ *testClient, c *conn) { c.cut() },
		"the client left": func(c *testClient, _ *conn) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			d := newMemDevice(t, 1<<20, 512, 64<<20)
			s := &slowStatus{d, make(chan struct{}), make(chan struct{})}
			p := serveTest(t, d, func(o *Options) { o.Device = s })
			c := enter(t, p, true)
			b := make([]byte, 2*requestSize, 2*requestSize+512)
			putRequest(b, wireRequest{cmd: cmdBlockStatus, len: 4096})
			putRequest(b[requestSize:], wireRequest{cmd: cmdWrite, len: 512})
			c.write(append(b, pattern(512, 1)...)) // one write(2): they are read together
			<-s.asked
			p.mu.Lock()
			served := p.conns[0]
			p.mu.Unlock()
			end(c, served)
			close(s.answer)
			<-served.gone
			d.set(func() {
				if d.seen != 0 {
					t.Errorf("%d requests of a dead connection reached the device", d.seen)
				}
			})
		})
	}
}

// What is in the socket is no newer than what was answered last: over TCP, too, the
// client may have gone before that answer.
func TestWriteInTheSocketOfAClientThatHasGone(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			d := newMemDevice(t, 1<<20, 512, 64<<20)
			s := &slowStatus{d, make(chan struct{}), make(chan struct{})}
			p := serveTest(t, d, func(o *Options) { o.Device = s; useNetwork(o, network) })
			c := enter(t, p, true)
			c.send(cmdBlockStatus, 0, 0, 4096, nil)
			<-s.asked
			c.send(cmdWrite, 0, 0, 512, pattern(512, 1))
			c.Close()
			close(s.answer)
			p.awaitConnections(0)
			d.set(func() {
				if d.seen != 0 {
					t.Errorf("%d requests of a dead connection reached the device", d.seen)
				}
			})
		})
	}
}

// A write that came with a question about the disk does not wait for its answer: the
// client may be gone, and back with newer writes, before that comes.
func TestBlockStatusHoldsNoWriteBack(t *testing.T) {
	d := newMemDevice(t, 1<<20, 512, 64<<20)
	s := &slowStatus{d, make(chan struct{}), make(chan struct{})}
	c := enter(t, serveTest(t, d, func(o *Options) { o.Device = s }), true)
	b := make([]byte, requestSize)
	putRequest(b, wireRequest{cmd: cmdWrite, len: 512})
	b = append(b, pattern(512, 1)...)
	b = append(b, make([]byte, requestSize)...)
	putRequest(b[requestSize+512:], wireRequest{cmd: cmdBlockStatus, len: 4096})
	c.write(b) // one write(2): they are read together
	<-s.asked
	d.set(func() {
		if d.seen != 1 {
			t.Errorf("%d requests reached the device while another one waits", d.seen)
		}
	})
	close(s.answer)
	for range 2 {
		if r := c.reply(0); r.errno != 0 {
			t.Errorf("%+v", r)
		}
	}
}

// A client that leaves in good order after a question about the disk hears no reset, and is
// not said to have gone: it may have been answered before the reader came back to it.
func TestGoodbyeAfterBlockStatusIsNoReset(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			var log logLines
			d := newMemDevice(t, 1<<20, 512, 64<<20)
			s := &slowStatus{d, make(chan struct{}), make(chan struct{})}
			p := serveTest(t, d, func(o *Options) {
				o.Device = s
				useNetwork(o, network)
				o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			})
			c := enter(t, p, true)
			c.send(cmdBlockStatus, 0, 0, 4096, nil)
			<-s.asked
			c.send(cmdDisc, 0, 0, 0, nil)
			c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			close(s.answer)
			if _, err := io.Copy(io.Discard, c.Conn); err != nil {
				t.Error(err)
			}
			p.awaitConnections(0)
			if n := log.count("has gone"); n != 0 {
				t.Errorf("told %d times that a client has gone", n)
			}
		})
	}
}

// Who sends no more, and waits for answers that change nothing, gets them.
func TestHalfClosedClientIsAnsweredAfterBlockStatus(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			d := newMemDevice(t, 1<<20, 512, 64<<20)
			s := &slowStatus{d, make(chan struct{}), make(chan struct{})}
			c := enter(t, serveTest(t, d, func(o *Options) { o.Device = s; useNetwork(o, network) }), true)
			b := make([]byte, 3*requestSize)
			for i, cmd := range []uint16{cmdBlockStatus, cmdFlush, cmdDisc} {
				putRequest(b[i*requestSize:], wireRequest{cmd: cmd, len: uint32(4096 * (1 - min(i, 1)))})
			}
			c.write(b)
			c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			<-s.asked
			close(s.answer)
			for range 2 {
				c.reply(0)
			}
		})
	}
}

// A client with one request at a time does not keep the reader late.
func TestReaderCatchesUp(t *testing.T) {
	d := newMemDevice(t, 1<<20, 512, 64<<20)
	p := serveTest(t, d)
	c := enter(t, p, true)
	d.set(func() { d.held = true })
	b := make([]byte, 2*requestSize)
	putRequest(b, wireRequest{cmd: cmdFlush})
	putRequest(b[requestSize:], wireRequest{cmd: cmdBlockStatus, len: 4096})
	c.write(b)
	c.reply(0)
	d.set(func() { d.held = false })
	c.reply(0)
	p.mu.Lock()
	served := p.conns[0]
	p.mu.Unlock()
	c.do(cmdFlush, 0, 0, 0, nil, 0)
	c.Close()
	<-served.gone
	if served.late {
		t.Error("the reader is late for ever")
	}
}
