package runner

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"hastd/cluster/fence"
)

// System is this machine. What it needs is opened beforehand: when it is needed, a
// disk may not answer any more, or there may be no memory for a path.
type System struct {
	log, key int // of the kernel; -1: not there
	restart  func() error
}

// kernEmergency is the level of a line of the kernel's log that every console shows.
const kernEmergency = "<0>"

// OpenSystem prepares it. What is missing is told when it is used.
func OpenSystem() *System {
	return &System{
		log: openQuick("/dev/kmsg"), key: openQuick("/proc/sysrq-trigger"),
		restart: func() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) },
	}
}

func openQuick(path string) int {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

// Close gives up what was opened.
func (s *System) Close() {
	for _, fd := range []int{s.log, s.key} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	s.log, s.key = -1, -1
}

// Warn writes one line to the kernel's log.
func (s *System) Warn(line string) error {
	if s.log < 0 {
		return errors.New("/dev/kmsg could not be opened")
	}
	if _, err := unix.Write(s.log, []byte(kernEmergency+strings.ReplaceAll(line, "\n", " ")+"\n")); err != nil {
		return fmt.Errorf("write to /dev/kmsg: %w", err)
	}
	return nil
}

// Keys of sysrq: neither writes what the filesystems still have.
const (
	keyBoot  = 'b'
	keyCrash = 'c'
)

// Reset makes the machine go down, by the shortest way that works.
func (s *System) Reset(how fence.Mode) error {
	if how == fence.Off {
		return errors.New("toc is off")
	}
	var bad []error
	if how == fence.Crash {
		bad = append(bad, s.press(keyCrash))
	}
	bad = append(bad, s.press(keyBoot))
	// It asks drivers to end first, which may hang: only if the key does nothing.
	if err := s.restart(); err != nil {
		bad = append(bad, fmt.Errorf("reboot: %w", err))
	}
	return errors.Join(bad...)
}

func (s *System) press(key byte) error {
	if s.key < 0 {
		return errors.New("/proc/sysrq-trigger could not be opened")
	}
	if _, err := unix.Write(s.key, []byte{key}); err != nil {
		return fmt.Errorf("write %c to /proc/sysrq-trigger: %w", key, err)
	}
	return nil
}
