package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"hastd/blockdev"
	"hastd/metadata"
	"hastd/replicate"
)

var testStart = time.Now()

// makeReplica writes fresh metadata as `hastctl create` does.
func makeReplica(t testing.TB, data, meta string, change func(*metadata.Superblock)) {
	t.Helper()
	open := func(path string) *blockdev.Component {
		c, err := blockdev.OpenComponent(blockdev.ComponentOptions{Path: path, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	d := open(data)
	defer d.Close()
	m := d
	if meta != "" {
		m = open(meta)
		defer m.Close()
	}
	l, err := layoutOf(d, m)
	if err != nil {
		t.Fatal(err)
	}
	sb := metadata.Superblock{Resource: "data", SectorSize: uint32(d.SectorSize()), ExtentSize: 2 << 20, Keepdirty: 256}
	if change != nil {
		change(&sb)
	}
	ws, err := metadata.Create(l, sb)
	if err == nil {
		err = writeAll(m, ws, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func testFile(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "component")
	if err := blockdev.CreateFileComponent(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func testResource(t testing.TB, change func(*Options)) *Resource {
	t.Helper()
	dir := t.TempDir()
	o := Options{
		Resource: "data", Node: "alpha", Peer: "bravo", PeerID: 1, Component: "/nonexistent",
		Timeout: 5 * time.Second, DiskTimeout: 5 * time.Second, StateDir: dir, RunDir: dir,
		Provider: "nbd-server", ProviderPath: filepath.Join(dir, "data.nbd"),
		AppMemory: 32 << 20, PeerMemory: 32 << 20, SyncMemory: 1 << 20,
	}
	if change != nil {
		change(&o)
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		_ = r.Close(ctx)
	})
	return r
}

func TestKeeperReadsAndCommitsMetadata(t *testing.T) {
	check := func(t *testing.T, data, meta string) {
		makeReplica(t, data, meta, func(sb *metadata.Superblock) { sb.Localcnt = 7 })
		r := &Resource{box: newMailbox(), opts: Options{Resource: "data", Component: data, Metadata: meta, StateDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}}
		if meta == "" {
			r.opts.Metadata = MetadataInternal
		}
		open := func() (*disk, *metadata.Store) {
			d, err := r.openDisk()
			if err != nil {
				t.Fatal(err)
			}
			s, _, err := metadata.Load(d.image)
			if err != nil {
				t.Fatal(err)
			}
			return d, s
		}
		d, s := open()
		s.Update(func(sb *metadata.Superblock) { sb.Localcnt++ })
		s.Dirty.Set(3, 2)
		s.Persist(3*metadata.BlockSize, 2*metadata.BlockSize)
		r.order(d, commitJob{5, s.Prepare()})
		var w word
		r.box.take(&w)
		if ev := w.items[0].ev; ev.Kind != replicate.EvCommitted || ev.Op != 5 || ev.Err != 0 {
			t.Fatalf("%+v", ev)
		}
		<-r.release(d)
		d, s = open()
		defer func() { <-r.release(d) }()
		if s.Super().Localcnt != 8 || s.Dirty.Count() != 2 {
			t.Errorf("localcnt %d, %d blocks dirty", s.Super().Localcnt, s.Dirty.Count())
		}
	}
	t.Run("file", func(t *testing.T) { check(t, testFile(t, 16<<20), "") })
	t.Run("external", func(t *testing.T) { check(t, testFile(t, 16<<20), testFile(t, 4<<20)) })
	t.Run("loop", func(t *testing.T) { needRoot(t); check(t, loopDevice(t, testFile(t, 16<<20)), "") })
	t.Run("external on a component that grew", func(t *testing.T) {
		data, meta := testFile(t, 16<<20), testFile(t, 4<<20)
		makeReplica(t, data, meta, nil)
		if err := os.Truncate(data, 600<<20); err != nil { // more pages of map
			t.Fatal(err)
		}
		st := state{}
		d, _ := blockdev.OpenComponent(blockdev.ComponentOptions{Path: data})
		defer d.Close()
		m, _ := blockdev.OpenComponent(blockdev.ComponentOptions{Path: meta})
		defer m.Close()
		img, err := readImage(d, m, "data", st)
		if err != nil || img.Layout.DataSize != 16<<20 {
			t.Fatalf("%+v, %v", img, err)
		}
		if _, p, err := metadata.Load(img); err != nil || p.PagesDamaged != 0 {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

// TestMovedMetadataKeepsTheSize: a component has more room than the replica was made for
// once hastctl resize moved the metadata; the peer may write no further than before.
func TestMovedMetadataKeepsTheSize(t *testing.T) {
	c, err := blockdev.OpenComponent(blockdev.ComponentOptions{Path: testFile(t, 32<<20), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l, err := layoutOf(c, c)
	if err != nil {
		t.Fatal(err)
	}
	l.DataSize = 16 << 20
	ws, err := metadata.Create(l, metadata.Superblock{Resource: "data", SectorSize: uint32(c.SectorSize()), ExtentSize: 2 << 20, Keepdirty: 256})
	if err == nil {
		err = writeAll(c, ws, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	img, err := readImage(c, c, "data", state{})
	if err != nil || img.Layout.DataSize != 16<<20 {
		t.Errorf("%+v, %v", img.Layout, err)
	}
}

// journal notes what is done to a metadata device, which fails at a step.
type journal struct {
	done   []string
	failAt int
	pages  map[int64]byte // what each began with
	began  atomic.Int64   // of a commit
	times  []int64
}

func (j *journal) step(what string) error {
	j.done = append(j.done, what)
	j.times = append(j.times, j.began.Load())
	time.Sleep(time.Millisecond)
	if len(j.done) == j.failAt {
		return errors.New(what + " failed")
	}
	return nil
}

func (j *journal) WriteAt(b []byte, off int64) error {
	for i := 0; i < len(b) && j.pages != nil; i += metadata.PageSize {
		j.pages[off+int64(i)] = b[i]
	}
	return j.step(fmt.Sprintf("write %d at %d", len(b), off))
}
func (j *journal) Flush() error { return j.step("flush") }

// TestCommitEndsWithAFlush: all writes, then one flush behind them, and none of it
// may fail unnoticed.
func TestCommitEndsWithAFlush(t *testing.T) {
	writes := []metadata.Write{{Offset: 4096, Data: make([]byte, 512)}, {Offset: 8192, Data: make([]byte, 1024)}}
	want := []string{"write 512 at 4096", "write 1024 at 8192", "write 262144 at 65536", "write 4096 at 327680", "flush"}
	for p := range int64(joinedSize/metadata.PageSize + 1) { // neighbours
		writes = append(writes, metadata.Write{Offset: 65536 + p*metadata.PageSize, Data: bytes.Repeat([]byte{byte(p)}, metadata.PageSize)})
	}
	joined := make([]byte, joinedSize)
	for failAt := range len(want) + 1 {
		j := &journal{failAt: failAt, pages: map[int64]byte{}}
		err := writeAll(timed{j, &j.began}, writes, joined)
		n := len(want)
		if failAt > 0 {
			n = failAt
		}
		if !slices.Equal(j.done, want[:n]) || (err != nil) != (failAt > 0) {
			t.Errorf("step %d fails: %v, after %v", failAt, err, j.done)
		}
		for i := 1; i < len(j.times); i++ {
			if j.times[i] <= j.times[i-1] {
				t.Errorf("step %d counts as silent since step %d began", i, i-1)
			}
		}
		for p := range int64(joinedSize/metadata.PageSize + 1) {
			if got := j.pages[65536+p*metadata.PageSize]; failAt == 0 && got != byte(p) {
				t.Errorf("page %d has the content of %d", p, got)
			}
		}
	}
}

func loopDevice(t testing.TB, file string) string {
	t.Helper()
	out, err := exec.Command("losetup", "-f", "--show", file).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device here: %s", out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "-d", dev).CombinedOutput(); err != nil {
			t.Errorf("%s: %s", dev, out)
		}
	})
	return dev
}

func TestKeeperTellsWhatIsWrongWithAComponent(t *testing.T) {
	path := testFile(t, 16<<20)
	r := &Resource{box: newMailbox(), opts: Options{Resource: "data", Component: path, Metadata: MetadataInternal, StateDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}}
	answer := func() replicate.Event {
		r.open(1)
		var w word
		r.box.take(&w)
		if d := w.items[0].disk; d != nil {
			<-r.release(d)
		}
		return w.items[0].ev
	}
	if ev := answer(); ev.Err != replicate.ErrNoData || !strings.Contains(ev.Text, "hastctl create data") {
		t.Errorf("never created: %v %q", ev.Err, ev.Text)
	}
	makeReplica(t, path, "", nil)
	if ev := answer(); ev.Err != replicate.OK {
		t.Fatalf("%q", ev.Text)
	}
	held, err := blockdev.OpenComponent(blockdev.ComponentOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if ev := answer(); ev.Err != replicate.ErrBusy || !strings.Contains(ev.Text, "pid") {
		t.Errorf("in use: %v %q", ev.Err, ev.Text)
	}
	held.Close()
	if err := os.Truncate(path, 32<<20); err != nil {
		t.Fatal(err)
	}
	if ev := answer(); ev.Err != replicate.ErrOther || !strings.Contains(ev.Text, "grew") || !strings.Contains(ev.Text, "hastctl resize data") {
		t.Errorf("grown: %v %q", ev.Err, ev.Text)
	}
	if err := RememberSize(r.opts.StateDir, "data", path, 64<<20); err != nil {
		t.Fatal(err)
	}
	if ev := answer(); ev.Err != replicate.ErrOther || !strings.Contains(ev.Text, "shrank from 67108864 to 33554432") || !strings.Contains(ev.Text, "old size back") {
		t.Errorf("shrunk: %v %q", ev.Err, ev.Text)
	}
	if err := RememberSize(r.opts.StateDir, "data", path+"-before", 64<<20); err != nil {
		t.Fatal(err)
	}
	if ev := answer(); ev.Err != replicate.ErrNoData {
		t.Errorf("smaller than the one before it: %v %q", ev.Err, ev.Text)
	}
	r.opts.Component = path + "-gone"
	if ev := answer(); ev.Err != replicate.ErrOther || !strings.Contains(ev.Text, "no such file") || !strings.Contains(ev.Text, "hastctl create data") {
		t.Errorf("missing: %v %q", ev.Err, ev.Text)
	}
}

// Metadata at both ends of a component that grew may be a move that was cut off, or an
// older life of the replica: it is not opened, and the old size is not forgotten.
func TestMetadataAtBothEndsIsNotOpened(t *testing.T) {
	const was, size = 16 << 20, 32 << 20
	for _, c := range []struct {
		name, resource string // of what stands at the old end
		remembered     int64
		opened         bool
	}{
		{"grew", "data", was, false},
		{"the old end is of another resource", "logs", was, true},
		{"made anew", "data", size, true},
		{"nothing is known", "data", 0, true},
		{"grew by less than metadata is aligned to", "data", size - 512, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := testFile(t, was)
			makeReplica(t, path, "", func(sb *metadata.Superblock) { sb.Resource = c.resource })
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
			makeReplica(t, path, "", nil)
			r := &Resource{box: newMailbox(), opts: Options{Resource: "data", Component: path, Metadata: MetadataInternal, StateDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}}
			if err := RememberSize(r.opts.StateDir, "data", path, c.remembered); err != nil {
				t.Fatal(err)
			}
			want := int64(size)
			d, err := r.openDisk()
			if d != nil {
				<-r.release(d)
			}
			if !c.opened {
				want = c.remembered
				if err == nil || !strings.Contains(err.Error(), "hastctl resize data") {
					t.Errorf("%v", err)
				}
			} else if err != nil {
				t.Error(err)
			}
			if st, err := loadState(r.opts.StateDir, "data"); err != nil || st.Size != want {
				t.Errorf("%+v, %v", st, err)
			}
		})
	}
}

func TestStateMarkSpeaksOfOneReplica(t *testing.T) {
	path := testFile(t, 16<<20)
	makeReplica(t, path, "", func(sb *metadata.Superblock) { sb.Resuid = 5 })
	r := &Resource{box: newMailbox(), opts: Options{Resource: "data", Component: path, Metadata: MetadataInternal, StateDir: filepath.Join(t.TempDir(), "new"), Log: slog.New(slog.DiscardHandler)}}
	inconsistent := func() bool {
		d, err := r.openDisk()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { <-r.release(d) }()
		return d.image.StateInconsistent
	}
	if inconsistent() {
		t.Error("marked from the start")
	}
	r.mark(1, true, 5)
	if !inconsistent() {
		t.Error("the mark was lost")
	}
	r.mark(2, false, 5)
	if inconsistent() {
		t.Error("the mark was not taken back")
	}
	r.mark(3, true, 4)
	if inconsistent() {
		t.Error("the mark of another replica counts")
	}
	var w word
	r.box.take(&w)
	for i, it := range w.items {
		if it.ev.Kind != replicate.EvMarked || it.ev.Err != 0 || int(it.ev.Op) != i+1 {
			t.Errorf("%+v", it.ev)
		}
	}
	// A file that cannot be read may hold the mark: neither is the replica used, nor is the
	// file written over.
	if err := os.Remove(statePath(r.opts.StateDir, "data")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("data.json", statePath(r.opts.StateDir, "data")); err != nil {
		t.Fatal(err)
	}
	if d, err := r.openDisk(); err == nil {
		t.Error("opened although its state cannot be read")
		<-r.release(d)
	}
	r.mark(5, true, 5)
	w.reset()
	r.box.take(&w)
	if ev := w.items[0].ev; ev.Err == 0 {
		t.Errorf("%+v", ev)
	}
	// A directory that cannot be written is an answer, not silence.
	r.opts.StateDir = "/proc/nowhere"
	r.mark(4, true, 5)
	w.reset()
	r.box.take(&w)
	if ev := w.items[0].ev; ev.Err == 0 || ev.Text == "" {
		t.Errorf("%+v", ev)
	}
}

// marking is a state folder and what marks a replica in it as bad.
func marking(t *testing.T) (dir string, mark func() replicate.Err) {
	r := &Resource{box: newMailbox(), opts: Options{Resource: "data", StateDir: t.TempDir()}}
	return r.opts.StateDir, func() replicate.Err {
		r.mark(1, true, 7)
		var w word
		r.box.take(&w)
		return w.items[0].ev.Err
	}
}

// A mark that was asked for again is not confirmed by a file that is there and may be gone
// after a power loss: while the first change holds the lock, it has been renamed perhaps, and
// its folder is not synced.
func TestMarkAskedForAgainWaitsForTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the wait for the lock takes no time
		dir, mark := marking(t)
		if err := mark(); err != replicate.OK {
			t.Fatal(err)
		}
		first, err := lockState(statePath(dir, "data")+".lock", 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := mark(); err == replicate.OK {
			t.Error("it counts as durable while the change that wrote it is under way")
		}
		first.Close()
		if err := mark(); err != replicate.OK {
			t.Error(err)
		}
	})
}

// Nor where the folder could not be synced.
func TestMarkAskedForAgainSyncsTheFolder(t *testing.T) {
	dir, mark := marking(t)
	// A folder that may be written and not opened for reading: its sync fails. The superuser
	// gives up what would open it all the same; that ends with this thread.
	if err := os.Chmod(dir, 0o300); err != nil {
		t.Fatal(err)
	}
	failed := make(chan bool)
	go func() {
		defer close(failed)
		runtime.LockOSThread()
		var none [2]unix.CapUserData
		if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
			t.Error(err)
			return
		}
		for range 2 {
			failed <- mark() != replicate.OK
		}
	}()
	for ok := range failed {
		if !ok {
			t.Error("confirmed although the folder cannot be synced")
		}
	}
	if st, err := loadState(dir, "data"); err != nil || !st.Inconsistent {
		t.Errorf("the file was not renamed: %+v, %v", st, err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := mark(); err != replicate.OK {
		t.Error(err)
	}
}

// What is known already is no trouble where nothing can be written: for an opening. Who
// wrote or moved the metadata must know that the size is kept.
func TestKnownSizeNeedsNoLockAtAnOpening(t *testing.T) {
	dir := t.TempDir()
	if err := rememberAtOpening(dir, "data", "disk", 1<<20); err != nil {
		t.Fatal(err)
	}
	lock := statePath(dir, "data") + ".lock"
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(lock, 0o700); err != nil { // in its way
		t.Fatal(err)
	}
	if err := rememberAtOpening(dir, "data", "disk", 1<<20); err != nil {
		t.Error(err)
	}
	if err := rememberAtOpening(dir, "data", "disk", 2<<20); err == nil {
		t.Error("another size was not kept, and no error")
	}
	if err := RememberSize(dir, "data", "disk", 1<<20); err == nil {
		t.Error("what may not be durable counts as kept")
	}
}

// hastctl keeps a size while hastd keeps a mark: of changes by several processes none is
// lost.
func TestStateIsChangedByManyProcesses(t *testing.T) {
	const processes, changes, dirOf = 4, 40, "HAST_TEST_STATE_DIR"
	if dir := os.Getenv(dirOf); dir != "" {
		for range changes {
			if err := changeState(dir, "data", func(st *state) { st.Size++ }); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	dir := t.TempDir()
	if err := changeState(dir, "data", func(st *state) { st.Inconsistent, st.Resuid = true, 7 }); err != nil {
		t.Fatal(err)
	}
	all := make(chan error)
	for range processes {
		go func() {
			c := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
			c.Env = append(os.Environ(), dirOf+"="+dir)
			out, err := c.CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			all <- err
		}()
	}
	for range processes {
		if err := <-all; err != nil {
			t.Error(err)
		}
	}
	if st, err := loadState(dir, "data"); err != nil || st != (state{Size: processes * changes, Inconsistent: true, Resuid: 7}) {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestStateLockIsWaitedForSoLongOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "data.json.lock")
	f, err := lockState(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	if g, err := lockState(path, 10*time.Millisecond); err == nil {
		t.Error("locked twice")
		g.Close()
	}
	time.AfterFunc(10*time.Millisecond, func() { f.Close() })
	g, err := lockState(path, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	g.Close()
}

func TestProviderKindsNotInThisBuild(t *testing.T) {
	for _, kind := range []string{"ublk", "nbd", "floppy"} {
		r := testResource(t, func(o *Options) { o.Provider = kind })
		if p, err := r.serve(); err == nil || p != nil {
			t.Errorf("%s: %v", kind, p)
		}
	}
}

func TestCommandEndsWithItsContext(t *testing.T) {
	r := testResource(t, func(o *Options) { o.machine = new(mirror) })
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	// An order that this machine never answers.
	err := r.Command(ctx, replicate.Command{Kind: replicate.CmdRecover})
	var no *replicate.Refusal
	if !errors.As(err, &no) || no.Code != replicate.RefusedBusy || no.Hint == "" {
		t.Errorf("%v", err)
	}
}

// A provider whose start ends when nobody reads the mailbox any more is closed again.
func TestProviderThatStartsTooLateIsClosed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.nbd")
	r := &Resource{box: newMailbox(), opts: Options{Resource: "data", Provider: "nbd-server", ProviderPath: path, Log: slog.New(slog.DiscardHandler)}}
	r.box.close()
	r.startProvider(1, &export{size: 1 << 20, sector: 512})
	if _, err := os.Lstat(path); err == nil || r.export.Load() != nil {
		t.Errorf("it is still served: %v", err)
	}
}

// obedient says yes to every order and does nothing.
type obedient struct{ granter }

func (*obedient) Step(_ replicate.Instant, batch []replicate.Event, out []replicate.Effect) []replicate.Effect {
	for i := range batch {
		if ev := &batch[i]; ev.Kind == replicate.EvCommand {
			out = append(out, replicate.Effect{Kind: replicate.EffAnswer, Command: ev.Command.ID})
		}
	}
	return out
}

// One whose start ends while the resource is being closed, too.
func TestProviderThatStartsWhileClosingIsClosed(t *testing.T) {
	r := testResource(t, func(o *Options) { o.machine = &obedient{} })
	late := &lateProvider{closed: make(chan bool, 2)}
	// The owner comes to it after Close has looked for a provider.
	if err := r.onOwner(t.Context(), func() { late.r = r; r.provider = late }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Error(err)
	}
	if len(late.closed) != 2 {
		t.Errorf("%d of two providers were closed", len(late.closed))
	}
}

// lateProvider leaves another one in the mailbox when it is closed first.
type lateProvider struct {
	blockdev.Provider
	r      *Resource
	closed chan bool
}

func (p *lateProvider) Users() ([]string, error) { return nil, nil }

func (p *lateProvider) Path() string { return "late" }
func (p *lateProvider) Close(bool) error {
	p.closed <- true
	if p.r != nil {
		p.r.box.post(item{ev: replicate.Event{Kind: replicate.EvProviderUp}, provider: &lateProvider{closed: p.closed}})
	}
	return nil
}
