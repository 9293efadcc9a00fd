package nbdclient

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nbdkit starts nbdkit on a socket and ends it with the test.
func nbdkit(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("nbdkit"); err != nil {
		t.Skip("nbdkit is not installed")
	}
	sock := filepath.Join(t.TempDir(), "sock")
	cmd := exec.Command("nbdkit", append([]string{"-f", "-U", sock}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	deadline := time.Now().Add(10 * time.Second)
	for {
		c, err := net.Dial("unix", sock)
		if err == nil {
			c.Close()
			return sock
		}
		if time.Now().After(deadline) {
			t.Fatalf("nbdkit did not come up: %v", err)
		}
		time.Sleep(10 * time.Millisecond) // polls, bounded above
	}
}

func dial(t *testing.T, o Options) *Client {
	t.Helper()
	o.Network = "unix"
	c, err := Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestClientAgainstNbdkit(t *testing.T) {
	sock := nbdkit(t, "memory", "64M")
	for _, mode := range []struct {
		name string
		o    Options
	}{{"simple", Options{Simple: true}}, {"structured", Options{BlockStatus: true}}} {
		t.Run(mode.name, func(t *testing.T) {
			mode.o.Addr = sock
			c := dial(t, mode.o)
			if c.Size != 64<<20 || c.Flags&SendFlush == 0 {
				t.Fatalf("size %d, flags %#x", c.Size, c.Flags)
			}
			var wg sync.WaitGroup
			for w := range 8 {
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(uint64(w), 0))
					for range 50 {
						b := make([]byte, 4096*(1+rng.IntN(16)))
						for i := range b {
							b[i] = byte(rng.Uint32())
						}
						off := int64(w)*(8<<20) + rng.Int64N(1000)*4096
						if _, err := c.WriteAt(b, off); err != nil {
							t.Error(err)
							return
						}
						got := make([]byte, len(b))
						if _, err := c.ReadAt(got, off); err != nil || !bytes.Equal(got, b) {
							t.Errorf("read back: %v", err)
							return
						}
					}
				})
			}
			wg.Wait()
			if err := c.Flush(); err != nil {
				t.Fatal(err)
			}
			if err := c.Trim(0, 8<<20); err != nil {
				t.Fatal(err)
			}
			if err := c.Zero(8<<20, 1<<20, FlagFUA); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 9<<20)
			if _, err := c.ReadAt(b, 0); err != nil || len(bytes.Trim(b, "\x00")) != 0 {
				t.Fatalf("trimmed and zeroed range: %v", err)
			}
			if mode.o.BlockStatus {
				ext, err := c.Status(0, 64<<20)
				if err != nil || len(ext) < 2 || ext[0].Flags != 3 {
					t.Fatalf("block status %v, %v", ext, err)
				}
			}
			if _, err := c.ReadAt(make([]byte, 512), 64<<20); err == nil {
				t.Fatal("a read behind the end was answered")
			}
		})
	}
}

func TestClientTellsServerErrors(t *testing.T) {
	sock := nbdkit(t, "--filter=error", "memory", "1M", "error-pwrite=ENOSPC", "error-pwrite-rate=100%")
	c := dial(t, Options{Addr: sock})
	_, err := c.WriteAt(make([]byte, 512), 0)
	e, ok := errors.AsType[*ServerError](err)
	if !ok || e.Errno != syscall.ENOSPC {
		t.Fatalf("got %v, want the server's ENOSPC", err)
	}
	if _, err := c.ReadAt(make([]byte, 512), 0); err != nil {
		t.Fatalf("the connection lives on: %v", err)
	}
}

func TestClientRefusesUnknownExport(t *testing.T) {
	sock := nbdkit(t, "--filter=exportname", "memory", "1M", "exportname-strict=true", "exportname=here")
	if _, err := Dial(t.Context(), Options{Network: "unix", Addr: sock, Export: "nowhere"}); err == nil {
		t.Fatal("an export that is not there was opened")
	}
}

// A server that reads requests, answers some and dies: the others end as never
// answered.
func TestClientUnansweredRequests(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() { served <- answerSome(l, 3, 10) }()
	c := dial(t, Options{Addr: sock, Simple: true})
	done := make(chan *Call, 10)
	for i := range 10 {
		c.Go(&Call{Cmd: Write, Off: uint64(i) * 512, Data: make([]byte, 512), Done: done})
	}
	answered, lost := 0, 0
	for range 10 {
		switch call := <-done; {
		case call.Err == nil:
			answered++
		case errors.Is(call.Err, ErrDisconnected):
			lost++
		default:
			t.Errorf("unexpected end: %v", call.Err)
		}
	}
	if answered != 3 || lost != 7 {
		t.Fatalf("%d answered, %d lost; want 3 and 7", answered, lost)
	}
	if err := c.Flush(); !errors.Is(err, ErrDisconnected) {
		t.Fatalf("on a dead connection: %v", err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
}

// answerSome is a server for one client that takes requests of 512-byte writes,
// answers the first few and closes.
func answerSome(l net.Listener, answers, requests int) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	b := binary.BigEndian.AppendUint64(nil, initMagic)
	b = binary.BigEndian.AppendUint64(b, optionMagic)
	c.Write(binary.BigEndian.AppendUint16(b, 1))
	var h [4 + 16]byte
	if _, err := io.ReadFull(c, h[:]); err != nil {
		return err
	}
	io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(h[16:])))
	rep := func(kind uint32, body []byte) {
		b := binary.BigEndian.AppendUint64(nil, optReplyMagic)
		b = binary.BigEndian.AppendUint32(b, optGo)
		b = binary.BigEndian.AppendUint32(b, kind)
		b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
		c.Write(append(b, body...))
	}
	info := make([]byte, 12)
	binary.BigEndian.PutUint64(info[2:], 1<<20)
	rep(repInfo, info)
	rep(repAck, nil)
	for i := range requests {
		var r [28 + 512]byte
		if _, err := io.ReadFull(c, r[:]); err != nil {
			return err
		}
		if i < answers {
			b := binary.BigEndian.AppendUint32(nil, simpleMagic)
			b = binary.BigEndian.AppendUint32(b, 0)
			c.Write(append(b, r[8:16]...))
		}
	}
	return nil
}

func TestDialGivesUpOnSilence(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, Options{Network: "unix", Addr: sock}); err == nil {
		t.Fatal("a silent server was taken")
	}
}
