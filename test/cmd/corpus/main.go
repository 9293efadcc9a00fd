// Command corpus keeps a small part of what fuzzing found: for each fuzz target of a
// package, of the inputs in the fuzz cache, few and small ones that together reach all that
// the seeds and what stands in testdata/fuzz do not. They are added there and replayed by every
// `go test`. Nothing is taken away: what stands there may have been a finding once. An
// input that fails is named and not added. Run it in the module's root after fuzzing:
//
//	go run ./test/cmd/corpus ./metadata [FuzzLoad]
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math/bits"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What is kept of a target at most.
const (
	maxFiles = 60
	maxBytes = 200 << 10
	maxFile  = 32 << 10
	maxTried = 200 // replays; of more inputs, as many are taken evenly over the sizes
)

// oneInput bounds the replay of one input.
const oneInput = time.Minute

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "corpus:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("name a package, as in: go run ./test/cmd/corpus ./metadata")
	}
	pkg, only := args[0], args[1:]
	tmp, err := os.MkdirTemp("", "corpus")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	program := filepath.Join(tmp, "test")
	if out, err := exec.Command("go", "test", "-c", "-covermode=count", "-o", program, pkg).CombinedOutput(); err != nil {
		return fmt.Errorf("building the tests of %s: %w\n%s", pkg, err, out)
	}
	listing, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{.Dir}}", pkg).Output()
	if err != nil {
		return err
	}
	path, dir, _ := strings.Cut(strings.TrimSpace(string(listing)), " ")
	cache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		return err
	}
	c := corpus{program: program, tmp: tmp, dir: dir, cache: filepath.Join(strings.TrimSpace(string(cache)), "fuzz", path)}
	names, err := c.targets()
	if err != nil {
		return err
	}
	for _, name := range names {
		if len(only) == 0 || slices.Contains(only, name) {
			if err := c.reduce(name); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

type corpus struct{ program, tmp, dir, cache string }

var target = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

func (c *corpus) targets() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(c.dir, "*_test.go"))
	var names []string
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		for _, m := range target.FindAllSubmatch(src, -1) {
			names = append(names, string(m[1]))
		}
	}
	return names, err
}

// input is one file of a corpus.
type input struct {
	name    string
	data    []byte
	reaches []string
}

func (c *corpus) reduce(name string) error {
	kept := filepath.Join(c.dir, "testdata", "fuzz", name)
	inputs, err := c.candidates(name)
	if err != nil {
		return err
	}
	// The tests read files beside them: a place that has the same, and one input.
	place := filepath.Join(c.tmp, name)
	corpusDir := filepath.Join(place, "testdata", "fuzz", name)
	if err := os.MkdirAll(corpusDir, 0o755); err != nil {
		return err
	}
	if err := link(c.dir, place, "testdata"); err != nil {
		return err
	}
	if err := link(filepath.Join(c.dir, "testdata"), filepath.Join(place, "testdata"), "fuzz"); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := os.MkdirAll(kept, 0o755); err != nil {
		return err
	}
	old, err := os.ReadDir(kept)
	if err != nil {
		return err
	}
	files, total, added, tried := len(old), 0, 0, 0
	for _, e := range old {
		data, err := os.ReadFile(filepath.Join(kept, e.Name()))
		if err != nil {
			return err
		}
		total += len(data)
		if err := os.WriteFile(filepath.Join(corpusDir, e.Name()), data, 0o644); err != nil {
			return err
		}
	}
	reached := map[string]bool{}
	which := []string{"seed#"}
	for _, e := range old {
		which = append(which, "^"+e.Name()+"$") // one at a time: how often counts
	}
	for _, w := range which {
		reaches, err := c.replay(place, name, w)
		if err != nil {
			return fmt.Errorf("what is kept fails already: %w", err)
		}
		for _, r := range reaches {
			reached[r] = true
		}
	}
	tried = len(inputs)
	for i := range inputs {
		in := &inputs[i]
		at := filepath.Join(corpusDir, in.name)
		if err := os.WriteFile(at, in.data, 0o644); err != nil {
			return err
		}
		if in.reaches, err = c.replay(place, name, "^"+in.name+"$"); err != nil {
			fmt.Printf("%s: %s fails and is not added: %v\n", name, in.name, err)
		}
		if err := os.Remove(at); err != nil {
			return err
		}
	}
	for files < maxFiles {
		// What adds the most, the smallest of these.
		best, most := -1, 0
		for i := range inputs {
			n := 0
			for _, r := range inputs[i].reaches {
				if !reached[r] {
					n++
				}
			}
			if n > most && total+len(inputs[i].data) <= maxBytes {
				best, most = i, n
			}
		}
		if best < 0 {
			break
		}
		in := &inputs[best]
		for _, r := range in.reaches {
			reached[r] = true
		}
		files, total, added = files+1, total+len(in.data), added+1
		if err := os.WriteFile(filepath.Join(kept, in.name), in.data, 0o644); err != nil {
			return err
		}
	}
	fmt.Printf("%s: %d of %d inputs added, %d files with %d bytes\n", name, added, tried, files, total)
	return nil
}

// link makes place look like dir, but for one entry.
func link(dir, place, but string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == but {
			continue
		}
		if err := os.Symlink(filepath.Join(dir, e.Name()), filepath.Join(place, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// candidates are the inputs in the cache, the smallest first.
func (c *corpus) candidates(name string) ([]input, error) {
	dir := filepath.Join(c.cache, name)
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	var all []input
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if len(data) <= maxFile {
			all = append(all, input{name: e.Name(), data: data})
		}
	}
	slices.SortFunc(all, func(a, b input) int {
		return cmp.Or(cmp.Compare(len(a.data), len(b.data)), cmp.Compare(a.name, b.name))
	})
	if n := len(all); n > maxTried {
		some := make([]input, maxTried)
		for i := range some {
			some[i] = all[i*n/maxTried]
		}
		all = some
	}
	return all, nil
}

// replay runs inputs of a target and tells which blocks of code they reached, and
// how often, in powers of two.
func (c *corpus) replay(place, name, which string) ([]string, error) {
	profile := filepath.Join(c.tmp, "profile")
	ctx, cancel := context.WithTimeout(context.Background(), oneInput)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program, "-test.run", "^"+name+"$/"+which, "-test.coverprofile", profile)
	cmd.Dir = place
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	b, err := os.ReadFile(profile)
	if err != nil {
		return nil, err
	}
	var reached []string
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		block, rest, _ := strings.Cut(lines.Text(), " ")
		_, count, ok := strings.Cut(rest, " ")
		if !ok {
			continue // the head
		}
		if n, err := strconv.ParseUint(count, 10, 64); err == nil && n > 0 {
			reached = append(reached, block+" "+strconv.Itoa(bits.Len64(n)))
		}
	}
	return reached, nil
}
