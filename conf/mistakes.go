package conf

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// maxMistakes bounds how many mistakes are kept; the rest is only counted. Past
// it the file is something else than a configuration.
const maxMistakes = 200

// Mistake is one thing wrong with a configuration.
type Mistake struct {
	File string
	// Line counts from 1; 0 means the file as a whole.
	Line int
	// Key is the dotted path of the key, "" for a mistake of syntax.
	Key string
	// Problem says what is wrong, Advice what to write instead.
	Problem, Advice string

	seq   int // place of the key in the file, to order mistakes of one line
	cause error
}

// Error gives the mistake in one line: FILE:LINE: KEY: PROBLEM; ADVICE.
func (m *Mistake) Error() string {
	var b strings.Builder
	b.WriteString(m.File)
	if m.Line > 0 {
		fmt.Fprintf(&b, ":%d", m.Line)
	}
	b.WriteString(": ")
	if m.Key != "" {
		b.WriteString(m.Key + ": ")
	}
	b.WriteString(m.Problem)
	if m.Advice != "" {
		b.WriteString("; " + m.Advice)
	}
	return b.String()
}

// Unwrap gives the error of the system behind the mistake, if there is one.
func (m *Mistake) Unwrap() error { return m.cause }

// Errors is what Load and Parse return: every mistake of a file, sorted by line.
type Errors struct {
	Mistakes []*Mistake
	// Dropped counts the mistakes that were found beyond the first of them.
	Dropped int
}

// Error gives the mistakes one a line.
func (e *Errors) Error() string {
	lines := make([]string, 0, len(e.Mistakes)+1)
	for _, m := range e.Mistakes {
		lines = append(lines, m.Error())
	}
	if e.Dropped > 0 {
		lines = append(lines, fmt.Sprintf("and %d more mistakes", e.Dropped))
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.Is and errors.As look into the mistakes.
func (e *Errors) Unwrap() []error {
	errs := make([]error, len(e.Mistakes))
	for i, m := range e.Mistakes {
		errs[i] = m
	}
	return errs
}

// sort orders by place in the file; mistakes of one key keep the order in which
// they were found.
func (e *Errors) sort() {
	slices.SortStableFunc(e.Mistakes, func(a, b *Mistake) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.seq - b.seq
	})
}

func (e *Errors) add(m *Mistake) {
	if len(e.Mistakes) >= maxMistakes {
		e.Dropped++
		return
	}
	e.Mistakes = append(e.Mistakes, m)
}

// maxShown is how many characters of a value from the file a message repeats.
const maxShown = 60

// quote shows a string from the file within a message: quoted as TOML would
// write it, shortened, and without control characters.
func quote(s string) string {
	if r := []rune(s[:min(len(s), 4*maxShown)]); len(r) > maxShown || len(s) > 4*maxShown {
		s = string(r[:min(len(r), maxShown)]) + "…"
	}
	return fmt.Sprintf("%q", s)
}

// quoteAll shows a list of choices: "a", "b" or "c".
func quoteAll[T ~string](names []T) string {
	var b strings.Builder
	for i, n := range names {
		switch {
		case i > 0 && i == len(names)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(quote(string(n)))
	}
	return b.String()
}

// path leads to a value of the file: names of tables and keys, and [N] for the
// N-th element of a list.
type path []string

func index(i int) string { return fmt.Sprintf("[%d]", i) }

// with returns the path one step further, sharing nothing with p.
func (p path) with(steps ...string) path {
	return append(slices.Clip(slices.Clone(p)), steps...)
}

// String gives the dotted form, with quotes where TOML needs them.
func (p path) String() string {
	var b strings.Builder
	for i, s := range p {
		if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
			b.WriteString(s)
			continue
		}
		if i > 0 {
			b.WriteByte('.')
		}
		if bareKey(s) {
			b.WriteString(s)
		} else {
			b.WriteString(quote(s))
		}
	}
	return b.String()
}

func bareKey(s string) bool {
	return s != "" && len(s) <= maxShown && !strings.ContainsFunc(s, func(r rune) bool {
		return r > unicode.MaxASCII || !(unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_')
	})
}
