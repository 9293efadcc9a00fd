package test

import (
	"go/ast"
	"go/token"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "hastd"

// pure are the packages whose behaviour follows from their arguments alone. That
// is what lets test/sim replay a whole pair from one seed.
var pure = []string{"replicate", "metadata", "carp", "cluster", "cluster/beat", "cluster/view", "cluster/lease", "cluster/member", "cluster/seat", "cluster/fence"}

// mayImport says what each production package may import of this module. A new
// package needs a line here: that is the moment to ask where it belongs.
var mayImport = map[string][]string{
	"conf":             nil,
	"metadata":         nil,
	"transport":        nil,
	"blockdev":         nil,
	"blockdev/fuse":    {"blockdev"},
	"blockdev/nbd":     {"blockdev"},
	"replicate":        {"metadata"},
	"replicate/runner": {"replicate", "metadata", "transport", "blockdev", "blockdev/fuse", "blockdev/nbd"},
	"carp":             nil,
	"carp/vip":         nil,
	"carp/runner":      {"carp"},
	"cluster":          nil,
	"cluster/beat":     nil,
	"cluster/runner":   {"cluster"},
	"cluster/fence":    nil,

	"cluster/beat/runner":   {"cluster/beat"},
	"cluster/fence/runner":  {"cluster/fence"},
	"cluster/view":          nil,
	"cluster/view/store":    {"cluster/view"},
	"cluster/lease":         {"cluster/view"},
	"cluster/member":        {"cluster/view", "cluster/lease"},
	"cluster/seat":          {"cluster/view"},
	"cluster/member/runner": {"cluster/member", "cluster/view", "cluster/lease"},
}

// judges are the tests that stand outside: what they must not know, lest they
// believe the product instead of checking it.
var judges = map[string][]string{
	"test/lab":     {"test/cable"},                                                                                          // uses the programs only
	"test/vm":      {"test/lab/nbdclient"},                                                                                  // uses the programs only
	"test/contrib": {"test/lab"},                                                                                            // uses the scripts and the programs only
	"test/sim":     {"replicate", "metadata", "cluster/view", "cluster/lease", "cluster/member", "cluster/seat", "cluster"}, // is a shell around the pure packages
}

// harmless is the standard library without files, clocks, chance and concurrency.
var harmless = []string{
	"bytes", "cmp", "encoding", "encoding/*", "errors", "fmt", "hash", "hash/*", "iter",
	"maps", "math", "math/bits", "slices", "sort", "strconv", "strings", "unicode/utf8",
	"crypto/hmac", "crypto/sha1", "crypto/sha256", "net/netip",
}

// exceptions are imports that a pure package's file may have all the same, and
// what it may use of them.
var exceptions = []struct {
	file, path string
	uses       []string
	why        string
}{
	{"metadata/lineage.go", "time", []string{"Unix", "RFC3339"}, "dump shows when a generation began; nothing decides by it"},
}

// talking are functions of harmless packages that do input or output.
var talking = map[string][]string{
	"fmt": {"Print", "Printf", "Println", "Fprint", "Fprintf", "Fprintln", "Scan", "Scanf", "Scanln", "Fscan", "Fscanf", "Fscanln"},
}

func itoa(n int) string { return strconv.Itoa(n) }

// imports are the paths that a file imports, by the node that says so.
func (s source) imports() map[*ast.ImportSpec]string {
	m := map[*ast.ImportSpec]string{}
	for _, i := range s.ast.Imports {
		if p, err := strconv.Unquote(i.Path.Value); err == nil {
			m[i] = p
		}
	}
	return m
}

// own is the folder of a package of this module.
func own(importPath string) (string, bool) { return strings.CutPrefix(importPath, module+"/") }

// below says whether folder is parent or inside it.
func below(folder, parent string) bool {
	return folder == parent || strings.HasPrefix(folder, parent+"/")
}

// impurities are the reasons why a production file may not stand in a pure package.
func impurities(s source) []string {
	var bad []string
	complain := func(n ast.Node, what string) { bad = append(bad, s.at(n)+": "+what) }
	names := map[string][]string{} // name in this file → all that may be used of it
	for spec, p := range s.imports() {
		name := path.Base(p)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		if name == "." || name == "_" {
			complain(spec, "imports "+p+" as "+name)
		}
		if folder, ok := own(p); ok {
			if !slices.Contains(pure, folder) {
				complain(spec, "imports "+p+", which is not pure")
			}
			continue
		}
		if slices.ContainsFunc(harmless, func(pattern string) bool { ok, _ := path.Match(pattern, p); return ok }) {
			continue
		}
		allowed := false
		for _, e := range exceptions {
			if e.file == s.path && e.path == p {
				allowed, names[name] = true, e.uses
			}
		}
		if !allowed {
			complain(spec, "imports "+p)
		}
	}
	ast.Inspect(s.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			complain(n, "starts a goroutine")
		case *ast.ChanType:
			complain(n, "has a channel")
		case *ast.SendStmt:
			complain(n, "sends on a channel")
		case *ast.SelectStmt:
			complain(n, "waits in a select")
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				complain(n, "receives from a channel")
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && (f.Name == "print" || f.Name == "println") {
				complain(n, "prints")
			}
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				return true
			}
			if slices.Contains(talking[x.Name], n.Sel.Name) {
				complain(n, "uses "+x.Name+"."+n.Sel.Name)
			}
			if uses, limited := names[x.Name]; limited && !slices.Contains(uses, n.Sel.Name) {
				complain(n, "uses "+x.Name+"."+n.Sel.Name)
			}
		}
		return true
	})
	return bad
}

