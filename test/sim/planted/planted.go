// Package planted holds bugs that were put into production code on purpose, each
// with the oracle of the simulation that must find it. cmd/planted copies the
// tree, makes one edit after the other and runs the simulator on each copy: an
// oracle that never fired proves nothing.
package planted

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Edit replaces one text, which must stand in the file exactly once.
type Edit struct{ File, Old, New string }

// Bug is a mistake and what must notice it.
type Bug struct {
	Name   string
	Oracle string // as Violation.Oracle
	Runs   int    // how many seeds must be enough, from 1 on; 0: 400
	Took   int    // the seed that caught it when the table was written last
	Edits  []Edit
}

// Result tells what the simulator said of a bug.
type Result struct {
	Bug    Bug
	First  map[string]int // the first seed that each oracle spoke in
	Output string
}

// Found says whether the expected oracle fired.
func (r *Result) Found() bool { return r.First[r.Bug.Oracle] > 0 }

// Copy copies the Go sources of a module that the simulator needs into dir.
func Copy(module, dir string) error {
	for _, part := range []string{"go.mod", "go.sum", "metadata", "replicate", "test/sim"} {
		err := filepath.WalkDir(filepath.Join(module, part), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(module, path)
			if err != nil {
				return err
			}
			to := filepath.Join(dir, rel)
			switch {
			case d.IsDir() && d.Name() == "runner":
				return filepath.SkipDir
			case d.IsDir():
				return os.MkdirAll(to, 0o755)
			case strings.HasSuffix(path, "_test.go"):
				return nil
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(to, b, 0o644)
		})
		if err != nil {
			return fmt.Errorf("copying %s: %w", part, err)
		}
	}
	return nil
}

var line = regexp.MustCompile(`(?m)^  (\S+) +\d+, seeds \[(\d+)`)

// Check says whether a bug's texts stand in the module as the table has them.
func Check(module string, b Bug) error {
	for _, e := range b.Edits {
		if _, err := edited(module, b, e); err != nil {
			return err
		}
	}
	return nil
}

// edited is a file with an edit made.
func edited(module string, b Bug, e Edit) (string, error) {
	src, err := os.ReadFile(filepath.Join(module, e.File))
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(src), e.Old); n != 1 {
		return "", fmt.Errorf("planted bug %q: its text stands %d times in %s; write the table anew", b.Name, n, e.File)
	}
	return strings.Replace(string(src), e.Old, e.New, 1), nil
}

// Try plants a bug in a fresh copy of the module and runs the simulator on it.
func Try(module string, b Bug) (*Result, error) {
	dir, err := os.MkdirTemp("", "planted")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := Copy(module, dir); err != nil {
		return nil, err
	}
	for _, e := range b.Edits {
		src, err := edited(dir, b, e)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, e.File), []byte(src), 0o644); err != nil {
			return nil, err
		}
	}
	runs := b.Runs
	if runs == 0 {
		runs = 400
	}
	cmd := exec.Command("go", "run", "./test/sim/cmd/sim", "-runs", strconv.Itoa(runs), "-until="+b.Oracle, "-tail", "0", "-table=false")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	r := &Result{Bug: b, First: map[string]int{}, Output: string(out)}
	for _, m := range line.FindAllStringSubmatch(r.Output, -1) {
		r.First[m[1]], _ = strconv.Atoi(m[2])
	}
	if err != nil && len(r.First) == 0 {
		return nil, fmt.Errorf("planted bug %q: the simulator did not run: %w\n%s", b.Name, err, out)
	}
	return r, nil
}
