package replicate

import (
	"encoding/json"
	"fmt"

	"hastd/metadata"
)

// Facts is everything one side tells the other before the verdict.
type Facts struct {
	Node       string           `json:"node"`
	NodeID     metadata.NodeID  `json:"node_id"`
	Role       metadata.Role    `json:"role"`
	Resource   string           `json:"resource"`
	Resuid     metadata.ID      `json:"resuid"`
	DataSize   int64            `json:"data_size"`
	Size       int64            `json:"size"` // agreed, 0 when not yet
	SectorSize uint32           `json:"sector_size"`
	Localcnt   uint64           `json:"localcnt"`
	Remotecnt  uint64           `json:"remotecnt"`
	Epoch      metadata.Epoch   `json:"epoch"`
	Marks      metadata.Marks   `json:"marks"`
	Lineage    metadata.Lineage `json:"lineage"`
	Pair       metadata.ID      `json:"pair"`
	PairPrev   metadata.ID      `json:"pair_prev"`
	Instance   metadata.ID      `json:"instance"` // of this opening of the component
	Mode       string           `json:"mode"`

	// Of a primary: whether its provider was opened since promotion, whether it
	// has read or acknowledged from its own replica alone since then, and the epoch
	// of its last agreement with the peer.
	Opened      bool           `json:"opened"`
	Alone       bool           `json:"alone"`
	AgreedEpoch metadata.Epoch `json:"agreed_epoch"`

	// Diskless: the sender is a primary whose own disk failed; its counters are
	// those it had.
	Diskless bool `json:"diskless,omitempty"`
	// With quorum: the generation of the view that the sender knows, and its own
	// incarnation in it.
	Generation  uint64 `json:"generation,omitempty"`
	Incarnation uint64 `json:"incarnation,omitempty"`

	DirtyBytes int64 `json:"dirty_bytes"` // for people
}

// Begin is the primary's conclusion: both computed the same verdict, and this is
// what the secondary makes durable before it answers Ready.
type Begin struct {
	Verdict string         `json:"verdict"` // must equal the secondary's own
	Epoch   metadata.Epoch `json:"epoch"`
	Pair    metadata.ID    `json:"pair"`
	PairOld metadata.ID    `json:"pair_old"` // the primary's present one, to become the predecessor
	Full    bool           `json:"full"`     // everything is copied
	Size    int64          `json:"size"`
	Sector  uint32         `json:"sector"`
	// On adoption: what the secondary becomes.
	Resuid   metadata.ID      `json:"resuid,omitempty"`
	Localcnt uint64           `json:"localcnt,omitempty"`
	Lineage  metadata.Lineage `json:"lineage,omitempty"`
	HashSeed uint64           `json:"hash_seed"` // of the block hashes of this connection
	Dirty    bool             `json:"dirty"`     // the primary has something to copy
	Bytes    int64            `json:"bytes"`     // how much; for people
}

// MapPart is a stretch of the secondary's dirty map: little-endian words of 64
// bits from the word First on, at most MaxMapPart of them.
type MapPart struct {
	First int    `json:"first"`
	Bits  []byte `json:"bits"`
}

// MaxMapPart is how many words of the dirty map one message carries at most.
const MaxMapPart = 4096

// SyncEnd carries what the other side needs for its step of the end of a sync.
type SyncEnd struct {
	Localcnt uint64           `json:"localcnt"` // the source's
	Lineage  metadata.Lineage `json:"lineage,omitempty"`
	Pair     metadata.ID      `json:"pair"`
}

// RoleChange tells the peer the sender's new role.
type RoleChange struct {
	Role metadata.Role `json:"role"`
}

// Renegotiate starts the next agreement on a session.
type Renegotiate struct {
	Conn   uint32 `json:"conn"`
	Reason string `json:"reason"`
}

// TakeOver: the record both sides keep after the primary's disk failed.
type TakeOver struct {
	Localcnt uint64           `json:"localcnt"`
	Lineage  metadata.Lineage `json:"lineage,omitempty"`
}

// MaxControl bounds the JSON of a control message, in bytes.
const MaxControl = 64 << 10

// DecodeControl reads the JSON of a control message. Kinds that carry none give
// nil for an empty body.
func DecodeControl(kind MsgKind, body []byte) (any, error) {
	var v any
	switch kind {
	case MsgFacts:
		v = new(Facts)
	case MsgBegin:
		v = new(Begin)
	case MsgMap:
		v = new(MapPart)
	case MsgSyncEnd, MsgSyncEnded:
		v = new(SyncEnd)
	case MsgTakeOver, MsgTookOver:
		v = new(TakeOver)
	case MsgRole:
		v = new(RoleChange)
	case MsgRenegotiate:
		v = new(Renegotiate)
	default:
		if len(body) > 0 {
			return nil, fmt.Errorf("message %d carries %d bytes it must not", kind, len(body))
		}
		return nil, nil
	}
	if len(body) > MaxControl {
		return nil, fmt.Errorf("message %d is %d bytes long, more than %d", kind, len(body), MaxControl)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return nil, fmt.Errorf("message %d: %w", kind, err)
	}
	var lineage metadata.Lineage
	switch v := v.(type) {
	case *MapPart:
		if len(v.Bits) == 0 || len(v.Bits)%8 != 0 || len(v.Bits) > 8*MaxMapPart || v.First < 0 {
			return nil, fmt.Errorf("map message of %d bytes at word %d", len(v.Bits), v.First)
		}
	case *Facts:
		if v.Role > metadata.Primary {
			return nil, fmt.Errorf("facts of an unknown role")
		}
		lineage = v.Lineage
	case *Begin:
		lineage = v.Lineage
	case *SyncEnd:
		lineage = v.Lineage
	case *TakeOver:
		lineage = v.Lineage
	}
	if len(lineage) > metadata.MaxGenerations {
		return nil, fmt.Errorf("lineage of %d generations", len(lineage))
	}
	return v, nil
}
