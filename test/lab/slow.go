package lab

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// slow is a second way between two namespaces: a TUN device in each, and this
// process between them, which passes packets on after a delay and no more than a
// rate. Kernels without netem have nothing like it. While it is in use the routes
// between the nodes lead over it, so connections that exist become slow too.
type slow struct {
	tun   [2]*os.File
	wg    sync.WaitGroup
	delay atomic.Int64 // nanoseconds
	rate  atomic.Int64 // bytes a second, 0: no limit
	used  bool
}

const (
	slowName = "lab1"
	// slowPacket is the largest packet, in bytes, as on the link itself.
	slowPacket = 1500
	// slowQueue is how many packets are under way in one direction; more are
	// dropped, as a router does.
	slowQueue = 1024
)

// Slow makes everything arrive later, and so many bytes a second at most.
func (n *namespaces) Slow(delay time.Duration, rate int64) error {
	on := delay > 0 || rate > 0
	if n.slow == nil {
		if !on {
			return nil
		}
		var err error
		if n.slow, err = n.newSlow(); err != nil {
			return err
		}
	}
	n.slow.delay.Store(int64(delay))
	n.slow.rate.Store(rate)
	if on == n.slow.used {
		return nil
	}
	n.slow.used = on
	for _, s := range []Side{Alpha, Bravo} {
		verb := "del"
		if on {
			verb = "replace"
		}
		peer := n.Address(s.Other(), s)
		if err := run("", n.Command(s, "ip", "route", verb, peer+"/32", "dev", slowName, "src", n.Address(s, s))...); err != nil {
			return err
		}
	}
	return nil
}

func (n *namespaces) newSlow() (*slow, error) {
	p := &slow{}
	for i := range p.tun {
		s := Side(i)
		f, name, err := openTUN()
		if err != nil {
			p.close()
			return nil, fmt.Errorf("lab: a slow link: %w", err)
		}
		p.tun[i] = f
		err = run("", "ip", "link", "set", name, "netns", fmt.Sprint(n.hold[s].Process.Pid), "name", slowName)
		if err == nil {
			err = run("", n.Command(s, "ip", "link", "set", slowName, "mtu", fmt.Sprint(slowPacket), "up")...)
		}
		if err != nil {
			p.close()
			return nil, err
		}
	}
	p.wg.Go(func() { p.pass(p.tun[Bravo], p.tun[Alpha]) })
	p.wg.Go(func() { p.pass(p.tun[Alpha], p.tun[Bravo]) })
	return p, nil
}

// openTUN makes a TUN device, which lives as long as the file.
func openTUN() (f *os.File, name string, err error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq("labtun%d")
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return nil, "", fmt.Errorf("make a TUN device: %w", err)
	}
	return os.NewFile(uintptr(fd), "tun"), strings.TrimSpace(req.Name()), nil
}

// pass passes packets on until the device it reads is closed.
func (p *slow) pass(dst, src *os.File) {
	queue := make(chan parcel, slowQueue)
	var wg sync.WaitGroup
	wg.Go(func() {
		for q := range queue {
			if d := time.Until(q.due); d > 0 {
				time.Sleep(d) // the delay is what was asked for
			}
			dst.Write(q.b) // a packet that nobody takes is a lost packet
		}
	})
	defer wg.Wait()
	defer close(queue)
	var line time.Time // when the line is free for the next packet
	for {
		b := make([]byte, slowPacket)
		n, err := src.Read(b)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(pollEvery) // the device is down
			continue
		}
		now := time.Now()
		if line.Before(now) {
			line = now
		}
		if rate := p.rate.Load(); rate > 0 {
			line = line.Add(time.Duration(int64(n) * int64(time.Second) / rate))
		}
		select {
		case queue <- parcel{b[:n], line.Add(time.Duration(p.delay.Load()))}:
		default:
		}
	}
}

func (p *slow) close() {
	for _, f := range p.tun {
		if f != nil {
			f.Close()
		}
	}
	p.wg.Wait()
}
