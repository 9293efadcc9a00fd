// Package cable is a serial line for tests: two pseudo-terminals whose masters are
// tied together. It can be cut, be noisy, and be pulled out at both ends, as
// converters on USB ports are: the devices vanish and come back. Tests of heartbeats
// use it; it knows nothing of what is sent.
package cable

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Cable is one. Its devices are symbolic links, which stay where they are when the
// terminals behind them change.
type Cable struct {
	Device [2]string

	ends  [2]*os.File
	wg    sync.WaitGroup
	cut   atomic.Bool
	moved atomic.Int64
	mu    sync.Mutex
	noise []byte
}

// New makes one with its devices in a folder.
func New(dir string) (*Cable, error) {
	c := &Cable{}
	for i := range c.Device {
		c.Device[i] = filepath.Join(dir, fmt.Sprintf("ttyS%d", i))
	}
	return c, c.Plug()
}

// Plug makes the devices.
func (c *Cable) Plug() error {
	for i := range c.ends {
		master, name, err := Terminal()
		if err != nil {
			c.Pull()
			return err
		}
		c.ends[i] = master
		os.Remove(c.Device[i])
		if err := os.Symlink(name, c.Device[i]); err != nil {
			c.Pull()
			return err
		}
	}
	for i := range c.ends {
		from, to := c.ends[i], c.ends[1-i]
		c.wg.Go(func() { c.carry(from, to, i == 0) })
	}
	return nil
}

// Terminal makes a pseudo-terminal and names its device.
func Terminal() (*os.File, string, error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", fmt.Errorf("pseudo-terminal: %w", err)
	}
	err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	var n uint32
	if err == nil {
		n, err = unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	}
	if err != nil {
		unix.Close(fd)
		return nil, "", fmt.Errorf("pseudo-terminal: %w", err)
	}
	return os.NewFile(uintptr(fd), "ptmx"), fmt.Sprintf("/dev/pts/%d", n), nil
}

// carry moves bytes one way.
func (c *Cable) carry(from, to *os.File, noisy bool) {
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
		c.moved.Add(int64(n))
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

// Cut swallows what is sent, or no longer.
func (c *Cable) Cut(cut bool) { c.cut.Store(cut) }

// Noise puts bytes before the next ones that come to the second end.
func (c *Cable) Noise(b []byte) {
	c.mu.Lock()
	c.noise = b
	c.mu.Unlock()
}

// Moved is how many bytes were sent, both ways together.
func (c *Cable) Moved() int64 { return c.moved.Load() }

// Pull takes the devices away.
func (c *Cable) Pull() {
	for i, e := range c.ends {
		if e != nil {
			e.Close()
			os.Remove(c.Device[i])
		}
	}
	c.wg.Wait()
	c.ends = [2]*os.File{}
}
