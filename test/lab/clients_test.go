package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Programs that people use, on a real pair: a client of the lab's own could share
// a mistake with the server. After each of them both replicas are compared, on the
// disks and on the media behind their caches.

// toolLimit bounds a client that hangs.
const toolLimit = 30 * time.Second

// debianPackage says where a missing program comes from.
var debianPackage = map[string]string{
	"nbdinfo": "libnbd-bin", "nbdcopy": "libnbd-bin",
	"qemu-img": "qemu-utils", "qemu-io": "qemu-utils",
	"fio":       "fio",
	"mkfs.ext4": "e2fsprogs", "fsck.ext4": "e2fsprogs",
	"mount": "mount", "umount": "mount", "fstrim": "util-linux",
}

func needTools(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("needs %s: install the Debian package %s", name, debianPackage[name])
		}
	}
}

// tool runs a client to its end, which must be a good one, and gives what it
// printed to stdout.
func tool(t testing.TB, argv ...string) []byte {
	t.Helper()
	out, err := toolErr(argv...)
	must(t, err)
	return out
}

func toolErr(argv ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), toolLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		err = errTooLong
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s%s", strings.Join(argv, " "), err, &out, &errs)
	}
	return out.Bytes(), nil
}

// uri is the node's provider for clients.
func (n *Node) uri() string { return "nbd+unix:///" + Resource + "?socket=" + n.Socket() }

// providerSize is what the daemon says.
func (p *pair) providerSize(n *Node) int64 {
	p.Helper()
	s, err := n.Status()
	p.ok(err)
	if s.Provider == nil {
		p.Fatalf("%v has no provider: %v", n.Side, s)
	}
	return s.Provider.Size
}

// onMedia wants what each disk reads as to be on its medium: two daemons that
// never flush would have the same there, nothing. Call it after a comparison.
func (p *pair) onMedia() {
	p.Helper()
	size := p.providerSize(p.primary())
	for _, n := range p.Nodes {
		d, err := CompareFiles(n.Local(), n.Disk.Medium(), size)
		if err == nil {
			err = d.Err()
		}
		if err != nil {
			p.Fatalf("flushed on %v and still only in its disk's cache: %v", n.Side, err)
		}
	}
}

// extent is a line of nbdinfo --map.
type extent struct{ Offset, Length, Type int64 }

// extentHole is the type of an extent that is neither allocated nor anything but
// zeroes.
const extentHole = 3

func TestClientsNbdinfo(t *testing.T) {
	t.Parallel()
	needTools(t, "nbdinfo", "qemu-img", "qemu-io")
	// Plain files: their filesystem knows holes.
	p := newPair(t, Options{Size: 64 << 20, Relay: true, Plain: true})
	p.together()
	size := p.providerSize(p.a)
	var info struct {
		Exports []struct {
			Name  string `json:"export-name"`
			Size  int64  `json:"export-size"`
			Flush bool   `json:"can_flush"`
			FUA   bool   `json:"can_fua"`
			Trim  bool   `json:"can_trim"`
			Zero  bool   `json:"can_zero"`
		}
	}
	for _, argv := range [][]string{{"nbdinfo", "--json", p.a.uri()}, {"nbdinfo", "--json", "--list", p.a.uri()}} {
		p.ok(json.Unmarshal(tool(t, argv...), &info))
		if len(info.Exports) != 1 {
			t.Fatalf("%v: %d exports, want 1", argv, len(info.Exports))
		}
		if e := info.Exports[0]; e.Name != Resource || e.Size != size || !e.Flush || !e.FUA || !e.Trim || !e.Zero {
			t.Errorf("%v: %+v, want %q with %d bytes and every feature", argv, e, Resource, size)
		}
	}
	if got := strings.TrimSpace(string(tool(t, "nbdinfo", "--size", "nbd+unix:///?socket="+p.a.Socket()))); got != fmt.Sprint(size) {
		t.Errorf("the default export has %s bytes, want %d", got, size)
	}
	var image struct {
		Size   int64 `json:"virtual-size"`
		Format string
	}
	p.ok(json.Unmarshal(tool(t, "qemu-img", "info", "--output=json", "-f", "raw", p.a.uri()), &image))
	if image.Size != size || image.Format != "raw" {
		t.Errorf("qemu-img info: %+v, want raw with %d bytes", image, size)
	}

	tool(t, "qemu-io", "-f", "raw", "-c", "write -P 0x5a 1M 1M", "-c", "flush", p.a.uri())
	want := []extent{{0, 1 << 20, extentHole}, {1 << 20, 1 << 20, 0}, {2 << 20, size - 2<<20, extentHole}}
	look := func(n *Node) {
		t.Helper()
		var got []extent
		p.ok(json.Unmarshal(tool(t, "nbdinfo", "--map", "--json", n.uri()), &got))
		if !slices.Equal(got, want) {
			t.Errorf("map on %v: %v, want %v", n.Side, got, want)
		}
	}
	look(p.a)
	p.complete()
	// The replica has its holes where the original has them.
	p.swap(p.a, p.b)
	p.complete() // before, nothing was read alone, and nobody is told of holes
	look(p.b)
	if out, err := toolErr("nbdinfo", p.a.uri()); err == nil || errors.Is(err, errTooLong) {
		t.Errorf("a secondary was asked for its device and did not refuse: %v\n%s", err, out)
	}
}

