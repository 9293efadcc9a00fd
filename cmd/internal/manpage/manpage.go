// Package manpage writes the manual pages of a program from its command tree and
// says whether those in the repository are stale. The tests of the programs call
// it.
package manpage

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// Section of the manual: commands of the administrator.
const Section = "8"

// date stands on every page. It is fixed, so that pages change only with the
// commands.
var date = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)

// Generate makes the pages of root and all its commands, by file name.
func Generate(root *cobra.Command) (map[string][]byte, error) {
	root.InitDefaultCompletionCmd()
	root.InitDefaultVersionFlag()
	pages := map[string][]byte{}
	if err := generate(root, pages); err != nil {
		return nil, fmt.Errorf("manual pages of %s: %w", root.Name(), err)
	}
	return pages, nil
}

func generate(c *cobra.Command, pages map[string][]byte) error {
	c.DisableAutoGenTag = true
	name := bytes.ReplaceAll([]byte(c.CommandPath()), []byte(" "), []byte("-"))
	var b bytes.Buffer
	d := date
	if err := doc.GenMan(c, &doc.GenManHeader{Title: string(bytes.ToUpper(name)), Section: Section, Date: &d, Source: "HAST", Manual: "HAST administration"}, &b); err != nil {
		return err
	}
	pages[string(name)+"."+Section] = b.Bytes()
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && !sub.IsAdditionalHelpTopicCommand() {
			if err := generate(sub, pages); err != nil {
				return err
			}
		}
	}
	return nil
}

// Check generates the pages of a program, writes them to dir if update is set, and
// names those in dir that are stale.
func Check(root *cobra.Command, dir string, update bool) ([]string, error) {
	pages, err := Generate(root)
	if err != nil {
		return nil, err
	}
	if update {
		if err := Write(pages, root.Name(), dir); err != nil {
			return nil, err
		}
	}
	return Stale(pages, root.Name(), dir)
}

// Stale compares the pages with those in dir and names what differs. Pages that
// begin with the program's name and belong to no command are stale, too.
func Stale(pages map[string][]byte, program, dir string) ([]string, error) {
	var stale []string
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		have, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		if !bytes.Equal(have, pages[name]) {
			stale = append(stale, name)
		}
	}
	old, err := files(program, dir)
	for _, name := range old {
		if _, ok := pages[name]; !ok {
			stale = append(stale, name)
		}
	}
	return stale, err
}

// Write replaces the pages in dir.
func Write(pages map[string][]byte, program, dir string) error {
	old, err := files(program, dir)
	if err != nil {
		return err
	}
	for _, name := range old {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	for name, page := range pages {
		if err := os.WriteFile(filepath.Join(dir, name), page, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func files(program, dir string) ([]string, error) {
	var names []string
	for _, pattern := range []string{program + "." + Section, program + "-*." + Section} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		for _, p := range paths {
			names = append(names, filepath.Base(p))
		}
	}
	return names, nil
}
