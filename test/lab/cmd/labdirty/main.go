// Command labdirty is the writer of the lab's reclaim tests. It keeps as much of the
// page cache dirty as the kernel lets it, by write and by mmap, and makes some of it
// durable now and then.
//
//	labdirty FOLDER BYTES
//
// It is a program of its own so that a cgroup has room for nothing but it and its
// pages: the race detector's memory, in a test binary, would be most of a small one.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "labdirty: give it a folder and how many bytes to write")
		os.Exit(2)
	}
	if err := dirty(os.Args[1], os.Args[2]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

const (
	dirtyFiles    = 6
	dirtyFileSize = 32 << 20
	dirtyChunk    = 1 << 20
	// dirtySync is how much is written between two fsyncs: far more than a small
	// cgroup holds would always be written back before.
	dirtySync = 80 << 20
)

// dirty writes total bytes into files below dir, says after each chunk how much
// that is, then reads all back and says "verified".
func dirty(dir, total string) error {
	want, err := strconv.ParseInt(total, 10, 64)
	if err != nil {
		return err
	}
	var files [dirtyFiles]*os.File
	for i := range files {
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprint("dirty", i)), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		files[i] = f
	}
	// last[file][chunk] is the generation that it holds.
	var last [dirtyFiles][dirtyFileSize / dirtyChunk]int
	var done, synced int64
	for gen := 1; done < want; gen++ {
		for i, f := range files {
			for c := range last[i] {
				if done >= want {
					break
				}
				if err := dirtyWrite(f, i, c, gen); err != nil {
					return err
				}
				last[i][c] = gen
				done += dirtyChunk
				if done-synced >= dirtySync {
					if err := f.Sync(); err != nil {
						return err
					}
					synced = done
				}
				fmt.Println(done)
			}
		}
	}
	for i, f := range files {
		if err := f.Sync(); err != nil {
			return err
		}
		// What is cached would say nothing of the device.
		if _, _, e := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, fadviseDontNeed, 0, 0); e != 0 {
			return e
		}
		b := make([]byte, dirtyChunk)
		for c, gen := range last[i] {
			if gen == 0 {
				continue
			}
			if _, err := f.ReadAt(b, int64(c)*dirtyChunk); err != nil {
				return err
			}
			if !bytes.Equal(b, dirtyContent(i, c, gen)) {
				return fmt.Errorf("file %d is not at %d what was written", i, c*dirtyChunk)
			}
			done += dirtyChunk
			fmt.Println(done)
		}
	}
	fmt.Println(verified)
	return nil
}

const (
	verified        = "verified"
	fadviseDontNeed = 4
)

// blockSize is how much of a chunk has a tag of its own.
const blockSize = 4096

// dirtyContent is what a chunk holds: every block has its own tag.
func dirtyContent(file, chunk, gen int) []byte {
	b := make([]byte, dirtyChunk)
	for off := 0; off < len(b); off += blockSize {
		tag := fmt.Sprint("f", file, "c", chunk, "g", gen, "b", off)
		h := fnv.New64a()
		h.Write([]byte(tag))
		x := h.Sum64() | 1 // of zero nothing else would come
		block := b[off : off+blockSize]
		for i := 0; i < len(block); i += 8 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			binary.LittleEndian.PutUint64(block[i:], x)
		}
		copy(block, tag)
	}
	return b
}

// dirtyWrite writes every third chunk through a mapping.
func dirtyWrite(f *os.File, file, chunk, gen int) error {
	b, off := dirtyContent(file, chunk, gen), int64(chunk)*dirtyChunk
	if (file+chunk+gen)%3 != 0 {
		_, err := f.WriteAt(b, off)
		return err
	}
	if fi, err := f.Stat(); err != nil {
		return err
	} else if fi.Size() < off+dirtyChunk {
		if err := f.Truncate(off + dirtyChunk); err != nil {
			return err
		}
	}
	m, err := syscall.Mmap(int(f.Fd()), off, dirtyChunk, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(m, b)
	return syscall.Munmap(m)
}
