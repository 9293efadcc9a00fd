// Package replicate is the pure machine of one resource on one node: who writes
// what where, who may be primary, who copies what to whom, and when two replicas
// have parted.
//
// A shell (replicate/runner in the daemon, test/sim in the simulator) feeds it
// events and carries out its effects. The machine opens nothing, starts no
// goroutine, takes no lock, reads no clock, logs nothing and never touches a
// payload byte: buffers travel as handles.
//
// The contract with the shell:
//
//   - Step is called from one goroutine with a batch of events that happened, in
//     the order in which they happened, and returns effects in the order in which
//     they must begin. Effects on the component's data may overlap in time and
//     finish in any order, except that a flush covers every write and zeroing
//     whose completion the machine was told before it asked for the flush.
//     Metadata writes of a commit may reach the medium in any order; the commit is
//     done when all of them and a flush behind them are.
//   - Every effect that names an OpID is answered by exactly one event with that
//     OpID, however late; the machine recognises answers that no longer matter.
//   - Messages of a session arrive in order, whole, at most once; nothing arrives
//     after EvSessionDown of that session.
//   - A handle given to the machine (a write's payload, a read's destination, the
//     body of a message) is the machine's until it returns it: a request's with
//     EffReply, any other with EffRelease. An effect that uses a handle holds it
//     too: the shell gives the memory back only when the machine returned it and
//     no effect in progress uses it any more.
package replicate
