package chaos

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// below are the processes whose working folder is dir: a database server's own
// are that, also those whose parent is gone.
func below(dir string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// The link alone: what it leads to may be dead.
		if cwd, err := os.Readlink(filepath.Join("/proc", e.Name(), "cwd")); err == nil && cwd == dir {
			pids = append(pids, pid)
		}
	}
	return pids
}

// killBelow kills them, and says how many there were.
func killBelow(dir string) int {
	pids := below(dir)
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	return len(pids)
}
