package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// stack is one of those compared: servers that end in an NBD socket.
type stack struct {
	name   string
	uri    string
	procs  []*process
	images []string // two replicas, to be equal in the end; or one file
	quiet  func(context.Context) error
}

func (s *stack) stop() {
	for i := len(s.procs) - 1; i >= 0; i-- {
		s.procs[i].stop()
	}
}

func (s *stack) processorTime() (time.Duration, error) {
	sum := time.Duration(0)
	for _, p := range s.procs {
		t, err := p.processorTime()
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

// finish proves that a mirror mirrored: what was fast but did not write the
// second replica was not measured at what it promises.
func (s *stack) finish(ctx context.Context) error {
	if s.quiet != nil {
		if err := s.quiet(ctx); err != nil {
			return err
		}
	}
	if len(s.images) < 2 {
		return nil
	}
	a, err := os.Open(s.images[0])
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.Open(s.images[1])
	if err != nil {
		return err
	}
	defer b.Close()
	fi, err := os.Stat(s.images[0])
	if err != nil {
		return err
	}
	const step = 1 << 20
	x, y := make([]byte, step), make([]byte, step)
	for off := int64(0); off < fi.Size()-metadataRoom; off += step {
		n := min(step, fi.Size()-metadataRoom-off)
		if _, err := io.ReadFull(a, x[:n]); err != nil {
			return err
		}
		if _, err := io.ReadFull(b, y[:n]); err != nil {
			return err
		}
		if !bytes.Equal(x[:n], y[:n]) {
			return fmt.Errorf("the replicas differ within %d bytes from %d", n, off)
		}
	}
	return nil
}

// startPlain serves one file without replication: what the way to a file costs.
func startPlain(ctx context.Context, dir string, size int64) (*stack, error) {
	img, sock := filepath.Join(dir, "plain.img"), filepath.Join(dir, "plain.nbd")
	if err := makeFile(img, size); err != nil {
		return nil, err
	}
	p, err := start(filepath.Join(dir, "nbdkit.log"), "nbdkit", "--foreground", "--unix", sock, "file", img)
	if err != nil {
		return nil, err
	}
	s := &stack{name: "nbdkit", uri: "nbd+unix:///?socket=" + sock, procs: []*process{p}}
	if err := p.listening(ctx, sock); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func makeFile(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}
