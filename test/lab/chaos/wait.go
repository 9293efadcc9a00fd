package chaos

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Limits of waiting. The machine may be busy with other things; whoever waits
// longer than this does not wait, he hangs.
const (
	toolLimit    = 60 * time.Second // for a program that ends by itself
	readLimit    = 5 * time.Minute  // for one that reads everything, perhaps from a slow disk over the network
	promoteLimit = 60 * time.Second // for a promotion that has to succeed
	syncLimit    = 3 * time.Minute  // for both replicas to be complete
	moveLimit    = 60 * time.Second // for an application to get answers again
	quietLimit   = 60 * time.Second // for what is under way to end
	startLimit   = 2 * time.Minute  // for the database to recover, or a lost peer to be noticed
	goneLimit    = 30 * time.Second // for killed processes to be gone
	faultLimit   = 8 * time.Minute  // for a fault with everything about it
	pollEvery    = 20 * time.Millisecond
)

// await asks until done; what says what is waited for.
func await(ctx context.Context, limit time.Duration, what string, done func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	for {
		ok, err := done()
		if ok {
			return nil
		}
		if time.Now().After(deadline) {
			if err != nil {
				return fmt.Errorf("chaos: %s: not within %v: %w", what, limit, err)
			}
			return fmt.Errorf("chaos: %s: not within %v", what, limit)
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return fmt.Errorf("chaos: %s: %w", what, err)
		}
	}
}

// sleep is for the length of a fault, which is what was drawn.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// tool runs a program to its end and gives its standard output.
func tool(ctx context.Context, argv ...string) (string, error) {
	return command(ctx, nil, "", argv...)
}

// credential is who a program runs as; nil: as this process.
type credential = syscall.Credential

func command(ctx context.Context, as *credential, stdin string, argv ...string) (string, error) {
	return commandWithin(ctx, toolLimit, as, stdin, argv...)
}

func commandWithin(ctx context.Context, limit time.Duration, as *credential, stdin string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = time.Second
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Pdeathsig: syscall.SIGKILL, Setpgid: true}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return out.String(), fmt.Errorf("chaos: %s: %w: %s", strings.Join(argv, " "), err, cut(errs.String()+out.String()))
	}
	return out.String(), nil
}

// cut bounds what a program's output may add to an error.
func cut(s string) string {
	const most = 2000
	if s = strings.TrimSpace(s); len(s) > most {
		return s[:most/2] + " … " + s[len(s)-most/2:]
	}
	return s
}
