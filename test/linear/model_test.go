package linear

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// parse reads a history: one line an operation on sector 0 (or "@n" after the kind),
// "CALL RETURN KIND VALUE", RETURN "-" for never; or "AT loss", "AT may", "AT cut". Reads and
// writes of several sectors list what was seen, or "xN" for the length.
func parse(t *testing.T, text string) *History {
	t.Helper()
	h := &History{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		num := func(s string) int64 {
			n := int64(0)
			for _, c := range s {
				if c < '0' || c > '9' {
					t.Fatalf("%q in %q", s, line)
				}
				n = n*10 + int64(c-'0')
			}
			return n
		}
		switch f[1] {
		case "may":
			h.MayLose(num(f[0]), "")
			continue
		case "loss":
			h.Loss(num(f[0]), "")
			continue
		case "cut":
			h.Cut(num(f[0]), "cut")
			continue
		}
		o := Op{Client: len(h.Ops), Call: num(f[0]), Return: Never, Count: 1}
		if f[1] != "-" {
			o.Return = num(f[1])
		}
		kind, at, _ := strings.Cut(f[2], "@")
		o.First = num(at)
		switch kind {
		case "w", "fua":
			o.Kind, o.Value, o.FUA = Write, Value(num(f[3])), kind == "fua"
			if len(f) > 4 {
				o.Count = num(f[4][1:])
			}
		case "z":
			o.Kind = WriteZeroes
		case "flush":
			o.Kind, o.Count = Flush, 0
		case "r":
			o.Kind, o.Count = Read, int64(len(f)-3)
			for _, v := range f[3:] {
				if v == "?" {
					o.Seen = append(o.Seen, Garbage)
				} else {
					o.Seen = append(o.Seen, Value(num(v)))
				}
			}
		default:
			t.Fatal(line)
		}
		h.Ops = append(h.Ops, o)
	}
	return h
}

// histories: good says whether an order explains them.
var histories = []struct {
	name string
	good bool
	text string
}{
	{"zeroes at first", true, "1 2 r 0"},
	{"what nobody wrote", false, "1 2 r 7"},
	{"a mixture inside a sector", false, "1 2 w 1\n3 4 r ?"},
	{"read your write", true, "1 2 w 1\n3 4 r 1"},
	{"stale read", false, "1 2 w 1\n3 4 w 2\n5 6 r 1"},
	{"stale read after failover", false, "1 2 w 1\n3 - w 2\n10 11 r 0"},
	{"acknowledged unflushed write lost without a loss", false, "1 2 w 1\n10 11 r 0"},
	{"two writes at once, either", true, "1 10 w 1\n2 9 w 2\n11 12 r 1"},
	{"two writes at once, the other", true, "1 10 w 1\n2 9 w 2\n11 12 r 2"},
	{"two writes at once, back and forth", false, "1 10 w 1\n2 9 w 2\n11 12 r 1\n13 14 r 2"},
	{"read during a write, either", true, "1 10 w 1\n2 3 r 0\n4 5 r 1\n6 7 r 1"},
	{"read during a write goes back", false, "1 10 w 1\n2 3 r 1\n4 5 r 0"},

	{"pending write never happens", true, "1 2 w 1\n3 - w 2\n4 5 r 1\n90 91 r 1"},
	{"pending write shows up later", true, "1 2 w 1\n3 - w 2\n4 5 r 1\n90 91 r 2"},
	{"pending write goes back and forth", false, "1 2 w 1\n3 - w 2\n4 5 r 2\n6 7 r 1\n8 9 r 2"},
	{"two pending writes back and forth", false, "1 - w 1\n1 - w 2\n4 5 r 1\n6 7 r 2\n8 9 r 1"},
	{"pending write replaces a later one once", true, "1 - w 1\n2 3 w 2\n4 5 r 2\n6 7 r 1"},
	{"pending write seen before its call", false, "4 5 r 2\n6 - w 2"},
	{"pending zeroes over data", true, "1 2 w 1\n3 - z\n4 5 r 1\n6 7 r 0"},
	{"zeroes that never were", false, "1 2 w 1\n4 5 r 0"},

	{"unflushed write lost by a loss", true, "1 2 w 1\n3 loss\n4 5 r 0"},
	{"unflushed write kept by a loss", true, "1 2 w 1\n3 loss\n4 5 r 1"},
	{"some of many unflushed", true, "1 2 w 1\n3 4 w 2\n5 6 w 3\n7 loss\n8 9 r 2"},
	{"flushed write lost", false, "1 2 w 1\n3 4 flush\n5 loss\n6 7 r 0"},
	{"flushed write replaced by an unflushed one", true, "1 2 w 1\n3 4 flush\n5 6 w 2\n7 loss\n8 9 r 2"},
	{"flushed write kept, unflushed one lost", true, "1 2 w 1\n3 4 flush\n5 6 w 2\n7 loss\n8 9 r 1"},
	{"older than the flushed write", false, "1 2 w 1\n3 4 w 2\n5 6 flush\n7 8 w 3\n9 loss\n10 11 r 1"},
	{"the flush was under way with the write: not covered", true, "1 4 w 1\n3 6 flush\n7 loss\n8 9 r 0"},
	{"the write came during the flush: not covered", true, "1 6 flush\n2 3 w 1\n7 loss\n8 9 r 0"},
	{"the flush was never answered", true, "1 2 w 1\n3 - flush\n7 loss\n8 9 r 0"},
	{"the flush was answered after the loss", true, "1 2 w 1\n3 9 flush\n7 loss\n10 11 r 0"},
	{"a flush on another client", false, "1 2 w 1\n2 8 w@8 9\n3 4 flush\n5 loss\n8 9 r 0"},
	{"seen before the flush, so flushed", false, "1 - w 1\n2 3 r 1\n4 5 flush\n6 loss\n7 8 r 0"},
	{"FUA write lost", false, "1 2 fua 1\n3 loss\n4 5 r 0"},
	{"FUA says nothing of what came later", true, "1 2 fua 1\n3 4 w 2\n5 loss\n6 7 r 1"},
	{"FUA covers no other sector", true, "1 2 w@1 1\n3 4 fua@0 2\n5 loss\n6 7 r@0 2 0"},
	{"FUA fixes what replaces an unflushed write", false, "1 2 w 1\n3 4 fua 2\n5 loss\n6 7 r 1"},
	{"unanswered FUA promises nothing", true, "1 2 w 1\n3 - fua 2\n4 5 r 2\n6 loss\n7 8 r 1"},
	{"a loss settles on one value", false, "1 2 w 1\n3 loss\n4 5 r 0\n6 7 r 1"},
	{"what a loss left was on the medium", false, "1 2 w 1\n3 loss\n4 5 r 1\n6 loss\n7 8 r 0"},
	{"two losses without a read between", true, "1 2 w 1\n3 loss\n4 5 w 2\n6 loss\n7 8 r 0"},
	{"two losses, a flush between", false, "1 2 w 1\n3 loss\n4 5 w 2\n6 7 flush\n8 loss\n9 10 r 1"},
	{"a flush after a loss does not bring back", true, "1 2 w 1\n3 loss\n4 5 flush\n6 7 r 0"},
	{"a loss that may not have been one says nothing of the medium", true, "1 2 w 1\n3 may\n4 5 r 1\n6 loss\n7 8 r 0"},
	{"a loss that was one says it", false, "1 2 w 1\n3 4 w 2\n5 may\n6 7 r 1\n8 loss\n9 10 r 0"},
	{"pending write after a loss", true, "1 2 w 1\n3 - w 2\n4 loss\n5 6 r 0\n7 8 r 2"},
	{"write after the loss lost without another", false, "1 loss\n2 3 w 1\n4 5 r 0"},
	{"a large write torn while pending", true, "1 2 w 1 x3\n3 - w 2 x3\n4 5 r 1 2 1\n6 7 r 2 2 1"},
	{"a large write torn though acknowledged", false, "1 2 w 1 x3\n3 4 w 2 x3\n5 6 r 2 1 2"},
	{"a large unflushed write torn by a loss", true, "1 2 w 1 x3\n3 loss\n5 6 r 1 0 1"},
	{"after the cut nothing counts", true, "1 2 w 1\n3 cut\n5 6 r 7"},
	{"answered after the cut may have happened", true, "1 6 w 1\n2 3 r 0\n5 cut\n7 8 r 0"},
	{"before the cut everything counts", false, "1 2 w 1\n3 4 r 0\n5 cut"},
}

