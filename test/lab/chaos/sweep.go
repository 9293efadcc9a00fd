package chaos

import (
	"context"
	"errors"
	"os"
	"strings"
)

// sweep takes away what a daemon that was killed left of its device, when the run
// ends before another was started, which would do so.
func (r *run) sweep() error {
	ctx, cancel := context.WithTimeout(context.Background(), goneLimit)
	defer cancel()
	var errs []error
	for _, n := range r.lab.Nodes {
		dir := n.Dir() + "/fuse/"
		b, err := os.ReadFile("/proc/self/mountinfo")
		errs = append(errs, err)
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 5 || !strings.HasPrefix(f[4], dir) {
				continue
			}
			if dev, err := os.Readlink(n.Device()); err == nil {
				_, err = tool(ctx, "losetup", "-d", dev)
				errs = append(errs, err)
			}
			_, err := tool(ctx, "umount", "-l", f[4])
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
