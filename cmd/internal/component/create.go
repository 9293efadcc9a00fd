package component

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"hastd/blockdev"
	"hastd/cmd/internal/exit"
	"hastd/cmd/internal/human"
	"hastd/metadata"
)

var silent = slog.New(slog.DiscardHandler)

// CreateOptions says what hastctl create was asked for.
type CreateOptions struct {
	Place
	Size        int64 // of the provider; makes a missing file component. 0: it must exist
	ExtentSize  int64
	Keepdirty   int
	AssumeClean bool
	Force       bool
	Out         io.Writer // where it tells what it found and did
	Warn        io.Writer // where it warns
}

// Create writes the metadata of a new replica. Errors are *exit.Error.
func Create(opts CreateOptions) (err error) {
	c := &creation{CreateOptions: opts}
	defer func() {
		if err != nil {
			for _, path := range c.made {
				os.Remove(path)
			}
		}
	}()
	if err := c.makeFiles(); err != nil {
		return err
	}
	o, err := c.open(false)
	if err != nil {
		return err
	}
	defer o.close()
	if c.Size > o.layout.DataSize {
		return exit.New(exit.CantCreate, "leave --size out to use what is there, or give it a larger component",
			"%s: %s holds %s of data, less than the %s asked for", &c.Place, c.Local, human.Bytes(o.layout.DataSize), human.Bytes(c.Size))
	}
	if err := c.inspect(o); err != nil {
		return err
	}
	if err := c.write(o); err != nil {
		return err
	}
	c.rememberSize(o)
	return nil
}

type creation struct {
	CreateOptions
	made []string // files to be removed if it fails
	grew bool     // metadata stands at the end that the component had
}

func (c *creation) say(format string, args ...any) {
	fmt.Fprintf(c.Out, "%s: "+format+"\n", append([]any{c.Resource}, args...)...)
}

func (c *creation) warn(format string, args ...any) {
	fmt.Fprintf(c.Warn, "%s: warning: "+format+"\n", append([]any{c.Resource}, args...)...)
}

// makeFiles makes what is missing and may be made: files, never devices.
func (c *creation) makeFiles() error {
	if err := c.notDangling(c.Local); err != nil {
		return err
	}
	_, err := os.Stat(c.Local)
	switch {
	case errors.Is(err, fs.ErrNotExist) && c.Size > 0:
		size := roundUp(c.Size)
		if c.internal() {
			size = metadata.ComponentSize(c.Size)
		}
		if err := c.makeFile(c.Local, size); err != nil {
			return err
		}
	case errors.Is(err, fs.ErrNotExist):
		return exit.New(exit.CantCreate, missingHint(&c.Place, c.Local), "%s: %s does not exist", &c.Place, c.Local)
	}
	if c.internal() {
		return nil
	}
	if err := c.notDangling(c.Metadata); err != nil {
		return err
	}
	if _, err := os.Stat(c.Metadata); !errors.Is(err, fs.ErrNotExist) {
		return nil // whatever is wrong with it is told when it is opened
	}
	st, err := os.Stat(c.Local)
	if err != nil {
		return c.ioError("look at", c.Local, err)
	}
	size := st.Size()
	if st.Mode()&fs.ModeDevice != 0 {
		d, err := c.openOne(c.Local, true)
		if err != nil {
			return err
		}
		size = d.Size()
		d.Close()
	}
	return c.makeFile(c.Metadata, metadata.ExternalSize(size))
}

