package conf

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// reader is one reading of a file: the decoded maps, where everything stands,
// and what was found wrong so far.
type reader struct {
	file  string
	where *position
	errs  Errors
	warns []string
	// broken has the dotted paths with a mistake: what a value means together
	// with others is not judged when the value itself was not understood.
	broken map[string]bool
	// homes tells in which tables a key is known, for advice on misplaced ones.
	homes map[string][]home
	// unknown keys are judged at the end, when homes is complete.
	unknown []unknownKey
}

type home struct {
	kind string // the table's path with * for names that the user chose
	at   path
}

type unknownKey struct {
	at    path // of the table
	key   string
	known []string
}

func (r *reader) wrong(at path, problem, advice string) {
	here := r.where.find(at)
	m := &Mistake{File: r.file, Line: here.line, Key: at.String(), Problem: problem, Advice: advice, seq: here.seq}
	if r.broken[m.Key] && slices.ContainsFunc(r.errs.Mistakes, func(o *Mistake) bool { return o.Key == m.Key && o.Problem == problem }) {
		return // found once more by a check that looks at it from elsewhere
	}
	if r.errs.Dropped == 0 {
		r.broken[m.Key] = true
	}
	r.errs.add(m)
}

// sound says that none of the keys was found wrong so far, nor a table above.
func (r *reader) sound(keys ...path) bool {
	for _, at := range keys {
		for i := range at {
			if r.broken[at[:i+1].String()] {
				return false
			}
		}
	}
	return true
}

func (r *reader) warn(at path, text string) {
	r.warns = append(r.warns, fmt.Sprintf("%s:%d: %s: %s", r.file, r.where.find(at).line, at, text))
}

func (r *reader) line(at path) int { return r.where.find(at).line }

// table reads the keys of one TOML table. A method for a key marks it as known;
// done reports what is left. A table that does not stand in the file is read as
// an empty one, so that all defaults are in one place.
type table struct {
	r       *reader
	at      path
	kind    string
	m       map[string]any
	known   []string
	present bool
}

func (t *table) get(key string) (any, bool) {
	if !slices.Contains(t.known, key) {
		t.known = append(t.known, key)
		if len(t.r.homes[key]) < maxCandidates {
			t.r.homes[key] = append(t.r.homes[key], home{t.kind, t.at})
		}
	}
	v, ok := t.m[key]
	return v, ok
}

func (t *table) has(key string) bool { _, ok := t.m[key]; return ok }

func (t *table) wrong(key, problem, advice string) { t.r.wrong(t.at.with(key), problem, advice) }

func (t *table) wrongType(key string, v any, want, example string) {
	t.wrong(key, fmt.Sprintf("must be %s, not %s", want, typeName(v)), "write "+key+" = "+example)
}

// missing reports a key that has no default.
func (t *table) missing(key, advice string) {
	if !t.has(key) && t.r.sound(t.at) {
		t.wrong(key, "is missing", advice)
	}
}

// done reports every key that no method asked for.
func (t *table) done() {
	for _, k := range t.order() {
		if !slices.Contains(t.known, k) {
			t.r.unknown = append(t.r.unknown, unknownKey{t.at, k, t.known})
		}
	}
}

// order gives the keys of the table in the order of the file.
func (t *table) order() []string {
	here := t.r.where.find(t.at)
	keys := make([]string, 0, len(t.m))
	for k := range t.m {
		keys = append(keys, k)
	}
	seq := func(k string) int {
		if p := here.below[k]; p != nil {
			return p.seq
		}
		return 0
	}
	slices.SortFunc(keys, func(a, b string) int {
		if d := seq(a) - seq(b); d != 0 {
			return d
		}
		if a < b {
			return -1
		}
		return 1
	})
	return keys
}

// table reads a table below this one; it is empty if it does not stand there.
func (t *table) table(key string) *table {
	sub := &table{r: t.r, at: t.at.with(key), kind: t.kind + "." + key}
	v, ok := t.get(key)
	if !ok {
		return sub
	}
	sub.m, sub.present = t.asTable(t.at.with(key), v)
	return sub
}

func (t *table) asTable(at path, v any) (map[string]any, bool) {
	switch v := v.(type) {
	case map[string]any:
		return v, true
	case []map[string]any:
		t.r.wrong(at, "must be one table, not a list of tables", "write ["+at.String()+"] in single brackets, once")
	default:
		t.r.wrong(at, "must be a table, not "+typeName(v), "write ["+at.String()+"] and its keys on the lines below")
	}
	return nil, false
}

