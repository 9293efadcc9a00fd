package demo

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
)

// recordStore keeps files on a raw device without a filesystem: one record behind
// the other, each a header and the content in whole blocks. The header carries
// name, length and hash, and the hash of the header before it: records of an
// older life of the device, or torn ones, end the list.
//
// As with a filesystem, a file that was written stands only in memory until it
// is synced.
type recordStore struct {
	device blocks
	size   int64             // of the device
	end    int64             // where the next record goes
	last   [sha256.Size]byte // hash of the last header
	files  map[string]place
	cache  []cached // not on the device yet
}

// blocks is a raw device.
type blocks interface {
	readAt(p []byte, off int64) error
	writeAt(p []byte, off int64) error
	flush() error
	close() error
	abandon()
}

type place struct {
	off  int64 // of the content
	size int
	sum  [sha256.Size]byte
}

type cached struct {
	name string
	data []byte
}

const (
	recordMagic   = "HASTDEMO"
	recordMaxName = 1024
	recordMaxSize = 64 << 20
)

// A header: magic, length of the name, length of the content, its hash, the hash
// of the header before, the name; the hash of all that stands at the block's end.
const (
	headSum  = blockSize - sha256.Size
	headName = 16 + 2*sha256.Size
)

// openRecords reads the list of files on a device.
func openRecords(device blocks, size int64) (*recordStore, error) {
	s := &recordStore{device: device, size: size, files: map[string]place{}}
	head := make([]byte, blockSize)
	for s.end+blockSize <= size {
		if err := device.readAt(head, s.end); err != nil {
			device.abandon()
			return nil, err
		}
		name, p, ok := s.parse(head)
		if !ok {
			break
		}
		s.files[name] = p
		s.end = p.off + padded(p.size)
		copy(s.last[:], head[headSum:])
	}
	return s, nil
}

// parse understands the header at the end of the list.
func (s *recordStore) parse(head []byte) (string, place, bool) {
	be := binary.BigEndian
	p := place{off: s.end + blockSize, size: int(be.Uint32(head[12:]))}
	n := int(be.Uint32(head[8:]))
	sum := sha256.Sum256(head[:headSum])
	if string(head[:8]) != recordMagic || !bytes.Equal(sum[:], head[headSum:]) ||
		!bytes.Equal(s.last[:], head[16+sha256.Size:headName]) ||
		n > recordMaxName || p.size > recordMaxSize || p.off+padded(p.size) > s.size {
		return "", p, false
	}
	copy(p.sum[:], head[16:])
	return string(head[headName : headName+n]), p, true
}

func padded(n int) int64 { return (int64(n) + blockSize - 1) / blockSize * blockSize }

func (s *recordStore) write(name string, data []byte) error {
	if len(name) > recordMaxName || len(data) > recordMaxSize {
		return fmt.Errorf("%s is too large for a record", name)
	}
	s.cache = append(s.cache, cached{name, data})
	return nil
}

// sync writes everything that waits and flushes. A record that is torn by a kill
// was never acknowledged; its hash tells.
func (s *recordStore) sync(string) error {
	for len(s.cache) > 0 {
		if err := s.put(s.cache[0]); err != nil {
			return err
		}
		s.cache = s.cache[1:]
	}
	return s.device.flush()
}

func (s *recordStore) put(c cached) error {
	p := place{off: s.end + blockSize, size: len(c.data), sum: sha256.Sum256(c.data)}
	if p.off+padded(p.size) > s.size {
		return errors.New("the device is full")
	}
	record := make([]byte, blockSize+padded(p.size))
	head := record[:blockSize]
	copy(head, recordMagic)
	be := binary.BigEndian
	be.PutUint32(head[8:], uint32(len(c.name)))
	be.PutUint32(head[12:], uint32(p.size))
	copy(head[16:], p.sum[:])
	copy(head[16+sha256.Size:], s.last[:])
	copy(head[headName:], c.name)
	sum := sha256.Sum256(head[:headSum])
	copy(head[headSum:], sum[:])
	copy(record[blockSize:], c.data)
	if err := s.device.writeAt(record, s.end); err != nil {
		return err
	}
	s.last, s.end = sum, p.off+padded(p.size)
	s.files[c.name] = p
	return nil
}

func (s *recordStore) read(name string) ([]byte, error) {
	p, ok := s.files[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	b := make([]byte, padded(p.size))
	if err := s.device.readAt(b, p.off); err != nil {
		return nil, err
	}
	return b[:p.size], nil
}

func (s *recordStore) close() error {
	if err := s.sync(""); err != nil {
		s.device.abandon()
		return err
	}
	return s.device.close()
}

func (s *recordStore) abandon() { s.device.abandon() }
