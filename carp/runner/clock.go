package runner

import (
	"time"

	"golang.org/x/sys/unix"

	"hastd/carp"
)

// boot is the time since this machine started, with the time that it was suspended:
// the others went on meanwhile.
func boot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("clock_gettime: " + err.Error()) // the clock is part of every kernel
	}
	return time.Duration(ts.Nano())
}

func (r *Runner) now() carp.Instant { return carp.Instant(boot()) }
