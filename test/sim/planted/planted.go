// Package planted holds bugs that are put into production code on purpose, each
// with what must find it: an oracle of the simulation, or a Go test where the
// simulation has something of its own in the place. cmd/planted plants them one at a
// time and looks: an oracle that never fired proves nothing. The sources stay as
// they are; the compiler is given the edited files as an overlay.
package planted

import (
	"encoding/json"
	"fmt"
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
	Test   string // instead of an oracle: the arguments of a go test that must fail
	Sim    string // the simulator's command, by its folder; "": test/sim/cmd/sim
	Runs   int    // how many seeds must be enough, from 1 on
	Took   int    // the seed that caught it when the table was written last
	Edits  []Edit
}

// Catcher names what must notice a bug.
func (b *Bug) Catcher() string {
	if b.Test != "" {
		return "go test " + b.Test
	}
	return b.Oracle
}

// Result tells what was said of a bug.
type Result struct {
	Bug    Bug
	First  map[string]int // the first seed that each oracle spoke in
	Failed bool           // the test did
	Output string
}

// Found says whether what must notice the bug did.
func (r *Result) Found() bool { return r.Failed || r.First[r.Bug.Oracle] > 0 }

// Check says whether a bug's texts stand in the module as the table has them.
func Check(module string, b Bug) error {
	_, err := edited(module, b)
	return err
}

// edited gives the files of a bug as its edits make them, by path in the module.
func edited(module string, b Bug) (map[string]string, error) {
	files := map[string]string{}
	for _, e := range b.Edits {
		src, ok := files[e.File]
		if !ok {
			read, err := os.ReadFile(filepath.Join(module, e.File))
			if err != nil {
				return nil, err
			}
			src = string(read)
		}
		if n := strings.Count(src, e.Old); n != 1 {
			return nil, fmt.Errorf("planted bug %q: its text stands %d times in %s; write the table anew", b.Name, n, e.File)
		}
		files[e.File] = strings.Replace(src, e.Old, e.New, 1)
	}
	return files, nil
}

// overlay writes the edited files to dir, with the list that the compiler wants.
func overlay(module, dir string, files map[string]string) (string, error) {
	replace := map[string]string{}
	for path, src := range files {
		from, err := filepath.Abs(filepath.Join(module, path))
		if err != nil {
			return "", err
		}
		to := filepath.Join(dir, strings.ReplaceAll(path, "/", "_"))
		if err := os.WriteFile(to, []byte(src), 0o644); err != nil {
			return "", err
		}
		replace[from] = to
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, list, 0o644)
}

// Try plants a bug and runs what must notice it.
func Try(module string, b Bug) (*Result, error) {
	dir, err := os.MkdirTemp("", "planted")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	files, err := edited(module, b)
	if err != nil {
		return nil, err
	}
	list, err := overlay(module, dir, files)
	if err != nil {
		return nil, err
	}
	if b.Test != "" {
		return tryTest(module, list, b)
	}
	return trySim(module, list, filepath.Join(dir, "sim"), b)
}

var line = regexp.MustCompile(`(?m)^  (\S+) +\d+, seeds \[(\d+)`)

func trySim(module, list, program string, b Bug) (*Result, error) {
	sim := b.Sim
	if sim == "" {
		sim = "test/sim/cmd/sim"
	}
	build := exec.Command("go", "build", "-overlay", list, "-o", program, "./"+sim)
	build.Dir = module
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("planted bug %q does not compile: %w\n%s", b.Name, err, out)
	}
	cmd := exec.Command(program, "-runs", strconv.Itoa(b.Runs), "-until="+b.Oracle, "-tail", "0", "-table=false")
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

func tryTest(module, list string, b Bug) (*Result, error) {
	args := append([]string{"test", "-count=1", "-timeout=2m", "-overlay", list}, strings.Fields(b.Test)...)
	cmd := exec.Command("go", args...)
	cmd.Dir = module
	out, err := cmd.CombinedOutput()
	r := &Result{Bug: b, Output: string(out), Failed: err != nil && strings.Contains(string(out), "--- FAIL: ")}
	if err != nil && !r.Failed {
		return nil, fmt.Errorf("planted bug %q: its test did not run: %w\n%s", b.Name, err, out)
	}
	return r, nil
}
