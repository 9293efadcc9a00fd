package conf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/BurntSushi/toml"
)

// DefaultFile is read where no file is named.
const DefaultFile = "/etc/hast/hast.toml"

// Load reads and checks the file at path. The error is an *Errors; errors.Is
// finds fs.ErrNotExist and the like in it.
func Load(path string) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, &Errors{Mistakes: []*Mistake{{
			File: path, Problem: "cannot be read: " + reason(err), Advice: loadAdvice(err), cause: err,
		}}}
	}
	return Parse(path, data)
}

func loadAdvice(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "name the file with -c FILE, or write one (example.toml has every key)"
	case errors.Is(err, fs.ErrPermission):
		return "run as root, or let this user read it"
	}
	return ""
}

// reason strips the operation and path from an error of package os.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// readFile reads at most one byte more than a configuration may have. It is
// opened without blocking, so that a pipe in its place is an error and no wait.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// Parse checks data, which was read from the file called name (used in messages
// only). It opens nothing. The error is an *Errors.
func Parse(name string, data []byte) (*Config, error) {
	r := &reader{file: name, homes: map[string][]home{}, broken: map[string]bool{}}
	text := string(data)
	if len(data) > maxFile {
		r.errs.add(&Mistake{File: name, Problem: fmt.Sprintf("is larger than a configuration may be (%s)", FormatSize(maxFile)),
			Advice: "is it the right file?"})
		return nil, &r.errs
	}
	where, limit := scan(text)
	if limit != nil {
		limit.File = name
		r.errs.add(limit)
		return nil, &r.errs
	}
	r.where = where

	var top map[string]any
	if _, err := toml.Decode(text, &top); err != nil {
		r.errs.add(syntaxMistake(name, err))
		return nil, &r.errs
	}
	c := r.config(&table{r: r, m: top, present: true})
	r.reportUnknown()
	r.check(c)
	if len(r.errs.Mistakes) > 0 {
		r.errs.sort()
		return nil, &r.errs
	}
	c.Warnings = r.warns
	return c, nil
}

// syntaxMistake is the only mistake that hides others: the decoder stops there.
func syntaxMistake(name string, err error) *Mistake {
	m := &Mistake{File: name, Problem: err.Error(), cause: err}
	var pe toml.ParseError
	if errors.As(err, &pe) {
		m.Line, m.Key = pe.Position.Line, ""
		m.Problem = "not TOML: " + strings.TrimSuffix(pe.Message, ".")
		m.Advice = "mend this line first (texts, durations and sizes stand in quotes); what follows it has not been checked"
	}
	return m
}
