package runner

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	schedRR          = 2   // <linux/sched.h>
	schedResetOnFork = 0x1 // SCHED_FLAG_RESET_ON_FORK: what this thread starts is ordinary
	// priority is the lowest above all ordinary threads. The kernel's own (interrupts,
	// softdog's timer) stay above it.
	priority = 1
)

// realtime gives the calling thread SCHED_RR.
func realtime() error {
	attr := unix.SchedAttr{Policy: schedRR, Priority: priority, Flags: schedResetOnFork}
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
		return fmt.Errorf("SCHED_RR: %w", err)
	}
	return nil
}

// LockMemory keeps what the process has used in memory. It is not tried below a limit:
// the lock would succeed now, and an allocation fail later.
func LockMemory() error {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &lim); err != nil {
		return err
	}
	if lim.Cur != unix.RLIM_INFINITY && !mayLock() {
		return errors.New("RLIMIT_MEMLOCK is not infinite and CAP_IPC_LOCK is missing")
	}
	return unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
}

func mayLock() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&head, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0
}
