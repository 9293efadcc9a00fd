package nbd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Tests with the clients that people use, over a real socket.

func serveTest(t testing.TB, d *memDevice, change ...func(*Options)) *Provider {
	t.Helper()
	o := Options{Device: d, Network: "unix", Address: filepath.Join(t.TempDir(), "s"), closeGrace: time.Second}
	for _, f := range change {
		f(&o)
	}
	p, err := Serve(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(true) })
	return p
}

func uri(p *Provider) string { return "nbd+unix:///data?socket=" + p.Path() }

// tool runs a client, for 20 s at most.
func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := toolErr(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func toolErr(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestClientNbdinfo(t *testing.T) {
	d := newMemDevice(t, 8<<20, 512, 64<<20)
	p := serveTest(t, d)
	var info struct {
		Protocol   string
		Structured bool
		Exports    []struct {
			Name     string   `json:"export-name"`
			Desc     string   `json:"description"`
			Size     int64    `json:"export-size"`
			Contexts []string `json:"contexts"`
			Flush    bool     `json:"can_flush"`
			FUA      bool     `json:"can_fua"`
			Multi    bool     `json:"can_multi_conn"`
			Trim     bool     `json:"can_trim"`
			Zero     bool     `json:"can_zero"`
			DF       bool     `json:"can_df"`
			ReadOnly bool     `json:"is_read_only"`
			Min      int      `json:"block_size_minimum"`
			Pref     int      `json:"block_size_preferred"`
			Max      int      `json:"block_size_maximum"`
		}
	}
	for _, list := range []bool{false, true} {
		args := []string{"--json", uri(p)}
		if list {
			args = append([]string{"--list"}, args...)
		}
		if err := json.Unmarshal([]byte(tool(t, "nbdinfo", args...)), &info); err != nil {
			t.Fatal(err)
		}
		e := info.Exports[0]
		if len(info.Exports) != 1 || info.Protocol != "newstyle-fixed" || !info.Structured ||
			e.Name != "data" || e.Size != 8<<20 || len(e.Contexts) != 1 || e.Contexts[0] != allocationName ||
			!e.Flush || !e.FUA || !e.Multi || !e.Trim || !e.Zero || !e.DF || e.ReadOnly ||
			e.Min != 512 || e.Pref != 4096 || e.Max != 32<<20 || e.Desc != "replicated resource data" {
			t.Errorf("list=%v: %+v", list, info)
		}
	}
	// The default export is the same one.
	if got := strings.TrimSpace(tool(t, "nbdinfo", "--size", "nbd+unix:///?socket="+p.Path())); got != "8388608" {
		t.Errorf("the default export has size %s", got)
	}
	if out, err := toolErr(t, "nbdinfo", "nbd+unix:///other?socket="+p.Path()); err == nil {
		t.Errorf("an export that does not exist was served: %s", out)
	}

	tool(t, "qemu-io", "-f", "raw", "-c", "write 1M 64k", "-c", "write 2M 512", uri(p))
	var extents []struct{ Offset, Length, Type int64 }
	if err := json.Unmarshal([]byte(tool(t, "nbdinfo", "--map", "--json", uri(p))), &extents); err != nil {
		t.Fatal(err)
	}
	want := "[{0 1048576 3} {1048576 65536 0} {1114112 983040 3} {2097152 512 0} {2097664 6290944 3}]"
	if got := fmt.Sprint(extents); got != want {
		t.Errorf("map %s, want %s", got, want)
	}
}

func TestClientNbdcopyBothWays(t *testing.T) {
	d := newMemDevice(t, 48<<20, 512, 64<<20)
	d.shuffle = true
	p := serveTest(t, d)
	dir := t.TempDir()
	in, back := filepath.Join(dir, "in"), filepath.Join(dir, "back")
	data := randomImage(48 << 20)
	if err := os.WriteFile(in, data, 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "nbdcopy", "--flush", in, uri(p))
	tool(t, "nbdcopy", "--request-size=4194304", uri(p), back)
	got, err := os.ReadFile(back)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) || !bytes.Equal(d.content(), data) {
		t.Fatal("what came back differs from what was written")
	}
	if !d.flushed() {
		t.Error("nbdcopy --flush did not reach the device")
	}
}

// randomImage is data with holes in it.
func randomImage(n int) []byte {
	b := make([]byte, n)
	c := rand.NewChaCha8(sha256.Sum256([]byte("image")))
	for off := 0; off+1<<20 <= n; off += 3 << 20 {
		c.Read(b[off : off+1<<20])
	}
	return b
}

func TestClientQemuImg(t *testing.T) {
	d := newMemDevice(t, 32<<20, 512, 64<<20)
	p := serveTest(t, d)
	dir := t.TempDir()
	in, back := filepath.Join(dir, "in"), filepath.Join(dir, "back.qcow2")
	data := randomImage(32 << 20)
	if err := os.WriteFile(in, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := tool(t, "qemu-img", "info", uri(p)); !strings.Contains(out, "33554432 bytes") {
		t.Error(out)
	}
	tool(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-W", "-m", "8", in, uri(p))
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", in, uri(p))
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri(p), back)
	tool(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", back, in)
	if !bytes.Equal(d.content(), data) {
		t.Error("the device differs from what was converted")
	}
}

func TestClientQemuIO(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			d := newMemDevice(t, 64<<20, sector, 64<<20)
			p := serveTest(t, d)
			out := tool(t, "qemu-io", "-f", "raw", "-t", "none",
				"-c", "write -P 0x11 0 64k", "-c", "read -P 0x11 0 64k",
				"-c", "write -P 0x22 64k 20M", "-c", "read -P 0x22 64k 20M",
				"-c", "write -f -P 0x33 32M 4k", "-c", "read -P 0x33 32M 4k",
				"-c", "write -z 4k 4k", "-c", "read -P 0 4k 4k", "-c", "read -P 0x11 8k 4k",
				"-c", "write -z -u 128k 64k", "-c", "read -P 0 128k 64k",
				"-c", "discard 1M 1M", "-c", "read -P 0 1M 1M",
				"-c", "aio_write -P 0x44 40M 1M", "-c", "aio_write -P 0x45 41M 1M", "-c", "aio_flush",
				"-c", "read -P 0x44 40M 1M", "-c", "read -P 0x45 41M 1M",
				"-c", "flush", uri(p))
			if strings.Contains(out, "fail") || strings.Contains(out, "error") {
				t.Fatal(out)
			}
			if !d.flushed() {
				t.Error("the flush did not reach the device")
			}
		})
	}
}

func TestClientFioVerify(t *testing.T) {
	d := newMemDevice(t, 64<<20, 512, 64<<20)
	d.shuffle = true
	p := serveTest(t, d)
	tool(t, "fio", "--name=v", "--ioengine=nbd", "--uri="+uri(p), "--rw=randwrite", "--bsrange=512-256k",
		"--iodepth=32", "--size=32m", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--fsync=64",
		"--runtime=3", "--verify_state_save=0", "--output-format=terse")
}

func TestClientNbdsh(t *testing.T) {
	d := newMemDevice(t, 8<<20, 512, 64<<20)
	p := serveTest(t, d)
	tool(t, "nbdsh", "-u", uri(p), "-c", `
buf = b"x" * 4096
h.pwrite(buf, 0, nbd.CMD_FLAG_FUA)
assert h.pread(4096, 0) == buf
h.flush()
`)
}
