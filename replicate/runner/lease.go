package runner

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"hastd/replicate"
)

// With quorum the machine's clock is CLOCK_BOOTTIME, which goes on while the machine
// is suspended: the end of a lease is a moment of it. It is looked at once more right
// before applications are answered, because this process may have stood still since
// the machine decided.

// Boottime is a reading of CLOCK_BOOTTIME, as vipd hands it over; the same clock for
// all processes of a node.
type Boottime time.Duration

// BootNow reads the clock.
func BootNow() Boottime {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("runner: CLOCK_BOOTTIME cannot be read: %v", err)) // since Linux 2.6.39
	}
	return Boottime(ts.Nano())
}

// ownClock turns the end of a lease, a reading of CLOCK_BOOTTIME, into the machine's.
func (r *Resource) ownClock(g replicate.Grant) *replicate.Grant {
	if g.Until != 0 {
		g.Until = r.instant(Boottime(g.Until))
	}
	return &g
}

// instant is a reading of the clock as the machine's; never zero, and in the past if
// it was before the machine began.
func (r *Resource) instant(at Boottime) replicate.Instant {
	return max(replicate.Instant(at-r.booted), 0) + 1
}

// granted keeps what the machine accepted.
func (r *Resource) granted() {
	if r.opts.NeedLease {
		r.grant = r.machine.Status(r.turnAt).Grant
	}
}

// mayAnswer says whether applications may be told now that something succeeded.
func (r *Resource) mayAnswer() bool {
	return !r.opts.NeedLease || r.grant.Owner && r.now() < r.grant.Until
}

// withhold leaves to be answered what may be: without a lease only failures. The rest
// waits for the lease to be renewed; once the device goes away it has failed.
func (r *Resource) withhold() {
	f := &r.front
	may := r.mayAnswer()
	if !may && !r.leaving {
		kept := f.done[:0]
		for _, q := range f.done {
			if q.Err == nil {
				f.withheld = append(f.withheld, q)
			} else {
				kept = append(kept, q)
			}
		}
		clear(f.done[len(kept):])
		f.done = kept
		return
	}
	f.done = append(f.done, f.withheld...)
	clear(f.withheld)
	f.withheld = f.withheld[:0]
	for _, q := range f.done {
		if !may && q.Err == nil {
			q.Err = unix.EIO
		}
	}
}
