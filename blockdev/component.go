package blockdev

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pageSize is the alignment that suits every sector size this package accepts.
const pageSize = 4096

// ComponentOptions says which local component to open, and how.
type ComponentOptions struct {
	Path     string
	ReadOnly bool
	Log      *slog.Logger // nil: slog.Default()

	buffered bool // tests: behave as on a filesystem without O_DIRECT
}

// Component is an open local component: a block device or a regular file that
// nobody else has open for the same purpose. Its methods may be called from many
// goroutines at once; Close only when none is under way.
type Component struct {
	path     string
	fd       int
	file     *os.File // keeps fd alive; I/O goes to fd without the runtime's poller
	device   bool
	readOnly bool
	direct   bool
	size     int64
	sector   int
	physical int
	log      *slog.Logger

	noPunch     atomic.Bool // the kernel said it cannot make holes here
	noZeroRange atomic.Bool
	failed      atomic.Pointer[FailedError]
	flushing    sync.Mutex // one flush at a time
}

// BusyError is a component that another process has open.
type BusyError struct {
	Path  string
	PID   int      // 0 when it could not be found
	Users []string // "name (pid 123)", "mounted on /srv", …; may be empty
}

func (e *BusyError) Error() string {
	s := e.Path + " is in use"
	for i, u := range e.Users {
		if i == 0 {
			s += " by "
		} else {
			s += ", "
		}
		s += u
	}
	return s
}

// FailedError is a component that lost data it had accepted: a flush failed, and
// the kernel forgets which pages were dirty after telling so once. Only a new
// component (and a sync) helps.
type FailedError struct {
	Path string
	Err  error
}

func (e *FailedError) Error() string {
	return fmt.Sprintf("%s failed for good: a flush ended in %v, so writes accepted before may be lost", e.Path, e.Err)
}

func (e *FailedError) Unwrap() error { return e.Err }

// OpenComponent opens a block device or file for this process alone. Errors:
// *BusyError; otherwise one that wraps fs.ErrNotExist, fs.ErrPermission or what
// the kernel said.
func OpenComponent(opts ComponentOptions) (*Component, error) {
	log := opts.Log
	if log == nil {
		log = slog.Default()
	}
	fi, err := os.Stat(opts.Path)
	if err != nil {
		return nil, fmt.Errorf("open component: %w", err)
	}
	isDevice := fi.Mode()&fs.ModeDevice != 0 && fi.Mode()&fs.ModeCharDevice == 0
	if !isDevice && !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("open component %s: it is neither a block device nor a regular file", opts.Path)
	}
	flags := os.O_RDWR
	if opts.ReadOnly {
		flags = os.O_RDONLY
	}
	if isDevice {
		// The kernel's own claim: refused while the device is mounted, swapped
		// on, part of a RAID or claimed by another daemon. No flock here: udev
		// takes one while it probes, and would stop handling the device.
		flags |= unix.O_EXCL
	}
	c := &Component{path: opts.Path, device: isDevice, readOnly: opts.ReadOnly, log: log}
	why := "not asked for"
	if !opts.buffered {
		c.file, err = os.OpenFile(opts.Path, flags|unix.O_DIRECT, 0)
		if err == nil {
			c.direct = true
		} else if errors.Is(err, unix.EINVAL) {
			why = "the filesystem does not know O_DIRECT"
		}
	}
	if !c.direct && (opts.buffered || errors.Is(err, unix.EINVAL)) {
		c.file, err = os.OpenFile(opts.Path, flags, 0)
	}
	if err != nil {
		if errors.Is(err, unix.EBUSY) {
			return nil, busy(opts.Path)
		}
		return nil, fmt.Errorf("open component: %w", err)
	}
	c.fd = int(c.file.Fd())
	if reason, err := c.setUp(); err != nil {
		c.file.Close()
		return nil, err
	} else if reason != "" {
		why = reason
	}
	if !c.direct {
		log.Info("component is used through the page cache", "path", c.path, "reason", why)
	}
	return c, nil
}

// setUp takes the lock and learns size and alignment. The string says why direct
// I/O was given up, if it was.
func (c *Component) setUp() (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(c.fd, &st); err != nil {
		return "", fmt.Errorf("open component %s: %w", c.path, err)
	}
	if c.device != (st.Mode&unix.S_IFMT == unix.S_IFBLK) {
		return "", fmt.Errorf("open component %s: it was replaced while being opened, try again", c.path)
	}
	if c.device {
		return "", c.setUpDevice()
	}
	// Held by the open file, so it goes with the process however it ends.
	if err := unix.Flock(c.fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return "", busy(c.path)
		}
		return "", fmt.Errorf("lock component %s: %w", c.path, err)
	}
	if loop := loopOver(c.path); loop != "" {
		return "", &BusyError{Path: c.path, Users: []string{"loop device " + loop}}
	}
	return c.setUpFile(st.Size)
}