// notDangling refuses a link to nothing: no file is made there, and none where it leads,
// which may be where a disk is missing.
func (c *creation) notDangling(path string) error {
	to, err := os.Readlink(path)
	if err != nil {
		return nil // no link; what else is wrong with it is told when it is opened
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return exit.New(exit.CantCreate, "is the disk attached? Else correct the link, or remove it",
		"%s: %s is a link to %s, which does not exist", &c.Place, path, to)
}

func (c *creation) makeFile(path string, size int64) error {
	if inDev(path) {
		return exit.New(exit.CantCreate, missingHint(&c.Place, path), "%s: %s does not exist, and a file in /dev is not a disk", &c.Place, path)
	}
	if err := blockdev.CreateFileComponent(path, roundUp(size)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			dir := filepath.Dir(path)
			return &exit.Error{Code: exit.CantCreate, Err: err, Text: fmt.Sprintf("%s: the folder %s does not exist", &c.Place, dir),
				Hint: "make it first: mkdir -p " + dir}
		}
		if errors.Is(err, fs.ErrPermission) {
			return &exit.Error{Code: exit.CantCreate, Err: err, Text: fmt.Sprintf("%s: this user may not make %s", &c.Place, path), Hint: "run hastctl as root"}
		}
		return c.ioError("make", path, err)
	}
	c.made = append(c.made, path)
	c.say("made %s, a sparse file of %s", path, human.Bytes(size))
	var f syscall.Statfs_t
	if syscall.Statfs(path, &f) == nil {
		if free := int64(f.Bavail) * f.Bsize; free < size {
			c.warn("its filesystem has only %s free; the replica fails when that is used up", human.Bytes(free))
		}
	}
	return nil
}

// inspect refuses what would destroy something.
func (c *creation) inspect(o *opened) error {
	probed, err := c.probe(c.Local)
	if err != nil {
		return err
	}
	if err := c.inspectMetadata(o); err != nil {
		return err
	}
	if err := c.inspectMetadataDevice(o); err != nil {
		return err
	}
	reaching := probed.Reaching(o.layout.DataSize)
	if len(reaching) == 0 {
		return nil
	}
	f := furthest(reaching, o.data.Size())
	over := endOf(f, o.data.Size()) - o.layout.DataSize
	if c.Force && f.End == 0 {
		c.warn("%s may reach %d bytes beyond the %d that the device will have; forced", f.What, over, o.layout.DataSize)
		return nil
	}
	if c.Force {
		c.warn("%s reaches %d bytes beyond the %d that the device will have; forced", f.What, over, o.layout.DataSize)
		return nil
	}
	where := "into the metadata area at its end"
	if !c.internal() {
		where = "beyond what can be replicated"
	}
	if f.End == 0 {
		return exit.New(exit.Refused, o.roomHint(f),
			"%s: the %s on %s may reach %d bytes %s: where it ends is not known", &c.Place, f.What, c.Local, over, where)
	}
	return exit.New(exit.Refused, o.roomHint(f),
		"%s: the %s on %s reaches %d bytes %s: shrink it by that to %d bytes", &c.Place, f.What, c.Local, over, where, o.layout.DataSize)
}

// probe says what is on a device, and tells it.
func (c *creation) probe(path string) (blockdev.Probed, error) {
	probed, err := blockdev.Probe(path)
	if err != nil {
		return probed, c.ioError("look at what is on", path, err)
	}
	for _, f := range probed.Found {
		if f.End > f.Start {
			c.say("found on %s: %s, %s", path, f.What, human.Bytes(f.End-f.Start))
		} else {
			c.say("found on %s: %s", path, f.What)
		}
	}
	return probed, nil
}

// inspectMetadataDevice refuses to write metadata over what a device of its own is in use
// for: a mistyped path may be somebody's filesystem.
func (c *creation) inspectMetadataDevice(o *opened) error {
	if c.internal() || slices.Contains(c.made, c.Metadata) {
		return nil
	}
	probed, err := c.probe(c.Metadata)
	if err != nil {
		return err
	}
	reaching := probed.Reaching(o.layout.Start)
	if len(reaching) == 0 {
		return nil
	}
	f := furthest(reaching, o.meta.Size())
	if c.Force {
		c.warn("the metadata overwrites the end of the %s on %s; forced", f.What, c.Metadata)
		return nil
	}
	return exit.New(exit.Refused, fmt.Sprintf("is the path right? Give the metadata a device or file of its own, or, if the %s may be given up: hastctl create %s --force", f.What, c.Resource),
		"%s: the metadata would overwrite the end of the %s on %s", &c.Place, f.What, c.Metadata)
}

