package component

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hastd/cmd/internal/exit"
	"hastd/conf"
	"hastd/metadata"
	"hastd/replicate/runner"
)

// A power loss at any write of a forced creation leaves the old replica, the new
// one, or none: never the old counters over an empty map.
func TestCreationCutAnywhereIsNeverAMixture(t *testing.T) {
	const size = 8 << 20
	l, err := metadata.Internal(size)
	if err != nil {
		t.Fatal(err)
	}
	sb := metadata.Superblock{Resource: "data", Resuid: 7, SectorSize: 512, ExtentSize: 2 << 20, Keepdirty: 256}
	old, err := metadata.Create(l, sb)
	if err != nil {
		t.Fatal(err)
	}
	sb.Resuid = 8
	now, err := metadata.Create(l, sb)
	if err != nil {
		t.Fatal(err)
	}
	plan := steps(l, now)
	states := 0
	for cut := 0; cut < len(plan); cut++ {
		for first := range len(plan[cut]) + 1 { // how many writes of the step that is cut got through
			disk := make([]byte, size)
			for _, w := range old {
				copy(disk[w.Offset:], w.Data)
			}
			disk[l.Map+100] ^= 1 // so that an old map is told from a new one
			before := string(disk[l.Map:l.Super[0]])
			for i, step := range plan[:cut+1] {
				for j, w := range step {
					if i < cut || j < first {
						copy(disk[w.Offset:], w.Data)
					}
				}
			}
			img := &metadata.Image{Layout: l}
			for i := range 2 {
				img.Super[i] = disk[l.Super[i]:][:metadata.SuperblockSize]
				img.Log[i] = disk[l.Log[i]:][:metadata.LogSize]
			}
			img.Map = disk[l.Map:][:l.MapPages*metadata.PageSize]
			d, err := metadata.Inspect(img)
			states++
			switch {
			case errors.Is(err, metadata.ErrNoMetadata):
			case err != nil:
				t.Errorf("cut in step %d after %d writes: %v", cut, first, err)
			case d.Super.Resuid == 7 && string(disk[l.Map:l.Super[0]]) != before && first < len(plan[cut]):
				t.Errorf("cut in step %d after %d writes: the old superblock stands over a changed map", cut, first)
			case d.Super.Resuid == 8 && d.Damaged > 0:
				t.Errorf("cut in step %d after %d writes: the new superblock stands over an old map", cut, first)
			}
		}
	}
	if states < 6 {
		t.Errorf("only %d states were looked at", states)
	}
}

