// Command chaos abuses a pair of real daemons with two applications on them until
// its time is over, and tells what happened. `make chaos DURATION=1h` calls it.
//
//	chaos -duration 10m -seed 7 -report chaos.md
//	chaos -faults 'link cut;both lose power'      these, one after the other
//
// Its exit status is 1 when something was lost, hung or would not heal; the folder
// with all logs is kept then.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"hastd/test/lab"
	"hastd/test/lab/chaos"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet("chaos", flag.ContinueOnError)
	duration := fs.Duration("duration", 10*time.Minute, "after which no new fault begins")
	seed := fs.Uint64("seed", uint64(time.Now().UnixNano()), "decides which faults happen")
	report := fs.String("report", "", "`file` for the report: JSON by the name .json, else Markdown")
	faults := fs.String("faults", "", "these `names`, or beginnings of them, parted by semicolons, instead of what the seed draws")
	keep := fs.Bool("keep", false, "keep the folder with the logs in any case")
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}
	if err := chaos.Needs(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "chaos-")
	if err != nil {
		return err
	}
	// The database's user passes through.
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	programs, err := lab.Build(dir, false)
	if err != nil {
		return err
	}
	o := chaos.Options{Dir: dir, Programs: programs, Seed: *seed, Duration: *duration, Log: stdout}
	if *faults != "" {
		o.Plan = strings.Split(*faults, ";")
	}
	fmt.Fprintf(stdout, "seed %d, in %s\n", *seed, dir)
	r, err := chaos.Run(ctx, o)
	r.Command, r.Revision = strings.Join(args, " "), revision(ctx)
	fmt.Fprintln(stdout)
	r.Markdown(stdout)
	if *report != "" {
		if e := r.WriteFile(*report); e != nil {
			return e
		}
	}
	if err != nil || *keep {
		fmt.Fprintln(stdout, "\nkept:", dir)
		if err != nil {
			return fmt.Errorf("seed %d: %w", *seed, err)
		}
		return nil
	}
	return os.RemoveAll(dir)
}

// revision is what is checked out.
func revision(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
