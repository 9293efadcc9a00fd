package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hastd/blockdev"
	"hastd/metadata"
	"hastd/replicate"
)

// commitJob is an EffCommit on its way.
type commitJob struct {
	op     replicate.OpID
	writes []metadata.Write
}

// maxCommits is how many commits a disk can have waiting; the machine has one
// under way, and a last one for a component that fails.
const maxCommits = 4

// open answers EffOpen.
func (r *Resource) open(op replicate.OpID) {
	ev := replicate.Event{Kind: replicate.EvOpened, Op: op}
	d, err := r.openDisk()
	var busy *blockdev.BusyError
	var none *noMetadataError
	switch {
	case err == nil:
		ev.Image = d.image
	case errors.As(err, &busy):
		ev.Err = replicate.ErrBusy
	case errors.As(err, &none):
		ev.Err = replicate.ErrNoData
	default:
		ev.Err = replicate.ErrOther
	}
	if err != nil {
		ev.Text = err.Error()
	}
	if !r.box.post(item{ev: ev, disk: d}) && d != nil {
		<-r.release(d)
	}
}

// noMetadataError is a component that was never made a replica.
type noMetadataError struct{ resource, path string }

func (e *noMetadataError) Error() string {
	return fmt.Sprintf("%s holds no HAST metadata: run `hastctl create %s` on this node", e.path, e.resource)
}

func (r *Resource) openDisk() (*disk, error) {
	o := &r.opts
	open := func(path string) (*blockdev.Component, error) {
		c, err := blockdev.OpenComponent(blockdev.ComponentOptions{Path: path, Log: o.Log})
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w; if the replica is new, run `hastctl create %s` on this node", err, o.Resource)
		}
		return c, err
	}
	data, err := open(o.Component)
	if err != nil {
		return nil, err
	}
	meta := data
	if o.Metadata != MetadataInternal {
		if meta, err = open(o.Metadata); err != nil {
			closeAll(data)
			return nil, fmt.Errorf("metadata of %s: %w", o.Resource, err)
		}
	}
	st, err := loadState(o.StateDir, o.Resource)
	if err != nil {
		closeAll(data, meta)
		return nil, fmt.Errorf("what is known of %s cannot be read: %w (it may say that this replica is bad: make the file readable)", o.Resource, err)
	}
	img, err := readImage(data, meta, o.Resource, st)
	if err != nil {
		closeAll(data, meta)
		return nil, err
	}
	d := &disk{data: data, meta: meta, image: img, joined: make([]byte, joinedSize)}
	d.queue = blockdev.NewQueue(data, diskWorkers, r.ioDone)
	d.pool = newPool(r, d)
	d.commits = make(chan commitJob, maxCommits)
	d.committed = make(chan struct{})
	go func() {
		defer close(d.committed)
		for c := range d.commits {
			r.commit(d, c)
		}
	}()
	d.watch(r)
	r.pinned.Lock()
	r.pinnedDisk = d
	r.pinned.Unlock()
	if err := rememberAtOpening(o.StateDir, o.Resource, meta.Path(), meta.Size()); err != nil {
		o.Log.Warn("cannot remember the component's size: should it grow, its metadata will not be found", "path", o.StateDir, "error", err)
	}
	return d, nil
}

func closeAll(cs ...*blockdev.Component) {
	var last *blockdev.Component
	for _, c := range cs {
		if c != last {
			_ = c.Close() // nothing was written
		}
		last = c
	}
}

// source is what an image is read from.
type source interface {
	ReadAt(buf []byte, off int64) error
	Size() int64
	SectorSize() int
	Path() string
}

