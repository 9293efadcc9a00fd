package replicate

import "hastd/metadata"

// EffectKind says what the shell must do.
type EffectKind uint8

// The effects.
const (
	// EffDisk: operate on the component's data area. Op, Disk, Off, Len, Flags
	// (NoHole), Mask, Buf, Aux. Answered by EvDone.
	EffDisk EffectKind = iota + 1
	// EffCommit: write Writes to the metadata device, then flush it. Op. Answered
	// by EvCommitted. There is never more than one under way. The slices stay the
	// machine's; their contents do not change until the answer.
	EffCommit
	// EffSend: send Msg on Session. Its Buf, if any, is held until the bytes left.
	EffSend
	// EffReply: request Req ended with Err. Its buffer goes back to the front end. If
	// Buf is set, that message body is what was read: Len bytes to be copied into
	// the request's buffer; it stays the machine's.
	EffReply
	// EffRelease: Buf (the body of a message, or memory from EffAlloc) is done with.
	EffRelease
	// EffOpen: open and lock the component, read its metadata. Op. Answered by
	// EvOpened.
	EffOpen
	// EffClose: close it. Unless it failed, everything under way on it was answered
	// before. Op. Answered by EvClosed.
	EffClose
	// EffStateMark: keep in the state directory that this replica is inconsistent
	// (Set), or forget it. The next EvOpened's image carries it. Op. Answered by
	// EvMarked.
	EffStateMark
	// EffConnect: keep trying to reach the peer (and accept it) until
	// EffDisconnect. With Now set the next attempt is made at once.
	EffConnect
	// EffDisconnect: end Session (if not zero); with Stop set also make and accept
	// no further attempts until EffConnect. Text tells the peer why.
	EffDisconnect
	// EffProviderStart: serve Size bytes in sectors of SectorSize. Op. Answered by
	// EvProviderUp.
	EffProviderStart
	// EffProviderStop: stop serving. Force cuts users. Op. Answered by
	// EvProviderDown. With Force requests not yet replied to are replied to later.
	EffProviderStop
	// EffAnswer: command Command ended; Refusal is nil on success.
	EffAnswer
	// EffReport: something people want to know. Report.
	EffReport
)

// DiskOp is an operation on the component's data area.
type DiskOp uint8

// The operations on data. The masked ones work on one window of 64 blocks (Off is
// a multiple of WindowSize) and only on the blocks whose bit is set in Mask; their
// buffer is laid out as the window itself (WindowSize bytes, less at the end of
// the device).
const (
	DiskRead  DiskOp = iota + 1 // Len bytes into Buf; if Buf is zero, into memory the shell allocates
	DiskWrite                   // Len bytes from Buf
	DiskZero                    // leave zeroes
	DiskFlush
	// DiskReadHash: read the masked blocks into memory the shell allocates itself
	// under the name Buf of the answer (Event.Buf), and hash each. Event.Mask:
	// which are all zero.
	DiskReadHash
	// DiskCompare: read the masked blocks, hash each, compare with the hashes that
	// came in the message body Aux (if it is zero, all differ). Event.Mask: which differ. Event.Buf: the blocks
	// read, in memory the shell allocates.
	DiskCompare
	// DiskWriteMasked: write the masked blocks from Buf; those in Aux64 are zeroes
	// (their bytes in Buf are not meant).
	DiskWriteMasked
)

// Effect is something the shell must do. Kind says which fields are meant.
type Effect struct {
	Kind       EffectKind
	Disk       DiskOp
	Flags      Flags
	Err        Err
	Force      bool
	Now        bool
	Stop       bool
	Set        bool
	Req        ReqID
	Buf        Handle
	Aux        Handle
	Session    SessionID
	SectorSize uint32
	Op         OpID
	Off        int64
	Len        int64
	Mask       uint64
	Zeroes     uint64 // DiskWriteMasked: which of Mask are zeroes
	Size       int64
	Command    uint64
	Text       string
	Msg        Msg
	Writes     []metadata.Write
	Refusal    *Refusal
	Report     *Report
}

// ReportKind is what people want to know.
type ReportKind uint8

// The reports. The shell turns each into one log line, one event and, where one
// exists, a metric and a hook.
const (
	ReportRole         ReportKind = iota + 1 // Old, New
	ReportConnected                          // Text: address is the shell's
	ReportDisconnected                       // Reason
	ReportRefused                            // connection refused by the verdict: Reason
	ReportSplitBrain                         // Reason with all four counters
	ReportSyncStart                          // New: "to-peer" | "from-peer"; Bytes to copy
	ReportSyncDone                           // Bytes copied, Duration
	ReportSyncStopped                        // Reason
	ReportStatus                             // Old, New: the status word
	ReportDisk                               // Old, New: the local disk's state; Reason
	ReportPeerDisk                           // Old, New
	ReportSuspended                          // New: reason
	ReportResumed
	ReportRepaired // a block that could not be read was mended from the peer: Off, Bytes
	ReportDataLoss // what could be read, and was not flushed, is gone: Reason
	ReportForced   // a promotion against advice
	ReportWarning  // Reason
	ReportVerdict  // what an agreement concluded: New, Reason; for debugging and tests
)

// Report is one thing people want to know.
type Report struct {
	Kind     ReportKind
	Old, New string
	Reason   string
	Off      int64
	Bytes    int64
	Duration Instant
}
