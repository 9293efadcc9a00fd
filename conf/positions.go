package conf

import (
	"fmt"
	"strconv"
	"strings"
)

// Limits of a file. They are far beyond any sensible configuration and keep
// what a hostile or mistaken file costs in memory small: the decoder keeps the
// whole dotted path of every key.
const (
	maxFile    = 1 << 20 // bytes of a file
	maxKeys    = 1 << 16 // keys, tables and list elements
	maxDepth   = 16      // parts of a path, nested lists included
	maxKeyPath = 512     // bytes of a path
)

// position is one key of the file, with the keys below it.
type position struct {
	line  int // of its first appearance, from 1
	seq   int // order of first appearance
	below map[string]*position
	elems int // elements so far, for a list of tables
}

// find gives the position of p, or of the longest part of it that stands in the
// file: a missing key is reported at its table.
func (n *position) find(p path) *position {
	for _, s := range p {
		next := n.below[s]
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

// scanner walks over the text of a TOML file and notes where each key stands.
// It judges nothing: the decoder has the last word on syntax, and a text that
// the decoder refuses only must not make the scanner loop, panic or allocate
// without bound.
type scanner struct {
	text  string
	at    int
	line  int
	count int
	limit *Mistake // set once a limit is exceeded; the walk ends then
}

// scan returns the root of the positions, or the limit that the text exceeds.
func scan(text string) (*position, *Mistake) {
	s := &scanner{text: strings.TrimPrefix(text, "\ufeff"), line: 1}
	root := &position{line: 1}
	s.document(root)
	return root, s.limit
}

func (s *scanner) document(root *position) {
	table, at := root, path(nil)
	for s.limit == nil {
		s.space(true)
		before := s.at
		switch c := s.peek(); {
		case c == 0 && s.at >= len(s.text):
			return
		case c == '[':
			table, at = s.header(root)
		default:
			s.pair(table, at)
		}
		if s.at == before { // not TOML: the decoder will say so
			s.at++
		}
	}
}

// header reads [a.b] or [[a.b]] and returns the table it opens.
func (s *scanner) header(root *position) (*position, path) {
	s.at++
	list := s.peek() == '['
	if list {
		s.at++
	}
	line := s.line
	keys := s.key()
	for s.at < len(s.text) && s.text[s.at] == ']' {
		s.at++
	}
	n, at := root, path(nil)
	for i, k := range keys {
		n, at = s.child(n, at, k, line)
		if list && i == len(keys)-1 {
			n.elems++
		}
		if n.elems > 0 {
			n, at = s.child(n, at, index(n.elems-1), line)
		}
	}
	return n, at
}

// pair reads key = value below the table n.
func (s *scanner) pair(n *position, at path) {
	line := s.line
	keys := s.key()
	for _, k := range keys {
		n, at = s.child(n, at, k, line)
	}
	s.space(false)
	if len(keys) == 0 || s.peek() != '=' { // without a key, depth would have no bound
		return
	}
	s.at++
	s.space(false)
	s.value(n, at)
}

// value passes over a value and notes what stands inside lists and inline
// tables.
func (s *scanner) value(n *position, at path) {
	switch c := s.peek(); c {
	case '"', '\'':
		s.quoted()
	case '[', '{':
		s.at++
		for i := 0; s.limit == nil; i++ {
			s.space(true)
			before := s.at
			switch d := s.peek(); {
			case s.at >= len(s.text):
				return
			case d == ']' || d == '}':
				s.at++
				return
			case d == ',':
				s.at++
				i--
			case c == '[':
				e, below := s.child(n, at, index(i), s.line)
				s.value(e, below)
			default:
				s.pair(n, at)
			}
			if s.at == before {
				s.at++
			}
		}
	default:
		for s.at < len(s.text) && !strings.ContainsRune(",]}#\r\n", rune(s.text[s.at])) {
			s.at++
		}
	}
}

// child returns the position of key below n, noting the line if it is new.
func (s *scanner) child(n *position, at path, key string, line int) (*position, path) {
	at = at.with(key)
	size := 0
	for _, k := range at {
		size += len(k) + 1
	}
	if c := n.below[key]; c != nil {
		return c, at
	}
	s.count++
	switch {
	case s.limit != nil:
	case len(at) > maxDepth:
		s.limit = &Mistake{Line: line, Problem: fmt.Sprintf("tables or lists are nested deeper than %d", maxDepth),
			Advice: "no key of this configuration needs that"}
	case size > maxKeyPath:
		s.limit = &Mistake{Line: line, Problem: fmt.Sprintf("the key is longer than %d bytes", maxKeyPath),
			Advice: "shorten it"}
	case s.count > maxKeys:
		s.limit = &Mistake{Line: line, Problem: fmt.Sprintf("the file has more than %d keys and values", maxKeys),
			Advice: "is it the right file?"}
	}
	c := &position{line: line, seq: s.count}
	if n.below == nil {
		n.below = map[string]*position{}
	}
	n.below[key] = c
	return c, at
}

// key reads a dotted key.
func (s *scanner) key() []string {
	var keys []string
	for len(keys) <= maxDepth {
		s.space(false)
		switch s.peek() {
		case '"', '\'':
			keys = append(keys, s.quoted())
		default:
			from := s.at
			for s.at < len(s.text) && !strings.ContainsRune(" \t\r\n.=[]{},#\"'", rune(s.text[s.at])) {
				s.at++
			}
			if s.at == from {
				return keys
			}
			keys = append(keys, s.text[from:s.at])
		}
		s.space(false)
		if s.peek() != '.' {
			return keys
		}
		s.at++
	}
	return keys
}

// quoted passes over a string of any of the four kinds and returns its content.
func (s *scanner) quoted() string {
	q := s.text[s.at : s.at+1]
	long := strings.HasPrefix(s.text[s.at:], q+q+q)
	end := q
	if long {
		end = q + q + q
	}
	from := s.at
	s.at += len(end)
	for s.at < len(s.text) {
		switch {
		case q == `"` && s.text[s.at] == '\\':
			s.at++
			if s.peek() == '\n' {
				s.line++
			}
			s.at = min(s.at+1, len(s.text))
			continue
		case strings.HasPrefix(s.text[s.at:], end):
			s.at += len(end)
			for more := 0; long && more < 2 && s.peek() == q[0]; more++ {
				s.at++ // quotes right before the closing ones belong to the text
			}
			whole := s.text[from:s.at]
			content := whole[len(end) : len(whole)-len(end)]
			if q == `"` && !long { // only these can be keys
				return unescape(content)
			}
			return content
		case s.text[s.at] == '\n':
			if !long {
				return s.text[from:s.at] // unterminated
			}
			s.line++
		}
		s.at++
	}
	return s.text[from:]
}

// unescape resolves the escapes of a key in double quotes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	plain := map[byte]byte{'b': '\b', 't': '\t', 'n': '\n', 'f': '\f', 'r': '\r', 'e': 0x1b, '"': '"', '\\': '\\'}
	digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		if c, ok := plain[s[i]]; ok {
			b.WriteByte(c)
		} else if n := digits[s[i]]; n > 0 && i+n < len(s) {
			code, _ := strconv.ParseUint(s[i+1:i+1+n], 16, 32) // the decoder judges it
			b.WriteRune(rune(code))
			i += n
		}
	}
	return b.String()
}

// space passes over blanks, and over line ends and comments if asked to.
func (s *scanner) space(lines bool) {
	for s.at < len(s.text) {
		switch c := s.text[s.at]; {
		case c == ' ' || c == '\t':
		case lines && c == '\n':
			s.line++
		case lines && c == '\r':
		case lines && c == '#':
			for s.at+1 < len(s.text) && s.text[s.at+1] != '\n' {
				s.at++
			}
		default:
			return
		}
		s.at++
	}
}

// peek returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}
