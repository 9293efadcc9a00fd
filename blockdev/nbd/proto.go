package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Numbers of the protocol, as in "The NBD protocol" (NetworkBlockDevice/nbd,
// doc/proto.md). All fields are big-endian.
const (
	magicInit       = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption     = 0x49484156454f5054 // "IHAVEOPT"
	magicOptReply   = 0x0003e889045565a9
	magicRequest    = 0x25609513
	magicSimple     = 0x67446698
	magicStructured = 0x668e33ef
)

// Handshake flags: the server's, and the client's in answer.
const (
	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1
)

// Transmission flags.
const (
	flagHasFlags        = 1 << 0
	flagSendFlush       = 1 << 2
	flagSendFUA         = 1 << 3
	flagSendTrim        = 1 << 5
	flagSendWriteZeroes = 1 << 6
	flagSendDF          = 1 << 7
	flagCanMultiConn    = 1 << 8
)

// Options.
const (
	optExportName      = 1
	optAbort           = 2
	optList            = 3
	optInfo            = 6
	optGo              = 7
	optStructuredReply = 8
	optListMetaContext = 9
	optSetMetaContext  = 10
)

// Replies to options.
const (
	repAck         = 1
	repServer      = 2
	repInfo        = 3
	repMetaContext = 4
	repErrUnsup    = 1<<31 + 1
	repErrInvalid  = 1<<31 + 3
	repErrUnknown  = 1<<31 + 6
	repErrShutdown = 1<<31 + 7
	repErrTooBig   = 1<<31 + 9
)

// Pieces of information about an export.
const (
	infoExport      = 0
	infoName        = 1
	infoDescription = 2
	infoBlockSize   = 3
)

// Commands.
const (
	cmdRead        = 0
	cmdWrite       = 1
	cmdDisc        = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdWriteZeroes = 6
	cmdBlockStatus = 7
)

// Flags of commands.
const (
	cmdFlagFUA    = 1 << 0
	cmdFlagNoHole = 1 << 1
	cmdFlagDF     = 1 << 2
	cmdFlagReqOne = 1 << 3
)

// Structured replies.
const (
	replyFlagDone        = 1 << 0
	replyTypeOffsetData  = 1
	replyTypeBlockStatus = 5
	replyTypeError       = 1<<15 + 1

	stateHole = 1 << 0
	stateZero = 1 << 1
)

// Sizes.
const (
	requestSize      = 28
	simpleSize       = 16
	structuredSize   = 20
	offsetDataSize   = structuredSize + 8 // before the data
	errorChunkSize   = structuredSize + 6 // without a message
	maxHeader        = offsetDataSize
	maxString        = 4096 // the protocol's limit for names
	allocationID     = 1
	allocationName   = "base:allocation"
	preferredMin     = 4096
	maxStatusExtents = 1024 // descriptors in one answer to BLOCK_STATUS
)

var be = binary.BigEndian

var errMagic = errors.New("a request does not start with the protocol's magic number")

// wireRequest is a request as it came.
type wireRequest struct {
	flags  uint16
	cmd    uint16
	handle uint64
	off    uint64
	len    uint32
}

// decodeRequest reads the header of a request from the first requestSize bytes.
func decodeRequest(b []byte) (wireRequest, error) {
	_ = b[requestSize-1]
	if be.Uint32(b) != magicRequest {
		return wireRequest{}, errMagic
	}
	return wireRequest{
		flags:  be.Uint16(b[4:]),
		cmd:    be.Uint16(b[6:]),
		handle: be.Uint64(b[8:]),
		off:    be.Uint64(b[16:]),
		len:    be.Uint32(b[24:]),
	}, nil
}

// rules are what a request is checked against.
type rules struct {
	size       uint64
	sector     uint64
	maxLen     uint64
	structured bool
	allocation bool // base:allocation was selected
}

// check says why a request cannot be passed on: 0, EINVAL, or ENOSPC for a write
// beyond the end.
func (w *wireRequest) check(r *rules) unix.Errno {
	allowed := uint16(cmdFlagFUA) // promised for every command
	beyond := unix.EINVAL
	switch w.cmd {
	case cmdRead:
		if r.structured {
			allowed |= cmdFlagDF
		}
		if uint64(w.len) > r.maxLen {
			return unix.EINVAL
		}
	case cmdWrite:
		beyond = unix.ENOSPC
		if uint64(w.len) > r.maxLen {
			return unix.EINVAL
		}
	case cmdWriteZeroes:
		beyond = unix.ENOSPC
		allowed |= cmdFlagNoHole
	case cmdTrim:
	case cmdBlockStatus:
		if !r.allocation {
			return unix.EINVAL
		}
		allowed |= cmdFlagReqOne
	case cmdFlush:
		if w.flags&^allowed != 0 || w.off != 0 || w.len != 0 {
			return unix.EINVAL
		}
		return 0
	default:
		return unix.EINVAL
	}
	if w.flags&^allowed != 0 || w.len == 0 {
		return unix.EINVAL
	}
	if w.off > r.size || uint64(w.len) > r.size-w.off {
		return beyond
	}
	if (w.off|uint64(w.len))&(r.sector-1) != 0 {
		return unix.EINVAL
	}
	return 0
}

// wireErrno is the protocol's number for what went wrong.
func wireErrno(err error) uint32 {
	if err == nil {
		return 0
	}
	var e unix.Errno
	if errors.As(err, &e) {
		switch e {
		case unix.EPERM, unix.EIO, unix.ENOMEM, unix.EINVAL, unix.ENOSPC, unix.EOVERFLOW, unix.ENOTSUP, unix.ESHUTDOWN:
			return uint32(e)
		case unix.EDQUOT, unix.EFBIG:
			return uint32(unix.ENOSPC)
		case unix.EROFS, unix.EACCES:
			return uint32(unix.EPERM)
		}
	}
	return uint32(unix.EIO)
}

func appendSimple(b []byte, handle uint64, errno uint32) []byte {
	b = be.AppendUint32(b, magicSimple)
	b = be.AppendUint32(b, errno)
	return be.AppendUint64(b, handle)
}

func appendChunk(b []byte, kind uint16, handle uint64, payload int) []byte {
	b = be.AppendUint32(b, magicStructured)
	b = be.AppendUint16(b, replyFlagDone)
	b = be.AppendUint16(b, kind)
	b = be.AppendUint64(b, handle)
	return be.AppendUint32(b, uint32(payload))
}

func appendErrorChunk(b []byte, handle uint64, errno uint32) []byte {
	b = appendChunk(b, replyTypeError, handle, errorChunkSize-structuredSize)
	b = be.AppendUint32(b, errno)
	return be.AppendUint16(b, 0)
}

// fields takes fields from an option's data; the first one missing spoils it.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) take(n uint32) []byte {
	if f.bad || uint64(n) > uint64(len(f.b)) {
		f.bad = true
		return nil
	}
	v := f.b[:n]
	f.b = f.b[n:]
	return v
}

