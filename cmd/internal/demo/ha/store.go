package ha

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hastd/cmd/internal/demo/stage"
	"hastd/cmd/internal/exit"
)

// The store is the group's service: PUT /records/N keeps a numbered record in a
// file on the mirrored device, GET gives it back. A PUT is answered when the file
// and its folder were synced.

// Files in a node's folder.
const (
	nameFile  = "name"      // of the node
	storeLock = "store.pid" // locked while a store runs; its process id
	storeLog  = "store.log"
)

const (
	maxRecord     = 64 << 10
	storeRead     = 2 * time.Second // a request must have come by then
	storeStart    = 5 * time.Second
	storeStop     = 3 * time.Second
	orphanEvery   = 250 * time.Millisecond
	monitorOn     = 110
	monitorOff    = 100
	nodeHeader    = "X-Node"
	recordsPrefix = "/records/"
)

// Store carries out one verb of the service in a node's folder: start, stop,
// monitor, or run, which start does in the background. It gives the status to exit
// with if there is no error.
func Store(ctx context.Context, verb, dir string) (exit.Code, error) {
	switch verb {
	case "start":
		return exit.OK, startStore(dir)
	case "stop":
		return exit.OK, stopStore(dir)
	case "monitor":
		if _, ok := runningStore(dir); ok {
			return monitorOn, nil
		}
		return monitorOff, nil
	case "run":
		return exit.OK, runStore(ctx, dir)
	}
	return exit.Usage, exit.New(exit.Usage, "write start, stop, monitor or run", "the store knows no %q", verb)
}

// runningStore tells the store's process by its lock, not by its number, which may
// be somebody else's by now.
func runningStore(dir string) (pid int, running bool) {
	path := filepath.Join(dir, storeLock)
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	if lock, err := stage.LockFile(path); err == nil {
		lock.Close()
		return 0, false
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
	return pid, err == nil && pid > 1
}

func startStore(dir string) error {
	if _, ok := runningStore(dir); ok {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(dir, storeLog), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(self, "demo", "ha", "store", "run", dir)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return stage.Poll(context.Background(), storeStart, pollEvery, "the store to listen", func() (bool, error) {
		if pid, ok := runningStore(dir); ok && pid == cmd.Process.Pid {
			return true, nil
		}
		select {
		case err := <-ended:
			return false, fmt.Errorf("it ended: %v: %s", err, stage.Tail(filepath.Join(dir, storeLog), 1))
		default:
			return false, nil
		}
	})
}

func stopStore(dir string) error {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		pid, ok := runningStore(dir)
		if !ok {
			return nil
		}
		syscall.Kill(pid, sig)
		err := stage.Poll(context.Background(), storeStop, pollEvery/2, "the store to end", func() (bool, error) {
			_, ok := runningStore(dir)
			return !ok, nil
		})
		if err == nil {
			return nil
		}
	}
	return exit.New(exit.Again, "", "the store does not end")
}

// runStore serves until it is told to end, or the demonstration is gone.
func runStore(ctx context.Context, dir string) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	name, err := os.ReadFile(filepath.Join(dir, nameFile))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", ":"+servicePort)
	if err != nil {
		return exit.New(exit.Again, "", "%w", err)
	}
	lock, err := stage.LockFile(filepath.Join(dir, storeLock))
	if err != nil {
		return exit.New(exit.Again, "another one runs", "%w", err)
	}
	defer lock.Close()
	if err := errors.Join(lock.Truncate(0), second(fmt.Fprintln(lock, os.Getpid()))); err != nil {
		return err
	}
	s := &http.Server{Handler: &store{dir: filepath.Join(dir, "srv"), node: string(name)}, ReadTimeout: storeRead, WriteTimeout: 2 * storeRead, MaxHeaderBytes: 16 << 10}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	tick := time.NewTicker(orphanEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.Background(), storeStop/2)
			defer cancel()
			return errors.Join(s.Shutdown(ctx), s.Close())
		case <-tick.C:
			if orphan(filepath.Dir(dir)) {
				return errors.New("the demonstration is gone")
			}
		}
	}
}

func second(_ int, err error) error { return err }

// orphan says whether nobody holds the folder of the demonstration any more.
func orphan(dir string) bool {
	f, err := os.Open(filepath.Join(dir, stage.LockName))
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil
}

// store answers the requests.
type store struct {
	dir, node string
	serial    atomic.Int64 // of files that are being written
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(nodeHeader, s.node)
	n, err := strconv.ParseUint(strings.TrimPrefix(r.URL.Path, recordsPrefix), 10, 32)
	if err != nil || !strings.HasPrefix(r.URL.Path, recordsPrefix) {
		http.Error(w, "there are only numbered records", http.StatusNotFound)
		return
	}
	// A thousand in a folder: syncing it stays cheap.
	dir := filepath.Join(s.dir, fmt.Sprintf("%04d", n/1000))
	path := filepath.Join(dir, fmt.Sprintf("%08d", n))
	switch r.Method {
	case http.MethodGet:
		b, err := os.ReadFile(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			http.Error(w, "there is no such record", http.StatusNotFound)
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		default:
			w.Write(b)
		}
	case http.MethodPut:
		b, err := io.ReadAll(io.LimitReader(r.Body, maxRecord))
		if err == nil {
			err = s.keep(dir, path, b)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		http.Error(w, "GET or PUT", http.StatusMethodNotAllowed)
	}
}

// keep makes a record durable. It gets its name when it is whole: a late try of a
// request that was answered meanwhile must not open it again.
func (s *store) keep(dir, path string, b []byte) (err error) {
	if err := os.Mkdir(dir, 0o700); err == nil {
		if err := syncFolder(s.dir); err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrExist) {
		return err
	}
	tmp := fmt.Sprintf("%s.%d", path, s.serial.Add(1))
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return err
	}
	return syncFolder(dir)
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
