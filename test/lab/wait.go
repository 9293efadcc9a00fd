package lab

import (
	"fmt"
	"os"
	"time"
)

// Limits of waiting in the lab itself.
const (
	startLimit = 15 * time.Second // for a process to come up
	stopLimit  = 30 * time.Second // for a daemon to end after SIGTERM
	killLimit  = 15 * time.Second // for a killed process to be gone
	pollEvery  = 10 * time.Millisecond
)

// poll asks until done, and gives the last error then or when the limit is over.
func poll(limit time.Duration, ask func() (done bool, err error)) error {
	deadline := time.Now().Add(limit)
	for {
		done, err := ask()
		if done {
			return err
		}
		if time.Now().After(deadline) {
			if err == nil {
				err = os.ErrDeadlineExceeded
			}
			return fmt.Errorf("after %v: %w", limit, err)
		}
		time.Sleep(pollEvery)
	}
}

func readLink(path string) (string, error) { return os.Readlink(path) }