func (c *Component) setUpDevice() error {
	var err error
	if c.sector, err = unix.IoctlGetInt(c.fd, unix.BLKSSZGET); err != nil {
		return fmt.Errorf("ask %s for its sector size: %w", c.path, err)
	}
	if c.physical, err = unix.IoctlGetInt(c.fd, unix.BLKPBSZGET); err != nil {
		c.physical = c.sector
	}
	if c.sector != 512 && c.sector != 4096 {
		return fmt.Errorf("open component %s: sectors of %d bytes are not supported, only 512 and 4096", c.path, c.sector)
	}
	var size uint64
	if err := ioctlPtr(c.fd, unix.BLKGETSIZE64, unsafe.Pointer(&size)); err != nil {
		return fmt.Errorf("ask %s for its size: %w", c.path, err)
	}
	c.size = int64(size) &^ int64(c.sector-1)
	return nil
}

// setUpFile finds the smallest sector size at which direct I/O works on this
// file, and gives direct I/O up where none does.
func (c *Component) setUpFile(size int64) (string, error) {
	c.sector, c.physical = 512, 4096
	why := ""
	if c.direct {
		var err error
		if c.sector, why, err = directAlign(c.fd); err != nil {
			return "", fmt.Errorf("open component %s: %w", c.path, err)
		}
		if c.sector == 0 {
			c.sector, c.direct = 512, false
			fl, err := unix.FcntlInt(uintptr(c.fd), unix.F_GETFL, 0)
			if err == nil {
				_, err = unix.FcntlInt(uintptr(c.fd), unix.F_SETFL, fl&^unix.O_DIRECT)
			}
			if err != nil {
				why += " (and O_DIRECT could not be taken back: " + err.Error() + ")"
			}
		}
	}
	c.size = size &^ int64(c.sector-1)
	return why, nil
}

// directAlign says what a file descriptor opened with O_DIRECT asks of offsets
// and memory: 512 or 4096, or 0 and the reason.
func directAlign(fd int) (int, string, error) {
	var stx unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &stx)
	if err == nil && stx.Mask&unix.STATX_DIOALIGN != 0 {
		a := max(stx.Dio_offset_align, stx.Dio_mem_align)
		switch {
		case stx.Dio_offset_align == 0:
			return 0, "the filesystem does not do direct I/O on this file", nil
		case a <= 512:
			return 512, "", nil
		case a <= 4096:
			return 4096, "", nil
		}
		return 0, fmt.Sprintf("direct I/O here needs an alignment of %d bytes", a), nil
	}
	// Kernels before 6.1, and filesystems that do not say: try.
	buf := alignedBuf(pageSize)
	for _, n := range []int{512, pageSize} {
		if _, err = retried(func() (int, error) { return unix.Pread(fd, buf[:n], int64(n)) }); err == nil {
			return n, "", nil
		}
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) {
			return 0, "", fmt.Errorf("read at %d: %w", n, err) // the disk, not the alignment
		}
	}
	return 0, "a direct read failed: " + err.Error(), nil
}

// retried repeats a call that a signal interrupted.
func retried(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); err != unix.EINTR {
			return n, err
		}
	}
}

