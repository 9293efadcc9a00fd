package runner

import (
	"bytes"
	"math/bits"
	"sync"

	"github.com/zeebo/xxh3"

	"hastd/metadata"
	"hastd/replicate"
)

// hashSize is the length of a block's hash on the wire.
const hashSize = 16

// windowHashes are the hashes of the blocks of one window, by block.
type windowHashes [replicate.Window][hashSize]byte

var hashPool = sync.Pool{New: func() any { return new(windowHashes) }}

// zeroWindow stands for windows known to be zero without having been read. It is
// only ever read from.
var zeroWindow = make([]byte, replicate.WindowSize)

// hashBlocks hashes the blocks of mask, except those already known to be zero,
// and returns which of mask are zero.
func hashBlocks(h *windowHashes, window []byte, mask, zeroes, seed uint64) uint64 {
	zero := xxh3.Hash128Seed(zeroWindow[:metadata.BlockSize], seed).Bytes()
	for m := mask; m != 0; m &= m - 1 {
		i := bits.TrailingZeros64(m)
		b := window[i*metadata.BlockSize : (i+1)*metadata.BlockSize]
		if zeroes&(1<<i) != 0 || isZero(b) {
			zeroes |= 1 << i
			h[i] = zero
			continue
		}
		h[i] = xxh3.Hash128Seed(b, seed).Bytes()
	}
	return zeroes & mask
}

func isZero(b []byte) bool { return b[0] == 0 && bytes.Equal(b, zeroWindow[:len(b)]) }

// putHashes appends the hashes of mask's blocks, ascending: the body of MsgSyncHash
// and MsgSyncPull.
func (h *windowHashes) put(b []byte, mask uint64) []byte {
	for m := mask; m != 0; m &= m - 1 {
		b = append(b, h[bits.TrailingZeros64(m)][:]...)
	}
	return b
}

// differ compares with the hashes of theirMask's blocks that came in a body, and
// returns which of mask are not among them or differ.
func (h *windowHashes) differ(mask uint64, body []byte, theirMask uint64) uint64 {
	d := uint64(0)
	for m := mask; m != 0; m &= m - 1 {
		i := bits.TrailingZeros64(m)
		at := bits.OnesCount64(theirMask&(1<<i-1)) * hashSize
		if theirMask&(1<<i) == 0 || at+hashSize > len(body) || !bytes.Equal(h[i][:], body[at:at+hashSize]) {
			d |= 1 << i
		}
	}
	return d
}

// runs calls f for each run of neighbouring blocks in mask.
func runs(mask uint64, f func(first, n int) error) error {
	for mask != 0 {
		i := bits.TrailingZeros64(mask)
		n := bits.TrailingZeros64(^(mask >> i))
		if err := f(i, n); err != nil {
			return err
		}
		if i+n >= replicate.Window {
			return nil
		}
		mask &^= 1<<(i+n) - 1
	}
	return nil
}

// gather appends the blocks of mask as few pieces of window.
func gather(pieces [][]byte, window []byte, mask uint64) [][]byte {
	_ = runs(mask, func(first, n int) error {
		pieces = append(pieces, window[first*metadata.BlockSize:(first+n)*metadata.BlockSize])
		return nil
	})
	return pieces
}

// scatter moves blocks that stand one behind the other at the start of window to
// their places. The last goes first, so that none is overwritten.
func scatter(window []byte, mask uint64) {
	from := bits.OnesCount64(mask)
	for mask != 0 {
		i := 63 - bits.LeadingZeros64(mask)
		mask &^= 1 << i
		from--
		if from != i {
			copy(window[i*metadata.BlockSize:(i+1)*metadata.BlockSize], window[from*metadata.BlockSize:])
		}
	}
}
