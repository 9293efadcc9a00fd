package test

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What docs/guarantees.md names as proof must exist: tests, files, rows.
func TestGuaranteesNameWhatExists(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/guarantees.md"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range sources(t) {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				names = append(names, f.Name.Name)
			}
		}
	}
	has := func(name string, exact bool) bool {
		for _, n := range names {
			if n == name || !exact && strings.HasPrefix(n, name) {
				return true
			}
		}
		return false
	}
	found := 0
	for _, m := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(string(text), -1) {
		switch word := m[1]; {
		case strings.HasPrefix(word, "Test"):
			found++
			if !has(word, true) {
				t.Errorf("there is no test %s", word)
			}
		case strings.HasPrefix(word, "test/") || strings.HasPrefix(word, "docs/"):
			found++
			if _, err := os.Stat(filepath.Join(root, word)); err != nil {
				t.Errorf("%s: %v", word, err)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d tests and files are named: is this page read rightly?", found)
	}
	number := regexp.MustCompile(`[0-9]+`)
	for _, cell := range regexp.MustCompile(`rows? ([0-9][0-9, andto]*)`).FindAllStringSubmatch(string(text), -1) {
		for _, row := range number.FindAllString(cell[1], -1) {
			if len(row) == 1 {
				row = "0" + row
			}
			if !has("row"+row, false) {
				t.Errorf("there is no scenario for row %s", row)
			}
		}
	}
}
