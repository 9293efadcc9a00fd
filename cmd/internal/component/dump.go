package component

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"hastd/cmd/internal/exit"
	"hastd/cmd/internal/human"
	"hastd/metadata"
)

// Dump is the metadata of one component as hastctl dump --json prints it. Fields
// are added, never removed.
type Dump struct {
	Resource     string     `json:"resource"`
	Node         string     `json:"node"`
	Component    string     `json:"component"`
	Metadata     string     `json:"metadata"`
	Size         int64      `json:"size"`     // bytes of the component
	Start        int64      `json:"start"`    // of the metadata area on its device
	End          int64      `json:"end"`      // of the metadata area
	Capacity     int64      `json:"capacity"` // bytes of data there is room for
	Superblock   Superblock `json:"superblock"`
	SuperCopies  [2]Copy    `json:"superblock_copies"`
	LogCopies    [2]Copy    `json:"log_copies"`
	LogExtents   []uint32   `json:"log_extents"`
	DirtyBytes   int64      `json:"dirty_bytes"` // of the map, without the log's extents
	PagesDamaged int        `json:"map_pages_damaged"`
}

// Copy is the state of one copy.
type Copy struct {
	Offset int64  `json:"offset"`
	State  string `json:"state"` // "ok", or what is wrong
	Newest bool   `json:"newest"`
}

// Superblock is metadata.Superblock with the words of status.
type Superblock struct {
	Sequence      uint64       `json:"sequence"`
	Resource      string       `json:"resource"`
	Resuid        string       `json:"resuid"`
	DataSize      int64        `json:"data_size"`
	Size          int64        `json:"size"`
	SectorSize    uint32       `json:"sector_size"`
	ExtentSize    uint32       `json:"extent_size"`
	Keepdirty     uint32       `json:"keepdirty"`
	PrevRole      string       `json:"prevrole"`
	Localcnt      uint64       `json:"localcnt"`
	Remotecnt     uint64       `json:"remotecnt"`
	PeerLocalcnt  uint64       `json:"peer_localcnt"`
	PeerRemotecnt uint64       `json:"peer_remotecnt"`
	Epoch         uint64       `json:"epoch"`
	EpochNode     uint8        `json:"epoch_node"`
	Marks         []string     `json:"marks"`
	Lineage       []Generation `json:"lineage"` // newest first
	Pair          string       `json:"pair"`
	PairPrev      string       `json:"pair_prev"`
}

// Generation is one stretch of history.
type Generation struct {
	ID   string    `json:"id"`
	Time time.Time `json:"time"`
	Node uint8     `json:"node"`
}

// ReadDump opens a component and reads its metadata. Errors are *exit.Error.
func ReadDump(p Place) (*Dump, error) {
	o, err := p.open(true)
	if err != nil {
		return nil, err
	}
	defer o.close()
	img, err := o.image()
	if err != nil {
		return nil, err
	}
	in, err := metadata.Inspect(img)
	if err != nil {
		return nil, o.badMetadata(err)
	}
	d := &Dump{
		Resource: p.Resource, Node: p.Node, Component: p.Local, Metadata: p.Metadata,
		Size: o.data.Size(), Start: o.layout.Start, End: o.layout.End, Capacity: o.layout.DataSize,
		Superblock: superblock(&in.Super), DirtyBytes: in.DirtyBytes, PagesDamaged: in.Damaged,
		LogExtents: []uint32{},
	}
	for i := range 2 {
		d.SuperCopies[i] = copyState(o.layout.Super[i], in.SuperError[i])
		d.LogCopies[i] = copyState(o.layout.Log[i], in.LogError[i])
	}
	d.SuperCopies[in.Newest].Newest = true
	for _, e := range in.Extents {
		d.LogExtents = append(d.LogExtents, uint32(e))
	}
	return d, nil
}

func copyState(offset int64, err error) Copy {
	if err != nil {
		return Copy{Offset: offset, State: err.Error()}
	}
	return Copy{Offset: offset, State: "ok"}
}

func (o *opened) badMetadata(err error) error {
	p, path := &o.Place, o.meta.Path()
	var version *metadata.VersionError
	if errors.As(err, &version) {
		return exit.New(exit.IO, "install the newer release on this node", "%s: %s: %w", p, path, err)
	}
	old, stateErr := o.oldSizes()
	blank := errors.Is(err, metadata.ErrNoMetadata)
	switch {
	case stateErr != nil:
		return stateErr
	case old.GrewFrom > 0:
		return exit.New(exit.IO, o.wayOut()+"; or give it its old size back",
			"%s: %s grew from %d to %d bytes: its metadata stands at the old end", p, path, old.GrewFrom, o.meta.Size())
	case blank && old.ShrankFrom > 0:
		return exit.New(exit.IO, fmt.Sprintf("give it its old size back; if it is another one: hastctl create %s --force", p.Resource),
			"%s: %s shrank from %d to %d bytes: its metadata stood at the old end", p, path, old.ShrankFrom, o.meta.Size())
	case blank:
		return exit.New(exit.IO, fmt.Sprintf("hastctl create %s makes a new replica; if it held one before, was the component enlarged or replaced?", p.Resource),
			"%s: %s holds no metadata of HAST", p, path)
	}
	return exit.New(exit.IO, fmt.Sprintf("if the peer has good data: hastctl create %s --force, and it is filled from there", p.Resource),
		"%s: %s: %w", p, path, err)
}

