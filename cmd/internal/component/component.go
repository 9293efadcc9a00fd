// Package component makes, shows and moves the metadata of local components without a
// daemon: hastctl create, dump and resize. It opens a component as the daemon
// does, for itself alone, so it is refused while a daemon holds it.
//
// It never changes a byte of the data area, and never decides which replica is
// right.
package component

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"hastd/blockdev"
	"hastd/cmd/internal/exit"
	"hastd/conf"
	"hastd/metadata"
	"hastd/replicate/runner"
)

// Place says which component of which resource is meant.
type Place struct {
	Resource string
	Node     string
	Local    string // path of the component
	Metadata string // path of the metadata device, or conf.MetadataInternal
	State    string // folder in which hastd remembers how large it was
}

func (p *Place) internal() bool { return p.Metadata == conf.MetadataInternal }

func (p *Place) String() string { return fmt.Sprintf("resource %s on node %s", p.Resource, p.Node) }

// opened is a place with its devices open and its metadata area located.
type opened struct {
	Place
	data, meta *blockdev.Component // the same one for internal metadata
	layout     metadata.Layout
}

func (p *Place) open(readOnly bool) (*opened, error) {
	o := &opened{Place: *p}
	var err error
	if o.data, err = p.openOne(p.Local, readOnly); err != nil {
		return nil, err
	}
	o.meta = o.data
	if !p.internal() {
		if o.meta, err = p.openOne(p.Metadata, readOnly); err != nil {
			o.data.Close()
			return nil, err
		}
	}
	if o.layout, err = p.layout(o.data.Size(), o.meta.Size()); err != nil {
		defer o.close()
		return nil, o.tooSmall(err)
	}
	return o, nil
}

// layout finds the metadata area. Its errors are for tooSmall.
func (p *Place) layout(dataSize, metaSize int64) (metadata.Layout, error) {
	if p.internal() {
		return metadata.Internal(dataSize)
	}
	return metadata.External(metaSize, dataSize)
}

// tooSmall tells of a device that has no room for a metadata area.
func (o *opened) tooSmall(err error) error {
	var small *metadata.TooSmallError
	if !errors.As(err, &small) {
		return exit.New(exit.CantCreate, "give the resource another component", "%s: %s: %w", &o.Place, o.meta.Path(), err)
	}
	lack := small.Need - small.Have
	if !o.internal() && o.holdsMetadata() {
		lack = small.Need // the metadata is moved, and no byte of it may stand where it stood
	}
	return exit.New(exit.CantCreate, fmt.Sprintf("make it at least %d bytes larger", lack),
		"%s: %s has %d bytes, at least %d are needed", &o.Place, o.meta.Path(), small.Have, small.Need)
}

// holdsMetadata says whether there is any at the end of the device, wherever its map is.
func (o *opened) holdsMetadata() bool {
	end := o.meta.Size() / metadata.PageSize * metadata.PageSize
	for _, off := range []int64{end - metadata.TailSize, end - metadata.SuperblockSize} {
		b := make([]byte, metadata.SuperblockSize)
		if off < 0 || o.meta.ReadAt(b, off) != nil {
			continue
		}
		if _, err := metadata.DecodeSuperblock(b); !errors.Is(err, metadata.ErrNoMetadata) {
			return true
		}
	}
	return false
}

func (p *Place) openOne(path string, readOnly bool) (*blockdev.Component, error) {
	c, err := blockdev.OpenComponent(blockdev.ComponentOptions{Path: path, ReadOnly: readOnly, Log: silent})
	if err == nil {
		return c, nil
	}
	var busy *blockdev.BusyError
	switch {
	case errors.As(err, &busy):
		hint := "stop what holds it, then try again"
		if len(busy.Users) == 0 {
			hint = "find what holds it with lsblk, fuser or losetup -l, stop it, then try again"
		}
		if strings.Contains(strings.Join(busy.Users, " "), "hastd") {
			hint = "hastd holds it while the resource is in use; let it go with hastctl role init " + p.Resource
		}
		return nil, &exit.Error{Code: exit.Again, Text: fmt.Sprintf("%s: %v", p, busy), Hint: hint, Err: err}
	case errors.Is(err, fs.ErrNotExist):
		return nil, &exit.Error{Code: exit.CantCreate, Text: fmt.Sprintf("%s: %s does not exist", p, path), Hint: missingHint(p, path), Err: err}
	case errors.Is(err, fs.ErrPermission):
		return nil, &exit.Error{Code: exit.Refused, Text: fmt.Sprintf("%s: %s may not be opened by this user", p, path), Hint: "run hastctl as root", Err: err}
	}
	if fi, err := os.Stat(path); err == nil && fi.IsDir() {
		return nil, exit.New(exit.CantCreate, "name a block device, or a file in it, in the configuration", "%s: %s is a folder", p, path)
	}
	return nil, p.ioError("open", path, err)
}

