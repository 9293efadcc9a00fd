package main

import (
	"fmt"
	"os"
	"path"
	"strings"
)

// skipList is what may be skipped although CI=true.
type skipList struct{ patterns []testID }

// readSkips reads lines of: PACKAGE TEST REASON. A test may be a pattern of
// path.Match; # begins a comment line.
func readSkips(file string) (*skipList, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read what may be skipped: %w", err)
	}
	l := &skipList{}
	for i, line := range strings.Split(string(b), "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if len(words) < 3 {
			return nil, fmt.Errorf("%s:%d: write package, test and the reason", file, i+1)
		}
		if _, err := path.Match(words[1], ""); err != nil {
			return nil, fmt.Errorf("%s:%d: %s: %w", file, i+1, words[1], err)
		}
		l.patterns = append(l.patterns, testID{words[0], words[1]})
	}
	return l, nil
}

func (l *skipList) has(t testID) bool {
	for _, p := range l.patterns {
		if ok, err := path.Match(p.test, t.test); err == nil && ok && p.pkg == t.pkg {
			return true
		}
	}
	return false
}