func TestPurePackagesAreBlindAndAlone(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range sources(t) {
		if !slices.Contains(pure, s.pkg) || s.test() {
			continue
		}
		seen[s.pkg] = true
		for _, bad := range impurities(s) {
			t.Error(bad, "(a pure package takes events and returns effects: leave this to its runner)")
		}
	}
	for _, p := range []string{"replicate", "metadata"} {
		if !seen[p] {
			t.Errorf("no file of %s was looked at", p)
		}
	}
}

// TestImpuritiesAreSeen breaks every rule once.
func TestImpuritiesAreSeen(t *testing.T) {
	for code, want := range map[string]string{
		`import "os"`:        "imports os",
		`import "time"`:      "imports time",
		`import "sync"`:      "imports sync",
		`import "log/slog"`:  "imports log/slog",
		`import "math/rand"`: "imports math/rand",
		`import "hastd/blockdev"; var _ blockdev.Range`: "which is not pure",
		`import . "fmt"`: "as .",
		`import "fmt"; func f() { fmt.Println() }`:       "uses fmt.Println",
		`func f() { println() }`:                         "prints",
		`func f() { go f() }`:                            "starts a goroutine",
		`var c chan int`:                                 "has a channel",
		`func f(c T) { <-c }`:                            "receives",
		`func f(c T) { c <- 1 }`:                         "sends",
		`func f() { select {} }`:                         "select",
		`import "golang.org/x/sys/unix"; var _ unix.Fd`:  "imports golang.org",
		`import "encoding/json"; import "hash/crc32"`:    "",
		`import "hastd/metadata"; var _ metadata.Extent`: "",
	} {
		bad := strings.Join(impurities(parse(t, "replicate/x.go", "package replicate\n"+code)), "\n")
		if want == "" && bad != "" || !strings.Contains(bad, want) {
			t.Errorf("%s\ngave: %q, want: %q", code, bad, want)
		}
	}
	now := `import "time"; var t = time.Now()`
	if bad := impurities(parse(t, "metadata/lineage.go", "package metadata\n"+now)); len(bad) != 1 || !strings.Contains(bad[0], "time.Now") {
		t.Errorf("an exception allows more than it lists: %v", bad)
	}
}

// forbidden tells why pkg may not import target (folders both), or "".
func forbidden(pkg, target string) string {
	switch {
	case below(target, "cmd") && !below(pkg, "cmd"):
		return "nobody imports cmd"
	case below(target, "test") && !below(pkg, "test"):
		return "the product imports nothing of its tests"
	case below(pkg, "cmd"):
		return ""
	case below(pkg, "test"):
		for judge, may := range judges {
			if below(pkg, judge) && !below(target, judge) && !slices.Contains(may, target) {
				return judge + " stands outside of what it judges"
			}
		}
		return ""
	}
	may, known := mayImport[pkg]
	if !known {
		return pkg + " has no line in mayImport"
	}
	if !slices.Contains(may, target) {
		return "no such arrow: cmd → runners → pure packages"
	}
	return ""
}

func TestArrowsRunOneWay(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		if _, known := mayImport[s.pkg]; !known && !below(s.pkg, "cmd") && !below(s.pkg, "test") {
			t.Errorf("%s: %s has no line in mayImport", s.path, s.pkg)
		}
		for spec, p := range s.imports() {
			if target, ok := own(p); ok {
				if why := forbidden(s.pkg, target); why != "" {
					t.Errorf("%s: %s imports %s: %s", s.at(spec), s.pkg, target, why)
				}
			}
		}
	}
}

func TestForbiddenArrowsAreSeen(t *testing.T) {
	for arrow, ok := range map[[2]string]bool{
		{"cmd/hastd", "replicate/runner"}:          true,
		{"cmd/hastd", "cmd/internal/api"}:          true,
		{"replicate/runner", "replicate"}:          true,
		{"test/sim/cmd/sim", "test/sim"}:           true,
		{"test/sim", "metadata"}:                   true,
		{"replicate", "replicate/runner"}:          false,
		{"metadata", "replicate"}:                  false,
		{"transport", "replicate"}:                 false,
		{"blockdev", "conf"}:                       false,
		{"replicate/runner", "cmd/internal/build"}: false,
		{"replicate/runner", "test/sim"}:           false,
		{"cmd/hastctl", "test/lab"}:                false,
		{"test/lab", "transport"}:                  false,
		{"test/sim", "replicate/runner"}:           false,
		{"novel", "metadata"}:                      false,
	} {
		if why := forbidden(arrow[0], arrow[1]); (why == "") != ok {
			t.Errorf("%s → %s: %q", arrow[0], arrow[1], why)
		}
	}
	// The map itself must have no way round.
	var visit func(pkg string, way []string)
	visit = func(pkg string, way []string) {
		if slices.Contains(way, pkg) {
			t.Fatalf("a circle: %v", append(way, pkg))
		}
		for _, next := range mayImport[pkg] {
			visit(next, append(slices.Clone(way), pkg))
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(mayImport)) {
		visit(pkg, nil)
	}
}
