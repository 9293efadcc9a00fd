package daemon

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestLogKeepsOrderAndEndsComplete(t *testing.T) {
	var b bytes.Buffer
	l := NewAsideLog("hastd", &b)
	var want strings.Builder
	for i := range logLines {
		fmt.Fprintln(l, "line", i)
		fmt.Fprintln(&want, "line", i)
	}
	l.Close()
	if b.String() != want.String() {
		t.Errorf("%d bytes written, want %d", b.Len(), want.Len())
	}
}

// TestLogThatHangsStopsNobody: whoever reads the log may have stopped doing so.
func TestLogThatHangsStopsNobody(t *testing.T) {
	r, w := io.Pipe()
	l := NewAsideLog("hastd", w)
	const more = 100
	for i := range logLines + 1 + more { // the one is in the writer's hands
		if i == 1 {
			buf := make([]byte, 1)
			if _, err := r.Read(buf); err != nil { // it has taken the first line
				t.Fatal(err)
			}
		}
		fmt.Fprintln(l, i)
	}
	go l.Close()
	b := make([]byte, 1<<20)
	n := 0
	var got []byte
	for !bytes.Contains(got, fmt.Appendf(nil, "\n%d\n", logLines)) {
		var err error
		if n, err = r.Read(b); err != nil {
			t.Fatal(err)
		}
		got = append(got, b[:n]...)
	}
	if !strings.Contains(string(got), fmt.Sprintf("%d lines of the log were lost", more)) {
		t.Errorf("lost lines were not told of: %.200q", got)
	}
}
