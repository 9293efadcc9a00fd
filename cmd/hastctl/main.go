// Command hastctl is the administrator's hand on hastd: it creates and shows
// replicas, switches roles, watches and repairs.
//
// Data goes to standard output, errors and hints to standard error, and the exit
// status says what kind of failure it was. Apart from create, dump, resize, check
// and keygen, which work on files and devices, every command asks the daemon through
// its control socket; hastctl itself decides nothing.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"hastd/cmd/internal/exit"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := report(os.Stderr, run(ctx, os.Args[1:], stdio{os.Stdout, os.Stderr}))
	stop()
	os.Exit(int(code))
}

// stdio is where a command writes.
type stdio struct {
	Out, Err io.Writer
}

// reported is the outcome of a command that told its errors as they came.
type reported struct{ code exit.Code }

func (r *reported) Error() string { return fmt.Sprintf("ended with status %d", r.code) }

// noAdvice is the hint for what nobody thought of.
const noAdvice = "look at the daemon's log; if it stays, report it with the output of hastctl version and hastctl status --json"

// report prints err as one line of error and one of hint, and returns the status
// to exit with.
func report(w io.Writer, err error) exit.Code {
	var done *reported
	if errors.As(err, &done) {
		return done.code
	}
	if err == nil {
		return exit.OK
	}
	fmt.Fprintf(w, "hastctl: error: %s\n", oneLine(err.Error()))
	hint := exit.HintOf(err)
	if hint == "" {
		hint = noAdvice
	}
	fmt.Fprintf(w, "hastctl: hint: %s\n", oneLine(hint))
	return exit.CodeOf(err)
}

func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), " ")
}
