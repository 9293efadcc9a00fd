package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var built struct {
	once sync.Once
	path string
	err  error
	out  []byte
}

// hastdBinary builds the daemon once.
func hastdBinary(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		dir, err := os.MkdirTemp("", "hast")
		if err != nil {
			built.err = err
			return
		}
		built.path = filepath.Join(dir, "hastd")
		cmd := exec.Command("go", "build", "-o", built.path, "../hastd")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		built.out, built.err = cmd.CombinedOutput()
	})
	if built.err != nil {
		t.Fatalf("build hastd: %v\n%s", built.err, built.out)
	}
	return built.path
}

// listenNotify takes the daemon's word to systemd; the channel closes when it is
// ready.
func listenNotify(t *testing.T, path string) <-chan struct{} {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	ready, done := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { c.Close(); <-done })
	go func() {
		defer close(done)
		told := false
		for b := make([]byte, 4096); ; {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			if !told && strings.Contains(string(b[:n]), "READY=1") {
				told = true
				close(ready)
			}
		}
	}()
	return ready
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
