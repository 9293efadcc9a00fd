package fuse

import (
	"errors"
	"sync"
	"time"
	"unsafe"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"hastd/blockdev"
)

const (
	fileName = "disk"
	rootNode = 1
	diskNode = 2
	// attrValid is how long the kernel may believe what we say of the file;
	// nothing of it changes while it is served.
	attrValid = uint64(24 * time.Hour / time.Second)
	// freeCalls is how many unused requests are kept.
	freeCalls = 4 * maxInFlight
)

// disk is a filesystem of one file, the device. The kernel's requests come in on
// goroutines of the FUSE library, each of which waits for its answer.
type disk struct {
	gofuse.RawFileSystem // answers ENOSYS to all that is not here
	dev                  blockdev.Device
	info                 blockdev.DeviceInfo
	calls                chan *call

	gate sync.RWMutex // held for reading while submitting
	down bool
}

// call is a request and the goroutine that waits for it.
type call struct {
	blockdev.Request // first: a *Request of ours is a *call
	batch            [1]*blockdev.Request
	done             chan struct{}
}

func newDisk(dev blockdev.Device) *disk {
	return &disk{
		RawFileSystem: gofuse.NewDefaultRawFileSystem(),
		dev:           dev,
		info:          dev.Info(),
		calls:         make(chan *call, freeCalls),
	}
}

// shut returns once no request is being submitted, and none will be.
func (d *disk) shut() {
	d.gate.Lock()
	d.down = true
	d.gate.Unlock()
}

// Complete implements blockdev.Completer.
func (d *disk) Complete(done []*blockdev.Request) {
	for _, r := range done {
		(*call)(unsafe.Pointer(r)).done <- struct{}{} // room for one, and one is sent
	}
}

// do passes a request without payload down and waits for its end.
func (d *disk) do(op blockdev.Op, off, n int64, noHole bool) gofuse.Status {
	_, st := d.carry(op, off, n, nil, noHole)
	return st
}

// carry passes a request down and waits for its end. It gives back the payload's
// memory: that of a read may have been replaced.
func (d *disk) carry(op blockdev.Op, off, n int64, buf []byte, noHole bool) ([]byte, gofuse.Status) {
	if off < 0 || n < 0 || off > d.info.Size || n > d.info.Size-off || (off|n)%int64(d.info.SectorSize) != 0 {
		return buf, gofuse.EINVAL
	}
	var c *call
	select {
	case c = <-d.calls:
	default:
		c = &call{done: make(chan struct{}, 1)}
		c.batch[0] = &c.Request
	}
	c.Request = blockdev.Request{Op: op, Off: off, Len: n, Buf: buf, NoHole: noHole, Owner: d}
	d.gate.RLock()
	if d.down {
		d.gate.RUnlock()
		return buf, gofuse.EIO
	}
	d.dev.Submit(c.batch[:])
	d.gate.RUnlock()
	<-c.done
	st := status(c.Err)
	buf = c.Buf
	c.Buf, c.Err = nil, nil
	select {
	case d.calls <- c:
	default:
	}
	return buf, st
}

// status is the code the kernel gets for an error. Some codes would not end a
// request but change what the kernel believes of us: ENOSYS to an fsync makes
// every later one succeed unasked.
func status(err error) gofuse.Status {
	if err == nil {
		return gofuse.OK
	}
	var e unix.Errno
	if !errors.As(err, &e) {
		return gofuse.EIO
	}
	switch e {
	case unix.ENOSPC, unix.EROFS, unix.EINVAL, unix.ENOMEM, unix.ETIMEDOUT, unix.EDQUOT:
		return gofuse.Status(e)
	}
	return gofuse.EIO
}

func (d *disk) String() string { return "hast" }

func (d *disk) attr(node uint64, a *gofuse.Attr) bool {
	switch node {
	case rootNode:
		*a = gofuse.Attr{Ino: rootNode, Mode: unix.S_IFDIR | 0o500, Nlink: 2}
	case diskNode:
		*a = gofuse.Attr{Ino: diskNode, Mode: unix.S_IFREG | 0o600, Nlink: 1,
			Size: uint64(d.info.Size), Blocks: uint64(d.info.Size) / 512, Blksize: 4096}
	default:
		return false
	}
	return true
}