// image writes a file of random data with holes in it.
func image(t testing.TB, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(size))
	r := rand.NewChaCha8(sha256.Sum256([]byte(filepath.Base(path))))
	b := make([]byte, 1<<20)
	for off := int64(0); off+int64(len(b)) <= size; off += 3 << 20 {
		r.Read(b) // never fails
		_, err := f.WriteAt(b, off)
		must(t, err)
	}
}

func TestClientsCopy(t *testing.T) {
	t.Parallel()
	needTools(t, "nbdcopy", "qemu-img")
	p := newPair(t, Options{Size: 64 << 20})
	p.together()
	size := p.providerSize(p.a)
	path := func(name string) string { return filepath.Join(p.o.Dir, name) }
	same := func(a, b string) {
		t.Helper()
		d, err := CompareFiles(path(a), path(b), size)
		p.ok(err)
		p.ok(d.Err())
	}

	image(t, path("first"), size)
	tool(t, "nbdcopy", "--flush", path("first"), p.a.uri())
	tool(t, "nbdcopy", p.a.uri(), path("first.back"))
	same("first", "first.back")
	p.complete()

	image(t, path("second"), size)
	tool(t, "qemu-img", "convert", "-n", "-W", "-m", "8", "-f", "raw", "-O", "raw", path("second"), p.a.uri())
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", path("second"), p.a.uri())
	p.complete()
	p.onMedia()

	// What the peer got is what was written, not only the same as here.
	p.swap(p.a, p.b)
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", path("second"), p.b.uri())
	tool(t, "nbdcopy", p.b.uri(), path("second.back"))
	same("second", "second.back")
}

func TestClientsQemuIO(t *testing.T) {
	t.Parallel()
	needTools(t, "qemu-io")
	p := newPair(t, Options{Size: 64 << 20})
	p.together()
	io := func(n *Node, commands ...string) {
		t.Helper()
		argv := []string{"qemu-io", "-f", "raw", "-t", "none", "-d", "unmap"}
		for _, c := range commands {
			argv = append(argv, "-c", c)
		}
		if out := string(tool(t, append(argv, n.uri())...)); strings.Contains(out, "fail") || strings.Contains(out, "error") {
			t.Fatalf("on %v: %s", n.Side, out)
		}
	}
	io(p.a,
		"write -P 0x11 0 64k", "read -P 0x11 0 64k",
		"write -P 0x22 1M 20M", "read -P 0x22 1M 20M",
		"write -f -P 0x33 32M 4k", "read -P 0x33 32M 4k",
		"write -P 0x34 33M 512", "write -P 0x35 34603520 1536", // parts of a block
		"write -z 4k 4k", "read -P 0 4k 4k", "read -P 0x11 8k 4k",
		"write -z -u 2M 64k", "read -P 0 2M 64k",
		"discard 4M 1M", "discard 6M 512", "flush",
		"aio_write -P 0x44 40M 1M", "aio_write -P 0x45 41M 1M", "aio_flush",
		"read -P 0x44 40M 1M", "read -P 0x45 41M 1M", "flush")
	p.complete()
	p.onMedia()
	p.swap(p.a, p.b)
	io(p.b,
		"read -P 0x11 0 4k", "read -P 0 4k 4k", "read -P 0x11 8k 56k", "read -P 0x22 1M 1M",
		"read -P 0 2M 64k", "read -P 0x33 32M 4k", "read -P 0x34 33M 512", "read -P 0x35 34603520 1536",
		"read -P 0x44 40M 1M", "read -P 0x45 41M 1M")
}

