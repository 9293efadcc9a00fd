package runner

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hastd/cluster/beat"
	"hastd/test/cable"
)

// wired makes two nodes with a serial line and so many links.
func wired(t *testing.T, links int) (a, b *member, c *cable.Cable) {
	t.Helper()
	a, b = members(t, links)
	c, err := cable.New(t.TempDir())
	if err != nil {
		t.Skip("no serial line: ", err)
	}
	t.Cleanup(c.Pull)
	for i, m := range []*member{a, b} {
		m.o.Self.Serial, m.o.Peers[0].Serial = c.Device[i], c.Device[1-i]
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

	c.Noise(bytes.Repeat([]byte("noise\x00\xff"), 500))
	eventually(t, 20*time.Second, "noise is counted", func() bool { return b.r.Stats().Noise > 0 })
	holds(t, time.Second, "noise costs nothing", func() bool { return a.up() && b.up() })

	c.Cut(true)
	eventually(t, 20*time.Second, "the cut is noticed", func() bool { return !a.up() && !b.up() })
	if a.said("serial line to node bravo in trouble") == 0 {
		t.Error("no word of trouble")
	}
	c.Cut(false)
	bothUp(t, a, b)

	c.Pull()
	eventually(t, 20*time.Second, "it is gone", func() bool { return !a.up() && !b.up() })
	if err := c.Plug(); err != nil {
		t.Fatal(err)
	}
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
	a, b := members(t, 1)
	master, device, err := cable.Terminal()
	if err != nil {
		t.Skip("no serial line: ", err)
	}
	defer master.Close()
	a.o.Self.Serial, a.o.Peers[0].Serial, b.o.Peers[0].Serial = device, "/dev/null", device
	b.o.Self.Serial = "/dev/null"
	a.o.Interval, b.o.Interval = 20*time.Millisecond, 20*time.Millisecond // to fill the terminal's buffer soon
	a.start()
	b.start()
	bothUp(t, a, b)
	holds(t, 3*time.Second, "the link is up", func() bool { return a.up() && b.up() && a.status().Links[0].State != beat.LinkDown })
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

// What this process starts does not have the line.
func TestChildrenDoNotHaveTheLine(t *testing.T) {
	t.Parallel()
	a, b, c := wired(t, 0)
	a.start()
	b.start()
	bothUp(t, a, b)
	open, err := exec.Command("ls", "-l", "/proc/self/fd").Output()
	if err != nil {
		t.Fatal(err)
	}
	device, err := filepath.EvalSymlinks(c.Device[0])
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(open), device+"\n") {
		t.Errorf("a child has %s:\n%s", device, open)
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
	before := c.Moved()
	const d = 3 * time.Second
	holds(t, d, "both are up", func() bool { return a.up() && b.up() })
	perSide := float64(c.Moved()-before) / d.Seconds() / 2
	t.Logf("%.0f bytes a second each way of 960", perSide)
	if perSide > 600 {
		t.Errorf("%.0f bytes a second go over a line of 960", perSide)
	}
	if s := time.Duration(serialInterval(a.o, 1)); s < 500*time.Millisecond || s > 600*time.Millisecond {
		t.Errorf("a heartbeat every %v", s)
	}
}