func (d *disk) Lookup(_ <-chan struct{}, h *gofuse.InHeader, name string, out *gofuse.EntryOut) gofuse.Status {
	if h.NodeId != rootNode || name != fileName {
		return gofuse.ENOENT
	}
	out.NodeId, out.EntryValid, out.AttrValid = diskNode, attrValid, attrValid
	d.attr(diskNode, &out.Attr)
	return gofuse.OK
}

func (d *disk) GetAttr(_ <-chan struct{}, in *gofuse.GetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	if !d.attr(in.NodeId, &out.Attr) {
		return gofuse.ENOENT
	}
	out.AttrValid = attrValid
	return gofuse.OK
}

// SetAttr takes changes of times and the like without effect, and none of size.
func (d *disk) SetAttr(_ <-chan struct{}, in *gofuse.SetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	if in.Valid&gofuse.FATTR_SIZE != 0 {
		return gofuse.EPERM
	}
	if !d.attr(in.NodeId, &out.Attr) {
		return gofuse.ENOENT
	}
	out.AttrValid = attrValid
	return gofuse.OK
}

func (d *disk) Open(_ <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	if in.NodeId != diskNode {
		return gofuse.EPERM
	}
	// Past the page cache: the loop device has its own above.
	out.OpenFlags = gofuse.FOPEN_DIRECT_IO | gofuse.FOPEN_PARALLEL_DIRECT_WRITES
	return gofuse.OK
}

func (d *disk) Read(_ <-chan struct{}, in *gofuse.ReadIn, _ []byte) (gofuse.ReadResult, gofuse.Status) {
	off := int64(in.Offset)
	n := min(int64(in.Size), d.info.Size-off)
	if off < 0 || n <= 0 {
		return gofuse.ReadResultData(nil), gofuse.OK // the end of the file
	}
	if n > maxTransfer {
		return nil, gofuse.EINVAL
	}
	buf := d.dev.Alloc(int(n))
	if buf == nil {
		return nil, gofuse.EIO // closing
	}
	buf, st := d.carry(blockdev.OpRead, off, n, buf, false)
	if !st.Ok() {
		d.dev.Free(buf)
		return nil, st
	}
	return &answer{d: d, buf: buf, iov: [1][]byte{buf}}, gofuse.OK
}

// answer is what was read: written to the kernel from the device's memory, which
// is then given back.
type answer struct {
	d   *disk
	buf []byte
	iov [1][]byte
}

func (a *answer) Size() int                              { return len(a.buf) }
func (a *answer) Slices() ([][]byte, gofuse.Status)      { return a.iov[:], gofuse.OK }
func (a *answer) Bytes(b []byte) ([]byte, gofuse.Status) { return append(b[:0], a.buf...), gofuse.OK }
func (a *answer) Done()                                  { a.d.dev.Free(a.buf); a.buf = nil }

func (d *disk) Write(_ <-chan struct{}, in *gofuse.WriteIn, data []byte) (uint32, gofuse.Status) {
	if len(data) == 0 || len(data) > maxTransfer {
		return 0, gofuse.EINVAL
	}
	buf := d.dev.Alloc(len(data))
	if buf == nil {
		return 0, gofuse.EIO
	}
	copy(buf, data)
	buf, st := d.carry(blockdev.OpWrite, int64(in.Offset), int64(len(data)), buf, false)
	d.dev.Free(buf)
	if !st.Ok() {
		return 0, st
	}
	return uint32(len(data)), gofuse.OK
}

func (d *disk) Fsync(_ <-chan struct{}, in *gofuse.FsyncIn) gofuse.Status {
	return d.do(blockdev.OpFlush, 0, 0, false)
}

// Fallocate is how the loop device asks for discard and write-zeroes (both as a
// hole, unless the space must stay).
func (d *disk) Fallocate(_ <-chan struct{}, in *gofuse.FallocateIn) gofuse.Status {
	off, n := int64(in.Offset), int64(in.Length)
	switch in.Mode &^ unix.FALLOC_FL_KEEP_SIZE {
	case unix.FALLOC_FL_PUNCH_HOLE:
		return d.do(blockdev.OpTrim, off, n, false)
	case unix.FALLOC_FL_ZERO_RANGE:
		return d.do(blockdev.OpZero, off, n, true)
	}
	return gofuse.Status(unix.EOPNOTSUPP)
}

// StatFs tells the loop device the granularity of discard.
func (d *disk) StatFs(_ <-chan struct{}, _ *gofuse.InHeader, out *gofuse.StatfsOut) gofuse.Status {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	out.Blocks = uint64(d.info.Size) / 4096
	return gofuse.OK
}
