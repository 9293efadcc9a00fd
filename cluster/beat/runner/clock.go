package runner

import (
	"time"

	"golang.org/x/sys/unix"

	"hastd/cluster/beat"
)

// Boot is the clock of everything that nodes agree on, the leases too: CLOCK_BOOTTIME.
func Boot() beat.Instant { return boot() }

// boot is the time since this machine started, with the time that it was suspended:
// the others went on meanwhile.
func boot() beat.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("clock_gettime: " + err.Error()) // the clock is part of every kernel
	}
	return beat.Instant(ts.Nano())
}

func wall() int64 { return time.Now().UnixNano() }
