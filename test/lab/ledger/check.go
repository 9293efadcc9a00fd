package ledger

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// Verdict is what is wrong with a sector.
type Verdict uint8

// The verdicts on a sector.
const (
	Fine    Verdict = iota
	Lost            // zero, although a write must be there
	Stale           // an older write than the one that must be there
	Revived         // a write that never was acknowledged came back after a later one was firm
	Torn            // stamped, but not the content of one write
	Foreign         // not of this device, this place or this ledger
)

func (v Verdict) String() string {
	return [...]string{"fine", "lost", "stale", "revived", "torn", "foreign"}[v]
}

// Violation is a sector whose content is not permitted.
type Violation struct {
	Sector  int64
	Verdict Verdict
	Found   ID // the write it holds, where that can be told
	Must    ID // the newest write that must not be missing
	Text    string
}

// maxListed bounds how many violations a report describes; all are counted.
const maxListed = 20

// Report is the outcome of a check.
type Report struct {
	Sectors int64
	Written int64 // sectors that hold data of a write
	Bad     int64
	Listed  []Violation
}

// Err is nil if every sector is as it may be.
func (r *Report) Err() error {
	if r.Bad == 0 {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "ledger: %d of %d sectors are not as promised:", r.Bad, r.Sectors)
	for _, v := range r.Listed {
		fmt.Fprintf(&b, "\n  sector %d (offset %d): %v: %s", v.Sector, v.Sector*SectorSize, v.Verdict, v.Text)
	}
	if int64(len(r.Listed)) < r.Bad {
		fmt.Fprintf(&b, "\n  and %d more", r.Bad-int64(len(r.Listed)))
	}
	return fmt.Errorf("%s", b.String())
}

var zeroSector [SectorSize]byte

// Check reads the whole device and judges it. With pin, what it found becomes
// what must be there from now on (call it so only when the device is quiet, in
// sync and flushed: then nothing may change any more without a write).
func (l *Ledger) Check(r io.ReaderAt, pin bool) (*Report, error) {
	rep := &Report{}
	buf := make([]byte, 1<<20)
	for off := int64(0); off < l.size; off += int64(len(buf)) {
		b := buf[:min(int64(len(buf)), l.size-off)]
		if _, err := r.ReadAt(b, off); err != nil {
			return nil, fmt.Errorf("ledger: reading %d bytes at %d: %w", len(b), off, err)
		}
		l.mu.Lock()
		for i := 0; i < len(b); i += SectorSize {
			s := uint32((off + int64(i)) / SectorSize)
			v := l.judge(s, b[i:i+SectorSize])
			rep.Sectors++
			if v.Found != 0 {
				rep.Written++
			}
			if v.Verdict != Fine {
				rep.Bad++
				if len(rep.Listed) < maxListed {
					rep.Listed = append(rep.Listed, v)
				}
			} else if pin && l.sectors[s] != nil {
				l.sectors[s] = append(l.sectors[s][:0], v.Found)
			}
		}
		l.mu.Unlock()
	}
	return rep, nil
}

// judge decides about the content of a sector.
func (l *Ledger) judge(s uint32, b []byte) Violation {
	v := Violation{Sector: int64(s)}
	list := l.sectors[s]
	if list == nil {
		list = []ID{0}
	}
	var newest uint64
	for _, id := range list {
		if w := &l.writes[id]; l.firm(w) && w.issued > newest {
			newest, v.Must = w.issued, id
		}
	}
	permitted := func(id ID) bool { return !l.endedBefore(id, &l.writes[id], newest) }

	if bytes.Equal(b, zeroSector[:]) {
		for _, id := range list {
			if (id == 0 || l.writes[id].kind == Zeroes) && permitted(id) {
				v.Found = id
				return v
			}
		}
		v.Verdict, v.Text = Lost, "it is zero; "+l.describe(v.Must, list)
		return v
	}
	if binary.LittleEndian.Uint64(b) != stampMagic {
		v.Verdict, v.Text = Foreign, fmt.Sprintf("begins with %x, which is nobody's stamp", b[:16])
		return v
	}
	seed, sector, id := binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:])
	switch {
	case seed != l.seed:
		v.Verdict, v.Text = Foreign, fmt.Sprintf("stamped by seed %d, this ledger is %d", seed, l.seed)
		return v
	case sector != uint64(s):
		v.Verdict, v.Text = Foreign, fmt.Sprintf("stamped for sector %d", sector)
		return v
	case id == 0 || id >= uint64(len(l.writes)):
		v.Verdict, v.Text = Foreign, fmt.Sprintf("stamped by write %d, which was never issued", id)
		return v
	}
	v.Found = ID(id)
	w := &l.writes[id]
	if w.kind != Data || s < w.first || s >= w.first+w.count {
		v.Verdict, v.Text = Foreign, fmt.Sprintf("stamped by write %d, which was not for this sector", id)
		return v
	}
	var want [SectorSize]byte
	stampSector(want[:], l.seed, uint64(s), v.Found)
	if !bytes.Equal(b, want[:]) {
		at := 0
		for at < SectorSize && b[at] == want[at] {
			at++
		}
		v.Verdict, v.Text = Torn, fmt.Sprintf("write %d up to byte %d, other data from there", id, at)
		return v
	}
	for _, k := range list {
		if k == v.Found && permitted(k) {
			return v
		}
	}
	v.Verdict = Stale
	if !w.acked {
		v.Verdict = Revived
	}
	v.Text = fmt.Sprintf("holds write %d (%s); %s", id, l.story(v.Found), l.describe(v.Must, list))
	return v
}

func (l *Ledger) describe(must ID, list []ID) string {
	if must == 0 {
		return fmt.Sprintf("permitted are %v", list)
	}
	return fmt.Sprintf("write %d (%s) must be there, or a later one of %v", must, l.story(must), list)
}

func (l *Ledger) story(id ID) string {
	w := &l.writes[id]
	switch {
	case !w.acked && w.ended == 0:
		return fmt.Sprintf("issued %d, never answered", w.issued)
	case !w.acked:
		return fmt.Sprintf("issued %d, failed or unanswered by %d", w.issued, w.ended)
	case w.fua:
		return fmt.Sprintf("issued %d, acknowledged %d with FUA", w.issued, w.ended)
	case l.covered(w):
		return fmt.Sprintf("issued %d, acknowledged %d, covered by the flush issued %d", w.issued, w.ended, l.flushed[w.epoch])
	}
	return fmt.Sprintf("issued %d, acknowledged %d, not flushed", w.issued, w.ended)
}
