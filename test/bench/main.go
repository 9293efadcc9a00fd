// Command bench measures what a replicated write costs, beside what others charge
// for theirs: fio's NBD client drives the socket of a mirrored pair, of nbdkit on
// a plain file, and of a qemu-storage-daemon that mirrors to a second one, in one
// run and by turns, on files in memory. `make bench` runs it.
//
//	go run ./test/bench [-quick] [-only NAME] [-json] [-check]
//
// It uses the programs from the outside only. What it starts it ends, by process,
// and what it writes stands in one temporary folder that goes with it. It never
// compares figures of different runs: the machine may have been another then.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// runLimit bounds a whole run, whatever hangs.
const runLimit = time.Hour

type options struct {
	jobs    []job
	rounds  int
	runtime time.Duration // of one measurement
	size    int64         // of each device, in bytes
	dir     string
	json    bool
	check   bool
	hastd   string // programs to use instead of building them
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench: error:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	for _, p := range []string{"fio", "nbdkit", "qemu-storage-daemon"} {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%s is missing: install the Debian packages fio, nbdkit and qemu-system-common", p)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	dir, release, err := workFolder(o.dir, o.size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()

	say := func(format string, a ...any) { fmt.Fprintf(stderr, format+"\n", a...) }
	programs := o.hastd
	if programs == "" {
		say("building …")
		if programs, err = build(ctx, dir); err != nil {
			return err
		}
	}
	var stacks []*stack
	defer func() {
		for _, s := range stacks {
			s.stop()
		}
	}()
	for _, start := range []func(context.Context, string, int64) (*stack, error){
		func(ctx context.Context, dir string, size int64) (*stack, error) {
			return startPair(ctx, dir, size, programs)
		},
		startMirror,
		startPlain,
	} {
		s, err := start(ctx, dir, o.size)
		if err != nil {
			return err
		}
		stacks = append(stacks, s)
		// Every block is written once, so that nobody is measured on holes.
		if err := fill(ctx, s, o.size); err != nil {
			return err
		}
	}
	res := newResults(o, stacks)
	for round := range o.rounds {
		for _, j := range o.jobs {
			for i := range stacks {
				s := stacks[(i+round)%len(stacks)]
				m, err := measure(ctx, j, s, o, round)
				if err != nil {
					return err
				}
				res.add(j, s, m)
				say("round %d/%d  %-18s %-12s %8.0f/s %7.0f MB/s %6.1f µs of processor each", round+1, o.rounds, j.name, s.name, m.IOPS, m.MBps, m.CPU)
			}
		}
	}
	for _, s := range stacks {
		if err := s.finish(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	verdict := res.verdict()
	if o.json {
		err = res.writeJSON(stdout)
	} else {
		res.write(stdout)
	}
	if err == nil && o.check && !verdict {
		err = errors.New("below what is promised")
	}
	return err
}

func parse(args []string, stderr io.Writer) (options, error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	quick := fs.Bool("quick", false, "3 rounds of 1 s instead of 5 of 2 s")
	only := fs.String("only", "", "only jobs whose name contains this")
	rounds := fs.Int("rounds", 0, "how many rounds (0: as -quick says)")
	runtime := fs.Duration("runtime", 0, "how long one measurement takes (0: as -quick says)")
	size := fs.Int64("size", 256, "size of each device in MiB")
	dir := fs.String("dir", "/dev/shm", "folder on tmpfs to work in")
	asJSON := fs.Bool("json", false, "print JSON")
	check := fs.Bool("check", false, "exit with an error where the promise is not kept")
	programs := fs.String("programs", "", "folder with hastd and hastctl, instead of building them")
	if err := fs.Parse(args); err != nil {
		return options{}, err
	}
	o := options{rounds: *rounds, runtime: *runtime, size: *size << 20, dir: *dir, json: *asJSON, check: *check, hastd: *programs}
	if o.rounds <= 0 {
		o.rounds = map[bool]int{false: 5, true: 3}[*quick]
	}
	if o.runtime <= 0 {
		o.runtime = map[bool]time.Duration{false: 2 * time.Second, true: time.Second}[*quick]
	}
	o.runtime = max(o.runtime.Round(time.Second), time.Second) // fio counts seconds
	var names []string
	for _, j := range jobs {
		names = append(names, j.name)
		if strings.Contains(j.name, *only) {
			o.jobs = append(o.jobs, j)
		}
	}
	switch {
	case len(o.jobs) == 0:
		return o, fmt.Errorf("no job is called %q: there are %s", *only, strings.Join(names, ", "))
	case o.size < 16<<20:
		return o, errors.New("the devices are too small: -size 16 at least")
	}
	return o, nil
}

// workFolder makes a folder in memory: below dir if that is a tmpfs with enough
// room, else on a tmpfs of its own.
func workFolder(dir string, size int64) (path string, release func() error, err error) {
	need := 6 * size
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err == nil && fs.Type == unix.TMPFS_MAGIC && int64(fs.Bavail)*fs.Bsize > need {
		path, err := os.MkdirTemp(dir, "hastbench-")
		return path, func() error { return os.RemoveAll(path) }, err
	}
	if path, err = os.MkdirTemp("", "hastbench-"); err != nil {
		return "", nil, err
	}
	if err := unix.Mount("hastbench", path, "tmpfs", 0, fmt.Sprintf("size=%d", need)); err != nil {
		os.Remove(path)
		return "", nil, fmt.Errorf("%s is no tmpfs with %d MiB free, and another could not be mounted (as root it could): %w", dir, need>>20, err)
	}
	return path, func() error { return errors.Join(unix.Unmount(path, 0), os.Remove(path)) }, nil
}

// build makes the programs as `make build` does.
func build(ctx context.Context, dir string) (string, error) {
	bin := filepath.Join(dir, "bin")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", bin+"/", "hastd/cmd/hastd", "hastd/cmd/hastctl")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return bin, nil
}
