package vm

import (
	"bytes"
	"fmt"
	"path"
	"sort"
)

// Modes of what is in an archive.
const (
	modeFolder = 0o40755
	modeFile   = 0o100755
)

// cpio packs files, by their absolute paths, as the kernel wants its first filesystem
// (newc, see cpio(5)). Folders are made as needed.
func cpio(files map[string][]byte) []byte {
	var b bytes.Buffer
	inode := 0
	add := func(name string, mode int, data []byte) {
		inode++
		name = name[min(1, len(name)):] // relative
		if mode == 0 {
			name = "TRAILER!!!"
		}
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
		pad(&b)
		b.Write(data)
		pad(&b)
	}
	folders := map[string]bool{"/": true}
	var names []string
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	var enter func(dir string)
	enter = func(dir string) {
		if !folders[dir] {
			folders[dir] = true
			enter(path.Dir(dir))
			add(dir, modeFolder, nil)
		}
	}
	for _, name := range names {
		enter(path.Dir(name))
		add(name, modeFile, files[name])
	}
	add("", 0, nil)
	return b.Bytes()
}

func pad(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}