// CreateFileComponent makes a sparse file of size bytes for use as a component,
// and makes its name durable. An existing file is never touched: the error then
// wraps fs.ErrExist.
func CreateFileComponent(path string, size int64) (err error) {
	if size <= 0 || size%pageSize != 0 {
		return fmt.Errorf("create component %s: size %d is not a multiple of %d bytes", path, size, pageSize)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create component: %w", err)
	}
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("create component %s: %w", path, cerr)
		}
		if err != nil {
			os.Remove(path)
		}
	}()
	if err := f.Truncate(size); err != nil {
		return fmt.Errorf("create component %s of %d bytes: %w", path, size, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("create component %s: %w", path, err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("create component %s: %w", path, err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("create component %s: make its name durable: %w", path, err)
	}
	return nil
}

// Path is how the component was named when opened.
func (c *Component) Path() string { return c.path }

// Size is the component's size in bytes, a multiple of SectorSize.
func (c *Component) Size() int64 { return c.size }

// SectorSize is the alignment of offsets and lengths: 512 or 4096.
func (c *Component) SectorSize() int { return c.sector }

// PhysicalSectorSize is the unit the disk writes at once; smaller writes may be
// torn by it, or cost it a read.
func (c *Component) PhysicalSectorSize() int { return c.physical }

// IsDevice says whether it is a block device and not a file.
func (c *Component) IsDevice() bool { return c.device }

// Direct says whether I/O bypasses the page cache.
func (c *Component) Direct() bool { return c.direct }

// Err is nil or the *FailedError of an earlier flush.
func (c *Component) Err() error {
	if f := c.failed.Load(); f != nil {
		return f
	}
	return nil
}

// Close gives the component up. It does not flush.
func (c *Component) Close() error {
	if err := c.file.Close(); err != nil {
		return fmt.Errorf("close component: %w", err)
	}
	return nil
}

func (c *Component) check(op string, off, n int64) error {
	if off < 0 || n < 0 || off > c.size || n > c.size-off {
		return fmt.Errorf("%s %s at %d: %d bytes reach beyond its %d: %w", op, c.path, off, n, c.size, unix.EINVAL)
	}
	if (off|n)&int64(c.sector-1) != 0 {
		return fmt.Errorf("%s %s at %d: %d bytes are not aligned to its sectors of %d: %w", op, c.path, off, n, c.sector, unix.EINVAL)
	}
	return nil
}

func (c *Component) checkWrite(op string, off, n int64) error {
	if f := c.failed.Load(); f != nil {
		return f
	}
	if c.readOnly {
		return fmt.Errorf("%s %s: opened read-only: %w", op, c.path, unix.EROFS)
	}
	return c.check(op, off, n)
}

// ReadAt fills buf from off, or fails.
func (c *Component) ReadAt(buf []byte, off int64) error {
	if err := c.check("read", off, int64(len(buf))); err != nil {
		return err
	}
	if !c.usable(buf) {
		return c.bounced(buf, off, false)
	}
	return c.read(buf, off)
}

// WriteAt writes all of buf at off, or fails.
func (c *Component) WriteAt(buf []byte, off int64) error {
	if err := c.checkWrite("write", off, int64(len(buf))); err != nil {
		return err
	}
	if !c.usable(buf) {
		return c.bounced(buf, off, true)
	}
	return c.write(buf, off)
}

// usable says whether the kernel takes this memory as it is.
func (c *Component) usable(buf []byte) bool {
	return !c.direct || uintptr(unsafe.Pointer(unsafe.SliceData(buf)))&uintptr(c.sector-1) == 0
}

func (c *Component) read(buf []byte, off int64) error {
	for len(buf) > 0 {
		n, err := unix.Pread(c.fd, buf, off)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF // the file was truncated under us
		}
		if err != nil {
			return fmt.Errorf("read %s at %d: %w", c.path, off, err)
		}
		buf, off = buf[n:], off+int64(n)
	}
	return nil
}

func (c *Component) write(buf []byte, off int64) error {
	for len(buf) > 0 {
		n, err := unix.Pwrite(c.fd, buf, off)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return fmt.Errorf("write %s at %d: %w", c.path, off, err)
		}
		buf, off = buf[n:], off+int64(n)
	}
	return nil
}

const bounceSize = 256 << 10

var bouncePool = sync.Pool{New: func() any { b := alignedBuf(bounceSize); return &b }}

// bounced carries memory that O_DIRECT would refuse through aligned memory.
func (c *Component) bounced(buf []byte, off int64, write bool) error {
	bp := bouncePool.Get().(*[]byte)
	defer bouncePool.Put(bp)
	for len(buf) > 0 {
		b := (*bp)[:min(len(buf), bounceSize)]
		if write {
			copy(b, buf)
			if err := c.write(b, off); err != nil {
				return err
			}
		} else {
			if err := c.read(b, off); err != nil {
				return err
			}
			copy(buf, b)
		}
		buf, off = buf[len(b):], off+int64(len(b))
	}
	return nil
}

// Flush makes every write that completed before it durable. After one failure it
// fails for good, and so do writes.
func (c *Component) Flush() error {
	// The kernel tells a lost write to one flush of a descriptor only: another one must
	// not end well before that is known here. There are two at most, the queue's and
	// that of a commit.
	c.flushing.Lock()
	defer c.flushing.Unlock()
	if f := c.failed.Load(); f != nil {
		return f
	}
	if c.readOnly {
		return nil
	}
	// fdatasync covers what is needed to read the data back: extents and size
	// too. The name was made durable by CreateFileComponent.
	for {
		err := unix.Fdatasync(c.fd)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			f := &FailedError{Path: c.path, Err: err}
			c.failed.CompareAndSwap(nil, f)
			return c.failed.Load()
		}
		return nil
	}
}

// alignedBuf is heap memory at a page boundary; the heap does not move.
func alignedBuf(n int) []byte {
	b := make([]byte, n+pageSize)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & (pageSize - 1)
	return b[skip : skip+n : skip+n]
}

func ioctlPtr(fd int, req uint, p unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(p)); e != 0 {
		return e
	}
	return nil
}
