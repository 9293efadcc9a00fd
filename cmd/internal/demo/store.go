package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"hastd/cmd/internal/demo/stage"
	"hastd/cmd/internal/exit"
)

// store is how files come to stand on the device of a primary.
type store interface {
	// write gives a file to the store; it may still be only in memory.
	write(name string, data []byte) error
	// sync returns when a file that was written is safe.
	sync(name string) error
	// read gives a file back, or an error that is fs.ErrNotExist.
	read(name string) ([]byte, error)
	// close ends cleanly, with everything written to the device.
	close() error
	// abandon lets go of a device that is dead.
	abandon()
}

// Bounds of programs and system calls that touch the device.
const (
	mkfsLimit  = 60 * time.Second
	mountLimit = 30 * time.Second
)

// ext4Store is a filesystem on the device. Acknowledged is what both fsyncs, of
// the file and of its folder, have returned for.
type ext4Store struct{ dir string }

// format makes the filesystem.
func (d *demo) format(ctx context.Context, device string) error {
	ctx, cancel := context.WithTimeout(ctx, mkfsLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, d.mkfs, "-q", "-F", device).CombinedOutput()
	if err != nil {
		return exit.New(exit.IO, "look at dmesg", "mkfs.ext4 %s: %v: %s", device, err, out)
	}
	return nil
}

// mountStore mounts the device of a node in a folder of the node's.
func mountStore(device, dir string) (*ext4Store, error) {
	real, err := filepath.EvalSymlinks(device)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := stage.Within(mountLimit, func() error { return unix.Mount(real, dir, "ext4", 0, "") }); err != nil {
		return nil, fmt.Errorf("mount %s: %w", real, err)
	}
	return &ext4Store{dir}, nil
}

func (s *ext4Store) path(name string) string { return filepath.Join(s.dir, name) }

func (s *ext4Store) write(name string, data []byte) error {
	path := s.path(name)
	if err := s.makeDirs(filepath.Dir(path)); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// makeDirs makes the folders of a file; each is safe once its parent was synced.
func (s *ext4Store) makeDirs(dir string) error {
	if _, err := os.Stat(dir); err == nil || dir == s.dir {
		return err
	}
	parent := filepath.Dir(dir)
	if err := s.makeDirs(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return fsync(parent)
}

func (s *ext4Store) sync(name string) error {
	if err := fsync(s.path(name)); err != nil {
		return err
	}
	return fsync(filepath.Dir(s.path(name)))
}

func fsync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (s *ext4Store) read(name string) ([]byte, error) { return os.ReadFile(s.path(name)) }

func (s *ext4Store) close() error {
	return stage.Within(mountLimit, func() error {
		if err := unix.Unmount(s.dir, 0); err != nil {
			return fmt.Errorf("unmount %s: %w", s.dir, err)
		}
		return nil
	})
}

// abandon takes the mount out of sight at once; the kernel lets go of it when it
// can.
func (s *ext4Store) abandon() {
	_ = stage.Within(mountLimit, func() error { return unix.Unmount(s.dir, unix.MNT_DETACH) })
}

// unless carries out f, which may hang as long as a device does, but does not wait
// for it once ctx is done. f is waited for after the daemons have been killed:
// then everything on their devices ends.
func (d *demo) unless(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	d.left.Go(func() { done <- f() })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
