// Package exit is how commands end: an error with the status to exit with and a
// hint for the administrator. hastctl, hastd and the API share it, so that a
// refusal keeps its meaning on the way through the socket.
//
// It never prints and never ends the process: main does.
package exit

import (
	"errors"
	"fmt"
	"slices"
)

// Code is the exit status of a program, of the family of sysexits.h.
type Code int

// What a program ends with.
const (
	OK          Code = 0
	Usage       Code = 64 // wrong arguments, or a name nobody knows
	Unreachable Code = 69 // the daemon is not reachable
	Internal    Code = 70 // a bug
	CantCreate  Code = 73 // a component is missing or does not fit on its disk
	IO          Code = 74 // reading or writing failed
	Again       Code = 75 // busy or timed out: try again
	Refused     Code = 77 // a policy or rule forbids it
	Config      Code = 78 // the configuration has mistakes
)

// severity orders the codes for commands that work on several resources: the less
// a mere repetition would help, the worse.
var severity = []Code{OK, Again, Unreachable, Refused, CantCreate, IO, Usage, Config, Internal}

// Worst returns the worst of the codes, OK if there is none.
func Worst(codes ...Code) Code {
	w := 0
	for _, c := range codes {
		i := slices.Index(severity, c)
		if i < 0 {
			i = len(severity) - 1
		}
		w = max(w, i)
	}
	return severity[w]
}

// Error is a failure as an administrator reads it.
type Error struct {
	Code Code
	Text string // what failed, on what; no full stop at its end
	Hint string // what to do; may be empty
	Err  error  // the cause, if it is of use to callers; not printed
}

func (e *Error) Error() string { return e.Text }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// New makes an error without a cause.
func New(code Code, hint, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Text: err.Error(), Hint: hint, Err: errors.Unwrap(err)}
}

// CodeOf is what to exit with after err: Internal for errors that nobody
// classified.
func CodeOf(err error) Code {
	if err == nil {
		return OK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}

// HintOf is the hint that travels with err, or nothing.
func HintOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}