// fio is one job of fio's NBD engine on a node, over the blocks of a device's
// beginning in an order and with contents that come from the seed. It gives how
// many bytes were written and read.
func (p *pair) fio(n *Node, seed int, more ...string) (written, read int64) {
	p.Helper()
	var report struct {
		Jobs []struct {
			Error       int
			Read, Write struct {
				Bytes int64 `json:"io_bytes"`
			}
		}
	}
	result := filepath.Join(p.o.Dir, "fio.json") // stdout has other words too
	argv := append([]string{"fio", "--name=clients", "--ioengine=nbd", "--uri=" + n.uri(), "--rw=randwrite", "--bs=4k", "--iodepth=32",
		fmt.Sprint("--size=", fioSize), fmt.Sprint("--randseed=", seed), "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0",
		"--output-format=json", "--output=" + result}, more...)
	tool(p, argv...)
	b, err := os.ReadFile(result)
	p.ok(err)
	p.ok(json.Unmarshal(b, &report))
	if len(report.Jobs) != 1 || report.Jobs[0].Error != 0 {
		p.Fatalf("%v: %s", argv, b)
	}
	return report.Jobs[0].Write.Bytes, report.Jobs[0].Read.Bytes
}

// fioSize is what a job of fio writes: each block once.
const fioSize = 16 << 20

func TestClientsFioVerify(t *testing.T) {
	t.Parallel()
	needTools(t, "fio")
	p := newPair(t, Options{Size: 64 << 20})
	p.together()
	for seed, more := range [][]string{{"--do_verify=1"}, {"--do_verify=1", "--fsync=16"}} {
		if written, read := p.fio(p.a, 1+seed, more...); written != fioSize || read != fioSize {
			t.Errorf("%v: fio wrote %d bytes and verified %d, want %d of both", more, written, read, fioSize)
		}
		p.complete()
		p.onMedia()
	}
}

// TestClientsFioFailover: what fio wrote and flushed through a primary that was
// killed, fio verifies through its successor.
func TestClientsFioFailover(t *testing.T) {
	t.Parallel()
	needTools(t, "fio", "qemu-io")
	p := newPair(t, Options{Size: 64 << 20})
	p.together()
	const seed = 7
	if written, _ := p.fio(p.a, seed, "--do_verify=0", "--fsync=16", "--end_fsync=1"); written != fioSize {
		t.Fatalf("fio wrote %d bytes, want %d", written, fioSize)
	}
	verify := func(n *Node) {
		t.Helper()
		before, err := n.Disk.Stats()
		p.ok(err)
		if _, read := p.fio(n, seed, "--verify_only"); read != fioSize {
			t.Errorf("on %v fio verified %d bytes, want %d", n.Side, read, fioSize)
		}
		after, err := n.Disk.Stats()
		p.ok(err)
		// fio counts the writes that it only went through; the disk knows.
		if wrote := after.WrittenBytes - before.WrittenBytes; wrote > fioSize/16 {
			t.Errorf("on %v %d bytes were written while fio verified", n.Side, wrote)
		}
	}
	p.ok(p.a.Kill())
	p.promote(p.b)
	verify(p.b)
	// Something that the first node must fetch.
	tool(t, "qemu-io", "-f", "raw", "-c", "write -P 0x77 24M 1M", "-c", "flush", p.b.uri())
	p.ok(p.a.Start())
	p.complete()
	p.swap(p.b, p.a)
	verify(p.a)
	tool(t, "qemu-io", "-f", "raw", "-c", "read -P 0x77 24M 1M", p.a.uri())
	p.complete()
	p.onMedia()
}

// device is where the pair of TestClientsFilesystem has its provider.
func (n *Node) device() string { return n.path("device") }

// newFUSEPair is a pair whose providers are devices. They are gone when the test
// ends: a daemon that the lab kills would leave a mount and a loop device.
func newFUSEPair(t *testing.T, o Options) *pair {
	t.Helper()
	for _, dev := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(dev); err != nil {
			t.Skipf("needs %s", dev)
		}
	}
	p := newPair(t, o)
	for _, n := range p.Nodes {
		b, err := os.ReadFile(n.Config())
		p.ok(err)
		config := string(b)
		for _, m := range p.Nodes {
			config = strings.ReplaceAll(config, m.Socket(), m.device())
		}
		p.ok(os.WriteFile(n.Config(), []byte(strings.Replace(config, `"nbd-server"`, `"fuse"`, 1)), 0o600))
	}
	t.Cleanup(func() {
		for _, n := range p.Nodes {
			if err := n.Stop(); err != nil {
				t.Error(err)
			}
			// Of a daemon that was killed, too: the test has failed then.
			if left, err := n.Sweep(); err != nil || len(left) > 0 {
				t.Errorf("%v was stopped and left %q %v", n.Side, left, err)
			}
		}
	})
	return p
}

// mount mounts a node's device; the function returned ends that.
func (p *pair) mount(n *Node) (dir string, unmount func()) {
	p.Helper()
	dir = n.path("files")
	p.ok(os.MkdirAll(dir, 0o700))
	tool(p, "mount", "-t", "ext4", n.device(), dir)
	mounted := true
	p.Cleanup(func() {
		if mounted {
			toolErr("umount", "-l", dir) // the test has failed; no device may stay in use
		}
	})
	return dir, func() {
		p.Helper()
		tool(p, "umount", dir)
		mounted = false
	}
}

