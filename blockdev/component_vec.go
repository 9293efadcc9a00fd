package blockdev

import (
	"fmt"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"
)

// vectored reads or writes n bytes from off with one system call. A short
// transfer is an error: the caller then goes through the pieces one by one.
func (c *Component) vectored(write bool, off, n int64, iov []unix.Iovec) error {
	trap, op := uintptr(unix.SYS_PREADV), "read"
	if write {
		trap, op = unix.SYS_PWRITEV, "write"
		if err := c.checkWrite(op, off, n); err != nil {
			return err
		}
	} else if err := c.check(op, off, n); err != nil {
		return err
	}
	for {
		// The offset is given as two halves; on 64-bit systems the first is all.
		got, _, e := unix.Syscall6(trap, uintptr(c.fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)), uintptr(off), 0, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return fmt.Errorf("%s %s at %d: %w", op, c.path, off, e)
		}
		if int64(got) != n {
			return io.ErrUnexpectedEOF
		}
		return nil
	}
}
