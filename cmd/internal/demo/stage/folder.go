package stage

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"hastd/cmd/internal/exit"
)

// LockName is the file in the folder of a demonstration that is locked while it
// lives.
const LockName = "lock"

// maxSocketDir is the longest folder in which the sockets still fit into the
// kernel's addresses (108 bytes).
const maxSocketDir = 70

// MakeFolder makes a folder whose name begins with prefix, by which Sweep finds it.
// It is in use until the file is closed.
func MakeFolder(prefix string) (string, *os.File, error) {
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return "", nil, exit.New(exit.CantCreate, "is there room? Another place is taken with TMPDIR=/var/tmp", "make a temporary folder: %w", err)
	}
	// As the kernel's lists of mounts and loop devices name it.
	if dir, err = filepath.EvalSymlinks(dir); err == nil && len(dir) > maxSocketDir {
		os.Remove(dir)
		return "", nil, exit.New(exit.CantCreate, "take a shorter one: TMPDIR=/tmp", "the temporary folder %s is too long for sockets in it", dir)
	}
	var lock *os.File
	if err == nil {
		// Locked before it has its name: else another one's sweep could take it.
		if lock, err = LockFile(filepath.Join(dir, LockName+".new")); err == nil {
			err = os.Rename(lock.Name(), filepath.Join(dir, LockName))
		}
	}
	if err != nil {
		return "", nil, exit.New(exit.CantCreate, "", "the temporary folder %s: %w", dir, err)
	}
	return dir, lock, nil
}

// LockFile takes the lock on a file, or fails at once.
func LockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Sweep takes away the folders of demonstrations that were killed themselves, with
// what release takes down.
func Sweep(prefix string, release func(dir string) error) {
	folders, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	for _, dir := range folders {
		var st unix.Stat_t
		if unix.Lstat(dir, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Uid != uint32(os.Getuid()) {
			continue
		}
		// Without the file it was kept on purpose, or is just being made.
		if _, err := os.Lstat(filepath.Join(dir, LockName)); err != nil {
			continue
		}
		lock, err := LockFile(filepath.Join(dir, LockName))
		if err != nil {
			continue
		}
		if release(dir) == nil {
			os.RemoveAll(dir)
		}
		lock.Close()
	}
}
