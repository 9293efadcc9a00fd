// Command testrun runs the tests of all packages, shows what failed and little
// else, and ends with one plain line: N passed, N failed, N skipped. `make test`
// calls it.
//
//	testrun                     everything, with the race detector where gcc is there
//	testrun -short ./conf/...   some packages
//
// It decides only in which order and how packages run, and, with CI=true in the
// environment, that a test may be skipped only if test/skips.txt allows it. It
// never repeats a test that failed.
//
// The pure packages run without the race detector, unless -race=on asks for it.
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
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	race     string
	short    bool
	run      string
	timeout  time.Duration
	skips    string
	packages []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	var o options
	flag.StringVar(&o.race, "race", "auto", "the race detector: `on`, off, or auto (where gcc is there)")
	flag.BoolVar(&o.short, "short", false, "tell the tests to be short")
	flag.StringVar(&o.run, "run", "", "only tests whose names match this `expression`")
	flag.DurationVar(&o.timeout, "timeout", 20*time.Minute, "of each package")
	flag.StringVar(&o.skips, "skips", "test/skips.txt", "the `file` of tests that may be skipped although CI=true")
	flag.Parse()
	o.packages = flag.Args()
	if len(o.packages) == 0 {
		o.packages = []string{"./..."}
	}
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testrun: error:", err)
		os.Exit(1)
	}
}

// phase is a part of the packages that run alike.
type phase struct {
	why      string
	has      func(pkg string) bool
	parallel string // packages at a time; go test begins them in the order given
	race     bool   // may run under the race detector
	first    string // of its packages: a long one that would be the last, with nothing beside it
}

const (
	lab       = "hastd/test/lab"
	chaos     = "hastd/test/lab/chaos"
	sim       = "hastd/test/sim"
	interop   = "hastd/test/interop"
	transport = "hastd/transport"
)

// pure are packages in which nothing runs beside anything else, so that the race
// detector has nothing to find and only makes their simulations slow. -race=on runs them
// under it all the same.
var pure = []string{
	"hastd/carp", "hastd/cluster", "hastd/cluster/beat", "hastd/cluster/fence", "hastd/cluster/lease",
	"hastd/cluster/member", "hastd/cluster/view", "hastd/metadata", "hastd/replicate",
}

var (
	simulated = in(sim)
	daemons   = in(lab, interop, "hastd/test/contrib", "hastd/cmd/hastd", "hastd/cmd/hastctl", "hastd/cmd/internal/demo")
)

// phases are those of a run, in their order: who broke a rule reads it within seconds.
func phases(raceAsked bool) []phase {
	alone := func(pkg string) bool { return simulated(pkg) || !raceAsked && slices.Contains(pure, pkg) }
	return []phase{
		{why: "one goroutine that must be fast", has: alone, parallel: "2", first: sim},
		{why: "the parts", has: func(pkg string) bool { return !alone(pkg) && !daemons(pkg) }, parallel: "2", race: true, first: transport},
		{why: "real daemons that mostly wait", has: func(pkg string) bool { return daemons(pkg) && !timed(pkg) }, parallel: "2", race: true, first: chaos},
		{why: "real daemons with time limits: these say themselves which tests go beside each other", has: timed, parallel: "1", race: true},
	}
}

// timed measure times, and are alone.
func timed(pkg string) bool { return pkg == lab || pkg == interop }

func in(parents ...string) func(string) bool {
	return func(pkg string) bool {
		return slices.ContainsFunc(parents, func(p string) bool { return pkg == p || strings.HasPrefix(pkg, p+"/") })
	}
}

// of are the phase's packages, in the order in which they begin.
func (p phase) of(packages []string) []string {
	mine := slices.DeleteFunc(slices.Clone(packages), func(pkg string) bool { return !p.has(pkg) })
	if i := slices.Index(mine, p.first); i > 0 {
		mine = slices.Insert(slices.Delete(mine, i, i+1), 0, p.first)
	}
	return mine
}

var errFailed = errors.New("not everything passed")

func run(ctx context.Context, o options, out io.Writer) error {
	race, err := raceDetector(o.race)
	if err != nil {
		return err
	}
	var allowed *skipList
	if os.Getenv("CI") == "true" {
		if allowed, err = readSkips(o.skips); err != nil {
			return err
		}
	}
	packages, err := list(ctx, o.packages)
	if err != nil {
		return err
	}
	start := time.Now()
	r := newResult(out)
	for _, p := range phases(o.race == "on") {
		mine := p.of(packages)
		if len(mine) == 0 {
			continue
		}
		if err := test(ctx, o, p, race, mine, r); err != nil {
			return err
		}
	}
	forbidden := r.summary(allowed)
	fmt.Fprintf(out, "\n%s, race detector %s\n", time.Since(start).Round(time.Second), map[bool]string{true: "on", false: "off"}[race])
	if len(forbidden) > 0 {
		fmt.Fprintf(out, "skipped although CI=true and not in %s:\n", o.skips)
		for _, t := range forbidden {
			fmt.Fprintf(out, "  %s\n", t)
		}
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, len(r.skipped))
	if r.failed > 0 || len(forbidden) > 0 {
		return errFailed
	}
	if r.passed == 0 {
		return errors.New("no test ran")
	}
	return nil
}

func raceDetector(mode string) (bool, error) {
	_, gcc := exec.LookPath("gcc")
	switch mode {
	case "off":
		return false, nil
	case "auto":
		return gcc == nil, nil
	case "on":
		if gcc != nil {
			return false, errors.New("the race detector needs gcc: install it, or give -race=auto")
		}
		return true, nil
	}
	return false, fmt.Errorf("-race is %q; write on, off or auto", mode)
}

// list resolves patterns to the packages that have tests.
func list(ctx context.Context, patterns []string) ([]string, error) {
	args := append([]string{"list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}"}, patterns...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", strings.Join(patterns, " "), err)
	}
	return strings.Fields(string(out)), nil
}

// test runs packages and feeds their events to r. That tests fail is no error.
func test(ctx context.Context, o options, p phase, race bool, packages []string, r *result) error {
	// Never a cached result: the lab builds the daemons itself, and the cache does
	// not know what they were built from.
	args := []string{"test", "-json", "-count=1", "-p", p.parallel, "-timeout", o.timeout.String()}
	env := append(os.Environ(), "CGO_ENABLED=0")
	if race && p.race {
		args, env = append(args, "-race"), append(os.Environ(), "CGO_ENABLED=1")
	}
	if o.short {
		args = append(args, "-short")
	}
	if o.run != "" {
		args = append(args, "-run", o.run)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, packages...)...)
	cmd.Env = env
	// go test hands an interrupt on to the tests, which clean up; a kill would not.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := r.read(events)
	err = cmd.Wait()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	r.missing(packages)
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		return fmt.Errorf("go test: %w", err)
	}
	return readErr
}
