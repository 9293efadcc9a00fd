package fuse

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

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
)

// disk is a filesystem of one file, the device. Here is what the kernel asks of the
// file; reads and writes of it go past this, see server.
type disk struct {
	gofuse.RawFileSystem // answers ENOSYS to all that is not here
	dev                  blockdev.Device
	info                 blockdev.DeviceInfo
	server               *server
	attacher             atomic.Uint32 // the thread that sets up the loop device; 0: none

	gate sync.RWMutex // held for reading while submitting
	down bool
}

func newDisk(dev blockdev.Device) *disk {
	return &disk{
		RawFileSystem: gofuse.NewDefaultRawFileSystem(),
		dev:           dev,
		info:          dev.Info(),
	}
}

// shut returns once no request is being submitted, and none will be.
func (d *disk) shut() {
	d.gate.Lock()
	d.down = true
	d.gate.Unlock()
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

// StatFs tells the loop device the granularity of discard.
func (d *disk) StatFs(_ <-chan struct{}, _ *gofuse.InHeader, out *gofuse.StatfsOut) gofuse.Status {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	out.Blocks = uint64(d.info.Size) / 4096
	return gofuse.OK
}