func missingHint(p *Place, path string) string {
	if inDev(path) {
		return "is the disk attached and its name right? Make the volume first, or correct the path in the configuration"
	}
	if path != p.Local {
		return fmt.Sprintf("hastctl create %s makes it", p.Resource)
	}
	if dir := filepath.Dir(path); !exists(dir) {
		return fmt.Sprintf("make its folder first: mkdir -p %s; then hastctl create %s --size 1GiB makes a file for a device of that size", dir, p.Resource)
	}
	return fmt.Sprintf("hastctl create %s --size 1GiB makes a file for a device of that size", p.Resource)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func inDev(path string) bool {
	return strings.HasPrefix(path, "/dev/") && !strings.HasPrefix(path, "/dev/shm/")
}

// ioError tells a full disk from a broken one.
func (p *Place) ioError(what, path string, err error) error {
	code, hint := exit.IO, "look at the kernel log (dmesg) for errors of the disk"
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		code, hint = exit.CantCreate, "the disk below it is full: make room (df -h), or put the component elsewhere"
	case errors.Is(err, syscall.EROFS):
		hint = "it is read-only: mount its filesystem writable, or blockdev --setrw"
	case errors.Is(err, syscall.EFBIG):
		code, hint = exit.CantCreate, "its filesystem does not allow files of that size"
	}
	// The path stands in the error of the system too; say it once.
	return &exit.Error{Code: code, Text: fmt.Sprintf("%s: %s %s: %v", p, what, path, cause(err)), Hint: hint, Err: err}
}

// cause is the innermost error, without the paths and operations around it.
func cause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

func (o *opened) close() {
	if o.meta != o.data {
		o.meta.Close()
	}
	o.data.Close()
}

// image reads the whole metadata area. What cannot be read is missing in it, as
// the daemon would see it.
func (o *opened) image() (*metadata.Image, error) {
	img, first := o.read()
	if img.Super[0] == nil && img.Super[1] == nil {
		return nil, o.ioError("read metadata of", o.meta.Path(), first)
	}
	return img, nil
}

// whole is an image of which nothing is missing.
func (o *opened) whole() (*metadata.Image, error) {
	img, err := o.read()
	if err != nil {
		return nil, o.ioError("read metadata of", o.meta.Path(), err)
	}
	return img, nil
}

// read reads what it can, and says what failed first.
func (o *opened) read() (*metadata.Image, error) {
	l := o.layout
	img := &metadata.Image{Layout: l, SectorSize: uint32(o.data.SectorSize())}
	var first error
	read := func(off int64, n int64) []byte {
		b := make([]byte, n)
		if err := o.meta.ReadAt(b, off); err != nil {
			if first == nil {
				first = err
			}
			return nil
		}
		return b
	}
	for i := range 2 {
		img.Super[i] = read(l.Super[i], metadata.SuperblockSize)
	}
	if sb, err := metadata.Inspect(img); err == nil && !o.internal() {
		// The map's place depends on how much data the replica was made for; the
		// component may have grown since.
		if old, err := metadata.External(l.End, sb.Super.DataSize); err == nil {
			l = old
			img.Layout, o.layout = l, l
		}
	}
	for i := range 2 {
		img.Log[i] = read(l.Log[i], metadata.LogSize)
	}
	if img.Map = read(l.Map, l.MapPages*metadata.PageSize); img.Map == nil {
		img.Map = make([]byte, l.MapPages*metadata.PageSize)
	}
	return img, first
}

// oldSizes is what hastd or hastctl kept of the size that the device had.
func (o *opened) oldSizes() (runner.Sizes, error) {
	old, err := runner.OldSizes(o.State, o.Resource, o.meta)
	if err != nil {
		return old, &exit.Error{Code: exit.IO, Text: fmt.Sprintf("%s: whether %s grew or shrank cannot be told: %v", &o.Place, o.meta.Path(), err),
			Hint: "run hastctl as root; make that file readable", Err: err}
	}
	return old, nil
}

// rememberSize keeps the size at whose end the metadata stands now.
func (o *opened) rememberSize() error {
	return runner.RememberSize(o.State, o.Resource, o.meta.Path(), o.meta.Size())
}

// wayOut is what to do about a device that grew.
func (o *opened) wayOut() string {
	return fmt.Sprintf("hastctl resize %s moves the metadata to the new end and keeps the replica", o.Resource)
}
