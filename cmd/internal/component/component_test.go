package component

import (
	"errors"
	"testing"

	"hastd/metadata"
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

func TestRanges(t *testing.T) {
	for want, n := range map[string][]uint32{"": nil, "5": {5}, "1-3 7": {1, 2, 3, 7}, "0 2-3": {0, 2, 3}} {
		if got := ranges(n); got != want {
			t.Errorf("ranges(%v) = %q, want %q", n, got, want)
		}
	}
}