// furthest is what has to be shrunk most. What does not say where it ends uses
// the whole component. Of several that reach equally far the first is the one
// that an administrator knows by name.
func furthest(found []blockdev.Found, size int64) blockdev.Found {
	var far blockdev.Found
	for i, f := range found {
		if i == 0 || endOf(f, size) > endOf(far, size) {
			far = f
		}
	}
	return far
}

func endOf(f blockdev.Found, size int64) int64 {
	if f.End == 0 {
		return size
	}
	return f.End
}

// roomHint is the command that makes room, where there is one. A file is made
// longer: that is safer than to shrink what is in it (and resize2fs would cut the
// file as well).
func (o *opened) roomHint(f blockdev.Found) string {
	path, to := o.Local, o.layout.DataSize
	or := `put the metadata elsewhere (metadata = "PATH" in the configuration)`
	if !o.internal() {
		or = "give the resource a larger component"
	}
	if f.End == 0 {
		return fmt.Sprintf("%s; or, if it ends before byte %d or may be given up: hastctl create %s --force", or, to, o.Resource)
	}
	grow := metadata.ComponentSize(f.End) - o.data.Size()
	if !o.data.IsDevice() {
		return fmt.Sprintf("make the file longer: truncate -s +%d %s, then create again; or %s", grow, path, or)
	}
	switch f.What {
	case "ext2", "ext3", "ext4":
		return fmt.Sprintf("e2fsck -f %s && resize2fs %s %dK, then create again; or %s", path, path, to>>10, or)
	case "btrfs":
		return fmt.Sprintf("mount it and run btrfs filesystem resize %d DIR, then create again; or %s", to, or)
	case "LVM physical volume":
		return fmt.Sprintf("pvresize --setphysicalvolumesize %db %s, then create again; or %s", to, path, or)
	}
	return fmt.Sprintf("it cannot be shrunk in place: make %s larger by %d bytes, then create again; or %s", path, grow, or)
}

// inspectMetadata refuses a component that holds another resource, or an older
// life of this one.
func (c *creation) inspectMetadata(o *opened) error {
	was := *o // an image leads to the layout of the replica that was there, not of the new one
	img, err := was.image()
	if err != nil {
		return err
	}
	size, err := o.oldSizes()
	if err != nil && !c.Force {
		return err
	}
	c.grew = size.GrewFrom > 0
	d, err := metadata.Inspect(img)
	var old string
	var hint string
	switch {
	case size.GrewFrom > 0 && err != nil:
		old = fmt.Sprintf("a replica, from when it had %d bytes: it grew to %d, and the metadata stands at the old end", size.GrewFrom, o.meta.Size())
		hint = o.wayOut() + "; if it may be given up, hastctl create " + c.Resource + " --force makes it anew, and the peer then fills it"
	case errors.Is(err, metadata.ErrNoMetadata):
		if size.ShrankFrom == 0 || slices.Contains(c.made, o.meta.Path()) {
			return nil
		}
		if c.Force {
			c.warn("%s shrank from %d to %d bytes, and held a replica then; forced", o.meta.Path(), size.ShrankFrom, o.meta.Size())
			return nil
		}
		return exit.New(exit.Refused, fmt.Sprintf("give it its old size back; if it is another one, or the replica may be given up: hastctl create %s --force, and the peer fills it", c.Resource),
			"%s: %s shrank from %d to %d bytes, and held a replica then: its metadata stood at the old end", &c.Place, o.meta.Path(), size.ShrankFrom, o.meta.Size())
	case err != nil:
		old = fmt.Sprintf("metadata of HAST that cannot be used (%v)", err)
		hint = fmt.Sprintf("hastctl dump %s shows what is left; hastctl create %s --force makes it anew, and the peer then fills it", c.Resource, c.Resource)
	default:
		sb := &d.Super
		old = fmt.Sprintf("the resource %s (resuid %v, localcnt %d, remotecnt %d, epoch %d, last %v, marks %v)",
			sb.Resource, sb.Resuid, sb.Localcnt, sb.Remotecnt, sb.Epoch.Number, sb.PrevRole, sb.Marks)
		hint = "if this replica may be given up, hastctl create " + c.Resource + " --force makes it anew, and the peer then fills it"
		if sb.Resource != c.Resource {
			hint = "is the path right? If that resource may be given up, hastctl create " + c.Resource + " --force"
		}
	}
	if c.Force {
		c.warn("%s held %s; forced", o.meta.Path(), old)
		return nil
	}
	return exit.New(exit.Refused, hint, "%s: %s already holds %s", &c.Place, o.meta.Path(), old)
}

