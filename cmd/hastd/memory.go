package main

import (
	"fmt"
	"math/bits"
	"runtime"
	"runtime/debug"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// How much heap and how many threads the runtime gets before the daemon serves. A
// daemon with one resource under full load was seen to map 16 MiB of heap without
// any reserve, and to have 44 threads.
const (
	// reserveBase and reserveEach are the heap of the daemon and of a resource: a
	// third for what lives, a third for what is allocated between two collections,
	// a third for fragments and what the goal is overshot by.
	reserveBase = 24 << 20
	reserveEach = 12 << 20
	// ballastRatio is how many times the reserve the ballast is. The runtime keeps
	// 10 % more than it used in the last cycle, so the reserve has to be well below
	// a tenth of what is always in use.
	ballastRatio = 16
	// gcPercent is of the ballast and the rest: a third of the reserve may be
	// allocated between two collections.
	gcPercent = 2
	// plainGCPercent is for a heap without a ballast: it is small and mostly
	// bookkeeping, as payload has memory of its own.
	plainGCPercent = 400
	// ballastPiece is allocated at once: a heap arena.
	ballastPiece = 64 << 20
	// memoryLimit is what the collector gets busy at, the ballast not counted.
	memoryLimit = 1 << 30
	// The reserve is first used in spans as small and in objects as small as there
	// are, so that the runtime's bookkeeping for the worst case is there, too.
	spanSize = 8 << 10
	tinySize = 16
	// threadsBase and threadsEach are how many threads wait in the kernel at once at
	// most, for the daemon and for a resource: the workers of its disk (32), of a
	// synchronisation (8), of its device (8), and some.
	threadsBase = 24
	threadsEach = 56
	// reserveMax is for how many resources there is a reserve; more share it.
	reserveMax = 32
)

// ballast is never read or written, has no pages, and is never given up: the
// runtime would use its addresses.
var ballast [][]byte

// reserveHeap and touchReserve, before and after memory is locked, give the Go
// runtime all the heap it will use and keep it from giving any back: serving must
// not wait for the kernel to find memory. Locked memory cannot be given back with
// madvise; the runtime maps it anew instead, which fetches every page. It does so
// whenever it has 10 % more than the last cycle used, and it collects an idle heap
// every two minutes: an ordinary daemon shrinks when idle, and grows again under
// load, when memory may be short.
//
// So most of the heap is a ballast that is always in use and has no pages at all,
// and the rest stays within those 10 %. A memory limit without a percentage would
// not do: the runtime gives memory back from 95 % of the limit on, which is where
// the heap then always is.
func reserveHeap(resources int) error {
	debug.SetGCPercent(plainGCPercent)
	debug.SetMemoryLimit(memoryLimit)
	if raceDetector || bits.UintSize == 32 {
		return nil
	}
	for len(ballast)*ballastPiece < ballastRatio*reserve(resources) {
		if err := addBallast(); err != nil {
			return err
		}
	}
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit + int64(len(ballast))*ballastPiece)
	return nil
}

func reserve(resources int) int { return reserveBase + reserveEach*min(resources, reserveMax) }

// addBallast allocates what the collector never looks into, and takes its pages
// away: locking does not fetch them again.
func addBallast() error {
	piece := make([]byte, ballastPiece)
	at := unsafe.Pointer(unsafe.SliceData(piece))
	if _, err := unix.MmapPtr(-1, 0, at, ballastPiece, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED); err != nil {
		return fmt.Errorf("unmap %d bytes of ballast: %w", ballastPiece, err)
	}
	ballast = append(ballast, piece)
	return nil
}

// touchReserve makes the runtime map the reserve, and what it needs to manage it.
func touchReserve(resources int) {
	if len(ballast) == 0 {
		return
	}
	before := debug.SetGCPercent(-1) // a collection in between would give the same memory out again
	spans := make([][]byte, reserve(resources)/spanSize)
	for i := range spans {
		spans[i] = make([]byte, spanSize)
	}
	runtime.GC() // with all of it alive
	runtime.KeepAlive(spans)
	spans = nil
	tiny := make([]*[tinySize]byte, reserve(resources)/8/tinySize)
	runtime.GC()
	for i := range tiny {
		tiny[i] = new([tinySize]byte)
	}
	runtime.GC()
	runtime.KeepAlive(tiny)
	debug.SetGCPercent(before)
	tiny = nil
	runtime.GC()
}

// startThreads makes the runtime start n threads, which it keeps for ever: a
// goroutine that is locked to its thread and waits leaves the others to new ones.
func startThreads(n int) {
	var began, ended sync.WaitGroup
	release := make(chan struct{})
	for range n {
		began.Add(1)
		ended.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			began.Done()
			<-release
		})
	}
	began.Wait()
	close(release)
	ended.Wait()
}
