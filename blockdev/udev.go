package blockdev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/pilebones/go-udev/netlink"
	"golang.org/x/sys/unix"
)

// Event is a change of a component's presence.
type Event struct {
	Path    string
	Present bool // false: the device or file went away
	// Replaced says that something else stands at the path than before: a disk
	// that came back between two looks.
	Replaced bool
}

const (
	// watchPoll is how often a path is looked at without an event: files and
	// symlinks outside of udev's reach have none, and netlink may lose some.
	watchPoll = time.Second
	// watchMessages bounds how many events are read between two looks.
	watchMessages = 256
)

// Watch tells of the component at path vanishing and returning, until ctx ends;
// it then returns nil. The first look is told too, so that nothing is missed
// between opening the component and watching it. tell is called on the caller's
// goroutine. An error means that the watch could not be kept up.
func Watch(ctx context.Context, path string, tell func(Event)) error {
	wake := make([]int, 2)
	if err := unix.Pipe2(wake, unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	defer unix.Close(wake[0])
	written := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(written)
		_, _ = unix.Write(wake[1], []byte{0}) // an empty pipe takes a byte
	})
	defer func() {
		if !stop() {
			<-written
		}
		unix.Close(wake[1])
	}()

	// Without netlink (a user namespace, a seccomp filter) the poll remains.
	poll := []unix.PollFd{{Fd: int32(wake[0]), Events: unix.POLLIN}}
	var conn netlink.UEventConn
	// Both sources: the kernel's tells first that a disk is gone, udev's that
	// the links in /dev/disk are up to date.
	if err := conn.Connect(netlink.KernelEvent | netlink.UdevEvent); err == nil {
		defer conn.Close()
		if err := unix.SetNonblock(conn.Fd, true); err != nil {
			return fmt.Errorf("watch %s: %w", path, err)
		}
		poll = append(poll, unix.PollFd{Fd: int32(conn.Fd), Events: unix.POLLIN})
	}
	last := look(path)
	tell(Event{Path: path, Present: last.present})
	for {
		if _, err := unix.Poll(poll, int(watchPoll.Milliseconds())); err != nil && err != unix.EINTR {
			return fmt.Errorf("watch %s: %w", path, err)
		}
		if ctx.Err() != nil {
			return nil
		}
		removed := false
		for n := 0; len(poll) > 1 && n < watchMessages; n++ {
			ev, err := conn.ReadUEvent()
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if err != nil || ev == nil {
				continue // not an event we understand, or lost ones (ENOBUFS): the look below decides
			}
			if ev.Action == netlink.REMOVE && ev.Env["SUBSYSTEM"] == "block" &&
				ev.Env["MAJOR"]+":"+ev.Env["MINOR"] == last.number {
				removed = true
			}
		}
		now := look(path)
		switch {
		case now.present != last.present:
			tell(Event{Path: path, Present: now.present})
		case now.present && (now != last || removed && now.number != ""):
			tell(Event{Path: path, Present: true, Replaced: true})
		}
		last = now
	}
}

// presence identifies what stands at a path.
type presence struct {
	present bool
	number  string // of a device, "major:minor"
	seq     string // the kernel's count of disks, tells two apart of the same number
	ino     uint64 // of a file
	dev     uint64
}

func look(path string) presence {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return presence{}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return presence{present: true, ino: st.Ino, dev: uint64(st.Dev)}
	case unix.S_IFBLK:
		p := presence{number: fmt.Sprintf("%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))}
		// A node in /dev may outlive its disk; sysfs knows.
		sys := "/sys/dev/block/" + p.number
		if _, err := os.Stat(sys); errors.Is(err, fs.ErrNotExist) {
			return presence{}
		}
		p.present = true
		for _, f := range []string{"/diskseq", "/../diskseq"} { // a partition's stands with its disk
			if b, err := os.ReadFile(sys + f); err == nil {
				p.seq = string(b)
				break
			}
		}
		return p
	}
	return presence{}
}
