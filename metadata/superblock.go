// Package metadata is what a replica knows about itself on stable storage: the
// superblock with its counters, marks and lineage, the activity log and the dirty
// map. It holds their codecs and the rules that concern one replica alone.
//
// The machine in package replicate owns a Store and asks it which writes make its
// memory durable; hastctl creates and dumps metadata with it. The package never
// does I/O: it is given what was read and returns what must be written. It never
// decides anything that takes both replicas to decide.
//
// What must hold at every instant, whatever part of an unflushed commit reached
// the medium:
//
//   - a block that may differ from the peer's is set in the map or lies in an
//     extent of the log, on stable storage;
//   - a bit leaves the stable map only by ClearMap, after both superblocks say
//     that a sync ended;
//   - of two superblock copies (or log copies) the one not being written is whole.
package metadata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// BlockSize is what one bit of the dirty map stands for, in bytes.
const BlockSize = 4096

// Version is the format of the metadata; an unknown one is refused.
const Version = 1

// MaxResourceName is the longest name of a resource, in bytes.
const MaxResourceName = 63

// MaxGenerations is how many generations a lineage keeps.
const MaxGenerations = 16

// Block is the index of a 4 KiB block of the data area.
type Block int64

// Extent is the index of an extent (2 MiB unless configured otherwise) of the
// data area: the unit of the activity log.
type Extent uint32

// ID is a random identifier: of a resource (resuid), a generation, a pair of
// replicas, an opening of a component. Zero means none.
type ID uint64

func (id ID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// NodeID is the configured id of a node.
type NodeID uint8

// Epoch is raised by every promotion and at every established connection. Epochs
// order by number, then by node.
type Epoch struct {
	Number uint64 `json:"number"`
	Node   NodeID `json:"node"`
}

// Less says whether e is older than f.
func (e Epoch) Less(f Epoch) bool {
	return e.Number < f.Number || e.Number == f.Number && e.Node < f.Node
}

// Role is what a resource is on a node.
type Role uint8

// The roles of a resource on a node.
const (
	Init Role = iota
	Secondary
	Primary
)

var roleNames = [...]string{"init", "secondary", "primary"}

func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return fmt.Sprintf("role(%d)", uint8(r))
}

// ParseRole reads a role's name.
func ParseRole(s string) (Role, error) {
	for i, n := range roleNames {
		if n == s {
			return Role(i), nil
		}
	}
	return 0, fmt.Errorf("unknown role %q: write init, secondary or primary", s)
}

// MarshalText writes the role's name.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a role's name.
func (r *Role) UnmarshalText(b []byte) (err error) {
	*r, err = ParseRole(string(b))
	return err
}

// Marks are the standing facts of a replica (replication rules, section 1).
type Marks uint16

const (
	// Raised: localcnt was raised since the last completed sync.
	Raised Marks = 1 << iota
	// Inconsistent: a sync or recovery into this replica is under way.
	Inconsistent
	// Outdated: the peer has newer data, told by it.
	Outdated
	// Forced: promoted against advice.
	Forced
	// CrashedPrimary: writes of a term as primary began and no clean demotion or
	// completed sync followed.
	CrashedPrimary
	// AssumeClean: created with the promise that both replicas are equal.
	AssumeClean
	// AdminDisconnected: an administrator parted the pair; holds over restarts.
	AdminDisconnected
)

var markNames = [...]string{"raised", "inconsistent", "outdated", "forced", "crashed-primary", "assume-clean", "disconnected"}

