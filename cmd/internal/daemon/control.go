package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hastd/cmd/internal/exit"
)

// controlGroup may use the control socket.
const controlGroup = "hast"

// Socket is a Unix socket that this process alone serves.
type Socket struct {
	net.Listener
	path string
	lock *os.File
}

// ListenControl opens the control socket of the named program. A living daemon on it is an error, a
// socket that a killed one left is replaced.
func ListenControl(program, path string) (*Socket, error) {
	if max := len(syscall.RawSockaddrUnix{}.Path) - 1 - len(newSuffix); len(path) > max {
		return nil, exit.New(exit.Config, fmt.Sprintf("choose a path of at most %d bytes for control", max), "control socket %s: the path is too long for a socket", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, controlError(program, path, err)
	}
	// The lock goes with the process however it ends, so it tells a dead daemon
	// from a frozen one.
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, controlError(program, path, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, exit.New(exit.Again, "hastctl version --control "+path+" asks it; stop it first, or give this one another control socket",
				"another %s is running: it holds the control socket %s", program, path)
		}
		return nil, controlError(program, path, err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		lock.Close()
		return nil, exit.New(exit.Again, "stop it first, or choose another path for control", "another program serves the socket %s", path)
	}
	l, err := bindControl(path)
	if err != nil {
		lock.Close()
		return nil, controlError(program, path, err)
	}
	return &Socket{l, path, lock}, nil
}

const newSuffix = ".new"

// bindControl makes the socket under another name and moves it into place, so that
// nobody ever sees it with wrong permissions and a stale one is replaced at once.
func bindControl(path string) (net.Listener, error) {
	tmp := path + newSuffix
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	old := unix.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err = openToGroup(tmp); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		l.Close()
		os.Remove(tmp)
		return nil, err
	}
	return l, nil
}

// openToGroup lets the group use the socket, if there is one and we may.
func openToGroup(path string) error {
	g, err := user.LookupGroup(controlGroup)
	if err != nil {
		return nil
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return nil
	}
	if err := os.Chown(path, -1, gid); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return nil // an ordinary user's daemon, for that user alone
		}
		return err
	}
	return os.Chmod(path, 0o660)
}

func controlError(program, path string, err error) error {
	return &exit.Error{Code: exit.CantCreate, Text: fmt.Sprintf("control socket %s: %v", path, err), Hint: "run " + program + " as root, or choose another path for control", Err: err}
}

// Close stops listening and removes the socket. The lock file stays: removing it
// would let two daemons hold locks on two files of the same name.
func (c *Socket) Close() error {
	err := c.Listener.Close()
	os.Remove(c.path)
	c.lock.Close()
	return err
}
