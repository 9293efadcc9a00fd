package transport

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/zeebo/xxh3"
)

// sumKind names the digest of a body, which covers it as it is in memory.
type sumKind uint8

const (
	sumNone sumKind = iota
	sumCRC32C
	sumXXH3
	sumSHA256
	sumKinds
)

// packKind names how a body travels.
type packKind uint8

const (
	packNone packKind = iota
	packHole
	packLZ4
	packZstd
)

var (
	sumByName  = map[string]sumKind{"none": sumNone, "": sumNone, "crc32c": sumCRC32C, "xxh3": sumXXH3, "sha256": sumSHA256}
	packByName = map[string]packKind{"none": packNone, "": packNone, "hole": packHole, "lz4": packLZ4, "zstd": packZstd}
	sumSize    = [sumKinds]int{0, 4, 8, sha256.Size}
)

// Compressing less than this gains nothing; a zstd window beyond zstdWindow would
// let a peer demand memory that no body here needs.
const (
	packMin    = 256
	zstdWindow = 8 << 20
)

// digester computes digests without allocating for each.
type digester struct {
	xxh *xxh3.Hasher
	sha hash.Hash
	out [digestMax]byte
}

// sum returns the digest of all pieces, valid until the next call.
func (d *digester) sum(kind sumKind, pieces ...[]byte) []byte {
	switch kind {
	case sumCRC32C:
		c := uint32(0)
		for _, p := range pieces {
			c = crc32.Update(c, castagnoli, p)
		}
		binary.LittleEndian.PutUint32(d.out[:], c)
	case sumXXH3:
		var v uint64
		if len(pieces) == 1 {
			v = xxh3.Hash(pieces[0])
		} else {
			if d.xxh == nil {
				d.xxh = xxh3.New()
			}
			d.xxh.Reset()
			for _, p := range pieces {
				_, _ = d.xxh.Write(p) // a hash never fails
			}
			v = d.xxh.Sum64()
		}
		binary.LittleEndian.PutUint64(d.out[:], v)
	case sumSHA256:
		if d.sha == nil {
			d.sha = sha256.New()
		}
		d.sha.Reset()
		for _, p := range pieces {
			d.sha.Write(p)
		}
		d.sha.Sum(d.out[:0])
	}
	return d.out[:sumSize[kind]]
}

// packer compresses bodies for the writer.
type packer struct {
	lz4    lz4.Compressor
	zstd   *zstd.Encoder
	gather []byte // a body of several pieces, made one
}

// pack compresses body into dst and returns the length, 0 when it did not get
// shorter. dst has len(body) bytes.
func (p *packer) pack(kind packKind, dst, body []byte) (int, error) {
	switch kind {
	case packLZ4:
		n, err := p.lz4.CompressBlock(body, dst[:len(body)-1]) // does not fit: 0, no error
		if err != nil {
			return 0, nil
		}
		return n, nil
	case packZstd:
		if p.zstd == nil {
			var err error
			p.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
				zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
			if err != nil {
				return 0, fmt.Errorf("start zstd: %w", err)
			}
		}
		out := p.zstd.EncodeAll(body, dst[:0:len(dst)])
		if len(out) >= len(body) {
			return 0, nil
		}
		return len(out), nil // shorter than dst, so it was not moved
	}
	return 0, nil
}

// one makes a single slice of the pieces, copying only when there are several.
func (p *packer) one(pieces [][]byte, total int) []byte {
	if len(pieces) == 1 {
		return pieces[0]
	}
	if cap(p.gather) < total {
		p.gather = make([]byte, 0, total)
	}
	b := p.gather[:0]
	for _, x := range pieces {
		b = append(b, x...)
	}
	p.gather = b
	return b
}

func (p *packer) close() {
	if p.zstd != nil {
		_ = p.zstd.Close()
	}
}

// unpacker undoes packer; what it writes is bounded by the announced length.
type unpacker struct {
	zstd *zstd.Decoder
}

// unpack fills body exactly from the wire form.
func (u *unpacker) unpack(kind packKind, body, wire []byte) error {
	switch kind {
	case packLZ4:
		n, err := lz4.UncompressBlock(wire, body[:len(body):len(body)])
		if err != nil {
			return fmt.Errorf("lz4 body: %w", err)
		}
		if n != len(body) {
			return fmt.Errorf("lz4 body: %d bytes instead of %d", n, len(body))
		}
	case packZstd:
		if u.zstd == nil {
			var err error
			u.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindow),
				zstd.WithDecoderMaxMemory(MaxBody), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderLowmem(true))
			if err != nil {
				return fmt.Errorf("start zstd: %w", err)
			}
		}
		out, err := u.zstd.DecodeAll(wire, body[:0:len(body)])
		if err != nil {
			return fmt.Errorf("zstd body: %w", err)
		}
		if len(out) != len(body) || &out[0] != &body[0] {
			return fmt.Errorf("zstd body: %d bytes instead of %d", len(out), len(body))
		}
	default:
		return fmt.Errorf("compression %d is not known", kind)
	}
	return nil
}

func (u *unpacker) close() {
	if u.zstd != nil {
		u.zstd.Close()
	}
}

var zeroes [4096]byte

// allZero reports whether no piece has a bit set.
func allZero(pieces [][]byte) bool {
	for _, p := range pieces {
		for len(p) > 0 {
			n := min(len(p), len(zeroes))
			if p[0] != 0 || !bytes.Equal(p[:n], zeroes[:n]) {
				return false
			}
			p = p[n:]
		}
	}
	return true
}
