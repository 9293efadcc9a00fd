// Package runner feeds the watchdog and makes this machine go down, as package fence
// decides. vipd has one Fencer; hastd, which feeds nothing, calls Now.
//
// The watchdog is fed from one thread that does nothing else: it waits in the kernel
// (poll), not in Go's scheduler, runs with SCHED_RR, and the pages that it has used once
// stay in memory. So neither other processes nor a lack of memory keep it waiting. What
// is not guaranteed: the thread shares Go's heap and its collector with the rest of the
// process. It waits while the collector stops the world (well below a millisecond with
// a heap of a few megabytes), and for a place among GOMAXPROCS threads if the others
// are all busy; it allocates, and if the process may have no more memory at all it ends
// as a whole. All of these end in the machine being reset, never in a watchdog that is
// fed by mistake.
//
// Pages are locked as they are touched (MCL_ONFAULT): locking all that Go maps would
// cost a small daemon several times its size (vipd has 10 MiB resident so, and VmLck
// counts addresses, not pages). Code that never ran is not in memory.
//
// It decides nothing, starts nothing again, and writes nothing to any disk: a machine
// that is to go down must not flush what another may already have changed.
package runner
