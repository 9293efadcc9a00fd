package demo

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"hastd/cmd/internal/exit"
)

// ledger remembers, outside of everything that is demonstrated, which files were
// acknowledged, by hash. It is the judge.
type ledger struct {
	files map[string]entry
	bytes int64
}

type entry struct {
	sum  [sha256.Size]byte
	size int
}

// add notes an acknowledged file.
func (l *ledger) add(name string, data []byte) {
	if l.files == nil {
		l.files = map[string]entry{}
	}
	if old, ok := l.files[name]; ok {
		l.bytes -= int64(old.size)
	}
	l.files[name] = entry{sha256.Sum256(data), len(data)}
	l.bytes += int64(len(data))
}

// forget drops files that were given up on purpose.
func (l *ledger) forget(names []string) {
	for _, name := range names {
		l.bytes -= int64(l.files[name].size)
		delete(l.files, name)
	}
}

// hintNever goes with what a user of the product must never see.
const hintNever = "this must never happen: see it again with --keep, and look at both disks and logs"

// examine looks for every acknowledged file in what read gives; step is called
// after each.
func (l *ledger) examine(read func(name string) ([]byte, error), step func(done, of int)) error {
	var missing, wrong []string
	names := slices.Sorted(maps.Keys(l.files))
	for i, name := range names {
		data, err := read(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, name)
		case err != nil:
			return exit.New(exit.IO, "", "read %s back: %w", name, err)
		case sha256.Sum256(data) != l.files[name].sum:
			wrong = append(wrong, name)
		}
		step(i+1, len(names))
	}
	if len(missing)+len(wrong) == 0 {
		return nil
	}
	first := append(missing, wrong...)[0]
	return exit.New(exit.IO, hintNever,
		"LOST: of %d acknowledged files %d are missing and %d have another content, the first is %s", len(names), len(missing), len(wrong), first)
}

func describeFiles(n int, bytes int64) string {
	return fmt.Sprintf("%d files, %s", n, amount(bytes))
}
