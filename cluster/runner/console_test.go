package runner

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestConsoleGetsWholeLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, writeLines(path, "<4>", "\r\n", []string{"one", "two\nlines"}))
	if b, _ := os.ReadFile(path); string(b) != "<4>one\r\n<4>two lines\r\n" {
		t.Errorf("%q", b)
	}
	if err := writeLines(filepath.Join(t.TempDir(), "none"), "", "", []string{"x"}); err == nil {
		t.Error("there is no such console")
	}
}

// A console that takes nothing (flow control, nobody reads) holds nobody up.
func TestConsoleThatTakesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console")
	must(t, unix.Mkfifo(path, 0o600))
	r, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer r.Close()
	line := string(make([]byte, 64<<10))
	ended := make(chan error, 1)
	go func() { ended <- writeLines(path, "", "\n", []string{line, line, line}) }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("what was lost is no error")
		}
	case <-time.After(soon):
		t.Error("it waits")
		r.Read(make([]byte, 1<<20))
	}
}