// named reads a table whose keys are names that the user chose, in the order of
// the file. what says what the names are of.
func (t *table) named(key, what string) []*table {
	all := t.table(key)
	var subs []*table
	for _, name := range all.order() {
		at := all.at.with(name)
		if !ValidName(name) {
			t.r.wrong(at, quote(name)+" cannot be the name of a "+what, nameAdvice)
			continue
		}
		if m, ok := t.asTable(at, all.m[name]); ok {
			subs = append(subs, &table{r: t.r, at: at, kind: all.kind + ".*", m: m, present: true})
		}
	}
	return subs
}

func (t *table) text(key, def, example string) string {
	v, ok := t.get(key)
	if !ok {
		return def
	}
	s, ok := v.(string)
	if !ok {
		t.wrongType(key, v, "a text in quotes", quote(example))
		return def
	}
	return s
}

func (t *table) boolean(key string, def bool) bool {
	v, ok := t.get(key)
	if !ok {
		return def
	}
	b, ok := v.(bool)
	if !ok {
		t.wrong(key, "must be true or false, not "+typeName(v), fmt.Sprintf("write %s = %t or %s = %t, without quotes", key, def, key, !def))
		return def
	}
	return b
}

func (t *table) integer(key string, def, low, high int) int {
	v, ok := t.get(key)
	if !ok {
		return def
	}
	n, ok := v.(int64)
	switch {
	case !ok:
		t.wrong(key, "must be a whole number, not "+typeName(v), fmt.Sprintf("write %s = %d, without quotes", key, def))
	case n < int64(low) || n > int64(high):
		t.wrong(key, fmt.Sprintf("%d is out of range", n), fmt.Sprintf("write a number from %d to %d", low, high))
	default:
		return int(n)
	}
	return def
}

// duration reads a time span of at least low and at most high.
func (t *table) duration(key string, def, low, high time.Duration) time.Duration {
	v, ok := t.get(key)
	if !ok {
		return def
	}
	example := fmt.Sprintf("%q", FormatDuration(def))
	if def == 0 {
		example = `"30s"`
	}
	s, ok := v.(string)
	if !ok {
		t.wrongType(key, v, "a duration in quotes, with its unit", example)
		return def
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		t.wrong(key, quote(s)+" is not a duration", "write a number with the unit us, ms, s, m or h, such as "+example)
	case d < low || d > high:
		t.wrong(key, quote(s)+" is out of range", fmt.Sprintf("write a duration from %q to %q", FormatDuration(low), FormatDuration(high)))
	default:
		return d
	}
	return def
}

// size reads an amount of bytes.
func (t *table) size(key string, def, low, high int64) int64 {
	v, ok := t.get(key)
	if !ok {
		return def
	}
	s, ok := v.(string)
	if !ok {
		t.wrongType(key, v, "a size in quotes, with its unit", `"`+FormatSize(def)+`"`)
		return def
	}
	n, err := ParseSize(s)
	switch {
	case err != nil:
		t.wrong(key, quote(s)+" is not a size", "write a number with the unit B, KiB, MiB, GiB or TiB, such as "+sizeExample(s, def))
	case n < low || n > high:
		t.wrong(key, quote(s)+" is out of range", fmt.Sprintf("write a size from %q to %q", FormatSize(low), FormatSize(high)))
	default:
		return n
	}
	return def
}

// choice reads a key with a fixed set of values.
func choice[T ~string](t *table, key string, def T, choices ...T) T {
	s := T(t.text(key, string(def), string(def)))
	if slices.Contains(choices, s) {
		return s
	}
	advice := "write " + quoteAll(choices)
	if near, ok := nearest(string(s), choices); ok {
		advice = fmt.Sprintf("did you mean %q? The choices are %s", near, quoteAll(choices))
	}
	t.wrong(key, quote(string(s))+" is not a choice here", advice)
	return def
}

// file reads an absolute path. An empty one is good only if it is the default.
func (t *table) file(key, def, example string) string {
	s := t.text(key, def, example)
	if s == def {
		return s
	}
	if why := badPath(s); why != "" {
		t.wrong(key, why, "write an absolute path, such as "+quote(example))
		return def
	}
	return filepath.Clean(s)
}
