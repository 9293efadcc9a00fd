package nbd

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"hastd/blockdev"
)

// Limits of a handshake. An option that is too long is read away and refused; one
// that is absurd ends the connection.
const (
	maxOptions      = 128
	maxOption       = 16 << 10
	maxOptionPassed = 1 << 20
)

// errLeft is a client that ended the handshake in good order.
var errLeft = errors.New("the client left")

// handshake agrees with the client on export and features: fixed newstyle. It
// returns nil when transmission begins.
//
// TLS will fit in here: after NBD_OPT_STARTTLS the rest of the handshake runs on
// the upgraded c.nc, with c.raw nil.
func (c *conn) handshake() error {
	if err := c.nc.SetDeadline(time.Now().Add(c.p.opts.HandshakeTimeout)); err != nil {
		return err
	}
	hello := be.AppendUint64(nil, magicInit)
	hello = be.AppendUint64(hello, magicOption)
	hello = be.AppendUint16(hello, flagFixedNewstyle|flagNoZeroes)
	if _, err := c.nc.Write(hello); err != nil {
		return err
	}
	var head [16]byte
	if _, err := io.ReadFull(c.nc, head[:4]); err != nil {
		return left(err)
	}
	flags := be.Uint32(head[:4])
	if flags&^(flagFixedNewstyle|flagNoZeroes) != 0 {
		return fmt.Errorf("the client's flags %#x are unknown", flags)
	}
	for range maxOptions {
		if _, err := io.ReadFull(c.nc, head[:]); err != nil {
			return left(err)
		}
		if be.Uint64(head[:]) != magicOption {
			return errors.New("an option does not start with the protocol's magic number")
		}
		opt, n := be.Uint32(head[8:]), be.Uint32(head[12:])
		if n > maxOptionPassed || opt == optExportName && n > maxString {
			return fmt.Errorf("option %d has %d bytes of data", opt, n)
		}
		if n > maxOption {
			if _, err := io.CopyN(io.Discard, c.nc, int64(n)); err != nil {
				return err
			}
			if err := c.optReply(opt, repErrTooBig, "too much data"); err != nil {
				return err
			}
			continue
		}
		data := make([]byte, n)
		if _, err := io.ReadFull(c.nc, data); err != nil {
			return err
		}
		done, err := c.option(opt, data, flags&flagNoZeroes != 0)
		if err != nil {
			return err
		}
		if done {
			return c.nc.SetDeadline(time.Time{})
		}
	}
	return fmt.Errorf("more than %d options", maxOptions)
}

// left makes a client that closes between two options no error.
func left(err error) error {
	if errors.Is(err, io.EOF) {
		return errLeft
	}
	return err
}

// option answers one option; done means that transmission begins.
func (c *conn) option(opt uint32, data []byte, noZeroes bool) (done bool, err error) {
	switch opt {
	case optExportName:
		if !c.p.serves(string(data)) {
			return false, fmt.Errorf("there is no export %q here", data)
		}
		if !c.p.enter(c) {
			return false, errLeft
		}
		b := be.AppendUint64(nil, uint64(c.p.info.Size))
		b = be.AppendUint16(b, c.transmissionFlags())
		if !noZeroes {
			b = append(b, make([]byte, 124)...)
		}
		_, err := c.nc.Write(b)
		return true, err
	case optAbort:
		c.optReply(opt, repAck, "")
		return false, errLeft
	case optList:
		if len(data) != 0 {
			return false, c.optReply(opt, repErrInvalid, "this option has no data")
		}
		b := be.AppendUint32(nil, uint32(len(c.p.info.Name)))
		b = append(b, c.p.info.Name...)
		if err := c.optReply(opt, repServer, string(b)); err != nil {
			return false, err
		}
		return false, c.optReply(opt, repAck, "")
	case optInfo, optGo:
		return c.info(opt, data)
	case optStructuredReply:
		if len(data) != 0 {
			return false, c.optReply(opt, repErrInvalid, "this option has no data")
		}
		c.rules.structured = true
		return false, c.optReply(opt, repAck, "")
	case optListMetaContext, optSetMetaContext:
		return false, c.metaContext(opt, data)
	}
	return false, c.optReply(opt, repErrUnsup, "this option is unknown here")
}

