package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// lend lets others reach a socket of this machine over its network.
func lend(address, path string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				fmt.Println("guest: error:", err)
				return
			}
			go between(c, path)
		}
	}()
	return nil
}

// between carries one question and its answer: the answerer ends the connection.
func between(c net.Conn, path string) {
	defer c.Close()
	s, err := net.Dial("unix", path)
	if err != nil {
		return // the end of the connection says it
	}
	defer s.Close()
	go func() { _, _ = io.Copy(s, c) }() // ends when either is closed
	_, _ = io.Copy(c, s)
}

// clocks tells what this machine believes of the time: two readings of the kernel, in
// nanoseconds, and the battery's clock in seconds.
func clocks() (Answer, error) {
	var boot, real unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return Answer{}, err
	}
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &real); err != nil {
		return Answer{}, err
	}
	rtc, err := battery()
	if err != nil {
		return Answer{}, err
	}
	source, err := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	if err != nil {
		return Answer{}, err
	}
	return Answer{Text: fmt.Sprintf("%d %d %d %s", boot.Nano(), real.Nano(), rtc, strings.TrimSpace(string(source)))}, nil
}
