package vm

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// TestArchiveIsWhatTheKernelReads: headers and data stand at multiples of four, folders
// before what is in them.
func TestArchiveIsWhatTheKernelReads(t *testing.T) {
	b := cpio(map[string][]byte{"/init": []byte("12345"), "/a/b/c": {}, "/a/d": []byte("x")})
	var got []string
	for at := 0; ; {
		if at%4 != 0 || len(b) < at+110 || string(b[at:at+6]) != "070701" {
			t.Fatalf("no header at %d", at)
		}
		field := func(i int) int {
			n, err := strconv.ParseInt(string(b[at+6+8*i:at+14+8*i]), 16, 64)
			if err != nil {
				t.Fatal(err, hex.Dump(b[at:at+110]))
			}
			return int(n)
		}
		mode, size, name := field(1), field(6), field(11)
		word := string(b[at+110 : at+110+name-1])
		at = (at + 110 + name + 3) &^ 3
		if word == "TRAILER!!!" {
			if at != len(b) {
				t.Errorf("%d bytes after the end", len(b)-at)
			}
			break
		}
		got = append(got, fmt.Sprintf("%s %o %q", word, mode, b[at:at+size]))
		at = (at + size + 3) &^ 3
	}
	want := `a 40755 "" a/b 40755 "" a/b/c 100755 "" a/d 100755 "x" init 100755 "12345"`
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}