// readImage reads what the metadata area holds. What cannot be read is left out
// for the machine to judge; only an area that is not there at all is an error.
func readImage(data, meta source, resource string, st state) (*metadata.Image, error) {
	layout, err := layoutOf(data, meta)
	if err != nil {
		return nil, fmt.Errorf("component %s: %w", data.Path(), err)
	}
	img := &metadata.Image{SectorSize: uint32(data.SectorSize())}
	for i, off := range layout.Super {
		img.Super[i] = readPart(meta, off, metadata.SuperblockSize)
	}
	sb, found, blank := newest(img)
	if err := st.resized(meta, resource, found); err != nil {
		return nil, err
	}
	if blank {
		if old := st.shrankFrom(meta); old > 0 {
			return nil, fmt.Errorf("component shrank from %d to %d bytes: its metadata stood at the old end of %s. Give the component its old size back; if it is another one, run `hastctl create %s --force`", old, meta.Size(), meta.Path(), resource)
		}
		return nil, &noMetadataError{resource, meta.Path()}
	}
	if found && data != meta {
		// The map's place depends on how much data the replica was made for.
		if sb.DataSize > layout.DataSize {
			return nil, fmt.Errorf("component %s shrank: it held %d bytes of data, there is room for %d. Give it its old size back", data.Path(), sb.DataSize, layout.DataSize)
		}
		if layout, err = metadata.External(meta.Size(), sb.DataSize); err != nil {
			return nil, fmt.Errorf("metadata device %s: %w", meta.Path(), err)
		}
	}
	if found {
		// A component that grew has room that this replica was not made for.
		layout.DataSize = min(layout.DataSize, sb.DataSize)
	}
	img.Layout = layout
	for i, off := range layout.Log {
		img.Log[i] = readPart(meta, off, metadata.LogSize)
	}
	img.Map = readMap(meta, layout)
	img.StateInconsistent = st.marked(sb, found)
	return img, nil
}

func layoutOf(data, meta source) (metadata.Layout, error) {
	if data == meta {
		return metadata.Internal(data.Size())
	}
	return metadata.External(meta.Size(), data.Size())
}

// newest decodes the superblocks: the one that counts, whether there is one, and
// whether there was never any.
func newest(img *metadata.Image) (sb metadata.Superblock, found, blank bool) {
	blank = true
	for _, b := range img.Super {
		if b == nil {
			blank = false
			continue
		}
		s, err := metadata.DecodeSuperblock(b)
		if !errors.Is(err, metadata.ErrNoMetadata) {
			blank = false
		}
		if err == nil && (!found || s.Sequence > sb.Sequence) {
			sb, found = s, true
		}
	}
	return sb, found, blank
}

func readPart(c source, off int64, n int) []byte {
	b := make([]byte, n)
	if c.ReadAt(b, off) != nil {
		return nil
	}
	return b
}

// mapStep is how much of the map is read at once; where that fails, page by page.
const mapStep = 1 << 20

func readMap(c source, l metadata.Layout) []byte {
	b := make([]byte, l.MapPages*metadata.PageSize)
	for at := 0; at < len(b); at += mapStep {
		part := b[at:min(at+mapStep, len(b))]
		if c.ReadAt(part, l.Map+int64(at)) == nil {
			continue
		}
		for p := 0; p < len(part); p += metadata.PageSize {
			if page := part[p : p+metadata.PageSize]; c.ReadAt(page, l.Map+int64(at+p)) != nil {
				clear(page)
			}
		}
	}
	return b
}

// order answers EffCommit, now or when the disk has done it. Owner only.
func (r *Resource) order(d *disk, c commitJob) {
	switch {
	case d == nil:
		r.notCommitted(c.op, replicate.ErrShut, errNoDisk.Error())
	case d.failed.Load():
		// It hangs: nothing may wait for it.
		r.notCommitted(c.op, replicate.ErrIO, d.meta.Path()+" does not answer")
	default:
		d.commits <- c
	}
}

func (r *Resource) notCommitted(op replicate.OpID, e replicate.Err, why string) {
	r.box.event(replicate.Event{Kind: replicate.EvCommitted, Op: op, Err: e, Text: why})
}

// commit makes metadata durable, as long as the disk takes.
func (r *Resource) commit(d *disk, c commitJob) {
	err := writeAll(timed{d.meta, &d.commitStart}, c.writes, d.joined)
	d.commitStart.Store(0)
	if err != nil {
		r.notCommitted(c.op, replicate.ErrIO, err.Error())
		return
	}
	r.box.event(replicate.Event{Kind: replicate.EvCommitted, Op: c.op})
}

// target is what metadata is written to.
type target interface {
	WriteAt(buf []byte, off int64) error
	Flush() error
}

// timed notes when each operation of a commit began: disk-timeout is for one that is not
// answered, not for a commit that has much to write.
type timed struct {
	target
	began *atomic.Int64
}

func (t timed) WriteAt(buf []byte, off int64) error {
	t.began.Store(blockdev.Now())
	return t.target.WriteAt(buf, off)
}

func (t timed) Flush() error {
	t.began.Store(blockdev.Now())
	return t.target.Flush()
}

