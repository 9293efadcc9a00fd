package ledger

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hastd/test/lab/nbdclient"
)

// server is nbdkit on a file, restartable.
type server struct {
	t    *testing.T
	sock string
	args []string
	cmd  *exec.Cmd
}

func newServer(t *testing.T, args ...string) *server {
	t.Helper()
	if _, err := exec.LookPath("nbdkit"); err != nil {
		t.Skip("nbdkit is not installed")
	}
	s := &server{t: t, sock: filepath.Join(t.TempDir(), "sock"), args: args}
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *server) start() {
	os.Remove(s.sock) // a killed one leaves it
	s.cmd = exec.Command("nbdkit", append([]string{"-f", "-U", s.sock}, s.args...)...)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) kill() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

func (s *server) connect(ctx context.Context) (*nbdclient.Client, error) {
	for {
		c, err := nbdclient.Dial(ctx, nbdclient.Options{Network: "unix", Addr: s.sock})
		if err == nil || ctx.Err() != nil {
			return c, err
		}
		rest(ctx, 10*time.Millisecond)
	}
}

func TestLoadOverRealServerWithKills(t *testing.T) {
	defer goleak.VerifyNone(t)
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, "file", file)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	l := New(Options{Size: 16 << 20, Seed: 5})
	load := Start(ctx, LoadOptions{Ledger: l, Connect: s.connect, Seed: 5})
	defer load.Stop()
	for range 3 {
		if err := load.WaitAcked(ctx, 300); err != nil {
			t.Fatal(err)
		}
		s.kill()
		if _, err := net.Dial("unix", s.sock); err == nil {
			t.Fatal("the server lives")
		}
		s.start()
	}
	if err := load.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if err := load.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	c, err := s.connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// A killed nbdkit leaves the page cache: nothing acknowledged is missing.
	r, err := l.Check(c, true)
	if err != nil || r.Err() != nil {
		t.Fatal(err, r.Err())
	}
	counts := l.Counts()
	if counts.Acked < 900 || counts.Unanswered == 0 || counts.Flushes == 0 || r.Written == 0 {
		t.Fatalf("the load did not do what it should: %+v", counts)
	}
	// And one sector of damage is seen.
	var b [512]byte
	if _, err := c.WriteAt(b[:], int64(firstWritten(l))*512); err != nil {
		t.Fatal(err)
	}
	if r, err = l.Check(c, false); err != nil || r.Bad != 1 {
		t.Fatalf("one sector was overwritten, %d are told: %v", r.Bad, err)
	}
	load.Stop()
}

func firstWritten(l *Ledger) int {
	for s, list := range l.sectors {
		if len(list) == 1 && l.writes[list[0]].kind == Data && list[0] != 0 {
			return s
		}
	}
	return -1
}

func TestLoadHaltReturnsWhenTheServerHangs(t *testing.T) {
	s := newServer(t, "--filter=delay", "memory", "16M", "wdelay=60")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	l := New(Options{Size: 16 << 20, Seed: 5})
	load := Start(ctx, LoadOptions{Ledger: l, Connect: s.connect, Seed: 5, Workers: 4, Flushes: -1, Zeroes: -1, FUA: -1})
	defer load.Stop()
	for l.Counts().Issued < 4 {
		rest(ctx, time.Millisecond)
	}
	if err := load.Halt(ctx); err != nil {
		t.Fatal(err)
	}
	if c := l.Counts(); c.Unanswered != 4 || c.Acked != 0 {
		t.Fatalf("%+v, want four unanswered writes", c)
	}
}
