package conf

import (
	"fmt"
	"slices"
)

// list reads an array of tables.
func (t *table) list(key string) []*table {
	v, ok := t.get(key)
	if !ok {
		return nil
	}
	at := t.at.with(key)
	advice := "write [[" + at.String() + "]] and its keys on the lines below"
	var elems []any
	switch v := v.(type) {
	case []map[string]any:
		for _, m := range v {
			elems = append(elems, m)
		}
	case []any:
		elems = v
	default:
		t.wrong(key, "must be a list of tables, not "+typeName(v), advice)
	}
	if t.tooMany(key, len(elems)) {
		return nil
	}
	var subs []*table
	for i, e := range elems {
		if m, ok := e.(map[string]any); ok {
			subs = append(subs, &table{r: t.r, at: at.with(index(i)), kind: t.kind + "." + key, m: m, present: true})
		} else {
			t.r.wrong(at.with(index(i)), "must be a table, not "+typeName(e), advice)
		}
	}
	return subs
}

// item is one text of a list, with its place.
type item struct {
	text string
	at   path
}

// maxItems bounds every list: nodes, services, arguments of a command and so on.
const maxItems = 256

// tooMany reports a list that is longer than any use of it.
func (t *table) tooMany(key string, n int) bool {
	if n <= maxItems {
		return false
	}
	t.wrong(key, fmt.Sprintf("has %d elements", n), fmt.Sprintf("write at most %d", maxItems))
	return true
}

// items reads a list of texts. Elements of another type are reported and left
// out.
func (t *table) items(key, example string) []item {
	v, ok := t.get(key)
	if !ok {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		if s, isText := v.(string); isText && s != "" {
			example = quote(s)
		}
		t.wrong(key, "must be a list, not "+typeName(v), "write "+key+" = ["+example+"]")
		return nil
	}
	if t.tooMany(key, len(list)) {
		return nil
	}
	out := make([]item, 0, len(list))
	for i, e := range list {
		at := t.at.with(key, index(i))
		if s, isText := e.(string); isText {
			out = append(out, item{s, at})
		} else {
			t.r.wrong(at, "must be a text in quotes, not "+typeName(e), "write "+key+" = ["+example+"]")
		}
	}
	return out
}

// isEmptyList says that the key stands there with a list of nothing.
func (t *table) isEmptyList(key string) bool {
	list, ok := t.m[key].([]any)
	return ok && len(list) == 0
}

// distinct reads a list of texts of which each may stand there once and must
// please good, or else advice is given.
func (t *table) distinct(key, example, what, advice string, good func(string) bool) []string {
	var out []string
	for _, it := range t.items(key, example) {
		switch {
		case !good(it.text):
			t.r.wrong(it.at, quote(it.text)+" cannot be the name of "+what, advice)
		case slices.Contains(out, it.text):
			t.r.wrong(it.at, quote(it.text)+" stands here twice", "remove one")
		default:
			out = append(out, it.text)
		}
	}
	return out
}

// names reads a list of names that the user chose.
func (t *table) names(key, example, what string) []string {
	return t.distinct(key, quote(example), what, nameAdvice, ValidName)
}
