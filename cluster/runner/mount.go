package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hastd/cluster"
)

// Mount is a filesystem of a group. mount(8) and umount(8) do it: they know what
// each kind needs.
type Mount struct {
	Device, Dir, Type, Options string
}

// mountPause is the time between two looks at what keeps a mount busy.
const mountPause = 100 * time.Millisecond

// mounted says what is mounted on the directory, topmost.
func (d *Mount) mounted() (top mounted, ok bool, err error) {
	dir, err := filepath.EvalSymlinks(d.Dir)
	if err != nil {
		return mounted{}, false, err
	}
	err = eachMount(func(m mounted) {
		if m.dir == dir {
			top, ok = m, true // the last one is on top
		}
	})
	return top, ok, err
}

// elsewhere are the other directories on which the device is mounted.
func (d *Mount) elsewhere() (dirs []string, err error) {
	st, err := os.Stat(d.Device)
	if err != nil || st.Mode()&os.ModeDevice == 0 {
		return nil, nil // it is only there while this node is primary
	}
	own, err := filepath.EvalSymlinks(d.Dir)
	if err != nil {
		own = d.Dir
	}
	err = eachMount(func(m mounted) {
		if m.of(st) && m.dir != own {
			dirs = append(dirs, m.dir)
		}
	})
	return dirs, err
}

// mounted is a line of mountinfo.
type mounted struct {
	dev         uint64
	dir, source string
}

// of says whether it is the filesystem of a device. btrfs and bcachefs show a number of
// their own (of major 0) in place of the device's; their source names that. What others
// call their source is not looked at: it may be a path that hangs.
func (m *mounted) of(device os.FileInfo) bool {
	if unix.Major(m.dev) != 0 || !strings.HasPrefix(m.source, "/dev/") {
		return m.dev == deviceOf(device)
	}
	st, err := os.Stat(m.source)
	return err == nil && st.Mode()&os.ModeDevice != 0 && deviceOf(st) == deviceOf(device)
}

// eachMount reads the mounts of this process's namespace, in their order.
func eachMount(do func(m mounted)) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		w := strings.Fields(lines.Text())
		end := slices.Index(w, "-") // of the optional fields
		if len(w) < 5 || end < 0 || len(w) < end+3 {
			continue
		}
		major, minor, _ := strings.Cut(w[2], ":")
		a, _ := strconv.ParseUint(major, 10, 32)
		b, _ := strconv.ParseUint(minor, 10, 32)
		do(mounted{unix.Mkdev(uint32(a), uint32(b)), unescape(w[4]), unescape(w[end+2])})
	}
	return lines.Err()
}

// unescape reads the octal codes of proc(5).
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Probe says whether something is mounted there: ours, or in our way.
func (d *Mount) Probe(context.Context) (bool, error) {
	_, ok, err := d.mounted()
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return ok, err
}

// Up mounts the device.
func (d *Mount) Up(ctx context.Context, _ int) error {
	st, err := os.Stat(d.Dir)
	if err != nil || !st.IsDir() {
		return fmt.Errorf("mount on %s: it is no directory: create it on both nodes", d.Dir)
	}
	if m, ok, err := d.mounted(); err != nil {
		return err
	} else if ok {
		if st, err := os.Stat(d.Device); err == nil && m.of(st) {
			return nil
		}
		return fmt.Errorf("mount on %s: something else is mounted there", d.Dir)
	}
	argv := []string{"mount"}
	if d.Type != "" {
		argv = append(argv, "-t", d.Type)
	}
	if d.Options != "" {
		argv = append(argv, "-o", d.Options)
	}
	_, err = run(ctx, append(argv, d.Device, d.Dir), nil)
	return err
}

func deviceOf(st os.FileInfo) uint64 {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return s.Rdev
	}
	return 0
}

// Down unmounts. Who uses it is given time until the context ends, and named then.
func (d *Mount) Down(ctx context.Context) error {
	for {
		_, ok, err := d.mounted()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		dir := d.Dir
		if !ok {
			// Nobody else may have the device either: it is about to go.
			others, err := d.elsewhere()
			if err != nil || len(others) == 0 {
				return err
			}
			dir = others[len(others)-1]
		}
		if _, err = run(ctx, []string{"umount", dir}, nil); err == nil {
			continue // there may be one below
		}
		select {
		case <-ctx.Done():
			if who := users(dir); who != "" {
				return fmt.Errorf("unmount %s: in use by %s", dir, who)
			}
			return err
		case <-time.After(mountPause):
		}
	}
}

// Look says whether it is still mounted.
func (d *Mount) Look(ctx context.Context) (cluster.Look, error) {
	ok, err := d.Probe(ctx)
	switch {
	case err != nil:
		return cluster.LookUnknown, err
	case ok:
		return cluster.LookOnline, nil
	}
	return cluster.LookOffline, nil
}

// Seek says whether something is mounted there, or the device anywhere.
func (d *Mount) Seek(ctx context.Context) (cluster.Look, error) {
	look, err := d.Look(ctx)
	if look != cluster.LookOffline {
		return look, err
	}
	others, err := d.elsewhere()
	switch {
	case err != nil:
		return cluster.LookUnknown, err
	case len(others) > 0:
		return cluster.LookOnline, nil
	}
	return cluster.LookOffline, nil
}

// maxUsers bounds how many processes are named.
const maxUsers = 5

// users names processes with a file or a directory below dir.
func users(dir string) string {
	pids, _ := filepath.Glob("/proc/[0-9]*")
	var names []string
	for _, p := range pids {
		links, _ := filepath.Glob(p + "/fd/*")
		for _, l := range append(links, p+"/cwd", p+"/root") {
			to, err := os.Readlink(l)
			if err == nil && (to == dir || strings.HasPrefix(to, dir+"/")) {
				name, _ := os.ReadFile(p + "/comm")
				names = append(names, strings.TrimSpace(string(name))+" ("+filepath.Base(p)+")")
				break
			}
		}
		if len(names) == maxUsers {
			names = append(names, "and others")
			break
		}
	}
	return strings.Join(names, ", ")
}
