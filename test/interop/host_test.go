package interop

import (
	"net"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// manyThreads is how many threads are tried for the first one.
const manyThreads = 200

// onFirstThread runs what it is given on the first thread of this process, if that is free.
func onFirstThread(do func()) (done bool) {
	tried, release := make(chan bool), make(chan struct{})
	defer close(release)
	for range manyThreads {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			first := unix.Gettid() == unix.Getpid()
			if first {
				do()
			}
			tried <- first
			<-release // so that the next one gets another thread
		}()
		if <-tried {
			return true
		}
	}
	return false
}

// A host has a namespace of its own when it is handed out, although the first thread of
// this process, as which /proc knows all of it, visits another host meanwhile.
func TestHostBesideAVisit(t *testing.T) {
	needNet(t)
	a := newHost(t, "a", 1)
	inside, leave, left := make(chan error), make(chan struct{}), make(chan error)
	go func() {
		visited := onFirstThread(func() {
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
			<-leave
			left <- netns.Set(own)
		})
		if !visited {
			close(inside)
		}
	}()
	err, visiting := <-inside
	must(t, err)
	if !visiting {
		t.Fatalf("the first thread is not among %d", manyThreads)
	}
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
