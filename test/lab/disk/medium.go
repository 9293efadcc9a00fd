package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// medium is what survives a power loss: a sparse file, or an anonymous one in
// memory.
type medium struct {
	f    *os.File
	size int64
}

func openMedium(path string, size int64) (*medium, error) {
	var f *os.File
	if path == "" {
		fd, err := unix.MemfdCreate("labdisk", unix.MFD_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("lab disk: memory for a medium: %w", err)
		}
		f = os.NewFile(uintptr(fd), "labdisk")
	} else {
		var err error
		if f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			return nil, fmt.Errorf("lab disk: %w", err)
		}
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, fmt.Errorf("lab disk: size of the medium: %w", err)
	}
	return &medium{f: f, size: size}, nil
}

func (m *medium) close() error { return m.f.Close() }

func (m *medium) readAt(p []byte, off int64) error {
	_, err := m.f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}

func (m *medium) writeAt(p []byte, off int64) error {
	_, err := m.f.WriteAt(p, off)
	return err
}

func (m *medium) zero(off, n int64) error {
	if n == 0 {
		return nil
	}
	const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	for {
		err := unix.Fallocate(int(m.f.Fd()), mode, off, n)
		if err != syscall.EINTR {
			return err
		}
	}
}

func (m *medium) nextData(off int64) (int64, error) { return m.seek(off, unix.SEEK_DATA) }
func (m *medium) nextHole(off int64) (int64, error) { return m.seek(off, unix.SEEK_HOLE) }

func (m *medium) seek(off int64, whence int) (int64, error) {
	at, err := unix.Seek(int(m.f.Fd()), off, whence)
	if err == unix.ENXIO {
		return m.size, nil
	}
	return at, err
}

func (m *medium) clone() (*medium, error) {
	c, err := openMedium("", m.size)
	if err != nil {
		return nil, err
	}
	if err := c.copyFrom(m); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// copyFrom makes m equal to s, holes included.
func (m *medium) copyFrom(s *medium) error {
	if err := m.f.Truncate(0); err != nil {
		return err
	}
	if err := m.f.Truncate(m.size); err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for off := int64(0); off < s.size; {
		from, err := s.nextData(off)
		if err != nil {
			return err
		}
		to, err := s.nextHole(min(from, s.size))
		if err != nil {
			return err
		}
		for ; from < to; from += int64(len(buf)) {
			b := buf[:min(int64(len(buf)), to-from)]
			if err := s.readAt(b, from); err != nil {
				return err
			}
			if err := m.writeAt(b, from); err != nil {
				return err
			}
		}
		off = max(to, off+1)
	}
	return nil
}
