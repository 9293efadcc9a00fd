// Package blockdev is what stands below and above a replicated resource on one
// node: local components (a disk, partition, logical volume or file that keeps
// the data) below, providers (what applications open) above.
//
// The runner of a resource calls it. It knows nothing of peers, roles, counters
// or dirty maps; it never decides who may write, never retries an operation and
// never turns an error into success.
package blockdev

// Op is what a request asks of a device.
type Op uint8

// The operations a provider passes down. Trim and Zero both leave zeroes behind;
// Trim (and Zero without NoHole) may give the space back.
const (
	OpRead Op = iota + 1
	OpWrite
	OpZero
	OpTrim
	OpFlush
)

// Request is one application request on its way through a Device. A provider
// allocates it, keeps it (in a free list) and gets the same pointer back when it
// is done; between Submit and Complete it belongs to the device.
type Request struct {
	Op     Op
	FUA    bool  // answer only once this request's bytes are on stable storage
	NoHole bool  // OpZero: the space must stay allocated
	Off    int64 // bytes; a multiple of the sector size
	Len    int64 // bytes; a multiple of the sector size
	// Buf is the payload of a write, or where a read goes: Len bytes from
	// Device.Alloc. Nil for the other operations. Once the request is complete
	// the provider gives it back with Device.Free; for a read it may be other
	// memory than before, if the old may still be written to.
	Buf []byte
	Err error // set when complete: nil, or why it failed (Errno tells the code)

	Owner Completer // who is told
	Tag   uint64    // the owner's own

	// Private is the device's while the request is under way.
	Private uint64
}

// Completer is told of finished requests, many at a time, on the goroutine of the
// resource: it must not block and must not keep the slice.
type Completer interface {
	Complete(done []*Request)
}

// DeviceInfo is what a provider tells its clients about the device.
type DeviceInfo struct {
	Name       string
	Size       int64 // bytes
	SectorSize int   // 512 or 4096: alignment of every request
}

// Device is a resource as applications see it. The runner of a resource
// implements it; providers call it from many goroutines.
type Device interface {
	Info() DeviceInfo
	// Alloc gives page-aligned memory of exactly n bytes (n ≤ MaxTransfer). It
	// waits while the resource's fixed number of buffers is in use, so that a
	// front end is not read from; it returns nil once the device is closing.
	Alloc(n int) []byte
	Free(buf []byte)
	// Submit hands over a batch. It never waits; each request's owner is told.
	Submit(batch []*Request)
	// Allocated describes [off, off+n) as runs of data and holes for
	// NBD_CMD_BLOCK_STATUS; what it does not know it calls data.
	Allocated(off, n int64) ([]Run, error)
}

// Run is a stretch of a device that is all data or all hole (known to read as
// zeroes).
type Run struct {
	Len  int64
	Hole bool
}

// MaxTransfer is the largest payload of one request, in bytes.
const MaxTransfer = 32 << 20

// Provider is a front end that is being served: an NBD socket, a FUSE file under
// a loop device.
type Provider interface {
	Kind() string // "nbd-server", "fuse"
	Path() string // what an administrator opens
	// Users says who holds the provider open, as "name (pid 123)" or a client's
	// address; empty when nobody does.
	Users() ([]string, error)
	// Close stops serving and removes the path. Without force it refuses with an
	// *InUseError while somebody holds the provider open. With force, clients are
	// cut: their requests end in errors; any other error than a refusal is of what could
	// not be removed, and without force there is none. It returns once no request of this
	// provider will reach the device any more.
	Close(force bool) error
}

// InUseError is a provider that cannot be closed because somebody holds it open.
type InUseError struct {
	Path  string
	Users []string
}

func (e *InUseError) Error() string {
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
