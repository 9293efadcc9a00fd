package main

import (
	"errors"
	"log/slog"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// prepareProcess makes the daemon safe to serve block I/O: memory reclaim may wait
// for it, so it must not wait for reclaim. What the system refuses is told once;
// the daemon is then as safe as any user of a network filesystem.
func prepareProcess(log *slog.Logger, resources int) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		log.Warn("GOGC or GOMEMLIMIT is set: no heap is reserved, and under memory pressure I/O may stall")
	} else if err := reserveHeap(resources); err != nil {
		log.Warn("heap could not be reserved: under memory pressure I/O may stall", "reason", err)
	}
	if err := lockMemory(); err != nil {
		log.Warn("memory is not locked: under memory pressure I/O may stall; give hastd CAP_IPC_LOCK or LimitMEMLOCK=infinity", "reason", err)
	}
	touchReserve(resources)
	if err := becomeFlusher(); err != nil {
		log.Warn("PR_SET_IO_FLUSHER was refused: under memory pressure I/O on this node may deadlock; give hastd CAP_SYS_RESOURCE, and a memory cgroup of its own", "reason", err)
	}
	startThreads(threadsBase + threadsEach*min(resources, reserveMax)) // flushers as this one
}

var errMemlock = errors.New("RLIMIT_MEMLOCK is not infinite and CAP_IPC_LOCK is missing")

// lockMemory keeps the daemon from being paged out. It is not tried below a limit:
// the lock would succeed now, and an allocation fail later.
func lockMemory() error {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &lim); err != nil {
		return err
	}
	if lim.Cur != unix.RLIM_INFINITY && !capable(unix.CAP_IPC_LOCK) {
		return errMemlock
	}
	// Not MCL_ONFAULT: a page that is only fetched when it is first touched is
	// fetched when memory may be short. What the runtime maps to be used is there
	// at once, in steps of 64 MiB of heap; what it only reserves stays empty.
	return unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE)
}

func capable(which uint) bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&head, &data[0]) == nil && data[which/32].Effective&(1<<(which%32)) != 0
}

// becomeFlusher tells the kernel that this process serves a block device. The
// state belongs to each thread; later ones inherit it.
func becomeFlusher() error {
	_, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
