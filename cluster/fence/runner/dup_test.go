package runner

import (
	"os"

	"golang.org/x/sys/unix"
)

// dup gives a descriptor that outlives the file.
func dup(f *os.File) (int, error) { return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0) }
