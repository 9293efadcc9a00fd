package runner

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Console is where somebody looks who stands before the machine.
type Console interface {
	// Warn writes lines. It must not block for long, and nothing is told of an error.
	Warn(lines []string)
}

// SystemConsole is that of the machine: /dev/console, or the kernel's log where there is
// none.
type SystemConsole struct{}

// kernWarning is the level of a line of the kernel's log.
const kernWarning = "<4>"

// Warn writes lines, each to its end.
func (SystemConsole) Warn(lines []string) {
	if writeLines("/dev/console", "", "\r\n", lines) != nil {
		_ = writeLines("/dev/kmsg", kernWarning+"vipd: ", "\n", lines) // the log has them, too
	}
}

// writeLines never waits: a console may be held up by flow control.
func writeLines(path, before, after string, lines []string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	for _, l := range lines {
		// One call for each line: the kernel's log takes one record at a time.
		if _, err := unix.Write(fd, []byte(before+strings.ReplaceAll(l, "\n", " ")+after)); err != nil {
			return &os.PathError{Op: "write", Path: path, Err: err}
		}
	}
	return nil
}
