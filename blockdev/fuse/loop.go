package fuse

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// loopMajor is the device number of loop devices.
const loopMajor = 7

// loopTries is how often another process may snatch the free loop device that
// the kernel named.
const loopTries = 32

// attachLoop puts a free loop device over the file, in direct mode.
func attachLoop(file string, sector int) (string, error) {
	// Not os.Open: the runtime's poller would ask the file, served by this very
	// process, for readiness.
	fd, err := unix.Open(file, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", file, err)
	}
	defer unix.Close(fd)
	ctl, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("no loop devices here (modprobe loop may help): open /dev/loop-control: %w", err)
	}
	defer unix.Close(ctl)
	config := unix.LoopConfig{Fd: uint32(fd), Size: uint32(sector)}
	config.Info.Flags = unix.LO_FLAGS_DIRECT_IO
	copy(config.Info.File_name[:], loopTag(file))
	for range loopTries {
		number, err := unix.IoctlRetInt(ctl, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", fmt.Errorf("find a free loop device: %w", err)
		}
		dev := fmt.Sprintf("/dev/loop%d", number)
		lfd, err := unix.Open(dev, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) { // a /dev without devtmpfs
			if err = unix.Mknod(dev, unix.S_IFBLK|0o660, int(unix.Mkdev(loopMajor, uint32(number)))); err == nil || errors.Is(err, unix.EEXIST) {
				lfd, err = unix.Open(dev, unix.O_RDWR|unix.O_CLOEXEC, 0)
			}
		}
		if err != nil {
			return "", fmt.Errorf("open %s: %w", dev, err)
		}
		err = unix.IoctlLoopConfigure(lfd, &config)
		unix.Close(lfd)
		if err == nil {
			return dev, nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return "", fmt.Errorf("attach %s to %s: %w", dev, file, err)
		}
	}
	return "", errors.New("find a free loop device: others took each that the kernel named")
}

// detachLoop takes the file away from a loop device. While somebody has it open
// the kernel does so at the last close.
func detachLoop(dev string) error {
	fd, err := unix.Open(dev, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.LOOP_CLR_FD, 0)
	if e != 0 && e != unix.ENXIO { // ENXIO: there is none
		return e
	}
	return nil
}

// loopTag is what the loop device notes as the name of its file: the end of the
// path, as much as fits.
func loopTag(file string) string {
	const room = len(unix.LoopInfo64{}.File_name) - 1
	return file[max(0, len(file)-room):]
}

// loopsOf lists the loop devices over the file of the provider whose folder this
// is. Once its mount is gone the kernel gives the file's path without it, and the
// noted name has to tell.
func loopsOf(folder string) []string {
	var devs []string
	file := filepath.Join(folder, "mnt", fileName)
	paths, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		dev := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(path)))
		switch strings.TrimSuffix(string(b), "\n") {
		case file:
			devs = append(devs, dev)
		case "/" + fileName:
			if noted(dev) == loopTag(file) {
				devs = append(devs, dev)
			}
		}
	}
	return devs
}

// noted is the name of its file that a loop device was given.
func noted(dev string) string {
	fd, err := unix.Open(dev, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	info, err := unix.IoctlLoopGetStatus64(fd)
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(info.File_name[:])
}

// fuseMount is a mount of ours.
type fuseMount struct {
	dir  string
	conn uint32
}

// mountsBelow lists this package's mounts below dir. It reads the kernel's list
// only: a dead mount would answer nothing else.
func mountsBelow(dir string) ([]fuseMount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var mounts []fuseMount
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		before, after, _ := strings.Cut(sc.Text(), " - ")
		fields := strings.Fields(before)
		if len(fields) < 5 || !strings.HasPrefix(after, fsType+" ") {
			continue
		}
		at := mountEscapes.Replace(fields[4])
		if !strings.HasPrefix(at, dir+"/") {
			continue
		}
		_, minor, _ := strings.Cut(fields[2], ":")
		n, err := strconv.ParseUint(minor, 10, 32)
		if err != nil {
			continue
		}
		mounts = append(mounts, fuseMount{at, uint32(n)})
	}
	return mounts, sc.Err()
}

var mountEscapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// mountFUSE mounts an empty FUSE connection and returns its descriptor. Not left
// to the FUSE library, because that opens it inheritable: a hook program that
// outlives a killed daemon would keep the connection, and whoever uses the
// device would hang instead of getting EIO.
func mountFUSE(mnt, name string) (int, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("no FUSE here (modprobe fuse may help): open /dev/fuse: %w", err)
	}
	data := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,max_read=%d", fd, unix.S_IFDIR, os.Geteuid(), os.Getegid(), maxTransfer)
	if err := unix.Mount("hast-"+name, mnt, fsType, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, data); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("mount on %s: %w", mnt, err)
	}
	return fd, nil
}

// connectionOf is the number of the FUSE connection behind a mount.
func connectionOf(mnt string) (uint32, error) {
	mounts, err := mountsBelow(filepath.Dir(mnt))
	if err != nil {
		return 0, err
	}
	for i := len(mounts) - 1; i >= 0; i-- { // the topmost is the last
		if mounts[i].dir == mnt {
			return mounts[i].conn, nil
		}
	}
	return 0, fmt.Errorf("the mount on %s is not in /proc/self/mountinfo", mnt)
}

// abort ends every request of a FUSE connection, those that wait included, and
// lets no new one in.
func abort(conn uint32, mnt string) error {
	err := bounded("abort the FUSE connection", func() error {
		return os.WriteFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", conn), []byte("1"), 0)
	})
	if err == nil {
		return nil
	}
	// Without fusectl a forced unmount does the same; it says EBUSY when the
	// mount itself stays, which is ours to remove.
	err2 := bounded("abort the FUSE connection", func() error {
		err := unix.Unmount(mnt, unix.MNT_FORCE)
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL) {
			return nil
		}
		return err
	})
	return err2
}

// unmount takes a mount out of the tree, in use or not.
func unmount(mnt string) error {
	return bounded("unmount "+mnt, func() error {
		err := unix.Unmount(mnt, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // is not mounted
			return nil
		}
		return err
	})
}

// removeDir removes a provider's folder. Never what is below a mount: the
// folders are removed by name and only when empty.
func removeDir(dir string) error {
	for _, path := range []string{filepath.Join(dir, "mnt"), filepath.Join(dir, "link"), dir} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// checkPath refuses a path at which something else than a symlink stands.
func (p *Provider) checkPath() error {
	fi, err := os.Lstat(p.path)
	if err == nil && fi.Mode()&fs.ModeSymlink == 0 {
		return fmt.Errorf("serve over FUSE: %s exists and is not a symlink; move it away or choose another provider-path: %w", p.path, fs.ErrExist)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("serve over FUSE: %w", err)
	}
	return nil
}

// replaceLink makes path a symlink to target, in one step for whoever looks.
func replaceLink(target, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return nil
}

// removeLink removes path if it is a symlink to target, and its folder if that is
// /dev/hast and empty.
func removeLink(path, target string) error {
	got, err := os.Readlink(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EINVAL) {
		return nil // gone, or no symlink and so not ours
	}
	if err != nil {
		return err
	}
	if target == "" || got != target {
		return nil
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	if dir := filepath.Dir(path); dir == "/dev/hast" {
		_ = os.Remove(dir) // others may have theirs there
	}
	return nil
}
