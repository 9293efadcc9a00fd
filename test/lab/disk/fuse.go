package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// FileName is the name of the one file in a mounted directory.
const FileName = "disk"

const (
	rootNode = 1
	fileNode = 2

	maxInFlight = 128     // requests the kernel may have under way in the background
	maxTransfer = 1 << 20 // bytes of one FUSE request
	attrValid   = time.Hour
)

// Mount is a disk that is being served.
type Mount struct {
	dir    string
	server *fuse.Server
	done   chan struct{}
}

// Serve mounts d over dir; the disk is then the file Path. It needs root. The
// process that serves must not be one that uses the file.
func Serve(d *Disk, dir string) (*Mount, error) {
	server, err := fuse.NewServer(&fileSystem{RawFileSystem: fuse.NewDefaultRawFileSystem(), disk: d}, dir, &fuse.MountOptions{
		Name: "labdisk", FsName: "labdisk",
		MaxBackground: maxInFlight, MaxWrite: maxTransfer,
		DirectMountStrict: true, AllowOther: true,
		DisableXAttrs: true, DisableReadDirPlus: true,
		// Without it exactly one direct request is in flight.
		ExtraCapabilities: fuse.CAP_ASYNC_DIO,
	})
	if err != nil {
		return nil, fmt.Errorf("lab disk: mount over %s: %w", dir, err)
	}
	m := &Mount{dir: dir, server: server, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		server.Serve()
	}()
	if err := server.WaitMount(); err != nil {
		return nil, errors.Join(fmt.Errorf("lab disk: mount over %s: %w", dir, err), m.Close())
	}
	return m, nil
}

// Path is the file that is the disk.
func (m *Mount) Path() string { return filepath.Join(m.dir, FileName) }

// Close takes the file away, also from under those who hold it open: their
// requests fail.
func (m *Mount) Close() error {
	err := unix.Unmount(m.dir, unix.MNT_DETACH|unix.MNT_FORCE)
	if err != nil {
		return fmt.Errorf("lab disk: unmount %s: %w", m.dir, err)
	}
	select {
	case <-m.done:
	case <-time.After(5 * time.Second):
		// Somebody holds the file open and the kernel keeps the connection;
		// the end of this process ends it.
	}
	return nil
}

// fileSystem is a directory with one file, the disk.
type fileSystem struct {
	fuse.RawFileSystem
	disk *Disk
}

func (fs *fileSystem) attr(node uint64, a *fuse.Attr) {
	a.Ino, a.Nlink = node, 1
	a.Mode = syscall.S_IFDIR | 0o700
	if node == fileNode {
		a.Mode = syscall.S_IFREG | 0o600
		a.Size = uint64(fs.disk.Size())
		a.Blocks = a.Size / 512
		a.Blksize = pageSize
	}
	a.Uid, a.Gid = uint32(os.Getuid()), uint32(os.Getgid())
}

func (fs *fileSystem) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if h.NodeId != rootNode || name != FileName {
		return fuse.ENOENT
	}
	out.NodeId = fileNode
	out.SetEntryTimeout(attrValid)
	out.SetAttrTimeout(attrValid)
	fs.attr(fileNode, &out.Attr)
	return fuse.OK
}

func (fs *fileSystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.SetTimeout(attrValid)
	fs.attr(in.NodeId, &out.Attr)
	return fuse.OK
}

// SetAttr lets times and modes be set to no effect; the size is fixed.
func (fs *fileSystem) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if size, ok := in.GetSize(); ok && (in.NodeId != fileNode || size != uint64(fs.disk.Size())) {
		return fuse.EPERM
	}
	out.SetTimeout(attrValid)
	fs.attr(in.NodeId, &out.Attr)
	return fuse.OK
}

func (fs *fileSystem) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.OK }

func (fs *fileSystem) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.NodeId != fileNode {
		return fuse.Status(syscall.EISDIR)
	}
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES | fuse.FOPEN_NOFLUSH
	return fuse.OK
}

func (fs *fileSystem) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.OK
}

func (fs *fileSystem) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if in.Offset == 0 {
		out.AddDirEntry(fuse.DirEntry{Name: FileName, Ino: fileNode, Mode: syscall.S_IFREG})
	}
	return fuse.OK
}

// Interrupts are not honoured: the Go runtime of the daemon sends itself signals
// all the time, and a disk does not stop for them.

func (fs *fileSystem) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	off := int64(in.Offset)
	if off >= fs.disk.Size() {
		return fuse.ReadResultData(nil), fuse.OK
	}
	buf = buf[:min(int64(in.Size), fs.disk.Size()-off)]
	if _, err := fs.disk.ReadAt(buf, off); err != nil {
		return nil, status(err)
	}
	return fuse.ReadResultData(buf), fuse.OK
}

func (fs *fileSystem) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	off := int64(in.Offset)
	if off+int64(len(data)) > fs.disk.Size() {
		return 0, fuse.Status(syscall.ENOSPC)
	}
	n, err := fs.disk.WriteAt(data, off)
	return uint32(n), status(err)
}

func (fs *fileSystem) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status {
	return status(fs.disk.Flush())
}

// Flush is the close of a descriptor; a disk does not notice it.
func (fs *fileSystem) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

func (fs *fileSystem) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	switch in.Mode &^ unix.FALLOC_FL_KEEP_SIZE {
	case unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE:
		off := int64(in.Offset)
		if off >= fs.disk.Size() {
			return fuse.OK
		}
		return status(fs.disk.Zero(off, min(int64(in.Length), fs.disk.Size()-off)))
	case 0:
		return fuse.OK // everything inside the fixed size is there already
	}
	return fuse.Status(syscall.EOPNOTSUPP)
}

func (fs *fileSystem) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	off := int64(in.Offset)
	if off < 0 || off >= fs.disk.Size() {
		return fuse.Status(syscall.ENXIO)
	}
	var at int64
	var err error
	switch in.Whence {
	case unix.SEEK_DATA:
		at, err = fs.disk.NextData(off)
		if err == nil && at >= fs.disk.Size() {
			err = syscall.ENXIO
		}
	case unix.SEEK_HOLE:
		at, err = fs.disk.NextHole(off)
	default:
		return fuse.EINVAL
	}
	out.Offset = uint64(at)
	return status(err)
}

func (fs *fileSystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Frsize, out.NameLen = pageSize, pageSize, 255
	out.Blocks = uint64(fs.disk.Size() / pageSize)
	return fuse.OK
}

func status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return fuse.Status(errno)
	}
	return fuse.EIO
}
