package fuse

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"unsafe"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"hastd/blockdev"
)

// server speaks to the kernel over /dev/fuse. The library's own server reads into
// memory of the Go heap, up to maxTransfer for each request: a page of it that is
// not there yet must be found first, and whoever looks for memory may be made to
// wait until dirty pages are written, which they are by this very reader. So all
// that a read or a write needs is there from the start: the readers' buffers here,
// a fixed number of calls, and the payload in the device's memory. What only
// happens when the file is opened and closed is left to the library.
type server struct {
	fd      int
	disk    *disk
	control *gofuse.ProtocolServer
	mem     []byte     // the readers' buffers
	idle    chan *call // has room for all
	replies chan *call // has room for all
	log     *slog.Logger
}

const (
	// readers wait for requests; each has a buffer of readSize.
	readers = 4
	// repliers write answers, which copies what was read to the kernel.
	repliers = 4
	// maxCalls is how many requests are with the device at once: all that the
	// kernel sends, and the flushes and discards, which it does not count.
	maxCalls = maxInFlight + 16
	readSize = maxTransfer + 4096
	// controlSize holds the answer to anything that is no read.
	controlSize = 4096

	opRead      = 15
	opWrite     = 16
	opFsync     = 20
	opInterrupt = 36
	opFallocate = 43

	inHeaderSize = int(unsafe.Sizeof(gofuse.InHeader{}))
	readInSize   = int(unsafe.Sizeof(gofuse.ReadIn{}))
	writeInSize  = int(unsafe.Sizeof(gofuse.WriteIn{}))
	fallocInSize = int(unsafe.Sizeof(gofuse.FallocateIn{}))
)

// call is a request that the device has.
type call struct {
	blockdev.Request // first: a *Request of ours is a *call
	batch            [1]*blockdev.Request
	opcode           uint32
	out              gofuse.OutHeader
	written          gofuse.WriteOut
	iov              [2][]byte
}

// newServer serves d on a descriptor of /dev/fuse, which it closes in the end.
func newServer(fd int, d *disk, opts *gofuse.MountOptions, log *slog.Logger) (*server, error) {
	mem, err := unix.Mmap(-1, 0, readers*readSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("memory for %d FUSE readers: %w", readers, err)
	}
	// The resource's memory has told already where locking is not allowed.
	_ = unix.Mlock(mem)
	s := &server{fd: fd, disk: d, control: gofuse.NewProtocolServer(d, opts), mem: mem,
		idle: make(chan *call, maxCalls), replies: make(chan *call, maxCalls), log: log}
	for range maxCalls {
		c := new(call)
		c.batch[0] = &c.Request
		s.idle <- c
	}
	d.server = s
	return s, nil
}

// serve returns when the connection has ended and the device has answered all
// that it got from it.
func (s *server) serve() {
	var reading, replying sync.WaitGroup
	for range repliers {
		replying.Go(s.reply)
	}
	for i := range readers {
		buf := s.mem[i*readSize : (i+1)*readSize]
		reading.Go(func() { s.read(buf) })
	}
	reading.Wait()
	for range maxCalls {
		<-s.idle
	}
	close(s.replies)
	replying.Wait()
	s.free()
}

func (s *server) free() {
	// Nothing can be done about an error of either.
	_ = unix.Munmap(s.mem)
	_ = unix.Close(s.fd)
}

func (s *server) read(buf []byte) {
	answer := make([]byte, controlSize)
	for {
		n, err := unix.Read(s.fd, buf)
		switch {
		case err == nil:
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOENT):
			continue // ENOENT: it was taken back before it was read
		case errors.Is(err, unix.ENODEV):
			return // unmounted, or aborted
		default:
			s.log.Error("reading FUSE requests failed; the device hangs until it is closed", "error", err)
			return
		}
		if n < inHeaderSize {
			continue // the kernel never does that
		}
		s.take(buf[:n], answer)
	}
}

// take passes a request on.
func (s *server) take(in, answer []byte) {
	h := (*gofuse.InHeader)(unsafe.Pointer(unsafe.SliceData(in)))
	switch h.Opcode {
	case opRead:
		if r := (*gofuse.ReadIn)(unsafe.Pointer(h)); len(in) >= readInSize {
			s.takeRead(h, int64(r.Offset), int64(r.Size))
			return
		}
	case opWrite:
		if w := (*gofuse.WriteIn)(unsafe.Pointer(h)); len(in) >= writeInSize {
			s.takeWrite(h, int64(w.Offset), in[writeInSize:])
			return
		}
	case opFsync:
		if t := s.disk.attacher.Load(); t != 0 && h.Pid == t {
			// The kernel asks for it while it takes the file, through which nothing
			// was written yet, for a loop device. If the device held it, this
			// process could not be killed: the thread waits in it for ourselves.
			s.refuse(h.Unique, gofuse.OK)
			return
		}
		s.submit(h, blockdev.Request{Op: blockdev.OpFlush})
		return
	case opFallocate:
		if f := (*gofuse.FallocateIn)(unsafe.Pointer(h)); len(in) >= fallocInSize {
			s.takeFallocate(h, f)
			return
		}
	case opInterrupt:
		// The kernel then sends no more of them: nothing here can be undone.
		s.refuse(h.Unique, gofuse.ENOSYS)
		return
	default:
		n, st := s.control.HandleRequest([][]byte{in}, [][]byte{answer})
		switch {
		case !st.Ok():
			s.refuse(h.Unique, st)
		case n > 0:
			s.write([][]byte{answer[:n]})
		}
		return
	}
	s.refuse(h.Unique, gofuse.EINVAL)
}

