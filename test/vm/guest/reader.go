package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hastd/test/lab/nbdclient"
)

// reading is a block that a server on this machine answered with.
type reading struct {
	battery int64  // when, in seconds; it goes on while the machine stands still
	boot    int64  // in nanoseconds; it does not
	value   uint64 // its first bytes
}

const (
	readEvery   = 20 * time.Millisecond
	maxReadings = 4096 // the newest
)

var read []reading // mu

// readAgain reads the first block again and again, as long as it is served.
func readAgain(address, export string) {
	for ; ; time.Sleep(time.Second) {
		c, err := nbdclient.Dial(context.Background(), nbdclient.Options{Network: "tcp", Addr: address, Export: export})
		if err != nil {
			continue // it is not served here
		}
		b := make([]byte, 4096)
		for {
			if _, err := c.ReadAt(b, 0); err != nil {
				break
			}
			r := reading{value: binary.LittleEndian.Uint64(b)}
			if r.battery, err = battery(); err != nil {
				fmt.Println("guest: error:", err)
				return
			}
			var boot unix.Timespec
			if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
				return
			}
			r.boot = boot.Nano()
			mu.Lock()
			if read = append(read, r); len(read) > maxReadings {
				read = read[1:]
			}
			mu.Unlock()
			time.Sleep(readEvery)
		}
		c.Abort()
	}
}

// battery reads the clock that goes on whatever happens, in seconds.
func battery() (int64, error) {
	f, err := os.Open("/dev/rtc0")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	t, err := unix.IoctlGetRTCTime(int(f.Fd()))
	if err != nil {
		return 0, err
	}
	return time.Date(int(t.Year)+1900, time.Month(t.Mon+1), int(t.Mday), int(t.Hour), int(t.Min), int(t.Sec), 0, time.UTC).Unix(), nil
}

func readings(since string) (a Answer, err error) {
	from, err := strconv.ParseInt(since, 10, 64)
	if err != nil {
		return a, err
	}
	var b strings.Builder
	mu.Lock()
	defer mu.Unlock()
	for _, r := range read {
		if r.battery >= from && b.Len() < maxRead {
			fmt.Fprintln(&b, r.boot, r.value)
		}
	}
	return Answer{Text: b.String()}, nil
}
