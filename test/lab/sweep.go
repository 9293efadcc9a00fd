package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// sweepLimit is how long one thing may take to be taken away.
const sweepLimit = 20 * time.Second

// Sweep takes away what a daemon that was killed left of its devices, where no other was
// started, which would do so: loop devices, and the mounts with their files. It tells
// what there was. A loop device that is in use goes with its last user.
func (n *Node) Sweep() (left []string, err error) {
	mounts, err := n.fuseMounts()
	errs := []error{err}
	// First the loop devices: one whose file's mount is gone cannot be told any more.
	loops, err := n.loops()
	errs = append(errs, err)
	away := func(what string, argv ...string) {
		left = append(left, what)
		ctx, cancel := context.WithTimeout(context.Background(), sweepLimit)
		defer cancel()
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.WaitDelay = time.Second
		if out, err := cmd.CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("lab: %s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out))))
		}
	}
	for _, l := range loops {
		away(l, "losetup", "--detach", l)
	}
	for _, m := range mounts {
		away(m, "umount", "--lazy", m)
	}
	return left, errors.Join(errs...)
}

// fuseMounts are the mount points of a node's devices.
func (n *Node) fuseMounts() (found []string, err error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], n.path("fuse")+"/") {
			found = append(found, f[4])
		}
	}
	return found, err
}

// loops are the loop devices over files in those mounts.
func (n *Node) loops() (found []string, err error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has just gone
		}
		if strings.HasPrefix(string(b), n.path("fuse")+"/") {
			found = append(found, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(f))))
		}
	}
	return found, err
}
