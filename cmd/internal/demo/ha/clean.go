package ha

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"hastd/blockdev/fuse"
	"hastd/cmd/internal/demo/stage"
	"hastd/cmd/internal/exit"
	"hastd/replicate/runner"
)

// close ends what runs and takes away what stands.
func (d *demo) close() error {
	var errs []error
	errs = append(errs, d.client.stop())
	// The daemons first: whoever waits for a device of theirs is let go by that.
	for _, n := range d.nodes {
		if n != nil {
			_, err := n.kill()
			errs = append(errs, err)
		}
	}
	for _, n := range d.nodes {
		if n != nil {
			errs = append(errs, stopStore(n.dir))
		}
	}
	if d.net != nil {
		errs = append(errs, d.net.close()) // mounts go with their namespaces
	}
	if err := stage.Within(killLimit, func() error { d.left.Wait(); return nil }); err != nil {
		errs = append(errs, fmt.Errorf("what the client tells: %w", err))
	}
	errs = append(errs, release(d.dir), os.RemoveAll(d.dir))
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintf(d.Err, "\nNot everything could be taken away: %v\n", err)
		return exit.New(exit.IO, "look at ps and losetup -a, and remove "+d.dir, "the demonstration could not clean up: %w", err)
	}
	return nil
}

// releaseLimit bounds the taking away of loop devices: one goes when the kernel
// has let go of what was mounted from it, which it does at leisure once a
// namespace is gone.
const releaseLimit = 15 * time.Second

// release takes away what the daemons of a demonstration left: stores that have not
// noticed yet, and loop devices. The rest goes with the processes.
func release(dir string) error {
	nodes := []string{filepath.Join(dir, "alpha"), filepath.Join(dir, "bravo")}
	var errs []error
	for _, n := range nodes {
		errs = append(errs, stopStore(n))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return stage.Poll(context.Background(), releaseLimit, pollEvery, "loop devices to go", func() (bool, error) {
		gone := true
		for _, n := range nodes {
			providers := runner.FUSEDir(filepath.Join(n, "run"))
			if _, err := fuse.Cleanup(providers); err != nil {
				return false, err
			}
			// What a daemon that was killed just now still holds is left standing.
			left, err := os.ReadDir(providers)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return false, err
			}
			gone = gone && len(left) == 0
		}
		return gone, nil
	})
}
