package blockdev

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// busy says who holds path, as far as it can be found.
func busy(path string) *BusyError {
	e := &BusyError{Path: path}
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return e
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		if pid := flockHolder(&st); pid > 0 {
			e.PID, e.Users = pid, []string{processName(pid)}
			return e
		}
	}
	e.Users, e.PID = holders(&st)
	return e
}

// Holders says who has the block device or file open: processes as
// "name (pid 123)", mounts, swap, devices stacked on it. It looks only at what
// the kernel lists and never waits for the device itself.
func Holders(path string) ([]string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, fmt.Errorf("find who uses %s: %w", path, err)
	}
	users, _ := holders(&st)
	return users, nil
}

func holders(st *unix.Stat_t) (users []string, first int) {
	device := st.Mode&unix.S_IFMT == unix.S_IFBLK
	if device {
		users = append(users, deviceHolders(uint64(st.Rdev))...)
	}
	for _, pid := range openers(st, device) {
		if first == 0 {
			first = pid
		}
		users = append(users, processName(pid))
	}
	return users, first
}

// openers lists the processes that have the file open.
func openers(st *unix.Stat_t, device bool) []int {
	var pids []int
	procs, _ := os.ReadDir("/proc")
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		dir := "/proc/" + p.Name() + "/fd/"
		fds, _ := os.ReadDir(dir) // gone or not ours to look at: skip
		for _, fd := range fds {
			// Never ask the file's filesystem: a dead FUSE or NFS mount would
			// hang us. DONT_SYNC is answered from what the kernel knows.
			var stx unix.Statx_t
			if unix.Statx(unix.AT_FDCWD, dir+fd.Name(), unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_INO, &stx) != nil {
				continue
			}
			same := uint32(stx.Mode)&unix.S_IFMT == st.Mode&unix.S_IFMT
			if device {
				same = same && unix.Mkdev(stx.Rdev_major, stx.Rdev_minor) == uint64(st.Rdev)
			} else {
				same = same && stx.Ino == st.Ino && unix.Mkdev(stx.Dev_major, stx.Dev_minor) == uint64(st.Dev)
			}
			if same {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

// deviceHolders lists what the kernel itself does with a block device and its
// partitions: mounts, swap, stacked devices.
func deviceHolders(rdev uint64) []string {
	var users []string
	devs := []uint64{rdev}
	sys := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(rdev), unix.Minor(rdev))
	if parts, err := filepath.Glob(sys + "/*/partition"); err == nil {
		for _, p := range parts {
			if d, ok := readDev(filepath.Join(filepath.Dir(p), "dev")); ok {
				devs = append(devs, d)
			}
		}
	}
	for _, d := range devs {
		for _, dir := range MountsOf(d) {
			users = append(users, "the mount on "+dir)
		}
		sys := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(d), unix.Minor(d))
		stacked, _ := os.ReadDir(sys + "/holders")
		for _, h := range stacked {
			users = append(users, "the device "+h.Name())
		}
	}
	if f, err := os.Open("/proc/swaps"); err == nil {
		defer f.Close()
		for sc := bufio.NewScanner(f); sc.Scan(); {
			path, _, _ := strings.Cut(sc.Text(), " ")
			var st unix.Stat_t
			if strings.HasPrefix(path, "/") && unix.Stat(unescape(path), &st) == nil &&
				st.Mode&unix.S_IFMT == unix.S_IFBLK && uint64(st.Rdev) == rdev {
				users = append(users, "swap")
			}
		}
	}
	return users
}

// MountsOf lists where the block device of that number is mounted, in this
// process's view. A mount of btrfs has a number of its own, and names its (first)
// device.
func MountsOf(rdev uint64) []string {
	want := fmt.Sprintf("%d:%d", unix.Major(rdev), unix.Minor(rdev))
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	var dirs []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// id parent major:minor root mountpoint …
		fields := strings.Fields(sc.Text())
		if len(fields) >= 5 && (fields[2] == want || strings.HasPrefix(fields[2], "0:") && isDevice(mountSource(fields), rdev)) {
			dirs = append(dirs, unescape(fields[4]))
		}
	}
	return dirs
}

// mountSource is what a line of mountinfo names as mounted.
func mountSource(fields []string) string {
	if i := slices.Index(fields, "-"); i >= 0 && i+2 < len(fields) {
		return unescape(fields[i+2])
	}
	return ""
}

// isDevice looks at nothing outside /dev: other filesystems may hang.
func isDevice(path string, rdev uint64) bool {
	var st unix.Stat_t
	return strings.HasPrefix(path, "/dev/") && unix.Stat(path, &st) == nil &&
		st.Mode&unix.S_IFMT == unix.S_IFBLK && uint64(st.Rdev) == rdev
}

// unescape undoes the octal escapes of /proc/*/mountinfo and /proc/swaps.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func readDev(path string) (uint64, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(string(b), "%d:%d", &major, &minor); err != nil {
		return 0, false
	}
	return unix.Mkdev(major, minor), true
}

// flockHolder finds the process that took the flock on a file, or 0.
func flockHolder(st *unix.Stat_t) int {
	f, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer f.Close()
	want := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino)
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// 1: FLOCK ADVISORY WRITE 1234 fe:00:5678 0 EOF
		fields := strings.Fields(sc.Text())
		if len(fields) >= 6 && fields[1] == "FLOCK" && fields[5] == want {
			pid, _ := strconv.Atoi(fields[4])
			return max(pid, 0)
		}
	}
	return 0
}

func processName(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	name := strings.TrimSpace(string(b))
	if err != nil || name == "" {
		name = "a process"
	}
	return fmt.Sprintf("%s (pid %d)", name, pid)
}

// loopOver names the loop device that is attached to a file, if any: its writes
// would go past us.
func loopOver(path string) string {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	if real, err = filepath.Abs(real); err != nil {
		return ""
	}
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && strings.TrimSuffix(string(b), "\n") == real {
			return "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(f)))
		}
	}
	return ""
}