// writeAll makes writes durable; the flush is what a commit is. Neighbours, as the pages
// of the map, are written at once, as many as fit into joined.
func writeAll(c target, writes []metadata.Write, joined []byte) error {
	for len(writes) > 0 {
		data, n := writes[0].Data, 1
		for n < len(writes) && writes[n].Offset == writes[0].Offset+int64(len(data)) && len(data)+len(writes[n].Data) <= len(joined) {
			if n == 1 {
				data = append(joined[:0], data...)
			}
			data = append(data, writes[n].Data...)
			n++
		}
		if err := c.WriteAt(data, writes[0].Offset); err != nil {
			return err
		}
		writes = writes[n:]
	}
	return c.Flush()
}

// shut answers EffClose. A component that hangs is left behind: it is closed when
// its last operation ends.
func (r *Resource) shut(d *disk, op replicate.OpID) {
	if d != nil && !within(closeGrace, r.release(d)) {
		r.opts.Log.Error("the component hangs in an operation and is left behind: it stays open until that ends", "path", d.data.Path())
	}
	r.box.event(replicate.Event{Kind: replicate.EvClosed, Op: op})
}

// release closes a component once its operations have ended; what was not begun is
// answered and not begun any more. The channel tells when it is closed.
func (r *Resource) release(d *disk) <-chan struct{} {
	d.unwatch()
	d.queue.Stop()
	d.pool.stop()
	close(d.commits)
	r.pinned.Lock()
	r.pinnedDisk = nil
	r.pinned.Unlock()
	r.holes.CompareAndSwap(d.pool.holes, nil)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		d.pool.wg.Wait()
		<-d.committed
		d.queue.Close()
		d.watching.Wait()
		d.pins.Wait()
		if d.meta != d.data {
			r.warnClose(d.meta)
		}
		r.warnClose(d.data)
	}()
	return closed
}

func (r *Resource) warnClose(c *blockdev.Component) {
	if err := c.Close(); err != nil {
		r.opts.Log.Warn("closing the component failed", "path", c.Path(), "error", err)
	}
}

// state is what the state directory keeps of a resource; never needed to find
// data. Missing or damaged, it is empty; one that cannot be read is an error.
type state struct {
	// Path and Size are of the device that holds the metadata, when last opened.
	Path string `json:"path"`
	Size int64  `json:"size"`
	// Inconsistent marks the replica with this resuid.
	Inconsistent bool        `json:"inconsistent,omitempty"`
	Resuid       metadata.ID `json:"resuid,omitempty"`
}

func statePath(dir, resource string) string { return filepath.Join(dir, resource+".json") }

