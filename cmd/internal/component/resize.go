package component

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"hastd/blockdev"
	"hastd/cmd/internal/exit"
	"hastd/cmd/internal/human"
	"hastd/metadata"
)

// Resize moves the metadata of a component that grew from its old end to the new one.
// The replica stays what it is: only the place of its metadata changes, not how much
// data it is for. out is where it tells what it did. Errors are *exit.Error.
func Resize(p Place, out io.Writer) error {
	o, err := p.open(false)
	if err != nil {
		return err
	}
	defer o.close()
	old, err := o.oldSizes()
	if err != nil {
		return err
	}
	if old.GrewFrom == 0 {
		return o.standsThere(out)
	}
	m, err := o.move(old.GrewFrom)
	if err != nil {
		return err
	}
	for _, step := range m.steps() {
		if err := o.carryOut(step); err != nil {
			return err
		}
	}
	// Last: the old size leads to what is left at the old end, and keeps hastd from opening
	// the component before that is wiped.
	if err := o.rememberSize(); err != nil {
		return o.notRemembered("the metadata was moved", err)
	}
	fmt.Fprintf(out, "%s: moved the metadata from byte %d of %s to byte %d; its device keeps its size, %s\n",
		p.Resource, m.from.Start, o.meta.Path(), m.to.Start, human.Bytes(m.super.Bytes()))
	return nil
}

// standsThere is for a component that did not grow, or whose metadata was moved already.
func (o *opened) standsThere(out io.Writer) error {
	img, err := o.image()
	if err != nil {
		return err
	}
	d, err := metadata.Inspect(img)
	if err != nil {
		return o.badMetadata(err)
	}
	if d.Super.Resource != o.Resource {
		return exit.New(exit.Refused, "is the path right?", "%s: %s holds the resource %s", &o.Place, o.meta.Path(), d.Super.Resource)
	}
	if err := o.rememberSize(); err != nil {
		return o.notRemembered("the metadata stands at the end of "+o.meta.Path(), err)
	}
	fmt.Fprintf(out, "%s: the metadata stands at the end of %s: nothing to do\n", o.Resource, o.meta.Path())
	return nil
}

func (o *opened) notRemembered(but string, err error) error {
	return &exit.Error{Code: exit.IO, Err: err, Text: fmt.Sprintf("%s: %s, but the new size cannot be kept in %s: %v", &o.Place, but, o.State, err),
		Hint: "make room there and its folder writable, then resize again"}
}

// carryOut makes one step durable.
func (o *opened) carryOut(step []metadata.Write) error {
	for _, w := range step {
		if err := o.meta.WriteAt(w.Data, w.Offset); err != nil {
			return o.ioError("write metadata to", o.meta.Path(), err)
		}
	}
	if err := o.meta.Flush(); err != nil {
		return o.ioError("flush metadata to", o.meta.Path(), err)
	}
	return nil
}

// moving is metadata on its way from the old end of a device to the new one.
type moving struct {
	from, to metadata.Layout
	old      *metadata.Image
	super    metadata.Superblock // the newest of the replica
	newest   int                 // which copy that is
	moved    bool                // the new end has it already: only the old one is left to wipe
}

// move reads both ends and refuses what would lose something.
func (o *opened) move(was int64) (*moving, error) {
	old := *o
	var err error
	dataSize := was
	if !o.internal() {
		dataSize = metadata.BlockSize // the superblock says how much, and where the map is
	}
	if old.layout, err = o.Place.layout(dataSize, was); err != nil {
		return nil, o.tooSmall(err)
	}
	m := &moving{}
	if m.old, err = old.whole(); err != nil {
		return nil, err
	}
	now, err := o.whole()
	if err != nil {
		return nil, err
	}
	if err := m.find(now); err != nil {
		return nil, exit.New(exit.IO, fmt.Sprintf("if the peer has good data: hastctl create %s --force, and it is filled from there", o.Resource),
			"%s: at the old end of %s: %w", &o.Place, o.meta.Path(), err)
	}
	if m.super.Resource != o.Resource {
		return nil, exit.New(exit.Refused, "is the path right?", "%s: at its old end %s holds the resource %s", &o.Place, o.meta.Path(), m.super.Resource)
	}
	if !o.internal() {
		if o.layout, err = o.Place.layout(m.super.DataSize, o.meta.Size()); err != nil {
			return nil, o.tooSmall(err)
		}
	}
	m.from, m.to = old.layout, o.layout
	// Where both areas overlap a crash would leave neither.
	if lack := m.from.End - m.to.Start; lack > 0 {
		if o.internal() { // what it grows by has a map, too
			lack = metadata.ComponentSize(m.from.End) - o.meta.Size()
		}
		return nil, exit.New(exit.CantCreate, fmt.Sprintf("make it at least %d bytes larger, then resize again; or give it its old size back", lack),
			"%s: %s grew from %d to %d bytes, which is no room for the metadata", &o.Place, o.meta.Path(), was, o.meta.Size())
	}
	if m.moved {
		return m, nil
	}
	if err := o.notInUse(m); err != nil {
		return nil, err
	}
	return m, o.judge(m, now)
}