func (f *fields) u16() uint16 {
	if v := f.take(2); v != nil {
		return be.Uint16(v)
	}
	return 0
}

func (f *fields) u32() uint32 {
	if v := f.take(4); v != nil {
		return be.Uint32(v)
	}
	return 0
}

func (f *fields) str() string {
	n := f.u32()
	if n > maxString {
		f.bad = true
	}
	return string(f.take(n))
}

// infoRequest is the data of NBD_OPT_INFO and NBD_OPT_GO.
type infoRequest struct {
	name  string
	infos []uint16
}

func decodeInfo(data []byte) (infoRequest, error) {
	f := fields{b: data}
	q := infoRequest{name: f.str()}
	n := f.u16()
	if f.bad || len(f.b) != 2*int(n) {
		return infoRequest{}, fmt.Errorf("%d bytes of data do not hold a name and a list of numbers", len(data))
	}
	for range n {
		q.infos = append(q.infos, f.u16())
	}
	return q, nil
}

// metaRequest is the data of NBD_OPT_LIST_META_CONTEXT and SET_META_CONTEXT.
type metaRequest struct {
	name    string
	queries []string
}

func decodeMeta(data []byte) (metaRequest, error) {
	f := fields{b: data}
	q := metaRequest{name: f.str()}
	n := f.u32()
	for i := uint32(0); i < n && !f.bad; i++ { // each takes 4 bytes at least, so data bounds it
		q.queries = append(q.queries, f.str())
	}
	if f.bad || len(f.b) != 0 {
		return metaRequest{}, fmt.Errorf("%d bytes of data do not hold a name and a list of queries", len(data))
	}
	return q, nil
}
