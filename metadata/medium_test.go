package metadata

import (
	"bytes"
	"math/rand/v2"
)

// medium is the metadata device of a test: what is flushed, and the writes of a
// commit under way, of which a crash keeps any share of sectors.
type medium struct {
	layout  Layout
	base    int64 // offset of bytes[0]
	bytes   []byte
	pending []Write // copies
	given   []Write // what Prepare returned: must not change meanwhile
	scratch []byte  // of crash
}

const sector = 512

func newMedium(l Layout) *medium {
	return &medium{layout: l, base: l.Start, bytes: make([]byte, l.End-l.Start)}
}

func (m *medium) write(ws []Write) {
	for _, w := range ws {
		copy(m.bytes[w.Offset-m.base:], w.Data)
	}
}

// begin takes the writes of a commit.
func (m *medium) begin(ws []Write) {
	m.given, m.pending = ws, nil
	for _, w := range ws {
		m.pending = append(m.pending, Write{w.Offset, bytes.Clone(w.Data)})
	}
}

// end makes them durable; false if the buffers changed while they were written.
func (m *medium) end() bool {
	for i, w := range m.given {
		if w.Offset != m.pending[i].Offset || !bytes.Equal(w.Data, m.pending[i].Data) {
			return false
		}
	}
	m.write(m.pending)
	m.given, m.pending = nil, nil
	return true
}

// crash is the medium after a loss of power now, good until the next call. Keeping
// few sectors, or nearly all, matters as much as keeping half.
func (m *medium) crash(r *rand.Rand) *medium {
	m.scratch = append(m.scratch[:0], m.bytes...)
	c := &medium{layout: m.layout, base: m.base, bytes: m.scratch}
	keep := []int{0, 1, 5, 9, 10}[r.IntN(5)]
	for _, w := range m.pending {
		for s := 0; s < len(w.Data); s += sector {
			if r.IntN(10) < keep {
				copy(c.bytes[w.Offset-m.base+int64(s):], w.Data[s:s+sector])
			}
		}
	}
	return c
}

func (m *medium) part(off, n int64) []byte {
	return m.bytes[off-m.base : off-m.base+n]
}

func (m *medium) image() *Image {
	l := m.layout
	return &Image{
		Layout: l, SectorSize: 512,
		Super: [2][]byte{m.part(l.Super[0], SuperblockSize), m.part(l.Super[1], SuperblockSize)},
		Log:   [2][]byte{m.part(l.Log[0], LogSize), m.part(l.Log[1], LogSize)},
		Map:   m.part(l.Map, l.MapPages*PageSize),
	}
}