func TestModel(t *testing.T) {
	good, bad := 0, 0
	for _, c := range histories {
		t.Run(c.name, func(t *testing.T) {
			_, err := Check(parse(t, c.text), time.Second)
			if _, refused := errors.AsType[*Refused](err); err != nil && !refused {
				t.Fatal(err)
			}
			if (err == nil) != c.good {
				t.Errorf("%s\naccepted: %v, want %v", c.text, err == nil, c.good)
			}
		})
		if c.good {
			good++
		} else {
			bad++
		}
	}
	t.Logf("%d to be accepted, %d to be refused", good, bad)
}

// TestRecorderMistakes: a history that cannot be is an error of its own.
func TestRecorderMistakes(t *testing.T) {
	for name, ops := range map[string][]Op{
		"returns before call":  {{Kind: Read, Count: 1, Seen: []Value{0}, Call: 5, Return: 4}},
		"nothing read":         {{Kind: Read, Count: 1, Call: 5, Return: 6}},
		"value twice":          {{Kind: Write, Count: 1, Value: 1, Return: 1}, {Kind: Write, Count: 1, Value: 1, Return: 1}},
		"write without value":  {{Kind: Write, Count: 1, Return: 1}},
		"write without extent": {{Kind: Write, Value: 1, Return: 1}},
	} {
		_, err := Check(&History{Ops: ops}, time.Second)
		if _, refused := errors.AsType[*Refused](err); err == nil || refused {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUndecided: a search that takes too long is no success.
func TestUndecided(t *testing.T) {
	h := &History{}
	const n = 60
	for i := range n { // all under way at once, each seen in an order that cannot be
		h.Ops = append(h.Ops, Op{Client: i, Kind: Write, Count: 1, Value: Value(i + 1), Call: 1, Return: Never})
	}
	for i := range n {
		h.Ops = append(h.Ops, Op{Client: n + i, Kind: Read, Count: 1, Seen: []Value{Value(i + 1)}, Call: 2, Return: 3})
	}
	h.Ops = append(h.Ops, Op{Client: 3 * n, Kind: Read, Count: 1, Seen: []Value{0}, Call: 10, Return: 11})
	_, err := Check(h, 200*time.Millisecond)
	u, ok := errors.AsType[*Undecided](err)
	if !ok || u.Ops != 2*n+1 {
		t.Fatal(err)
	}
}

func TestSave(t *testing.T) {
	h := parse(t, "1 2 w 1 x2\n3 4 flush\n5 loss\n6 7 r 1 0")
	_, err := Check(h, time.Second)
	r, ok := errors.AsType[*Refused](err)
	if !ok || r.Sector != 1 {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := Save(dir, h, err); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"history.txt": "mark 5 loss=true may=false", "refused.txt": "write 0+2 value 1", "refused.html": "power lost"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s lacks %q: %v", name, want, err)
		}
	}
}