func loadState(dir, resource string) (st state, err error) {
	b, err := os.ReadFile(statePath(dir, resource))
	switch {
	case err == nil:
		_ = json.Unmarshal(b, &st) // damaged is as good as missing
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	return st, err
}

// marked says whether the mark speaks of the replica that was found: one made
// anew on the same device does not inherit it.
func (st *state) marked(sb metadata.Superblock, found bool) bool {
	return st.Inconsistent && (!found || sb.Resuid == st.Resuid)
}

// resized refuses a device that grew while what stood at its old end is still there: where
// there is metadata at the new end, too, it may be half moved, or of an older life of the
// replica. found says whether there is some that can be used.
func (st *state) resized(meta source, resource string, found bool) error {
	old := st.grewFrom(meta)
	if old == 0 {
		return nil
	}
	where := "its metadata stands at the old end of " + meta.Path()
	if found {
		ours := func(sb metadata.Superblock, err error) bool {
			return err == nil && sb.Resource == resource || err != nil && !errors.Is(err, metadata.ErrNoMetadata)
		}
		if !st.atOldEnd(meta, ours) {
			return nil
		}
		where = "metadata stands at the old end of " + meta.Path() + " and at the new one"
	}
	return fmt.Errorf("component grew from %d to %d bytes: %s. Run `hastctl resize %s`, or give the component its old size back", old, meta.Size(), where, resource)
}

// grewFrom is the size at which the metadata of a device that grew is found; else 0.
func (st *state) grewFrom(meta source) int64 {
	some := func(_ metadata.Superblock, err error) bool { return !errors.Is(err, metadata.ErrNoMetadata) }
	if st.Size <= 0 || endOf(st.Size) >= endOf(meta.Size()) || !st.atOldEnd(meta, some) {
		return 0
	}
	return st.Size
}

// endOf is where the metadata of a device of this size ends.
func endOf(size int64) int64 { return size / metadata.PageSize * metadata.PageSize }

// atOldEnd says whether one of the superblocks at the remembered end is such a one.
func (st *state) atOldEnd(meta source, is func(metadata.Superblock, error) bool) bool {
	end := endOf(st.Size)
	for _, off := range []int64{end - metadata.SuperblockSize, end - metadata.TailSize} {
		if off < 0 {
			continue
		}
		if b := readPart(meta, off, metadata.SuperblockSize); b != nil && is(metadata.DecodeSuperblock(b)) {
			return true
		}
	}
	return false
}

// shrankFrom is the size that a device with metadata had when it was larger; else 0. Another
// device in its place has another path, or a replica is made of it first.
func (st *state) shrankFrom(meta source) int64 {
	if st.Path != meta.Path() || endOf(st.Size) <= endOf(meta.Size()) {
		return 0
	}
	return st.Size
}

// Sizes is what the state directory tells of a device with metadata whose size changed; at
// most one of them is not 0.
type Sizes struct {
	GrewFrom   int64 // metadata still stands at that end
	ShrankFrom int64
}

// OldSizes tells hastctl what an opening would take the device with the metadata of a
// resource for.
func OldSizes(dir, resource string, meta *blockdev.Component) (Sizes, error) {
	st, err := loadState(dir, resource)
	if err != nil {
		return Sizes{}, err
	}
	return Sizes{st.grewFrom(meta), st.shrankFrom(meta)}, nil
}

// stateWait is how long a change waits for another one. Each is one small file written: who
// takes longer is stopped, or its disk hangs.
const stateWait = 5 * time.Second

// changeState changes what is kept of a resource. Marks come from hastd, sizes from hastctl,
// too: without a lock one of two changes would be lost, and a mark says that a replica is bad.
// It returns nil only when what is wanted is there after a crash, too.
func changeState(dir, resource string, change func(*state)) error {
	lock, err := lockState(statePath(dir, resource)+".lock", stateWait)
	if err != nil {
		return err
	}
	defer lock.Close()
	b, err := changedState(dir, resource, change)
	if err != nil {
		return err
	}
	if b == nil { // an earlier change may have failed behind its rename
		return syncFolder(dir)
	}
	return writeDurably(statePath(dir, resource), b)
}

// changedState is what has to be written; nil if there is no change.
func changedState(dir, resource string, change func(*state)) ([]byte, error) {
	st, err := loadState(dir, resource)
	if err != nil {
		return nil, err // what it holds is not to be written over
	}
	old := st
	change(&st)
	if st == old {
		return nil, nil
	}
	return json.Marshal(st)
}

// lockState takes a lock that ends with its file, and so with the process.
func lockState(path string, wait time.Duration) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	const again = 2 * time.Millisecond
	for end := time.Now().Add(wait); ; time.Sleep(again) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(end) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

// RememberSize keeps the size of the device at whose end the metadata of a resource
// stands, for who wrote or moved that.
func RememberSize(dir, resource, path string, size int64) error {
	return changeState(dir, resource, sized(path, size))
}

func sized(path string, size int64) func(*state) {
	return func(st *state) { st.Path, st.Size = path, size }
}

// rememberAtOpening does it for an opening: no trouble where nothing can be written and
// nothing is new.
func rememberAtOpening(dir, resource, path string, size int64) error {
	if b, err := changedState(dir, resource, sized(path, size)); b == nil {
		return err
	}
	return RememberSize(dir, resource, path, size)
}

// writeDurably replaces a file so that after a crash either the old or the new
// one is there.
func writeDurably(path string, b []byte) (err error) {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fs.FileMode(0o600))
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes a renaming in it durable.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// mark answers EffStateMark, on a goroutine of its own: the component it is about
// may be hanging.
func (r *Resource) mark(op replicate.OpID, set bool, resuid metadata.ID) {
	ev := replicate.Event{Kind: replicate.EvMarked, Op: op}
	err := changeState(r.opts.StateDir, r.opts.Resource, func(st *state) {
		st.Inconsistent, st.Resuid = set, resuid
		if !set {
			st.Resuid = 0
		}
	})
	if err != nil {
		ev.Err, ev.Text = replicate.ErrOther, fmt.Sprintf("cannot keep the mark in %s: %v", r.opts.StateDir, err)
	}
	r.box.event(ev)
}
