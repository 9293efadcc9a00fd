package conf

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// TestBadFilesGolden reads each testdata/bad/*.toml and compares what is said
// about it, word by word, with the .golden file beside it.
func TestBadFilesGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatal("no test files", err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(strings.TrimSuffix(name, ".toml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Parse(name, data)
			var errs *Errors
			if c != nil || !errors.As(err, &errs) {
				t.Fatalf("no mistake found: %v", err)
			}
			for i, m := range errs.Mistakes {
				if m.Problem == "" || m.Advice == "" || m.Line == 0 {
					t.Errorf("no line, problem or advice: %v", m)
				}
				if i > 0 && errs.Mistakes[i-1].Line > m.Line {
					t.Errorf("not in the order of lines: %v", m)
				}
			}
			golden := strings.TrimSuffix(file, ".toml") + ".golden"
			got := err.Error() + "\n"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("\n got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestParseLimits(t *testing.T) {
	deep := strings.Repeat("[", 100_000)
	for name, tc := range map[string]struct{ text, want string }{
		"size":   {"#" + strings.Repeat("x", maxFile), "f: is larger than a configuration may be (1MiB); is it the right file?"},
		"depth":  {"\na = " + deep, "f:2: tables or lists are nested deeper than 16; no key of this configuration needs that"},
		"inline": {"a={b=" + strings.Repeat("{b=", 100_000), "f:1: tables or lists are nested deeper than 16; no key of this configuration needs that"},
		"path":   {"[" + strings.Repeat("x", 600) + "]", "f:1: the key is longer than 512 bytes; shorten it"},
		"list": {"[cluster]\nname = 'c'\ninsecure = true\n[node.a]\nid = 0\naddress = [" + strings.Repeat("'10.0.0.1',", 257) + "]",
			"f:6: node.a.address: has 257 elements; write at most 256"},
		"keys": {"a = [" + strings.Repeat("1,", 70_000) + "]", "f:1: the file has more than 65536 keys and values; is it the right file?"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse("f", []byte(tc.text)); err == nil || err.Error() != tc.want {
				t.Errorf("\n got %v\nwant %s", err, tc.want)
			}
		})
	}
	var many strings.Builder
	for i := range 3 * maxMistakes {
		many.WriteString("k" + strings.Repeat("x", i%7) + strings.Repeat("y", i/7) + " = 1\n")
	}
	_, err := Parse("f", []byte(many.String()))
	var errs *Errors
	if !errors.As(err, &errs) || len(errs.Mistakes) != maxMistakes || errs.Dropped < 2*maxMistakes {
		t.Errorf("%d mistakes, %d dropped", len(errs.Mistakes), errs.Dropped)
	}
}

// What the views have no room for is a mistake with votes only: vipd would not start.
func TestVotesHaveRoom(t *testing.T) {
	write := func(quorum string, nodes, groups int, name string) string {
		text := "[cluster]\nname = 'c'\ninsecure = true\nquorum = '" + quorum + "'\n"
		for i := range nodes {
			text += fmt.Sprintf("[node.n%d]\nid = %d\naddress = ['10.0.0.%d']\n", i, i, i+1)
		}
		for i := range groups {
			text += fmt.Sprintf("[group.%s%d]\nnodes = ['n0', 'n1']\ninterfaces = ['e%d']\nvhid = 1\n", name, i, i)
		}
		return text
	}
	long := strings.Repeat("x", MaxClaim)
	for text, want := range map[string]string{
		write("majority", MaxVoters, MaxOwned, "g"):         "",
		write("majority", 2, 1, long[1:]):                   "",
		write("off", MaxVoters+1, MaxOwned+1, "g"):          "",
		write("off", 2, 1, long):                            "",
		write("majority", MaxVoters+1, 1, "g"):              "f:4: cluster.quorum: majority is possible with at most 8 nodes, witnesses among them, and there are 9; ",
		write("majority", 2, MaxOwned+1, "g"):               "f:4: cluster.quorum: majority is possible with at most 64 resources and groups without resources in all, and there are 65; ",
		write("majority", 2, 1, long):                       "f:11: group." + long + "0: with quorum majority the name of a group without resources has at most 57 bytes, and this has 58; ",
		write("majority", 2, 1, long) + "parallel = true\n": "",
	} {
		_, err := Parse("f", []byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("\n got %v\nwant %s", err, want)
		}
	}
}

func TestLoadSaysWhyAFileCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	_, err := Load(filepath.Join(dir, "none.toml"))
	if !errors.Is(err, os.ErrNotExist) || !strings.HasSuffix(err.Error(),
		"/none.toml: cannot be read: no such file or directory; name the file with -c FILE, or write one (example.toml has every key)") {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Load(dir); err == nil || !strings.HasSuffix(err.Error(), ": cannot be read: it is not a regular file") {
		t.Errorf("directory: %v", err)
	}
}