func superblock(sb *metadata.Superblock) Superblock {
	s := Superblock{
		Sequence: sb.Sequence, Resource: sb.Resource, Resuid: sb.Resuid.String(), DataSize: sb.DataSize, Size: sb.Size,
		SectorSize: sb.SectorSize, ExtentSize: sb.ExtentSize, Keepdirty: sb.Keepdirty, PrevRole: sb.PrevRole.String(),
		Localcnt: sb.Localcnt, Remotecnt: sb.Remotecnt, PeerLocalcnt: sb.PeerLocalcnt, PeerRemotecnt: sb.PeerRemotecnt,
		Epoch: sb.Epoch.Number, EpochNode: uint8(sb.Epoch.Node), Marks: sb.Marks.Names(),
		Lineage: []Generation{}, Pair: sb.Pair.String(), PairPrev: sb.PairPrev.String(),
	}
	for _, g := range sb.Lineage {
		s.Lineage = append(s.Lineage, Generation{g.ID.String(), time.Unix(g.Time, 0).UTC(), uint8(g.Node)})
	}
	return s
}

// Print writes the dump for people.
func (d *Dump) Print(w io.Writer) error {
	sb := &d.Superblock
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(t, name+"\t"+format+"\n", args...) }
	line("resource", "%s", sb.Resource)
	line("component", "%s (%d bytes)", d.Component, d.Size)
	line("metadata", "%s, bytes %d to %d", d.Metadata, d.Start, d.End)
	for i, c := range d.SuperCopies {
		newest := ""
		if c.Newest {
			newest = fmt.Sprintf(" (newest, sequence %d)", sb.Sequence)
		}
		line(fmt.Sprintf("superblock %c", 'A'+i), "%s at %d%s", c.State, c.Offset, newest)
	}
	for i, c := range d.LogCopies {
		line(fmt.Sprintf("activity log %c", 'A'+i), "%s at %d", c.State, c.Offset)
	}
	line("resuid", "%s", sb.Resuid)
	line("data size", "%d bytes (%s)", sb.DataSize, human.Bytes(sb.DataSize))
	if sb.Size == 0 {
		line("agreed size", "none yet")
	} else {
		line("agreed size", "%d bytes (%s)", sb.Size, human.Bytes(sb.Size))
	}
	line("sector size", "%d bytes", sb.SectorSize)
	line("extent size", "%d bytes", sb.ExtentSize)
	line("keepdirty", "%d extents", sb.Keepdirty)
	line("prevrole", "%s", sb.PrevRole)
	line("localcnt", "%d", sb.Localcnt)
	line("remotecnt", "%d", sb.Remotecnt)
	line("peer's counters", "localcnt %d, remotecnt %d, as last seen", sb.PeerLocalcnt, sb.PeerRemotecnt)
	line("epoch", "%d (node id %d)", sb.Epoch, sb.EpochNode)
	line("marks", "%s", orNone(strings.Join(sb.Marks, ", ")))
	line("pair", "%s", sb.Pair)
	line("pair before", "%s", sb.PairPrev)
	for i, g := range sb.Lineage {
		name := ""
		if i == 0 {
			name = "lineage"
		}
		line(name, "%s  %s  node id %d", g.ID, g.Time.Format(time.RFC3339), g.Node)
	}
	if len(sb.Lineage) == 0 {
		line("lineage", "none")
	}
	line("log extents", "%s", orNone(ranges(d.LogExtents)))
	line("dirty", "%d bytes (%s) in the map", d.DirtyBytes, human.Bytes(d.DirtyBytes))
	if d.PagesDamaged > 0 {
		line("damaged", "%d pages of the map; all of their blocks count as dirty", d.PagesDamaged)
	}
	return t.Flush()
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// ranges writes 1 2 3 7 as "1-3 7".
func ranges(n []uint32) string {
	var b strings.Builder
	for i := 0; i < len(n); {
		j := i
		for j+1 < len(n) && n[j+1] == n[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprint(&b, n[i])
		if j > i {
			fmt.Fprintf(&b, "-%d", n[j])
		}
		i = j + 1
	}
	return b.String()
}
