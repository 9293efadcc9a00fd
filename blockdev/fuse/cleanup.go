package fuse

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"hastd/blockdev"
)

// Cleanup removes what killed daemons left of their providers below dir, the run
// directory: symlinks, loop devices, mounts, folders. What a living process
// serves is left alone. It returns what it did, a sentence each, with those that
// still hold a dead device: the administrator has to end or unmount them, and the
// kernel lets go of the device then.
func Cleanup(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("clean up FUSE providers: %w", err)
	}
	var did []string
	var errs []error
	for _, e := range entries {
		folder := filepath.Join(dir, e.Name())
		if !e.IsDir() || !ours(folder) {
			continue
		}
		lock, err := claim(folder)
		var served *servedError
		if errors.As(err, &served) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		notes, err := cleanUp(folder)
		if err == nil {
			err = removeDir(folder)
		}
		lock.Close()
		did, errs = append(did, notes...), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return did, fmt.Errorf("clean up FUSE providers: %w", err)
	}
	return did, nil
}

// servedError is a provider's folder that belongs to a living process.
type servedError struct {
	folder string
	users  []string
}

func (e *servedError) Error() string {
	return fmt.Sprintf("%s belongs to a provider being served by %s; end it, or use another run directory", e.folder, strings.Join(e.users, ", "))
}

// claim opens a provider's note and locks it for as long as it stays open. A
// killed process holds no lock, so the folder of one that does is alive.
func claim(folder string) (*os.File, error) {
	path := filepath.Join(folder, "link")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			users, _ := blockdev.Holders(path)
			return nil, &servedError{folder, users}
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// cleanUp takes down what is left of one provider, up to its folder, which the
// caller has claimed.
func cleanUp(folder string) (did []string, err error) {
	real, err := filepath.EvalSymlinks(folder) // as the kernel's lists name it
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return nil, err
	}
	var errs []error
	note := func(err error, format string, args ...any) {
		if err != nil {
			errs = append(errs, err)
		} else {
			did = append(did, fmt.Sprintf(format, args...))
		}
	}
	mounts, err := mountsBelow(real)
	if err != nil {
		return nil, err
	}
	// Requests first: a loop device waits for its own when it is detached.
	for _, m := range mounts {
		errs = append(errs, abort(m.conn, m.dir))
	}
	if b, err := os.ReadFile(filepath.Join(real, "link")); err != nil {
		errs = append(errs, err)
	} else if link := string(b); filepath.IsAbs(link) {
		// Whatever loop device it leads to by now: the path is ours.
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, "/dev/loop") {
			note(removeLink(link, target), "removed the symlink %s to %s", link, target)
		}
	}
	for _, dev := range loopsOf(real) {
		users, _ := blockdev.Holders(dev)
		held := ""
		if len(users) > 0 {
			held = ", which goes once it is no longer held by " + strings.Join(users, ", ")
		}
		note(bounded("detach "+dev, func() error { return detachLoop(dev) }), "detached %s%s", dev, held)
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		note(unmount(mounts[i].dir), "unmounted %s", mounts[i].dir)
	}
	return did, errors.Join(errs...)
}

// ours says whether a folder is one of a provider, and nothing else.
func ours(folder string) bool {
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) == 0 {
		return false
	}
	for _, e := range entries {
		if e.Name() != "mnt" && e.Name() != "link" {
			return false
		}
	}
	return true
}