// A power loss at any write of a move leaves a whole replica at the old end, where the
// size that hastd remembers finds it, or at the new one; the move is then carried out to
// its end, and no old copy is left.
func TestMoveCutAnywhereIsCarriedOut(t *testing.T) {
	const was, size, sector = 8 << 20, 16 << 20, 512
	const changed = 100 // a byte of the map that the first flush of the replica wrote
	disk := make([]byte, size)
	layout := func(size int64) metadata.Layout {
		l, err := metadata.Internal(size)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	from, to := layout(was), layout(size)
	history := make(metadata.Lineage, metadata.MaxGenerations) // makes a superblock longer than a sector
	for i := range history {
		history[i].ID = metadata.ID(i + 1)
	}
	ws, err := metadata.Create(from, metadata.Superblock{Resource: "data", Resuid: 7, SectorSize: sector, ExtentSize: 2 << 20, Keepdirty: 256, Lineage: history})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range ws {
		copy(disk[w.Offset:], w.Data)
	}
	disk[from.Map+changed] ^= 1
	want := string(disk[from.Map:][:metadata.PageSize])
	image := func(disk []byte, l metadata.Layout) *metadata.Image {
		img := &metadata.Image{Layout: l}
		for i := range 2 {
			img.Super[i] = disk[l.Super[i]:][:metadata.SuperblockSize]
			img.Log[i] = disk[l.Log[i]:][:metadata.LogSize]
		}
		img.Map = disk[l.Map:][:l.MapPages*metadata.PageSize]
		return img
	}
	o := &opened{Place: Place{Resource: "data", Local: "disk"}, layout: to}
	plan := func(disk []byte) (*moving, error) {
		m, now := &moving{from: from, to: to, old: image(disk, from)}, image(disk, to)
		if err := m.find(now); err != nil || m.moved {
			return m, err
		}
		return m, o.judge(m, now)
	}
	whole := func(disk []byte, l metadata.Layout) bool {
		d, err := metadata.Inspect(image(disk, l))
		return err == nil && d.Super.Resuid == 7 && d.LogError == [2]error{} && string(disk[l.Map:][:metadata.PageSize]) == want
	}
	m, err := plan(disk)
	if err != nil {
		t.Fatal(err)
	}
	steps := m.steps()
	for cut := range len(steps) + 1 {
		for _, torn := range []string{"", "only its first sector", "all but its first sector"} { // written of the last superblock
			after := append([]byte(nil), disk...)
			for _, step := range steps[:cut] {
				for _, w := range step {
					copy(after[w.Offset:], w.Data)
				}
			}
			if cut < len(steps) {
				w := steps[cut][0]
				switch torn {
				case "only its first sector":
					copy(after[w.Offset:], w.Data[:sector])
				case "all but its first sector":
					copy(after[w.Offset+sector:], w.Data[sector:])
				}
			}
			_, err := metadata.Inspect(image(after, to))
			blank := errors.Is(err, metadata.ErrNoMetadata)
			if !whole(after, from) && !whole(after, to) {
				t.Errorf("cut in step %d, torn %q: no end has a whole replica", cut, torn)
			}
			if err == nil && !whole(after, to) {
				t.Errorf("cut in step %d, torn %q: the new end is taken for a replica, and is none", cut, torn)
			}
			m, err := plan(after)
			switch {
			case errors.Is(err, metadata.ErrNoMetadata) && !blank: // it was done
			case err != nil:
				t.Errorf("cut in step %d, torn %q: it cannot be carried out: %v", cut, torn, err)
				continue
			default:
				for _, step := range m.steps() {
					for _, w := range step {
						copy(after[w.Offset:], w.Data)
					}
				}
			}
			if _, err := metadata.Inspect(image(after, from)); !errors.Is(err, metadata.ErrNoMetadata) || !whole(after, to) {
				t.Errorf("cut in step %d, torn %q: carried out, the old end has %v", cut, torn, err)
			}
		}
	}
}

// An older life of the replica, from when the component was as large before, is not taken
// for one that was moved, however high its sequence; nothing is written then.
func TestResizeKeepsTheReplicaBesideAnOlderLife(t *testing.T) {
	const was, size = 8 << 20, 16 << 20
	for _, c := range []struct {
		name                     string
		resuid, oldResuid        metadata.ID
		sequence, sequenceBefore uint64
	}{
		{"higher sequence", 7, 7, 5, 900},
		{"higher sequence, never connected", 0, 0, 1, 3},
		{"equal sequence", 7, 7, 5, 5},
		{"lower sequence", 7, 7, 900, 5},
		{"another resuid", 7, 6, 5, 900},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Place{Resource: "data", Node: "alpha", Local: filepath.Join(t.TempDir(), "disk"), Metadata: conf.MetadataInternal, State: t.TempDir()}
			disk := make([]byte, size)
			older := metadata.Superblock{Resource: "data", Resuid: c.oldResuid, Sequence: c.sequenceBefore, Localcnt: 3}
			now := metadata.Superblock{Resource: "data", Resuid: c.resuid, Sequence: c.sequence, Localcnt: 4}
			putReplica(t, disk, size, older)
			putReplica(t, disk, was, now)
			if err := os.WriteFile(p.Local, disk, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := runner.RememberSize(p.State, "data", p.Local, was); err != nil {
				t.Fatal(err)
			}
			err := Resize(p, io.Discard)
			if exit.CodeOf(err) != exit.Refused || !strings.Contains(exit.HintOf(err), "give it its old size back") {
				t.Errorf("%v; hint: %s", err, exit.HintOf(err))
			}
			if after, err := os.ReadFile(p.Local); err != nil || !bytes.Equal(after, disk) {
				t.Errorf("something was written, %v", err)
			}
		})
	}
}