// write makes a replica of the component.
func (c *creation) write(o *opened) error {
	sb := metadata.Superblock{
		Resource:   c.Resource,
		SectorSize: uint32(o.data.SectorSize()),
		ExtentSize: uint32(c.ExtentSize),
		Keepdirty:  uint32(c.Keepdirty),
	}
	if c.AssumeClean {
		sb.Marks |= metadata.AssumeClean
	}
	writes, err := metadata.Create(o.layout, sb)
	if err != nil {
		return exit.New(exit.CantCreate, "correct extent-size and keepdirty in the configuration, or give the resource another component", "%s: %w", &c.Place, err)
	}
	for i, step := range steps(o.layout, writes) {
		// With metadata at both ends, hastd opens a component only if it knows the new size.
		// Known before the first step, it would lead to an older life at the new end.
		if i == 1 && c.grew {
			if err := o.rememberSize(); err != nil {
				return &exit.Error{Code: exit.IO, Err: err, Text: fmt.Sprintf("%s: %s grew, and its new size cannot be kept in %s: %v", &c.Place, o.meta.Path(), c.State, err),
					Hint: "make room there and its folder writable, then create again"}
			}
		}
		for _, w := range step {
			if err := o.meta.WriteAt(w.Data, w.Offset); err != nil {
				return c.ioError("write metadata to", o.meta.Path(), err)
			}
		}
		if err := o.meta.Flush(); err != nil {
			return c.ioError("flush metadata to", o.meta.Path(), err)
		}
	}
	kind := "internal metadata"
	if !c.internal() {
		kind = "metadata in " + c.Metadata
	}
	c.say("created on %s: %s (%d bytes) of data, sectors of %d bytes, %s", c.Local, human.Bytes(o.layout.DataSize), o.layout.DataSize, sb.SectorSize, kind)
	return nil
}

// rememberSize lets an enlargement from here on be told, and keeps what is now data at the
// end of a smaller one from being taken for the metadata.
func (c *creation) rememberSize(o *opened) {
	if err := o.rememberSize(); err != nil {
		c.warn("its size cannot be kept in %s: %v; mend that before the component is enlarged (hastd keeps the size, too, when it opens the component)", c.State, err)
	}
}

// steps puts the writes in an order that never leaves a mixture of old and new
// that could be taken for a replica (an old superblock over a new, empty map would
// be one): the old superblocks go first, the new ones come last, with a flush
// between.
func steps(l metadata.Layout, writes []metadata.Write) [3][]metadata.Write {
	var wipe, others, supers []metadata.Write
	for _, w := range writes {
		if w.Offset != l.Super[0] && w.Offset != l.Super[1] {
			others = append(others, w)
			continue
		}
		wipe = append(wipe, metadata.Write{Offset: w.Offset, Data: make([]byte, len(w.Data))})
		supers = append(supers, w)
	}
	return [3][]metadata.Write{wipe, others, supers}
}

func roundUp(n int64) int64 {
	return (n + metadata.PageSize - 1) / metadata.PageSize * metadata.PageSize
}
