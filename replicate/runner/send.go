package runner

import (
	"encoding/json"
	"sync"

	"hastd/replicate"
	"hastd/transport"
)

// parcel is one message on its way out: it holds the payload until the bytes left
// and has room for what the message itself needs. Pooled.
type parcel struct {
	table  *memories
	mem    *memory
	scrap  []byte // numbers, hashes, JSON
	pieces [][]byte
}

var parcels = sync.Pool{New: func() any { return new(parcel) }}

// maxScrap is what a pooled parcel keeps.
const maxScrap = 8 * maxSeqs

// Released gives everything back: the session needs it no more.
func (p *parcel) Released() {
	t, m := p.table, p.mem
	p.table, p.mem = nil, nil
	clear(p.pieces)
	p.pieces = p.pieces[:0]
	if p.scrap = p.scrap[:0]; cap(p.scrap) > maxScrap {
		p.scrap = nil
	}
	parcels.Put(p)
	if m != nil {
		t.drop(m)
	}
}

// pack appends the frames of a message, nearly always one. mem is what its Buf
// names; the frames hold it.
func pack(out []transport.Out, t *memories, m *replicate.Msg, mem *memory) []transport.Out {
	f := frameOf(m)
	kind := bodies[m.Kind]
	if kind == bodyNone {
		return append(out, transport.Out{Frame: f})
	}
	seqs := m.Seqs
	for {
		p := parcels.Get().(*parcel)
		p.table = t
		switch kind {
		case bodyData:
			p.mem = mem.hold()
			p.pieces = append(p.pieces, mem.buf[:m.Len])
		case bodyHashes:
			p.scrap = mem.hashes.put(p.scrap, m.Mask)
		case bodyBlocks:
			if mask := m.Mask &^ m.Zeroes; mask != 0 {
				p.mem = mem.hold()
				p.pieces = gather(p.pieces, mem.buf, mask)
			}
		case bodySeqs:
			n := min(len(seqs), maxSeqs)
			p.scrap = encodeSeqs(p.scrap, seqs[:n])
			seqs = seqs[n:]
		case bodyControl:
			j, err := json.Marshal(m.Control)
			if err != nil || len(j) > replicate.MaxControl {
				panic("runner: the machine sent a control message that cannot be encoded")
			}
			p.scrap = append(p.scrap, j...)
		}
		if len(p.scrap) > 0 {
			p.pieces = append(p.pieces, p.scrap)
		}
		out = append(out, transport.Out{Frame: f, Body: p.pieces, Done: p})
		if kind != bodySeqs || len(seqs) == 0 {
			return out
		}
	}
}
