package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const probeTimeout = 2 * time.Second

// listen opens the socket of opts and says what an administrator connects to.
func listen(opts Options) (net.Listener, string, fs.FileInfo, error) {
	switch opts.Network {
	case "unix":
		return listenUnix(opts.Address, opts.Mode)
	case "tcp":
		ln, err := net.Listen("tcp", opts.Address)
		if err != nil {
			return nil, "", nil, fmt.Errorf("nbd server: cannot listen on %s: %w", opts.Address, err)
		}
		return ln, ln.Addr().String(), nil, nil
	}
	return nil, "", nil, fmt.Errorf("nbd server: unknown kind of socket %q; use \"unix\" or \"tcp\"", opts.Network)
}

func listenUnix(path string, mode os.FileMode) (net.Listener, string, fs.FileInfo, error) {
	if len(path) == 0 || path[0] == '@' {
		return nil, "", nil, fmt.Errorf("nbd server: %q is not the path of a socket", path)
	}
	if err := clearStale(path); err != nil {
		return nil, "", nil, err
	}
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		// The mode of the socket before bind is the most that the file may get:
		// nobody else can connect before the chmod below.
		var err error
		if cerr := rc.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), uint32(mode.Perm()&0o600)) }); cerr != nil {
			return cerr
		}
		return err
	}}
	ln, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, "", nil, fmt.Errorf("nbd server: cannot listen on %s: %w", path, err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // removeSocket looks first whose it is
	fail := func(err error) (net.Listener, string, fs.FileInfo, error) {
		ln.Close()
		os.Remove(path)
		return nil, "", nil, fmt.Errorf("nbd server: cannot prepare %s: %w", path, err)
	}
	if err := os.Chmod(path, mode.Perm()); err != nil {
		return fail(err)
	}
	sock, err := os.Lstat(path)
	if err != nil {
		return fail(err)
	}
	return ln, path, sock, nil
}

// clearStale removes a socket at path that nobody listens on. Anything else that
// is there is refused: it is not ours to delete.
func clearStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("nbd server: cannot look at %s: %w", path, err)
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("nbd server: %s exists and is not a socket; move it away or choose another path", path)
	}
	nc, err := net.DialTimeout("unix", path, probeTimeout)
	if err == nil {
		nc.Close()
		return fmt.Errorf("nbd server: %s is being served already; stop that server or choose another path", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("nbd server: cannot tell whether %s is being served: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("nbd server: cannot remove the stale socket: %w", err)
	}
	return nil
}

// removeSocket removes the socket at path if it is still the one that we made.
func removeSocket(path string, ours fs.FileInfo) error {
	if ours == nil {
		return nil
	}
	st, err := os.Lstat(path)
	if err != nil || !os.SameFile(st, ours) {
		return nil // gone, or another server's by now
	}
	return os.Remove(path)
}
