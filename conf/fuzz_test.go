package conf

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/BurntSushi/toml"
)

// FuzzParse: no text makes the reader panic; what is refused is refused with
// mistakes of a valid line; what is accepted has been checked.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/bad/*.toml")
	for _, file := range append(files, "example.toml", "minimal.toml") {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(overrides))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("fuzz", data)
		if (c == nil) == (err == nil) {
			t.Fatalf("both or neither: %v, %v", c, err)
		}
		if err != nil {
			var errs *Errors
			if !errors.As(err, &errs) || len(errs.Mistakes) == 0 || len(errs.Mistakes) > maxMistakes {
				t.Fatalf("not a list of mistakes: %v", err)
			}
			_ = err.Error()
			return
		}
		for _, r := range c.Resources {
			for _, p := range r.On {
				if _, err := c.Peer(r.Name, p.Node); err != nil {
					t.Fatal(err)
				}
			}
		}
		if DigestShared(c.SharedHash()) == "" || len(DiffShared(c.SharedHash(), c.SharedHash())) != 0 {
			t.Fatal("the shared part differs from itself")
		}
	})
}

// FuzzPositions: every key that the decoder finds has a position of its own.
func FuzzPositions(f *testing.F) {
	for _, s := range []string{"a.b = 1\n[c]\nd = [1, {x = 2}]\n[[e]]\nf = '''\n'''\n[[e]]\n[e.g]\nh = \"\"\"\\\n\"\"\"\"\n",
		"\"a\\u00e9\".'b' = 1 # c\r\nx = [ # c ]\n 1,\n]\ny = {a = 1,\n b.c = 2}\n",
		"\"\\e\\x41\\U0001F600\\\\\\\"\" = 1\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxFile {
			return
		}
		root, limit := scan(string(data))
		if limit != nil {
			return
		}
		var top map[string]any
		if _, err := toml.Decode(string(data), &top); err != nil {
			return
		}
		found(t, root, top)
	})
}

func found(t *testing.T, p *position, v any) {
	t.Helper()
	below := func(k string, v any) {
		n := p.below[k]
		if n == nil {
			t.Fatalf("%q has no position", k)
		}
		found(t, n, v)
	}
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			below(k, e)
		}
	case []map[string]any:
		for i, e := range v {
			below(index(i), e)
		}
	case []any:
		for i, e := range v {
			below(index(i), e)
		}
	}
}