// find says which superblock counts, and whether the new end has the replica already.
func (m *moving) find(now *metadata.Image) error {
	d, err := metadata.Inspect(now)
	if m.moved = err == nil && m.copied(now, d.Newest); !m.moved {
		if d, err = metadata.Inspect(m.old); err != nil {
			return err
		}
	}
	m.super, m.newest = d.Super, d.Newest
	return nil
}

// copied says whether the new end has what the old one has. A higher sequence would prove
// nothing: an older life of the replica can have one, from when the component was as large
// before. Only the very bytes that a move writes do, and what a wipe of them leaves.
func (m *moving) copied(now *metadata.Image, newest int) bool {
	for i := range 2 {
		if !leftOf(m.old.Super[i], now.Super[i]) {
			return false
		}
	}
	// Newer metadata at the new end than at the old is not a move's doing.
	return !blank(m.old.Super[newest])
}

// leftOf says whether a is b, or what is left of it after a wipe that was cut off: sectors
// are wiped whole, in any order.
func leftOf(a, b []byte) bool {
	const sector = 512
	for i := 0; i < len(a); i += sector {
		if !bytes.Equal(a[i:i+sector], b[i:i+sector]) && !blank(a[i:i+sector]) {
			return false
		}
	}
	return true
}

func blank(b []byte) bool { return bytes.Count(b, []byte{0}) == len(b) }

// notInUse refuses what somebody made to reach into the new room: it is not mirrored, and
// the metadata would overwrite its end.
func (o *opened) notInUse(m *moving) error {
	f, err := o.reaching(o.Local, m.super.DataSize)
	if err != nil {
		return err
	}
	if f != nil {
		return exit.New(exit.Refused, fmt.Sprintf("shrink it to %d bytes, then resize again", m.super.DataSize),
			"%s: the %s on %s was enlarged to %d bytes, its device has %d", &o.Place, f.What, o.Local, f.End, m.super.DataSize)
	}
	if o.internal() {
		return nil
	}
	if f, err = o.reaching(o.Metadata, m.to.Start); err != nil || f == nil {
		return err
	}
	return exit.New(exit.Refused, fmt.Sprintf("shrink it to %d bytes, then resize again", m.to.Start),
		"%s: the %s on %s has %d bytes and reaches into the metadata's new place, from byte %d on", &o.Place, f.What, o.Metadata, f.End, m.to.Start)
}

// reaching is what uses bytes of a device from limit on, or nil. What does not say where it
// ends does not count: it was inside when the replica was made.
func (o *opened) reaching(path string, limit int64) (*blockdev.Found, error) {
	probed, err := blockdev.Probe(path)
	if err != nil {
		return nil, o.ioError("look at what is on", path, err)
	}
	for _, f := range probed.Reaching(limit) {
		if f.End > 0 {
			return &f, nil
		}
	}
	return nil, nil
}

// judge refuses to write over metadata at the new end that no move left there. Steps are
// flushed one by one, so one that was cut off left the newer copy whole and the other one
// unwritten, or neither.
func (o *opened) judge(m *moving, now *metadata.Image) error {
	k := m.newest
	unwritten := func(i int, torn bool) bool {
		_, err := metadata.DecodeSuperblock(now.Super[i])
		var corrupt *metadata.CorruptError
		return errors.Is(err, metadata.ErrNoMetadata) || torn && errors.As(err, &corrupt)
	}
	whole := bytes.Equal(now.Super[k], m.old.Super[k])
	if whole && unwritten(1-k, true) || unwritten(k, true) && unwritten(1-k, false) {
		return nil
	}
	return exit.New(exit.Refused, fmt.Sprintf("give it its old size back; or, if what it holds may be given up: hastctl create %s --force, and the peer fills it", o.Resource),
		"%s: %s holds metadata at its old end and other metadata at the new one: which of them is right cannot be told", &o.Place, o.meta.Path())
}

// steps are the writes of a move, to be flushed one after the other. The superblocks come
// last at the new end, and are wiped at the old one when they are there: at every instant
// one end has a whole replica, and hastd does not take a half copied one for it.
func (m *moving) steps() [][]metadata.Write {
	var steps [][]metadata.Write
	if !m.moved {
		body := []metadata.Write{{Offset: m.to.Map, Data: m.old.Map}}
		for i := range 2 {
			body = append(body, metadata.Write{Offset: m.to.Log[i], Data: m.old.Log[i]})
		}
		steps = append(steps, body)
		for _, i := range []int{m.newest, 1 - m.newest} {
			steps = append(steps, []metadata.Write{{Offset: m.to.Super[i], Data: m.old.Super[i]}})
		}
	}
	for _, i := range []int{1 - m.newest, m.newest} {
		steps = append(steps, []metadata.Write{{Offset: m.from.Super[i], Data: make([]byte, metadata.SuperblockSize)}})
	}
	return steps
}
