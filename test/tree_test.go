package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// root is the tree, seen from this package.
const root = ".."

// walk calls f for every file of the tree, with its path from the root.
func walk(t *testing.T, f func(path string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) {
				return nil // another test's temporary file
			}
			return err
		}
		path, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && (path == ".git" || path == "bin" || path == "tmp"):
			return fs.SkipDir
		case d.Type().IsRegular() && path != ".git": // in a worktree it is a file
			f(filepath.ToSlash(path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// source is one Go file.
type source struct {
	path string // from the root
	pkg  string // folder, "" for the root
	fset *token.FileSet
	ast  *ast.File
}

func (s source) at(n ast.Node) string {
	p := s.fset.Position(n.Pos())
	return s.path + ":" + itoa(p.Line)
}

func (s source) test() bool { return strings.HasSuffix(s.path, "_test.go") }

func parse(t *testing.T, path string, src any) source {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, filepath.Join(root, path), src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	pkg := ""
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		pkg = path[:i]
	}
	return source{path, pkg, fset, f}
}

var parsed []source

// sources parses all Go files, once.
func sources(t *testing.T) []source {
	t.Helper()
	if parsed != nil {
		return parsed
	}
	var all []source
	walk(t, func(path string) {
		if strings.HasSuffix(path, ".go") && !strings.Contains(path, "testdata/") {
			all = append(all, parse(t, path, nil))
		}
	})
	if len(all) == 0 {
		t.Fatal("no Go file found")
	}
	parsed = all
	return all
}

// vague are words that say nothing about what a package or file is for.
var vague = regexp.MustCompile(`(?i)(^|[^a-z])(utils?|commons?|helpers?|misc)([^a-z]|$)`)

func TestNamesSayWhatThingsAreFor(t *testing.T) {
	for _, bad := range []string{"util", "conf/utils.go", "common_test.go", "net-common", "helpers"} {
		if !vague.MatchString(bad) {
			t.Errorf("%q passes", bad)
		}
	}
	for _, good := range []string{"commonVersion", "utilisation.go"} {
		if vague.MatchString(good) {
			t.Errorf("%q does not pass", good)
		}
	}
	walk(t, func(path string) {
		if vague.MatchString(path) {
			t.Errorf("%s: name it after what it is for", path)
		}
	})
	for _, s := range sources(t) {
		if vague.MatchString(s.ast.Name.Name) {
			t.Errorf("%s: package %s: name it after what it is for", s.path, s.ast.Name.Name)
		}
	}
}

// machine matches folders that exist only where somebody works on this tree.
var machine = regexp.MustCompile(`(^|[^A-Za-z0-9._$})/-])/(` + "work" + `|` + "root" + `|` + "home" + `)/[A-Za-z.]`)

func TestNoPathOfAMachine(t *testing.T) {
	for _, bad := range []string{"/" + "work/main", "see /" + "root/go", `"/` + `home/me"`} {
		if !machine.MatchString(bad) {
			t.Errorf("%q passes", bad)
		}
	}
	for _, good := range []string{"/srv/" + "work/x", "dir/" + "root/x", "/rootfs/x"} {
		if machine.MatchString(good) {
			t.Errorf("%q does not pass", good)
		}
	}
	walk(t, func(path string) {
		b, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			if !os.IsNotExist(err) {
				t.Error(err)
			}
			return
		}
		for i, line := range strings.Split(string(b), "\n") {
			if m := machine.FindString(line); m != "" {
				t.Errorf("%s:%d: %q is a path of one machine", path, i+1, strings.TrimSpace(m))
			}
		}
	})
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	said := map[string]bool{}
	for _, s := range sources(t) {
		if !s.test() {
			said[s.pkg] = said[s.pkg] || s.ast.Doc != nil
		}
	}
	for pkg, ok := range said {
		if !ok {
			t.Errorf("%s: no comment before its package clause: what it is for, who calls it, what it never does", pkg)
		}
	}
}