func (c *conn) info(opt uint32, data []byte) (done bool, err error) {
	q, err := decodeInfo(data)
	if err != nil {
		return false, c.optReply(opt, repErrInvalid, err.Error())
	}
	if !c.p.serves(q.name) {
		return false, c.optReply(opt, repErrUnknown, "there is no such export here")
	}
	infos := [][]byte{c.exportInfo(), c.blockSizeInfo()}
	if slices.Contains(q.infos, infoName) {
		infos = append(infos, append([]byte{0, infoName}, c.p.info.Name...))
	}
	if slices.Contains(q.infos, infoDescription) {
		infos = append(infos, append([]byte{0, infoDescription}, "replicated resource "+c.p.info.Name...))
	}
	for _, b := range infos {
		if err := c.optReply(opt, repInfo, string(b)); err != nil {
			return false, err
		}
	}
	if opt == optInfo {
		return false, c.optReply(opt, repAck, "")
	}
	if !c.p.enter(c) {
		return false, c.optReply(opt, repErrShutdown, "the resource is about to close")
	}
	return true, c.optReply(opt, repAck, "")
}

func (c *conn) exportInfo() []byte {
	b := be.AppendUint16(nil, infoExport)
	b = be.AppendUint64(b, uint64(c.p.info.Size))
	return be.AppendUint16(b, c.transmissionFlags())
}

func (c *conn) blockSizeInfo() []byte {
	b := be.AppendUint16(nil, infoBlockSize)
	b = be.AppendUint32(b, uint32(c.p.info.SectorSize))
	b = be.AppendUint32(b, uint32(max(preferredMin, c.p.info.SectorSize)))
	return be.AppendUint32(b, blockdev.MaxTransfer)
}

func (c *conn) transmissionFlags() uint16 {
	f := uint16(flagHasFlags | flagSendFlush | flagSendFUA | flagSendTrim | flagSendWriteZeroes | flagCanMultiConn)
	if c.rules.structured {
		f |= flagSendDF
	}
	return f
}

// metaContext lists or selects base:allocation, the only context there is.
func (c *conn) metaContext(opt uint32, data []byte) error {
	if opt == optSetMetaContext {
		c.rules.allocation = false // a failed choice leaves none chosen
	}
	if !c.rules.structured {
		return c.optReply(opt, repErrInvalid, "structured replies come first")
	}
	q, err := decodeMeta(data)
	if err != nil {
		return c.optReply(opt, repErrInvalid, err.Error())
	}
	if !c.p.serves(q.name) {
		return c.optReply(opt, repErrUnknown, "there is no such export here")
	}
	chosen, id := slices.Contains(q.queries, allocationName), uint32(allocationID)
	if opt == optListMetaContext {
		id = 0 // reserved in a list
		chosen = chosen || len(q.queries) == 0 || slices.ContainsFunc(q.queries, func(s string) bool {
			return s == allocationName[:strings.IndexByte(allocationName, ':')+1]
		})
	} else {
		c.rules.allocation = chosen
	}
	if chosen {
		if err := c.optReply(opt, repMetaContext, string(be.AppendUint32(nil, id))+allocationName); err != nil {
			return err
		}
	}
	return c.optReply(opt, repAck, "")
}

func (c *conn) optReply(opt, kind uint32, data string) error {
	b := be.AppendUint64(nil, magicOptReply)
	b = be.AppendUint32(b, opt)
	b = be.AppendUint32(b, kind)
	b = be.AppendUint32(b, uint32(len(data)))
	b = append(b, data...)
	_, err := c.nc.Write(b)
	return err
}

// serves tells whether name is our export: the resource's, or the default one.
func (p *Provider) serves(name string) bool { return name == "" || name == p.info.Name }
