package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hastd/cmd/internal/api"
	"hastd/cmd/internal/exit"
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

// The tries of a promotion have --timeout together, and end when the person who ordered
// it has had enough.
func TestBusyTriesEndInTime(t *testing.T) {
	const limit = 2 * time.Second
	for _, c := range []struct {
		name            string
		timeout, answer time.Duration // answer: how long the daemon waits; 0: as it is told
		patience        time.Duration
	}{
		{"the daemon uses all the time it is given", 300 * time.Millisecond, 0, time.Minute},
		{"interrupted", time.Minute, time.Nanosecond, 150 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			socket := t.TempDir() + "/hastd.sock"
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == "GET" {
					fmt.Fprint(w, `{"node":"alpha"}`)
					return
				}
				wait, err := time.ParseDuration(r.URL.Query().Get("timeout"))
				if err != nil {
					t.Error(err)
				}
				if c.answer != 0 {
					wait = c.answer
				}
				time.Sleep(wait)
				w.WriteHeader(http.StatusConflict)
				fmt.Fprint(w, `{"error":"busy","code":75}`)
			})}
			go s.Serve(l)
			t.Cleanup(func() { s.Close() })
			a := &app{stdio: stdio{io.Discard, io.Discard}, control: socket, timeout: c.timeout}
			ctx, cancel := context.WithTimeout(t.Context(), c.patience)
			defer cancel()
			began := time.Now()
			err = a.command(ctx, "data", "role", api.RoleRequest{Role: "primary"},
				func(context.Context, string) error { return nil }, nil)
			if took := time.Since(began); exit.CodeOf(err) != exit.Again || took > limit {
				t.Errorf("%v after %v", err, took)
			}
		})
	}
}

// What needs a restart is the daemon that was asked.
func TestReloadNamesTheDaemon(t *testing.T) {
	socket := t.TempDir() + "/vipd.sock"
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"daemon":"vipd","changed":[],"restart":["group.data"]}`)
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	if code, out, errs := call("reload", "--control", socket); code != 0 || out != "needs a restart of vipd: group.data\n" {
		t.Errorf("status %d: %s%s", code, out, errs)
	}
}
