// Command hastd is the storage daemon: it mirrors the resources of this node to
// their peers, gives applications a device, and serves the control socket and
// HTTP.
//
// This package wires the parts together and owns the process: flags, signals,
// sockets, memory, start and stop. What a resource does is decided in package
// replicate and carried out in replicate/runner; a resource that cannot work
// never keeps the daemon from starting, it says so in its status.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"hastd/cmd/internal/exit"
)

func main() {
	os.Exit(int(report(os.Stderr, run(context.Background(), os.Args[1:], stdio{os.Stdout, os.Stderr}))))
}

// stdio is where the daemon writes: help to Out, its log to Err.
type stdio struct {
	Out, Err io.Writer
}

// report prints why the daemon could not start or stop, and returns the status to
// exit with.
func report(w io.Writer, err error) exit.Code {
	if err == nil {
		return exit.OK
	}
	fmt.Fprintf(w, "hastd: error: %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
	if hint := exit.HintOf(err); hint != "" {
		fmt.Fprintf(w, "hastd: hint: %s\n", strings.ReplaceAll(hint, "\n", " "))
	}
	return exit.CodeOf(err)
}
