package blockdev

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func watched(t *testing.T, path string) (next func() Event) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	events, ended := make(chan Event, 16), make(chan error, 1)
	go func() { ended <- Watch(ctx, path, func(e Event) { events <- e }) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Watch did not end")
		}
	})
	return func() Event {
		t.Helper()
		select {
		case e := <-events:
			return e
		case <-time.After(10 * time.Second):
			t.Fatal("no event")
			return Event{}
		}
	}
}

func TestWatchSeesAFileVanishAndReturn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "component")
	if err := CreateFileComponent(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	next := watched(t, path)
	if e := next(); !e.Present {
		t.Fatal(e)
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if e := next(); e.Present {
		t.Fatal(e)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	if e := next(); !e.Present || e.Replaced {
		t.Fatal(e)
	}
}

// A loop device that is removed and added again is as near to pulling a disk as
// a test gets.
func TestWatchSeesADeviceVanishAndReturn(t *testing.T) {
	needRoot(t)
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skip("needs loop devices: " + err.Error())
	}
	defer ctl.Close()
	number := -1
	for n := 200; n < 240; n++ { // one that nobody has
		if got, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE); err != nil {
			t.Fatalf("%d: %v", got, err)
		}
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, ctl.Fd(), unix.LOOP_CTL_ADD, uintptr(n)); e == 0 {
			number = n
			break
		}
	}
	if number < 0 {
		t.Skip("no free number for a loop device")
	}
	remove := func() error { return unix.IoctlSetInt(int(ctl.Fd()), unix.LOOP_CTL_REMOVE, number) }
	node := filepath.Join(t.TempDir(), "disk")
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(number)))); err != nil {
		t.Fatal(err)
	}
	next := watched(t, node)
	if e := next(); !e.Present {
		t.Fatal(e)
	}
	began := time.Now()
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	if e := next(); e.Present {
		t.Fatal(e)
	}
	if took := time.Since(began); took > watchPoll/2 {
		t.Errorf("noticed after %v: by polling, not by the kernel's event", took)
	}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, ctl.Fd(), unix.LOOP_CTL_ADD, uintptr(number)); e != 0 {
		t.Fatal(e)
	}
	if e := next(); !e.Present {
		t.Fatal(e)
	}
	if err := remove(); err != nil {
		t.Error(err)
	}
}
