package runner

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Device is a watchdog of the kernel. From Open on it counts.
type Device struct {
	fd   int
	path string
	// Identity is what its driver calls it; Timeout is what it counts.
	Identity string
	Timeout  time.Duration
	// Wayout says that it can be disarmed.
	Wayout bool
}

// WatchdogError says why there is no watchdog and what to do about it.
type WatchdogError struct {
	Path, Problem, Advice string
	Err                   error
}

func (e *WatchdogError) Error() string { return "watchdog " + e.Path + ": " + e.Problem }

// Unwrap gives the cause.
func (e *WatchdogError) Unwrap() error { return e.Err }

// OpenWatchdog arms the watchdog at path with a timeout of whole seconds. One that
// would count longer is refused, disarmed: others wait no longer than the timeout.
// Errors are *WatchdogError.
func OpenWatchdog(path string, timeout time.Duration) (*Device, error) {
	if err := CheckWatchdog(path); err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, &WatchdogError{path, "somebody else feeds it", "stop who does (systemd does with RuntimeWatchdogSec, watchdogd does), or give vipd another one", err}
	case err != nil:
		return nil, &WatchdogError{path, "open: " + err.Error(), "it needs a driver and root", err}
	}
	d := &Device{fd: fd, path: path, Identity: "unknown", Wayout: true}
	if info, err := unix.IoctlGetWatchdogInfo(fd); err == nil {
		d.Identity = strings.TrimRight(string(info.Identity[:]), "\x00")
		d.Wayout = info.Options&unix.WDIOF_MAGICCLOSE != 0 && !noWayout(path)
	}
	// Drivers that cannot be set have a fixed time; it may fit.
	set := unix.IoctlSetPointerInt(fd, unix.WDIOC_SETTIMEOUT, int(timeout/time.Second))
	got, err := unix.IoctlGetInt(fd, unix.WDIOC_GETTIMEOUT)
	d.Timeout = time.Duration(got) * time.Second
	var problem string
	switch {
	case err != nil && set != nil:
		problem = fmt.Sprintf("its timeout cannot be set to %s: %v", timeout, set)
	case err != nil: // it took what was asked for, and does not say it again
		d.Timeout = timeout
	case d.Timeout > timeout:
		problem = fmt.Sprintf("it counts %s and cannot count %s", d.Timeout, timeout)
	}
	if problem != "" {
		e := &WatchdogError{path, problem, "write a watchdog-timeout that it can count, the same on every node, or use another watchdog (softdog counts any)", set}
		if err := d.Disarm(); err != nil {
			e.Problem += "; and " + err.Error()
		}
		return nil, e
	}
	return d, nil
}

// CheckWatchdog says whether there is a watchdog, without opening it: who opens one
// arms it. Errors are *WatchdogError.
func CheckWatchdog(path string) error {
	const advice = "load the driver of the machine's own, or: modprobe softdog; and let it be loaded at boot (/etc/modules-load.d)"
	switch info, err := os.Stat(path); {
	case errors.Is(err, os.ErrNotExist):
		return &WatchdogError{path, "there is none", advice, err}
	case err != nil:
		return &WatchdogError{path, err.Error(), advice, err}
	case info.Mode()&os.ModeCharDevice == 0:
		return &WatchdogError{path, "it is no device", advice, nil}
	}
	return nil
}

// noWayout says whether the driver was told never to be disarmed.
func noWayout(path string) bool {
	name := filepath.Base(path)
	if name == "watchdog" { // the old name of the first
		name = "watchdog0"
	}
	b, err := os.ReadFile("/sys/class/watchdog/" + name + "/nowayout")
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

// Counts is its timeout.
func (d *Device) Counts() time.Duration { return d.Timeout }

// Feed begins the countdown anew. Any byte but a V does.
func (d *Device) Feed() error {
	if _, err := unix.Write(d.fd, []byte{0}); err != nil {
		return fmt.Errorf("write to watchdog %s: %w", d.path, err)
	}
	return nil
}

// Disarm ends the countdown.
func (d *Device) Disarm() error {
	_, err := unix.Write(d.fd, []byte("V"))
	err = errors.Join(err, unix.Close(d.fd))
	switch {
	case err != nil:
		return fmt.Errorf("watchdog %s: %w", d.path, err)
	case !d.Wayout:
		return fmt.Errorf("watchdog %s cannot be disarmed (nowayout)", d.path)
	}
	return nil
}
