package demo

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hastd/cmd/internal/demo/stage"
	"hastd/cmd/internal/exit"
)

// close ends what runs and takes away what stands. After a failure the folder
// stays if so wished.
func (d *demo) close(failed error) error {
	var errs []error
	// The daemons first: whoever waits for a device of theirs is let go by that.
	for _, n := range d.nodes {
		if n != nil {
			errs = append(errs, n.kill())
		}
	}
	for _, n := range d.nodes {
		if n != nil && n.store != nil {
			n.store.abandon()
			n.store = nil
		}
	}
	if err := stage.Within(killLimit, func() error { d.left.Wait(); return nil }); err != nil {
		errs = append(errs, errors.New("a request to a device is still not answered"))
	}
	errs = append(errs, release(d.dir))
	if failed != nil && d.Keep {
		fmt.Fprintf(d.Err, "\nThe folder is kept: %s\n", d.dir)
		errs = append(errs, os.Remove(d.path(stage.LockName)))
	} else {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	if err := errors.Join(errs...); err != nil {
		if failed != nil {
			fmt.Fprintf(d.Err, "\nNot everything could be taken away: %v\n", err)
		}
		return exit.New(exit.IO, "look at mount and losetup -a, and remove "+d.dir, "the demonstration could not clean up: %w", err)
	}
	return nil
}

// releaseLimit bounds the taking away of mounts and loop devices: a device goes
// when the kernel has let go of what was mounted from it.
const releaseLimit = 15 * time.Second

// release unmounts everything below dir and everything mounted from loop devices
// over files below it, and detaches those devices.
func release(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	deadline := time.Now().Add(releaseLimit)
	for {
		left, err := releaseOnce(dir)
		if err == nil && len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(err, fmt.Errorf("%s do not go away", strings.Join(left, ", ")))
		}
		time.Sleep(pollEvery)
	}
}

// releaseOnce returns what is still there. The order matters: a filesystem holds
// its loop device, and a loop device can be told by its file only while that
// stands in its FUSE mount.
func releaseOnce(dir string) (left []string, err error) {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return nil, err
	}
	unmount := func(fuse bool) {
		for _, m := range slices.Backward(mounts) {
			if m.fuse != fuse {
				continue
			}
			if err := unix.Unmount(m.dir, unix.MNT_DETACH); err != nil {
				left = append(left, "mount "+m.dir)
			}
		}
	}
	unmount(false)
	for _, dev := range loopsBelow(dir) {
		left = append(left, dev) // gone or not is seen next time
		_ = stage.Within(releaseLimit/3, func() error { return detachLoop(dev) })
	}
	if len(left) == 0 {
		unmount(true)
	}
	return left, nil
}

type mount struct {
	dir  string
	fuse bool
}

// mountsBelow lists the mounts below dir, outer ones first.
func mountsBelow(dir string) ([]mount, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var below []mount
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 {
			continue
		}
		if at := unescape.Replace(fields[1]); strings.HasPrefix(at, dir+"/") {
			below = append(below, mount{at, strings.HasPrefix(fields[2], "fuse")})
		}
	}
	return below, lines.Err()
}

// unescape undoes how the kernel writes blanks and backslashes in its lists.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// loopsBelow lists the loop devices over files below dir.
func loopsBelow(dir string) []string {
	var devs []string
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err == nil && strings.HasPrefix(string(b), dir+"/") {
			devs = append(devs, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(file))))
		}
	}
	return devs
}

// attachLoop puts a loop device over a file.
func attachLoop(file string) (string, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer control.Close()
	back, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer back.Close()
	const tries = 20 // another process may take the same one first
	for range tries {
		var i int
		if i, err = unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE); err != nil {
			return "", err
		}
		path := fmt.Sprintf("/dev/loop%d", i)
		var dev *os.File
		if dev, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
			return "", err
		}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &unix.LoopConfig{Fd: uint32(back.Fd())})
		dev.Close()
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, syscall.EBUSY) {
			return "", err
		}
	}
	return "", err
}

func detachLoop(dev string) error {
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0)
}
