package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hastd/cluster/beat"
)

// cable is a serial line: two terminals whose masters are tied together. What is
// pulled out of one end vanishes there, as a converter on a USB port does.
type cable struct {
	t     *testing.T
	dev   [2]string // symbolic links to the terminals
	ends  [2]*os.File
	wg    sync.WaitGroup
	cut   atomic.Bool
	mu    sync.Mutex
	noise []byte // to be sent to the second end first
	bytes atomic.Int64
}

func newCable(t *testing.T) *cable {
	t.Helper()
	c := &cable{t: t}
	dir := t.TempDir()
	for i := range c.dev {
		c.dev[i] = filepath.Join(dir, fmt.Sprintf("ttyS%d", i))
	}
	c.plug()
	t.Cleanup(c.pull)
	return c
}

func (c *cable) plug() {
	c.t.Helper()
	for i := range c.ends {
		master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
		if err != nil {
			c.t.Skip("no pseudo-terminals: ", err)
		}
		raw, err := master.SyscallConn()
		if err != nil {
			c.t.Fatal(err)
		}
		var n uint32
		raw.Control(func(fd uintptr) {
			err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
			if err == nil {
				n, err = unix.IoctlGetUint32(int(fd), unix.TIOCGPTN)
			}
		})
		if err != nil {
			c.t.Fatal(err)
		}
		os.Remove(c.dev[i])
		if err := os.Symlink(fmt.Sprintf("/dev/pts/%d", n), c.dev[i]); err != nil {
			c.t.Fatal(err)
		}
		c.ends[i] = master
	}
	for i := range c.ends {
		from, to := c.ends[i], c.ends[1-i]
		c.wg.Go(func() { c.carry(from, to, i == 0) })
	}
}

// carry moves bytes one way.
func (c *cable) carry(from, to *os.File, noisy bool) {
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil { // nobody has opened the terminal
			time.Sleep(5 * time.Millisecond)
			continue
		}
		c.bytes.Add(int64(n))
		if c.cut.Load() {
			continue
		}
		b := buf[:n]
		if noisy {
			c.mu.Lock()
			b = append(bytes.Clone(c.noise), b...)
			c.noise = nil
			c.mu.Unlock()
		}
		to.SetWriteDeadline(time.Now().Add(time.Second))
		to.Write(b)
	}
}

func (c *cable) pull() {
	for i, e := range c.ends {
		if e != nil {
			e.Close()
			os.Remove(c.dev[i])
		}
	}
	c.wg.Wait()
	c.ends = [2]*os.File{}
}

// wired makes two nodes with a serial line and so many links.
func wired(t *testing.T, links int) (a, b *member, c *cable) {
	t.Helper()
	a, b = members(t, links)
	c = newCable(t)
	for i, m := range []*member{a, b} {
		m.o.Self.Serial, m.o.Peers[0].Serial = c.dev[i], c.dev[1-i]
	}
	return a, b, c
}

// The serial line alone keeps two nodes together; messages go over it if they may; it
// survives noise, a cut, and losing its device.
func TestSerialLineAlone(t *testing.T) {
	t.Parallel()
	a, b, c := wired(t, 0)
	a.start()
	b.start()
	bothUp(t, a, b)
	say := func(text string, serial bool) {
		t.Helper()
		if err := a.r.Order(context.Background(), beat.Event{Kind: beat.EvSend, Body: beat.Body{Kind: 1, Data: []byte(text)}, OnSerial: serial}); err != nil {
			t.Fatal(err)
		}
	}
	long := string(bytes.Repeat([]byte("view"), 300))
	say("data", false)
	say(long, true)
	eventually(t, 20*time.Second, "a message over the line", func() bool {
		return b.got(func(e *beat.Effect) bool { return e.Kind == beat.EffDeliver && string(e.Body.Data) == long }) == 1
	})
	if b.got(func(e *beat.Effect) bool { return e.Kind == beat.EffDeliver }) != 1 {
		t.Error("what may not go over the line did")
	}

	c.mu.Lock()
	c.noise = bytes.Repeat([]byte("noise\x00\xff"), 500)
	c.mu.Unlock()
	eventually(t, 20*time.Second, "noise is counted", func() bool { return b.r.Stats().Noise > 0 })
	holds(t, time.Second, "noise costs nothing", func() bool { return a.up() && b.up() })

	c.cut.Store(true)
	eventually(t, 20*time.Second, "the cut is noticed", func() bool { return !a.up() && !b.up() })
	if a.said("serial line to node bravo in trouble") == 0 {
		t.Error("no word of trouble")
	}
	c.cut.Store(false)
	bothUp(t, a, b)

	c.pull()
	eventually(t, 20*time.Second, "it is gone", func() bool { return !a.up() && !b.up() })
	c.plug()
	bothUp(t, a, b)
	for _, m := range []*member{a, b} {
		if m.said("the serial line cannot be used") == 0 || m.said("the serial line works again") != 1 {
			t.Errorf("%s did not say what became of its line", m.o.Self.Name)
		}
	}
	b.end()
	eventually(t, 10*time.Second, "a goodbye over the line", func() bool { return !a.up() })
	if a.said("it stopped") == 0 {
		t.Error("that it stopped is not said")
	}
}

// A line that nobody reads at the other end holds up nothing, and neither does a
// device that is none.
func TestSerialLineThatIsStuck(t *testing.T) {
	t.Parallel()
	a, b, c := wired(t, 1)
	for _, e := range c.ends { // nobody carries anything
		e.SetReadDeadline(time.Now())
	}
	c.pull()
	c.dev[1] = "/dev/null"
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetUint32(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(fmt.Sprintf("/dev/pts/%d", n), c.dev[0]); err != nil {
		t.Fatal(err)
	}
	b.o.Self.Serial = "/dev/null"
	a.o.Interval, b.o.Interval = 20*time.Millisecond, 20*time.Millisecond // to fill the terminal's buffer soon
	a.start()
	b.start()
	bothUp(t, a, b)
	holds(t, 3*time.Second, "the link is up", func() bool { return a.up() && b.up() && a.status().Links[0].State == beat.LinkUp })
	if b.said("the serial line cannot be used") != 1 {
		t.Error("a device that is no line is not said, or more than once")
	}
	began := time.Now()
	a.end()
	b.end()
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("it took %v to end", d)
	}
}

// Heartbeats use half of a slow line at most.
func TestSlowLine(t *testing.T) {
	t.Parallel()
	a, b, c := wired(t, 0)
	a.o.Baud, b.o.Baud = 9600, 9600
	a.o.Interval, b.o.Interval = 50*time.Millisecond, 50*time.Millisecond
	a.start()
	b.start()
	bothUp(t, a, b)
	before := c.bytes.Load()
	const d = 3 * time.Second
	holds(t, d, "both are up", func() bool { return a.up() && b.up() })
	perSide := float64(c.bytes.Load()-before) / d.Seconds() / 2
	t.Logf("%.0f bytes a second each way of 960", perSide)
	if perSide > 600 {
		t.Errorf("%.0f bytes a second go over a line of 960", perSide)
	}
	if s := time.Duration(serialInterval(a.o, 1)); s < 500*time.Millisecond || s > 600*time.Millisecond {
		t.Errorf("a heartbeat every %v", s)
	}
}