// Names lists the marks that are set.
func (m Marks) Names() []string {
	names := []string{}
	for i, n := range markNames {
		if m&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return names
}

func (m Marks) String() string {
	if m == 0 {
		return "none"
	}
	return strings.Join(m.Names(), ",")
}

// Has says whether any of the marks in x is set.
func (m Marks) Has(x Marks) bool { return m&x != 0 }

// Superblock is what a replica knows of itself and of its peer.
type Superblock struct {
	Sequence   uint64 // of the copy on disk; the higher valid copy counts
	Resource   string
	Resuid     ID
	DataSize   int64  // bytes this component can hold
	Size       int64  // bytes agreed with the peer: the provider's size; 0 before the first promotion
	SectorSize uint32 // bytes, 512 or 4096: the component's until Size is agreed, then the larger of both
	ExtentSize uint32 // bytes
	Keepdirty  uint32 // extents in the activity log

	PrevRole      Role
	Localcnt      uint64
	Remotecnt     uint64
	PeerLocalcnt  uint64 // the peer's counters as last seen
	PeerRemotecnt uint64
	Epoch         Epoch
	Marks         Marks
	Lineage       Lineage
	Pair          ID
	PairPrev      ID // last common to both while a new pair id is being agreed
}

// Device size: what the provider of this replica shows.
func (sb *Superblock) Bytes() int64 {
	if sb.Size != 0 {
		return sb.Size
	}
	return sb.DataSize
}

const (
	superMagic = "HASTSUPR"
	// SuperblockSize is the room of one copy, in bytes.
	SuperblockSize = 4096
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrNoMetadata: what was read was never written by HAST.
var ErrNoMetadata = errors.New("no HAST metadata found")

// CorruptError is metadata that was written by HAST and cannot be trusted.
type CorruptError struct{ What string }

func (e *CorruptError) Error() string { return "metadata damaged: " + e.What }

// VersionError is metadata of a format this program does not know.
type VersionError struct{ Found uint32 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("metadata has format version %d, this program knows version %d: install the newer release on this node", e.Found, Version)
}

var le = binary.LittleEndian

// Encode writes the superblock into a copy of SuperblockSize bytes.
//
//	  0 magic "HASTSUPR"   8 version u32    12 CRC32C of the rest u32 (at 12 while zero)
//	 16 sequence u64      24 resuid u64     32 data size i64    40 agreed size i64
//	 48 sector u32        52 extent u32     56 keepdirty u32    60 prevrole u8, epoch node u8, marks u16
//	 64 localcnt          72 remotecnt      80 peer localcnt    88 peer remotecnt
//	 96 epoch number     104 pair          112 pair predecessor
//	120 generations u16  122 name length u16 124 name (64 bytes)
//	192 16 generations of {id u64, unix seconds i64, node u8, 7 zero bytes}
func (sb *Superblock) Encode(b []byte) {
	if len(b) != SuperblockSize {
		panic("metadata: superblock buffer has the wrong size")
	}
	if len(sb.Resource) > MaxResourceName || len(sb.Lineage) > MaxGenerations {
		panic("metadata: superblock out of bounds")
	}
	clear(b)
	copy(b, superMagic)
	le.PutUint32(b[8:], Version)
	le.PutUint64(b[16:], sb.Sequence)
	le.PutUint64(b[24:], uint64(sb.Resuid))
	le.PutUint64(b[32:], uint64(sb.DataSize))
	le.PutUint64(b[40:], uint64(sb.Size))
	le.PutUint32(b[48:], sb.SectorSize)
	le.PutUint32(b[52:], sb.ExtentSize)
	le.PutUint32(b[56:], sb.Keepdirty)
	b[60] = byte(sb.PrevRole)
	b[61] = byte(sb.Epoch.Node)
	le.PutUint16(b[62:], uint16(sb.Marks))
	le.PutUint64(b[64:], sb.Localcnt)
	le.PutUint64(b[72:], sb.Remotecnt)
	le.PutUint64(b[80:], sb.PeerLocalcnt)
	le.PutUint64(b[88:], sb.PeerRemotecnt)
	le.PutUint64(b[96:], sb.Epoch.Number)
	le.PutUint64(b[104:], uint64(sb.Pair))
	le.PutUint64(b[112:], uint64(sb.PairPrev))
	le.PutUint16(b[120:], uint16(len(sb.Lineage)))
	le.PutUint16(b[122:], uint16(len(sb.Resource)))
	copy(b[124:188], sb.Resource)
	for i, g := range sb.Lineage {
		p := b[192+24*i:]
		le.PutUint64(p, uint64(g.ID))
		le.PutUint64(p[8:], uint64(g.Time))
		p[16] = byte(g.Node)
	}
	le.PutUint32(b[12:], crc32.Checksum(b, castagnoli))
}

// DecodeSuperblock reads one copy. It returns ErrNoMetadata, a *VersionError or a
// *CorruptError when there is none to trust.
func DecodeSuperblock(b []byte) (Superblock, error) {
	var sb Superblock
	if len(b) != SuperblockSize {
		return sb, &CorruptError{"superblock is cut short"}
	}
	if string(b[:8]) != superMagic {
		return sb, ErrNoMetadata
	}
	if !checksumOK(b, 12) {
		return sb, &CorruptError{"superblock checksum does not match"}
	}
	if v := le.Uint32(b[8:]); v != Version {
		return sb, &VersionError{v}
	}
	gens, name := int(le.Uint16(b[120:])), int(le.Uint16(b[122:]))
	if gens > MaxGenerations || name > MaxResourceName {
		return sb, &CorruptError{"superblock fields out of range"}
	}
	sb = Superblock{
		Sequence:      le.Uint64(b[16:]),
		Resource:      string(b[124 : 124+name]),
		Resuid:        ID(le.Uint64(b[24:])),
		DataSize:      int64(le.Uint64(b[32:])),
		Size:          int64(le.Uint64(b[40:])),
		SectorSize:    le.Uint32(b[48:]),
		ExtentSize:    le.Uint32(b[52:]),
		Keepdirty:     le.Uint32(b[56:]),
		PrevRole:      Role(b[60]),
		Localcnt:      le.Uint64(b[64:]),
		Remotecnt:     le.Uint64(b[72:]),
		PeerLocalcnt:  le.Uint64(b[80:]),
		PeerRemotecnt: le.Uint64(b[88:]),
		Epoch:         Epoch{le.Uint64(b[96:]), NodeID(b[61])},
		Marks:         Marks(le.Uint16(b[62:])),
		Pair:          ID(le.Uint64(b[104:])),
		PairPrev:      ID(le.Uint64(b[112:])),
	}
	for i := range gens {
		p := b[192+24*i:]
		sb.Lineage = append(sb.Lineage, Generation{ID(le.Uint64(p)), int64(le.Uint64(p[8:])), NodeID(p[16])})
	}
	return sb, sb.check()
}

// check refuses what no release ever wrote, so that later code may rely on it.
func (sb *Superblock) check() error {
	switch {
	case sb.PrevRole > Primary:
		return &CorruptError{"unknown role"}
	case sb.SectorSize != 512 && sb.SectorSize != 4096:
		return &CorruptError{"sector size is neither 512 nor 4096"}
	case sb.ExtentSize < MinExtentSize || sb.ExtentSize > MaxExtentSize || sb.ExtentSize&(sb.ExtentSize-1) != 0:
		return &CorruptError{"extent size out of range"}
	case sb.Keepdirty < MinKeepdirty || sb.Keepdirty > MaxKeepdirty:
		return &CorruptError{"keepdirty out of range"}
	case sb.DataSize < BlockSize || sb.DataSize%BlockSize != 0 || sb.Size < 0 || sb.Size > sb.DataSize || sb.Size%BlockSize != 0:
		return &CorruptError{"data size out of range"}
	case sb.DataSize/int64(sb.ExtentSize) > 1<<31:
		return &CorruptError{"too many extents"}
	}
	return nil
}

// checksumOK verifies a CRC32C that was computed while its own four bytes at off
// were zero. It leaves b as it was.
func checksumOK(b []byte, off int) bool {
	var zero [4]byte
	c := crc32.Checksum(b[:off], castagnoli)
	c = crc32.Update(c, castagnoli, zero[:])
	c = crc32.Update(c, castagnoli, b[off+4:])
	return c == le.Uint32(b[off:])
}
