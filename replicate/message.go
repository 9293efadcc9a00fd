package replicate

import "hastd/metadata"

// Window is how many blocks one sync operation covers at most: one word of the
// dirty map.
const Window = 64

// WindowSize is a window in bytes.
const WindowSize = Window * metadata.BlockSize

// MsgKind is a message between the two machines of a resource.
type MsgKind uint8

// The messages. "Body" says what Buf names in the shell's memory; the others have
// none. The control messages carry a small struct in Body instead, sent as JSON.
const (
	// From the primary, about application requests.
	MsgWrite MsgKind = iota + 1 // Seq, Off, Len, Flags; body: the payload
	MsgZero                     // Seq, Off, Len, Flags
	MsgFlush                    // Seq: cover everything sent before
	MsgRead                     // Seq, Off, Len
	MsgClean                    // Seq: the flush it named is durable on both; Seqs: writes before it that are not

	// Answers of the secondary.
	MsgReceived // Seqs: are in memory (memsync)
	MsgWrote    // Seqs: writes, zeroings and MsgSyncData that the device completed
	MsgFlushed  // Seq
	MsgData     // Seq, Off, Len; body: what MsgRead asked for
	MsgFailed   // Seq: MsgRead or MsgSyncPull could not be read

	// Sync. Off is a window; Mask says which of its blocks are meant.
	MsgSyncHash   // Seq, Off, Mask; body: hashes (16 bytes a masked block, ascending): which differ?
	MsgSyncNeed   // Seq, Mask: these differ
	MsgSyncData   // Seq, Off, Mask, Zeroes; body: the blocks of Mask without those of Zeroes
	MsgSyncPull   // Seq, Off, Mask; body: hashes of the asker's blocks: send what differs
	MsgSyncBlocks // Seq, Off, Mask, Zeroes; body as MsgSyncData

	// Agreement. Control is set.
	MsgFacts       // Facts
	MsgBegin       // *Begin: the primary's conclusion and what the secondary must make durable
	MsgMap         // *MapPart: of the secondary's dirty map
	MsgReady       // the secondary made its part durable and sent its map
	MsgFlow        // data flows from here on
	MsgSyncEnd     // *SyncEnd: step 1 of 3 of the end of a sync is durable
	MsgSyncEnded   // *SyncEnd: step 2 is durable
	MsgSyncClear   // both superblocks say so: clear the maps
	MsgTakeOver    // *TakeOver: the primary's disk failed: keep the record for both
	MsgTookOver    // *TakeOver: done, durably
	MsgRole        // *RoleChange: the sender's role changed
	MsgRenegotiate // *Renegotiate: begin the agreement anew on this session
	MsgDiskFailed  // the sender's disk failed: last message of the session
	MsgProbe       // are you there? Before a promotion believes a primary to be dead
	MsgAlive       // the answer
)

// Msg is one message. Kind says which fields are meant. Conn is the number of the
// agreement (a session may see several) the message belongs to; a receiver drops
// what belongs to an older one.
type Msg struct {
	Kind    MsgKind
	Flags   Flags
	Conn    uint32
	Buf     Handle
	Len     uint32
	Seq     uint64
	Off     int64
	Mask    uint64
	Zeroes  uint64
	Seqs    []uint64 // valid only until the effect or event was handled
	Control any      // one of the structs of control.go
}

// answers says whether a message is a secondary's answer.
func (k MsgKind) answers() bool {
	switch k {
	case MsgReceived, MsgWrote, MsgFlushed, MsgData, MsgFailed, MsgSyncNeed, MsgSyncBlocks, MsgSyncEnded, MsgTookOver:
		return true
	}
	return false
}
