package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Cgroup is a memory cgroup of a test, for processes that must do with little. It
// stands below the root of the hierarchy, of version 1 or 2, whichever has the
// memory controller. Needs root.
type Cgroup struct {
	dir string
	v2  bool
}

// ErrNoCgroup is a machine where no memory cgroup can be made.
var ErrNoCgroup = errors.New("lab: no memory cgroup can be made here")

// CgroupEvents are what happened to a cgroup since it was made.
type CgroupEvents struct {
	LimitHits int64 // an allocation met the limit, and something was reclaimed first
	OOMKills  int64 // processes killed because nothing could be reclaimed
}

const (
	cgroupPrefix = "hast-lab-"
	// cgroupGone is how long a cgroup may take to be empty after its last process
	// was waited for.
	cgroupGone = 5 * time.Second
)

var cgroupNumber atomic.Int32

// NewCgroup makes a cgroup whose processes, with the page cache they fill, have at
// most limit bytes; 0 is no limit. Where none can be made the error wraps
// ErrNoCgroup.
func NewCgroup(limit int64) (*Cgroup, error) {
	root, v2, err := cgroupRoot()
	if err != nil {
		return nil, err
	}
	sweepCgroups(root)
	c := &Cgroup{dir: filepath.Join(root, fmt.Sprint(cgroupPrefix, os.Getpid(), "-", cgroupNumber.Add(1))), v2: v2}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCgroup, err)
	}
	if v2 {
		// Swap would make room without any write-back.
		if err := c.write("memory.swap.max", "0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(err, c.Remove())
		}
	}
	if err := c.SetLimit(limit); err != nil {
		return nil, errors.Join(err, c.Remove())
	}
	return c, nil
}

// cgroupRoot finds the hierarchy with the memory controller.
func cgroupRoot() (dir string, v2 bool, err error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", false, fmt.Errorf("%w: %w", ErrNoCgroup, err)
	}
	for line := range strings.Lines(string(b)) {
		before, after, _ := strings.Cut(line, " - ")
		f, kind := strings.Fields(before), strings.Fields(after)
		if len(f) < 5 || len(kind) < 3 {
			continue
		}
		switch {
		case kind[0] == "cgroup" && slices.Contains(strings.Split(kind[2], ","), "memory"):
			return f[4], false, nil
		case kind[0] == "cgroup2":
			b, _ := os.ReadFile(filepath.Join(f[4], "cgroup.controllers"))
			if !slices.Contains(strings.Fields(string(b)), "memory") {
				continue
			}
			if err := os.WriteFile(filepath.Join(f[4], "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
				return "", false, fmt.Errorf("%w: %w", ErrNoCgroup, err)
			}
			return f[4], true, nil
		}
	}
	return "", false, fmt.Errorf("%w: the memory controller is not mounted", ErrNoCgroup)
}

// sweepCgroups removes what tests left that were killed: only empty ones go.
func sweepCgroups(root string) {
	left, _ := filepath.Glob(filepath.Join(root, cgroupPrefix+"*"))
	for _, dir := range left {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), cgroupPrefix), "-")
		if n, err := strconv.Atoi(pid); err == nil && errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
			syscall.Rmdir(dir)
		}
	}
}

func (c *Cgroup) write(file, what string) error {
	return os.WriteFile(filepath.Join(c.dir, file), []byte(what), 0)
}

// file is the name of a file that both versions have under another one.
func (c *Cgroup) file(v1, v2 string) string {
	if c.v2 {
		return v2
	}
	return v1
}

// SetLimit changes the limit; 0 is none. The kernel first reclaims what is above.
func (c *Cgroup) SetLimit(limit int64) error {
	value := c.file("-1", "max")
	if limit > 0 {
		value = strconv.FormatInt(limit, 10)
	}
	if err := c.write(c.file("memory.limit_in_bytes", "memory.max"), value); err != nil {
		return fmt.Errorf("lab: limit of a cgroup: %w", err)
	}
	return nil
}

// Add puts a process into the cgroup. What it used before stays where it was.
func (c *Cgroup) Add(pid int) error {
	return c.write("cgroup.procs", strconv.Itoa(pid))
}

// Command is a command line that runs argv in the cgroup from its first page on,
// under the process id that it is started with.
func (c *Cgroup) Command(argv ...string) []string {
	return append([]string{"/bin/sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(c.dir, "cgroup.procs")}, argv...)
}

// Usage is how many bytes are charged to the cgroup.
func (c *Cgroup) Usage() int64 {
	b, _ := os.ReadFile(filepath.Join(c.dir, c.file("memory.usage_in_bytes", "memory.current")))
	n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n
}

// Events are what happened so far.
func (c *Cgroup) Events() (e CgroupEvents, err error) {
	if c.v2 {
		b, err := os.ReadFile(filepath.Join(c.dir, "memory.events"))
		return CgroupEvents{field(b, "max"), field(b, "oom_kill")}, err
	}
	b, err := os.ReadFile(filepath.Join(c.dir, "memory.failcnt"))
	if err != nil {
		return e, err
	}
	e.LimitHits, _ = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	b, err = os.ReadFile(filepath.Join(c.dir, "memory.oom_control"))
	e.OOMKills = field(b, "oom_kill")
	return e, err
}

// Stat is a value of memory.stat in bytes, -1 if there is none: "dirty" and
// "writeback" are called alike in both versions ("file_dirty" in version 2).
func (c *Cgroup) Stat(name string) int64 {
	b, _ := os.ReadFile(filepath.Join(c.dir, "memory.stat"))
	if n := field(b, name); n >= 0 {
		return n
	}
	return field(b, "file_"+name)
}

// field is the number beside a name in a file of lines "name number".
func field(b []byte, name string) int64 {
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == name {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err == nil {
				return n
			}
		}
	}
	return -1
}

// String is all there is to know, for a failure's report.
func (c *Cgroup) String() string {
	var b strings.Builder
	e, err := c.Events()
	fmt.Fprintf(&b, "%s: %d bytes charged, %+v %v\n", c.dir, c.Usage(), e, err)
	stat, _ := os.ReadFile(filepath.Join(c.dir, "memory.stat"))
	for line := range strings.Lines(string(stat)) {
		if f := strings.Fields(line); len(f) == 2 && f[1] != "0" && !strings.HasPrefix(f[0], "total_") {
			fmt.Fprintf(&b, "%s %s, ", f[0], f[1])
		}
	}
	procs, _ := os.ReadFile(filepath.Join(c.dir, "cgroup.procs"))
	fmt.Fprintf(&b, "\nprocesses: %s", strings.Join(strings.Fields(string(procs)), " "))
	return b.String()
}

// Remove removes the cgroup; its processes must have been waited for.
func (c *Cgroup) Remove() error {
	err := poll(cgroupGone, func() (bool, error) {
		err := syscall.Rmdir(c.dir)
		return err == nil || errors.Is(err, syscall.ENOENT), err
	})
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("lab: remove cgroup %s: %w", c.dir, err)
	}
	return nil
}
