package demo

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// file is one file to be stored.
type file struct {
	name string
	data []byte
}

// Bounds of a tree of files.
const (
	treeMaxFile  = 1 << 20 // larger ones are left out
	treePerDir   = 12      // so that it is a tree and not one full folder
	treeMaxVisit = 20000   // looked at, before it is given up to find more
)

// treeSources are where every Linux has files that everybody may read.
var treeSources = []string{"/usr/share", "/usr/lib"}

// realTree reads files of this machine, with their folders; what it lacks is made
// up.
func realTree(random *rand.Rand, files int, bytes int64) []file {
	var tree []file
	perDir := map[string]int{}
	for i, source := range treeSources {
		visited := 0
		some := files * (i + 1) / len(treeSources) // a share from each
		filepath.WalkDir(source, func(path string, e fs.DirEntry, err error) error {
			if visited++; visited > treeMaxVisit || len(tree) >= some || bytes <= 0 {
				return filepath.SkipAll
			}
			dir := filepath.Dir(path)
			if err != nil || !e.Type().IsRegular() || perDir[dir] >= treePerDir {
				return nil
			}
			fi, err := e.Info()
			if err != nil || fi.Size() > min(treeMaxFile, bytes) {
				return nil
			}
			data, err := os.ReadFile(path)
			if err != nil || len(data) > treeMaxFile {
				return nil
			}
			perDir[dir]++
			bytes -= int64(len(data))
			tree = append(tree, file{"tree" + path, data})
			return nil
		})
	}
	for i := 0; len(tree) < files/2 && bytes > 0; i++ {
		f := inventFile(random, fmt.Sprintf("tree/made/%02d/%04d", i%16, i))
		bytes -= int64(len(f.data))
		tree = append(tree, f)
	}
	return tree
}

// Sizes of invented files.
const (
	inventMin = 1 << 10
	inventMax = 128 << 10
)

// inventFile makes a file that nothing compresses and no other one equals.
func inventFile(random *rand.Rand, name string) file {
	data := make([]byte, inventMin+random.IntN(inventMax-inventMin))
	for i := 0; i < len(data); i += 8 {
		v := random.Uint64()
		for k := i; k < min(i+8, len(data)); k++ {
			data[k] = byte(v)
			v >>= 8
		}
	}
	return file{name, data}
}

// folders counts the folders of a tree.
func folders(tree []file) int {
	seen := map[string]bool{}
	for _, f := range tree {
		for dir := filepath.Dir(f.name); dir != "." && !seen[dir]; dir = filepath.Dir(dir) {
			seen[dir] = true
		}
	}
	return len(seen)
}

// reason is the innermost word on what went wrong.
func reason(err error) string {
	parts := strings.Split(err.Error(), ": ")
	return parts[len(parts)-1]
}
