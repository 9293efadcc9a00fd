package replicate

import "hastd/metadata"

// Instant is a moment of a clock that never jumps, in nanoseconds. Zero is never
// a moment.
type Instant int64

// Seconds and milliseconds as spans between Instants, in nanoseconds.
const (
	Millisecond Instant = 1e6
	Second      Instant = 1e9
)

// Handle names memory of the shell: a payload, a read's destination, a message's
// body, hashes. Zero is none.
type Handle uint32

// ReqID names an application request; the shell draws it and gets it back.
type ReqID uint32

// OpID names an operation the machine asked for; the answer carries it.
type OpID uint64

// SessionID names one authenticated connection to the peer; the shell never uses
// one twice.
type SessionID uint32

// EventKind says what happened.
type EventKind uint8

// The events.
const (
	// EvRequest: the application asks. Req, Request, Off, Len, Flags, Buf. Only
	// while the provider is running (between EffProviderStart and the answer to
	// EffProviderStop); never longer than MaxRequest allows.
	EvRequest EventKind = iota + 1
	// EvDone: an operation on the component's data (EffDisk) ended. Op, Err; Mask
	// for DiskReadHash (blocks that are all zero) and DiskCompare (blocks that
	// differ, and in Zeroes which of these are all zero here). Buf where the shell
	// allocated the memory.
	EvDone
	// EvCommitted: a metadata commit (EffCommit) ended. Op, Err.
	EvCommitted
	// EvOpened: answer to EffOpen. Op, Err, Image, Text (why it failed).
	EvOpened
	// EvClosed: answer to EffClose. Op.
	EvClosed
	// EvDiskFailed: the component stopped working outside an operation (it
	// vanished, or an operation has been silent for disk-timeout). Text.
	EvDiskFailed
	// EvSessionUp: a session to the peer is authenticated. Session, PeerRole (as
	// the hello said).
	EvSessionUp
	// EvSessionDown: it ended. Session, Text.
	EvSessionDown
	// EvUnreachable: an attempt to reach the peer failed on all addresses, or was
	// refused by it. Text says why; Refused is set if the peer answered.
	EvUnreachable
	// EvMessage: the peer says. Session, Msg.
	EvMessage
	// EvProviderUp: answer to EffProviderStart. Op, Err, Text.
	EvProviderUp
	// EvProviderDown: answer to EffProviderStop: no request of this provider will
	// come any more. Op, Err (ErrBusy: still running, somebody holds it open),
	// Text (who).
	EvProviderDown
	// EvMarked: answer to EffStateMark. Op, Err.
	EvMarked
	// EvCommand: an administrator or controller asks. Command.
	EvCommand
	// EvTick: Deadline passed.
	EvTick
)

// Request is what an application asks.
type Request uint8

// The application's requests.
const (
	ReqRead Request = iota + 1
	ReqWrite
	ReqZero // WRITE ZEROES and TRIM: zeroes on both replicas
	ReqFlush
)

// Flags of a request and of a message that carries it.
type Flags uint8

// The flags.
const (
	// FUA: answer only when this request is on stable storage.
	FUA Flags = 1 << iota
	// NoHole: zeroes that must stay allocated.
	NoHole
)

// Err is how an operation ended. Zero is success.
type Err uint8

// How operations end.
const (
	OK        Err = iota
	ErrIO         // the medium or the peer's replica failed
	ErrBusy       // somebody holds it open
	ErrShut       // the provider or daemon is closing
	ErrNoData     // no metadata on the component
	ErrOther      // anything else; the text says what
)

// Event is something that happened. Kind says which fields are meant.
type Event struct {
	Kind     EventKind
	Request  Request
	Flags    Flags
	Err      Err
	PeerRole metadata.Role
	Refused  bool
	Req      ReqID
	Buf      Handle
	Session  SessionID
	Op       OpID
	Off      int64
	Len      int64
	Mask     uint64
	Zeroes   uint64
	Text     string
	Msg      Msg
	Image    *metadata.Image
	Command  *Command
}

// CommandKind is what an administrator or controller asks.
type CommandKind uint8

// The commands.
const (
	CmdRole          CommandKind = iota + 1 // Role, Force
	CmdConnect                              // ends an administrative disconnection
	CmdDisconnect                           // parts from the peer until CmdConnect, over restarts
	CmdResume                               // ends a suspension: go on alone, or with WithError fail what waits
	CmdRecover                              // discard this node's data in a split-brain
	CmdShutdown                             // daemon stops cleanly: as role init, but keeps prevrole's meaning
	CmdReplaceConfig                        // Live settings changed: Config
	CmdGrant                                // what the cluster's view allows: Grant
	CmdSuspend                              // a primary answers nothing until CmdResume or its demotion
)

// Command is one order and its answer is EffAnswer with the same ID.
type Command struct {
	ID        uint64
	Kind      CommandKind
	Role      metadata.Role
	Force     bool // promotion against advice; demotion that cuts the provider's users
	WithError bool
	Config    *Live
	Grant     *Grant
}

// RefusalCode classifies a refused command; the command line turns it into an
// exit status.
type RefusalCode uint8

// Why commands are refused.
const (
	RefusedBusy     RefusalCode = iota + 1 // 75: in use, or try again later
	RefusedPolicy                          // 77: the rules forbid it
	RefusedIO                              // 74
	RefusedInternal                        // 70
)

// Refusal is why a command was not carried out, and what would help.
type Refusal struct {
	Code RefusalCode
	Text string // a sentence without a full stop at its end
	Hint string // what to do; may be empty
}

func (r *Refusal) Error() string { return r.Text }
