package runner

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"hastd/blockdev"
	"hastd/metadata"
	"hastd/replicate"
	"hastd/transport"
)

// maxSeqs is how many numbers one frame carries; more travel in several frames.
const maxSeqs = 4096

// errMessage: the peer sent what no node of this release sends.
var errMessage = errors.New("message that makes no sense")

func malformed(f *transport.Frame, what string) error {
	return fmt.Errorf("%w: kind %d, offset %d, length %d, mask %#x: %s", errMessage, f.Kind, f.Off, f.Len, f.Mask, what)
}

// bodyKind says what a message's body is.
type bodyKind uint8

const (
	bodyNone    bodyKind = iota
	bodyData             // Len bytes of payload
	bodyHashes           // hashSize bytes a masked block
	bodyBlocks           // the masked blocks that are not zeroes
	bodySeqs             // 8 bytes little endian each
	bodyControl          // JSON
)

var bodies = [...]bodyKind{
	replicate.MsgWrite: bodyData, replicate.MsgZero: bodyNone, replicate.MsgFlush: bodyNone,
	replicate.MsgRead: bodyNone, replicate.MsgClean: bodySeqs,
	replicate.MsgReceived: bodySeqs, replicate.MsgWrote: bodySeqs, replicate.MsgFlushed: bodyNone,
	replicate.MsgData: bodyData, replicate.MsgFailed: bodyNone,
	replicate.MsgSyncHash: bodyHashes, replicate.MsgSyncNeed: bodyNone, replicate.MsgSyncData: bodyBlocks,
	replicate.MsgSyncPull: bodyHashes, replicate.MsgSyncBlocks: bodyBlocks,
	replicate.MsgFacts: bodyControl, replicate.MsgBegin: bodyControl, replicate.MsgMap: bodyControl,
	replicate.MsgReady: bodyNone, replicate.MsgFlow: bodyNone, replicate.MsgSyncEnd: bodyControl,
	replicate.MsgSyncEnded: bodyControl, replicate.MsgSyncClear: bodyNone,
	replicate.MsgTakeOver: bodyControl, replicate.MsgTookOver: bodyControl, replicate.MsgRole: bodyControl,
	replicate.MsgRenegotiate: bodyControl, replicate.MsgDiskFailed: bodyNone,
	replicate.MsgProbe: bodyNone, replicate.MsgAlive: bodyNone,
}

// frameOf is a message's head. Aux carries Zeroes.
func frameOf(m *replicate.Msg) transport.Frame {
	return transport.Frame{
		Kind: uint8(m.Kind), Flags: uint8(m.Flags), Conn: m.Conn, Seq: m.Seq,
		Off: m.Off, Len: m.Len, Mask: m.Mask, Aux: m.Zeroes,
	}
}

func msgOf(f *transport.Frame) replicate.Msg {
	return replicate.Msg{
		Kind: replicate.MsgKind(f.Kind), Flags: replicate.Flags(f.Flags), Conn: f.Conn, Seq: f.Seq,
		Off: f.Off, Len: f.Len, Mask: f.Mask, Zeroes: f.Aux,
	}
}

// checkFrame refuses what must not reach the machine. n is the body's length;
// size the device's in bytes, 0 while it is not known.
func checkFrame(f *transport.Frame, n int, size int64) error {
	if int(f.Kind) >= len(bodies) || f.Kind == 0 {
		return malformed(f, "unknown kind")
	}
	if replicate.Flags(f.Flags)&^(replicate.FUA|replicate.NoHole) != 0 {
		return malformed(f, "unknown flags")
	}
	if size <= 0 {
		size = 1 << 62
	}
	kind := replicate.MsgKind(f.Kind)
	switch kind {
	case replicate.MsgWrite, replicate.MsgZero, replicate.MsgRead, replicate.MsgData:
		l := int64(f.Len)
		switch {
		case f.Off < 0 || l == 0 || f.Off > size || l > size-f.Off:
			return malformed(f, "beyond the device")
		case (f.Off|l)%512 != 0:
			return malformed(f, "not aligned")
		case kind != replicate.MsgZero && l > blockdev.MaxTransfer:
			return malformed(f, "too long")
		}
	case replicate.MsgSyncHash, replicate.MsgSyncData, replicate.MsgSyncPull, replicate.MsgSyncBlocks:
		switch {
		case f.Off < 0 || f.Off%replicate.WindowSize != 0:
			return malformed(f, "not a window")
		case f.Mask == 0 && kind != replicate.MsgSyncBlocks || f.Aux&^f.Mask != 0: // nothing may differ
			return malformed(f, "impossible mask")
		case f.Off > size || int64(bits.Len64(f.Mask))*metadata.BlockSize > size-f.Off:
			return malformed(f, "beyond the device")
		}
	}
	want := 0
	switch bodies[kind] {
	case bodyData:
		want = int(f.Len)
	case bodyHashes:
		if n == 0 && kind == replicate.MsgSyncPull {
			return nil // the asker could not read its own blocks: it takes them all
		}
		want = hashSize * bits.OnesCount64(f.Mask)
	case bodyBlocks:
		want = metadata.BlockSize * bits.OnesCount64(f.Mask&^f.Aux)
	case bodySeqs:
		if n == 0 && kind != replicate.MsgClean || n%8 != 0 || n > 8*maxSeqs {
			return malformed(f, fmt.Sprintf("a list of %d bytes", n))
		}
		return nil
	case bodyControl:
		if n == 0 || n > replicate.MaxControl {
			return malformed(f, fmt.Sprintf("a control body of %d bytes", n))
		}
		return nil
	}
	if n != want {
		return malformed(f, fmt.Sprintf("a body of %d bytes instead of %d", n, want))
	}
	return nil
}

// decodeSeqs appends the numbers of a checked body.
func decodeSeqs(seqs []uint64, body []byte) []uint64 {
	for ; len(body) >= 8; body = body[8:] {
		seqs = append(seqs, binary.LittleEndian.Uint64(body))
	}
	return seqs
}

func encodeSeqs(b []byte, seqs []uint64) []byte {
	for _, s := range seqs {
		b = binary.LittleEndian.AppendUint64(b, s)
	}
	return b
}

// decodeControl reads and checks the struct of a control message.
func decodeControl(kind replicate.MsgKind, body []byte, size int64) (any, error) {
	c, err := replicate.DecodeControl(kind, body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	var sizes []int64
	sector := uint32(0)
	switch v := c.(type) {
	case *replicate.Facts:
		sizes, sector = []int64{v.DataSize, v.Size}, v.SectorSize
	case *replicate.Begin:
		sizes, sector = []int64{v.Size}, v.Sector
	case *replicate.MapPart:
		// The peer's component may be larger than ours, and the agreed size: what
		// lies beyond is about nothing we share.
		if words := (size/metadata.BlockSize + 63) / 64; size > 0 {
			v.First = int(min(int64(v.First), words))
			v.Bits = v.Bits[:min(int64(len(v.Bits)), 8*(words-int64(v.First)))]
		}
	}
	for _, s := range sizes {
		if s < 0 || s%metadata.BlockSize != 0 {
			return nil, fmt.Errorf("%w: a device of %d bytes", errMessage, s)
		}
	}
	if sector != 0 && sector != 512 && sector != 4096 {
		return nil, fmt.Errorf("%w: sectors of %d bytes", errMessage, sector)
	}
	return c, nil
}