// No replica is made at the end of an enlarged component whose new size cannot be kept: with
// the old metadata still at the old end, hastd would not open it, nor resize mend it.
func TestCreateOnEnlargedNeedsTheSizeKept(t *testing.T) {
	const was, size = 8 << 20, 16 << 20
	for _, c := range []struct {
		name  string
		older bool // life of the replica at the new end
	}{{"nothing at the new end", false}, {"an older life at the new end", true}} {
		t.Run(c.name, func(t *testing.T) {
			p := Place{Resource: "data", Node: "alpha", Local: filepath.Join(t.TempDir(), "disk"), Metadata: conf.MetadataInternal, State: t.TempDir()}
			disk := make([]byte, size)
			if c.older {
				putReplica(t, disk, size, metadata.Superblock{Resource: "data", Resuid: 7, Sequence: 3})
			}
			from := putReplica(t, disk, was, metadata.Superblock{Resource: "data", Resuid: 7, Sequence: 5})
			if err := os.WriteFile(p.Local, disk, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := runner.RememberSize(p.State, "data", p.Local, was); err != nil {
				t.Fatal(err)
			}
			inTheWay := filepath.Join(p.State, "data.json.new")
			if err := os.Mkdir(inTheWay, 0o700); err != nil {
				t.Fatal(err)
			}
			force := CreateOptions{Place: p, ExtentSize: 2 << 20, Keepdirty: 256, Force: true, Out: io.Discard, Warn: io.Discard}
			err := Create(force)
			if exit.CodeOf(err) != exit.IO || !strings.Contains(err.Error(), p.State) || !strings.Contains(exit.HintOf(err), "create again") {
				t.Errorf("%v; hint: %s", err, exit.HintOf(err))
			}
			after, err := os.ReadFile(p.Local)
			if err != nil || !bytes.Equal(after[from.Start:from.End], disk[from.Start:from.End]) {
				t.Errorf("the old end has changed, %v", err)
			}
			if d, err := ReadDump(p); err == nil || !strings.Contains(err.Error(), "grew from") {
				t.Errorf("a replica stands at the new end: %+v, %v", d, err)
			}

			if err := os.Remove(inTheWay); err != nil {
				t.Fatal(err)
			}
			if err := Create(force); err != nil {
				t.Fatal(err)
			}
			if err := Resize(p, io.Discard); err != nil {
				t.Errorf("the old metadata still counts: %v", err)
			}
		})
	}
}

// putReplica puts a replica at the end of the first size bytes of disk. sb.Sequence is that
// of the newer superblock.
func putReplica(t *testing.T, disk []byte, size int64, sb metadata.Superblock) metadata.Layout {
	t.Helper()
	l, err := metadata.Internal(size)
	if err != nil {
		t.Fatal(err)
	}
	sequence := sb.Sequence
	sb.SectorSize, sb.ExtentSize, sb.Keepdirty = 512, 2<<20, 256
	ws, err := metadata.Create(l, sb)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range ws {
		copy(disk[w.Offset:], w.Data)
	}
	sb.DataSize = l.DataSize
	for i := range uint64(2) {
		sb.Sequence = sequence - 1 + i
		sb.Encode(disk[l.Super[i]:][:metadata.SuperblockSize])
	}
	return l
}

func TestRanges(t *testing.T) {
	for want, n := range map[string][]uint32{"": nil, "5": {5}, "1-3 7": {1, 2, 3, 7}, "0 2-3": {0, 2, 3}} {
		if got := ranges(n); got != want {
			t.Errorf("ranges(%v) = %q, want %q", n, got, want)
		}
	}
}