// sameBelow compares the replicas below a device that nobody has mounted.
func (p *pair) sameBelow(n *Node) {
	p.Helper()
	for _, m := range p.Nodes {
		p.ok(m.WaitStatus("complete", waitLimit))
	}
	f, err := os.OpenFile(n.device(), os.O_RDWR, 0)
	p.ok(err)
	defer f.Close()
	p.ok(f.Sync())
	p.ok(p.CompareReplicas(p.providerSize(n)))
}

// writeFile writes a file of random data, makes it durable and gives its hash.
func writeFile(t testing.TB, path string, size int) [sha256.Size]byte {
	t.Helper()
	b := make([]byte, size)
	rand.NewChaCha8(sha256.Sum256([]byte(filepath.Base(path)))).Read(b) // never fails
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	_, err = f.Write(b)
	must(t, err)
	must(t, f.Sync())
	return sha256.Sum256(b)
}

// TestSweep: nothing of a device outlives the test of a daemon that was killed.
func TestSweep(t *testing.T) {
	t.Parallel()
	p := newFUSEPair(t, Options{Plain: true})
	p.ok(p.CreateAndStart("--assume-clean"))
	p.ok(p.AwaitConnected(waitLimit))
	p.promote(p.a)
	if loops, err := p.a.loops(); err != nil || len(loops) != 1 {
		t.Fatalf("the loop devices of a node with one device: %q %v", loops, err)
	}
	p.ok(p.a.Kill())
	if left, err := p.a.Sweep(); err != nil || len(left) != 2 {
		t.Errorf("left are %q, want a loop device and a mount: %v", left, err)
	}
	if left, err := p.a.Sweep(); err != nil || len(left) != 0 {
		t.Errorf("still there: %q %v", left, err)
	}
}

// TestClientsFilesystem: a filesystem moves from one node to the other, with what
// it gave back to the disk.
func TestClientsFilesystem(t *testing.T) {
	t.Parallel()
	needTools(t, "mkfs.ext4", "fsck.ext4", "mount", "umount", "fstrim")
	p := newFUSEPair(t, Options{Size: 128 << 20})
	p.ok(p.CreateAndStart("--assume-clean"))
	p.ok(p.AwaitConnected(waitLimit))
	p.promote(p.a)
	tool(t, "mkfs.ext4", "-q", "-F", p.a.device())
	p.sameBelow(p.a)

	const files, fileSize = 16, 1 << 20
	hashes := map[string][sha256.Size]byte{}
	check := func(dir string) {
		t.Helper()
		for name, want := range hashes {
			b, err := os.ReadFile(filepath.Join(dir, name))
			p.ok(err)
			if sha256.Sum256(b) != want {
				t.Errorf("%s/%s is not what was written", dir, name)
			}
		}
	}
	dir, unmount := p.mount(p.a)
	for i := range files {
		name := fmt.Sprint("file", i)
		hashes[name] = writeFile(t, filepath.Join(dir, name), fileSize)
	}
	for i := 0; i < files; i += 2 {
		name := fmt.Sprint("file", i)
		p.ok(os.Remove(filepath.Join(dir, name)))
		delete(hashes, name)
	}
	tool(t, "sync", "-f", dir)
	var before [2]int64
	for _, n := range p.Nodes {
		st, err := n.Disk.Stats()
		p.ok(err)
		before[n.Side] = st.ZeroedBytes
	}
	tool(t, "fstrim", dir)
	for _, n := range p.Nodes {
		st, err := n.Disk.Stats()
		p.ok(err)
		if got := st.ZeroedBytes - before[n.Side]; got < files/2*fileSize {
			t.Errorf("fstrim gave %d bytes back to the disk of %v, want at least the %d of the removed files", got, n.Side, files/2*fileSize)
		}
	}
	unmount()
	p.sameBelow(p.a)

	p.swap(p.a, p.b)
	if _, err := os.Lstat(p.a.device()); err == nil {
		t.Errorf("%v is secondary and still has its device", p.a.Side)
	}
	tool(t, "fsck.ext4", "-fn", p.b.device())
	dir, unmount = p.mount(p.b)
	check(dir)
	hashes["after"] = writeFile(t, filepath.Join(dir, "after"), fileSize)
	unmount()
	p.sameBelow(p.b)

	p.swap(p.b, p.a)
	tool(t, "fsck.ext4", "-fn", p.a.device())
	dir, unmount = p.mount(p.a)
	check(dir)
	unmount()
	p.sameBelow(p.a)
	p.onMedia()
}
