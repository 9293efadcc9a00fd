package interop

import (
	"errors"
	"net"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// firstThread takes what is to be run on the first thread of this process.
var firstThread = make(chan func())

func init() { runtime.LockOSThread() } // main's is the first one, and no test gets it

// aside runs the tests, and meanwhile on the first thread what they want there.
func aside(m *testing.M) int {
	code := make(chan int)
	go func() { code <- m.Run() }()
	for {
		select {
		case do := <-firstThread:
			do()
		case c := <-code:
			return c
		}
	}
}

// A host has a namespace of its own when it is handed out, although the first thread of
// this process, as which /proc knows all of it, visits another host meanwhile.
func TestHostBesideAVisit(t *testing.T) {
	needNet(t)
	a := newHost(t, "a", 1)
	inside, leave, left := make(chan error), make(chan struct{}), make(chan error)
	firstThread <- func() {
		if unix.Gettid() != unix.Getpid() {
			inside <- errors.New("this is another thread")
			return
		}
		own, err := netns.Get()
		if err != nil {
			inside <- err
			return
		}
		defer own.Close()
		there, err := netns.GetFromPid(a.hold.Process.Pid)
		if err == nil {
			defer there.Close()
			err = netns.Set(there)
		}
		inside <- err
		if err == nil {
			<-leave
			left <- netns.Set(own)
		}
	}
	must(t, <-inside)
	defer func() {
		close(leave)
		must(t, <-left)
	}()
	for range 5 {
		b := newHost(t, "b", 2)
		lo, err := b.nl.LinkByName("lo")
		must(t, err)
		if lo.Attrs().Flags&net.FlagUp != 0 {
			t.Error("lo of a new host is up: it is somewhere else")
		}
	}
}
