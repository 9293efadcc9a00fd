// Package store keeps a node's view on a file: written anew beside the old one, made
// durable, put in its place, and the folder made durable. vipd calls it to carry out
// view.Persist. It decides nothing, and never replaces what it cannot read.
package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"hastd/cluster/view"
)

// File is a node's stored view. One process at a time may use it.
type File struct{ path string }

// Open names the file. Its folder must be there.
func Open(path string) *File { return &File{path} }

// next is what a Save writes to first; a crash may leave it behind, whole or not.
func (f *File) next() string { return f.path + ".new" }

// Load reads what was saved last; nil means that there is nothing, and the node counts
// as a new one. A damaged file is an error: taken for nothing it would make a member
// forget what it promised.
func (f *File) Load() (*view.State, error) {
	if err := os.Remove(f.next()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove what a crash left: %w", err)
	}
	file, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("stored view: %w", err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, view.MaxStored+1))
	if err != nil {
		return nil, fmt.Errorf("read the stored view %s: %w; mend the disk", f.path, err)
	}
	s, err := view.ReadState(b)
	if errors.Is(err, view.ErrDamaged) {
		return nil, fmt.Errorf("%s: %w; if the disk cannot give it back, remove the file: the node then joins as a new one, without a vote in the present view, and its replicas are copied again", f.path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	return s, nil
}

// Save makes a state durable. After an error it is not known which state is on the
// file, the old one or this one: the process must end.
func (f *File) Save(s *view.State) error {
	if err := f.write(view.AppendState(nil, s)); err != nil {
		return fmt.Errorf("store the view in %s: %w", f.path, err)
	}
	return nil
}

func (f *File) write(b []byte) error {
	file, err := os.OpenFile(f.next(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(b)
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.next(), f.path); err != nil {
		return err
	}
	// Without this the rename may be undone by a power loss.
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
