package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"hastd/cmd/internal/exit"
	"hastd/cmd/internal/human"
)

const (
	blockSize  = 4096
	compareRun = 1 << 20 // read at once
)

func amount(n int64) string { return human.Bytes(n) }

// comparison is what both replicas look like beside each other.
type comparison struct {
	blocks    int64 // compared
	full      int64 // of them not all zeroes
	different int64
	first     int64 // offset of the first different block
	sums      [2]string
}

// compareReplicas reads the data of both components, without the metadata behind
// it, behind the daemons' back. Nothing may be in flight.
func compareReplicas(ctx context.Context, paths [2]string, size int64, step func(done int64)) (comparison, error) {
	var c comparison
	var files [2]*os.File
	var sums [2]hash.Hash
	var bufs [2][]byte
	for i, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return c, err
		}
		defer f.Close()
		// What an earlier reader left in memory proves nothing about the disk.
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		files[i], sums[i], bufs[i] = f, sha256.New(), make([]byte, compareRun)
	}
	zero := make([]byte, blockSize)
	for off := int64(0); off < size; off += compareRun {
		if err := context.Cause(ctx); err != nil {
			return c, err
		}
		n := min(compareRun, size-off)
		for i, f := range files {
			if _, err := f.ReadAt(bufs[i][:n], off); err != nil && !errors.Is(err, io.EOF) {
				return c, err
			}
			sums[i].Write(bufs[i][:n])
		}
		for at := int64(0); at < n; at += blockSize {
			a, b := bufs[0][at:at+blockSize], bufs[1][at:at+blockSize]
			c.blocks++
			if !bytes.Equal(a, zero) {
				c.full++
			}
			if !bytes.Equal(a, b) {
				if c.different == 0 {
					c.first = off + at
				}
				c.different++
			}
		}
		step(off + n)
	}
	for i := range sums {
		c.sums[i] = hex.EncodeToString(sums[i].Sum(nil))
	}
	return c, nil
}

// compare tells how both replicas compare; it is an error if they differ.
func (d *demo) compare(ctx context.Context) error {
	c, err := compareReplicas(ctx, [2]string{d.alpha().disk(), d.bravo().disk()}, d.Size, func(done int64) {
		d.Progress(float64(done)/float64(d.Size), "comparing both replicas")
	})
	if err != nil {
		return exit.New(exit.IO, "", "compare the replicas: %w", err)
	}
	if c.different > 0 {
		return exit.New(exit.IO, hintNever,
			"NOT EQUAL: %d of %d blocks differ between the replicas, the first at offset %d", c.different, c.blocks, c.first)
	}
	if c.full == 0 {
		return exit.New(exit.Internal, "is anything written at all? Keep the folder with --keep", "both replicas are empty, so that they are equal proves nothing")
	}
	d.Say("The replicas are equal: %d blocks of 4 KiB compared, %d of them with data, none differs.", c.blocks, c.full)
	d.Say("sha256 alpha %s…", c.sums[0][:32])
	d.Say("sha256 bravo %s…", c.sums[1][:32])
	return nil
}

// sumOf is the hash of a node's replica, which must be at rest.
func (d *demo) sumOf(ctx context.Context, n *node) (string, error) {
	c, err := compareReplicas(ctx, [2]string{n.disk(), n.disk()}, d.Size, func(done int64) {
		d.Progress(float64(done)/float64(d.Size), "hashing the replica of %s", n.name)
	})
	if err != nil {
		return "", exit.New(exit.IO, "", "hash the replica of %s: %w", n.name, err)
	}
	return c.sums[0], nil
}

// flip changes one bit in the middle of bravo's data, where there is data.
func (d *demo) flip() error {
	f, err := os.OpenFile(d.bravo().disk(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, blockSize)
	zero := make([]byte, blockSize)
	for i := range d.Size / blockSize {
		off := (d.Size/8 + i*blockSize) % d.Size
		if _, err := f.ReadAt(b, off); err != nil {
			return err
		}
		if bytes.Equal(b, zero) {
			continue
		}
		b[blockSize/2] ^= 1
		if _, err := f.WriteAt(b, off); err != nil {
			return err
		}
		d.Say("SABOTAGE: one bit at offset %d of bravo's replica is flipped behind its back.", off+blockSize/2)
		return f.Sync()
	}
	return errors.New("there is no data to flip a bit of")
}
