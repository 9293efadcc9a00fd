// Package runner is the shell around the pure machine of package replicate: it
// feeds one resource's machine with what happens on this node and carries out
// what the machine wants done. It owns the component, the provider, the session
// to the peer, all payload memory, the clock, the log lines and the hooks.
//
// The daemon (cmd/hastd) makes one Resource for each configured resource. The
// front ends of package blockdev call it as a blockdev.Device, the sessions of
// package transport as a handler of frames.
//
// It never decides: not who may write, not what is acknowledged when, not what is
// copied. It never answers an operation that did not end, and never gives memory
// back that a disk or a socket may still touch.
//
// One goroutine, the owner, runs the machine. Everybody else leaves word in a
// mailbox; the owner takes all of it at once, steps the machine once, and carries
// out the effects grouped: one submission to the disk, one send, one completion
// for each front end. The owner never waits for a disk, a peer or a program.
package runner