func (s *server) takeRead(h *gofuse.InHeader, off, size int64) {
	n := min(size, s.disk.info.Size-off)
	switch {
	case off < 0 || n > maxTransfer:
		s.refuse(h.Unique, gofuse.EINVAL)
	case n <= 0:
		s.refuse(h.Unique, gofuse.OK) // the end of the file
	default:
		s.submitPayload(h, blockdev.OpRead, off, int(n), nil)
	}
}

func (s *server) takeWrite(h *gofuse.InHeader, off int64, data []byte) {
	if len(data) == 0 || len(data) > maxTransfer {
		s.refuse(h.Unique, gofuse.EINVAL)
		return
	}
	s.submitPayload(h, blockdev.OpWrite, off, len(data), data)
}

// takeFallocate is how the loop device asks for discard and write-zeroes (both as
// a hole, unless the space must stay).
func (s *server) takeFallocate(h *gofuse.InHeader, f *gofuse.FallocateIn) {
	req := blockdev.Request{Off: int64(f.Offset), Len: int64(f.Length)}
	switch f.Mode &^ unix.FALLOC_FL_KEEP_SIZE {
	case unix.FALLOC_FL_PUNCH_HOLE:
		req.Op = blockdev.OpTrim
	case unix.FALLOC_FL_ZERO_RANGE:
		req.Op, req.NoHole = blockdev.OpZero, true
	default:
		s.refuse(h.Unique, gofuse.Status(unix.EOPNOTSUPP))
		return
	}
	s.submit(h, req)
}

// submitPayload waits while all memory is in use: then nothing more is read.
func (s *server) submitPayload(h *gofuse.InHeader, op blockdev.Op, off int64, n int, data []byte) {
	buf := s.disk.dev.Alloc(n)
	if buf == nil {
		s.refuse(h.Unique, gofuse.EIO) // closing
		return
	}
	copy(buf, data)
	s.submit(h, blockdev.Request{Op: op, Off: off, Len: int64(n), Buf: buf})
}

func (s *server) submit(h *gofuse.InHeader, req blockdev.Request) {
	d := s.disk
	st := gofuse.OK
	if req.Off < 0 || req.Len < 0 || req.Off > d.info.Size || req.Len > d.info.Size-req.Off || (req.Off|req.Len)%int64(d.info.SectorSize) != 0 {
		st = gofuse.EINVAL
	} else {
		c := <-s.idle
		req.Owner = s
		c.Request, c.opcode = req, h.Opcode
		c.out = gofuse.OutHeader{Unique: h.Unique}
		d.gate.RLock()
		if !d.down {
			d.dev.Submit(c.batch[:])
			d.gate.RUnlock()
			return
		}
		d.gate.RUnlock()
		s.idle <- c
		st = gofuse.EIO
	}
	if req.Buf != nil {
		d.dev.Free(req.Buf)
	}
	s.refuse(h.Unique, st)
}

// Complete implements blockdev.Completer.
func (s *server) Complete(done []*blockdev.Request) {
	for _, r := range done {
		s.replies <- (*call)(unsafe.Pointer(r))
	}
}

// reply answers what the device has done.
func (s *server) reply() {
	for c := range s.replies {
		iov := c.iov[:1]
		if st := status(c.Err); !st.Ok() {
			c.out.Status = -int32(st)
		} else if c.opcode == opRead {
			iov = append(iov, c.Buf)
		} else if c.opcode == opWrite {
			c.written = gofuse.WriteOut{Size: uint32(c.Len)}
			iov = append(iov, bytesOf(&c.written))
		}
		iov[0] = bytesOf(&c.out)
		c.out.Length = uint32(len(iov[0]))
		if len(iov) > 1 {
			c.out.Length += uint32(len(iov[1]))
		}
		s.write(iov)
		if c.Buf != nil {
			s.disk.dev.Free(c.Buf)
		}
		c.Request, c.iov = blockdev.Request{}, [2][]byte{}
		s.idle <- c
	}
}

// refuse answers with nothing but a status.
func (s *server) refuse(unique uint64, st gofuse.Status) {
	out := gofuse.OutHeader{Unique: unique, Status: -int32(st)}
	out.Length = uint32(unsafe.Sizeof(out))
	s.write([][]byte{bytesOf(&out)})
}

func (s *server) write(iov [][]byte) {
	for {
		_, err := unix.Writev(s.fd, iov)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV): // nobody waits for it any more
			return
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		}
		s.log.Error("the kernel did not take an answer over FUSE", "error", err)
		return
	}
}

// bytesOf is a value as the kernel reads it.
func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}
