package blockdev

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeStore records what reaches it and holds operations back on demand.
type fakeStore struct {
	mu    sync.Mutex
	log   []string
	enter chan string   // told of each operation as it begins
	leave chan struct{} // an operation waits here when not nil
	fail  func(op string, off int64) error
}

func (f *fakeStore) do(op string, off, n int64) error {
	f.mu.Lock()
	f.log = append(f.log, fmt.Sprintf("%s %d+%d", op, off, n))
	f.mu.Unlock()
	if f.enter != nil {
		f.enter <- op
	}
	if f.leave != nil {
		<-f.leave
	}
	if f.fail != nil {
		return f.fail(op, off)
	}
	return nil
}
func (f *fakeStore) ReadAt(b []byte, off int64) error     { return f.do("read", off, int64(len(b))) }
func (f *fakeStore) WriteAt(b []byte, off int64) error    { return f.do("write", off, int64(len(b))) }
func (f *fakeStore) Zero(off, n int64, noHole bool) error { return f.do("zero", off, n) }
func (f *fakeStore) Flush() error                         { return f.do("flush", 0, 0) }
func (f *fakeStore) usable([]byte) bool                   { return true }
func (f *fakeStore) vectored(write bool, off, n int64, iov []unix.Iovec) error {
	return f.do(fmt.Sprintf("vec%d", len(iov)), off, n)
}

// collect gathers completions until want have come.
type collect struct {
	ch chan *IO
}

func newCollect() *collect { return &collect{ch: make(chan *IO, 4096)} }
func (c *collect) done(batch []*IO) {
	for _, io := range batch {
		c.ch <- io
	}
}
func (c *collect) wait(t testing.TB, n int) []*IO {
	t.Helper()
	var got []*IO
	limit := time.After(10 * time.Second)
	for len(got) < n {
		select {
		case io := <-c.ch:
			got = append(got, io)
		case <-limit:
			t.Fatalf("%d of %d operations completed", len(got), n)
		}
	}
	return got
}

func write(off, n int64) *IO {
	return &IO{Kind: IOWrite, Off: off, Len: n, Buf: alignedBuf(int(n))}
}

func TestQueueKeepsASlowDiskAtFullDepth(t *testing.T) {
	f := &fakeStore{enter: make(chan string), leave: make(chan struct{})}
	c := newCollect()
	q := newQueue(f, 8, c.done)
	var batch []*IO
	for i := range int64(8) {
		batch = append(batch, write(i<<20, 4096))
	}
	q.Submit(batch)
	for range 8 { // all eight are under way before one has come back
		select {
		case <-f.enter:
		case <-time.After(5 * time.Second):
			t.Fatal("not all operations were started at once")
		}
	}
	if q.SlowestIssued() <= 0 {
		t.Error("SlowestIssued does not see operations under way")
	}
	close(f.leave)
	c.wait(t, 8)
	q.Close()
	if d := q.SlowestIssued(); d != 0 {
		t.Errorf("SlowestIssued = %v with nothing under way", d)
	}
}

func TestQueueGivesBackWhatWaitsBehindASlowOperation(t *testing.T) {
	under, release := make(chan bool, 32), make(chan struct{})
	f := &fakeStore{}
	f.fail = func(_ string, off int64) error {
		if off == 0 { // the disk becomes slow in the middle of a worker's share
			for began := Now(); Now()-began < 2*int64(queueSlow); {
			}
			return nil
		}
		under <- true
		<-release
		return nil
	}
	c := newCollect()
	q := newQueue(f, 4, c.done)
	q.latency.Store(0) // believed to be fast: one worker takes all
	var batch []*IO
	for i := range int64(20) {
		batch = append(batch, write(i<<20, 4096))
	}
	q.Submit(batch)
	for i := range 4 {
		select {
		case <-under:
		case <-time.After(5 * time.Second):
			t.Fatalf("only %d operations are under way", i)
		}
	}
	close(release)
	c.wait(t, 20)
	q.Close()
}

// What a worker waited for a processor makes a fast disk no slow one, and a slow
// disk shows itself within a few operations.
func TestQueueTellsABusyMachineFromASlowDisk(t *testing.T) {
	q := newQueue(&fakeStore{}, 1, newCollect().done)
	defer q.Close()
	if q.fast() {
		t.Error("a disk nobody knows yet counts as fast")
	}
	const quick = int64(5 * time.Microsecond)
	for range 20 {
		q.learn(quick)
	}
	if !q.fast() {
		t.Fatal("twenty short operations do not make it fast")
	}
	slow := 0
	for i := range 1000 { // half are kept waiting, some for long
		switch i % 4 {
		case 0, 2:
			q.learn(quick)
		case 1:
			q.learn(int64(3 * time.Millisecond))
		case 3:
			q.learn(int64(80 * time.Microsecond))
		}
		if !q.fast() {
			slow++
		}
	}
	if slow > 250 {
		t.Errorf("a busy machine made the disk slow %d times of 1000", slow)
	}
	n := 0
	for ; q.fast() && n < 100; n++ {
		q.learn(int64(80 * time.Microsecond))
	}
	if n > 20 {
		t.Errorf("it took %d operations of 80 µs to see that the disk is slow", n)
	}
	for range 5 {
		q.learn(quick)
	}
	q.learn(int64(queueSlow) + 1)
	if q.fast() {
		t.Error("an operation of more than queueSlow changes nothing")
	}
}

func TestQueueWorksAroundAnOperationThatHangs(t *testing.T) {
	f := &fakeStore{enter: make(chan string, 8), leave: make(chan struct{})}
	c := newCollect()
	q := newQueue(f, 4, c.done)
	q.latency.Store(0)
	q.Submit([]*IO{write(0, 4096)})
	<-f.enter
	q.Submit([]*IO{write(1<<20, 4096)}) // nobody is woken: the disk counts as fast
	for limit := time.Now().Add(5 * time.Second); len(f.enter) == 0; time.Sleep(time.Millisecond) {
		q.SlowestIssued()
		if time.Now().After(limit) {
			t.Fatal("what came after the operation that hangs is never started")
		}
	}
	close(f.leave)
	c.wait(t, 2)
	q.Close()
}

func TestQueueFlushNeitherWaitsNorHoldsBack(t *testing.T) {
	f := &fakeStore{enter: make(chan string), leave: make(chan struct{})}
	c := newCollect()
	q := newQueue(f, 4, c.done)
	q.latency.Store(0)
	q.Submit([]*IO{{Kind: IOFlush, Tag: 1}})
	if op := <-f.enter; op != "flush" {
		t.Fatal(op)
	}
	// Under a flush a write goes on, and two more flushes become one.
	q.Submit([]*IO{write(0, 4096), {Kind: IOFlush, Tag: 2}, {Kind: IOFlush, Tag: 3}})
	select {
	case op := <-f.enter:
		if op != "write" {
			t.Fatalf("%s began while a flush was under way", op)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the write waits for the flush")
	}
	f.leave <- struct{}{}
	f.leave <- struct{}{}
	if op := <-f.enter; op != "flush" {
		t.Fatal(op)
	}
	f.leave <- struct{}{}
	c.wait(t, 4)
	q.Close()
	flushes := 0
	for _, l := range f.log {
		if l == "flush 0+0" {
			flushes++
		}
	}
	if flushes != 2 {
		t.Errorf("%d flushes reached the disk, want 2: %v", flushes, f.log)
	}
}

func TestQueueMergesAdjacentAndIsolatesTheFailing(t *testing.T) {
	bad := errors.New("bad spot")
	f := &fakeStore{}
	f.fail = func(op string, off int64) error {
		if op == "vec4" || op == "write" && off == 8192 {
			return bad
		}
		return nil
	}
	c := newCollect()
	q := newQueue(f, 1, c.done)
	q.Submit([]*IO{write(0, 4096), write(4096, 4096), write(8192, 4096), write(12288, 4096), write(1<<20, 4096)})
	for _, io := range c.wait(t, 5) {
		if (io.Err != nil) != (io.Off == 8192) {
			t.Errorf("write at %d: %v", io.Off, io.Err)
		}
	}
	q.Close()
	if f.log[0] != "vec4 0+16384" {
		t.Errorf("adjacent writes were not merged: %v", f.log)
	}
}

func TestQueueStopEndsWhatHasNotBegun(t *testing.T) {
	f := &fakeStore{enter: make(chan string), leave: make(chan struct{})}
	c := newCollect()
	q := newQueue(f, 1, c.done)
	q.Submit([]*IO{write(0, 4096), write(1<<20, 4096), {Kind: IOFlush}})
	op := <-f.enter
	q.Stop()
	for _, io := range c.wait(t, 2) {
		if !errors.Is(io.Err, ErrQueueClosed) {
			t.Errorf("%v ended with %v", io.Kind, io.Err)
		}
	}
	if q.Wait(10 * time.Millisecond) {
		t.Errorf("Wait does not see the %s under way", op)
	}
	f.leave <- struct{}{}
	if !q.Wait(10 * time.Second) {
		t.Error("Wait did not return")
	}
	c.wait(t, 1)
	q.Submit([]*IO{write(0, 4096)})
	if io := c.wait(t, 1)[0]; !errors.Is(io.Err, ErrQueueClosed) {
		t.Errorf("submitted after Stop: %v", io.Err)
	}
}

func TestQueueMaskTouchesOnlyItsBlocks(t *testing.T) {
	c := fileComponent(t, t.TempDir(), 1<<20, false)
	old := bytes.Repeat([]byte{0xaa}, 1<<20)
	if err := c.WriteAt(old, 0); err != nil {
		t.Fatal(err)
	}
	for _, mask := range []uint64{1, 1 << 63, ^uint64(0), 0x8000_0000_0000_0001, 0xf0f0, 0x5555_5555_5555_5555} {
		if err := c.WriteAt(old, 0); err != nil {
			t.Fatal(err)
		}
		done := newCollect()
		q := NewQueue(c, 2, done.done)
		buf := alignedBuf(MaskWindow)
		for i := range buf {
			buf[i] = byte(i >> 12)
		}
		got := alignedBuf(MaskWindow)
		q.Submit([]*IO{{Kind: IOWrite, Off: MaskWindow, Len: MaskWindow, Buf: buf, Mask: mask}})
		if io := done.wait(t, 1)[0]; io.Err != nil {
			t.Fatal(io.Err)
		}
		q.Submit([]*IO{{Kind: IORead, Off: MaskWindow, Len: MaskWindow, Buf: got, Mask: mask}})
		if io := done.wait(t, 1)[0]; io.Err != nil {
			t.Fatal(io.Err)
		}
		q.Close()
		whole := alignedBuf(MaskWindow)
		if err := c.ReadAt(whole, MaskWindow); err != nil {
			t.Fatal(err)
		}
		for i := range 64 {
			wantDisk, wantRead := byte(0xaa), byte(0)
			if mask>>i&1 == 1 {
				wantDisk, wantRead = byte(i), byte(i)
			}
			if whole[i<<12] != wantDisk || whole[i<<12+4095] != wantDisk || got[i<<12] != wantRead {
				t.Fatalf("mask %x: block %d is %x on disk and %x read, want %x and %x", mask, i, whole[i<<12], got[i<<12], wantDisk, wantRead)
			}
		}
	}
}

func TestQueueCarriesOutEveryKindOnAFile(t *testing.T) {
	c := fileComponent(t, t.TempDir(), 8<<20, false)
	done := newCollect()
	q := NewQueue(c, 4, done.done)
	var batch []*IO
	for i := range int64(256) {
		io := write(i*8192, 4096)
		for k := range io.Buf {
			io.Buf[k] = byte(i)
		}
		batch = append(batch, io)
	}
	q.Submit(batch)
	done.wait(t, 256)
	q.Submit([]*IO{{Kind: IOZero, Off: 0, Len: 8192}, {Kind: IOFlush}})
	done.wait(t, 2)
	for _, io := range batch {
		io.Kind, io.Buf = IORead, alignedBuf(4096)
	}
	q.Submit(batch)
	for _, io := range done.wait(t, 256) {
		want := byte(io.Off / 8192)
		if io.Err != nil || io.Buf[0] != want || io.Buf[4095] != want || io.Took <= 0 {
			t.Fatalf("read at %d: %x, %v, took %d", io.Off, io.Buf[0], io.Err, io.Took)
		}
	}
	q.Close()
}

// fileComponent opens a new file of size bytes in dir.
func fileComponent(t testing.TB, dir string, size int64, buffered bool) *Component {
	t.Helper()
	path := filepath.Join(dir, "component")
	if err := CreateFileComponent(path, size); err != nil {
		t.Fatal(err)
	}
	c, err := OpenComponent(ComponentOptions{Path: path, Log: slog.New(slog.DiscardHandler), buffered: buffered})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func shmDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "hast-test-")
	if err != nil {
		t.Skip("no tmpfs: " + err.Error())
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// BenchmarkQueueWrite is the cost of a 4 KiB write through the queue on tmpfs;
// direct is the bare system call beside it.
func BenchmarkQueueWrite(b *testing.B) {
	const size = 64 << 20
	c := fileComponent(b, shmDir(b), size, false)
	buf := alignedBuf(4096)
	for off := int64(0); off < size; off += 4096 {
		if err := c.WriteAt(buf, off); err != nil {
			b.Fatal(err)
		}
	}
	at := func(i int) int64 { return int64(uint32(i)*2654435761>>8) % (size / 4096) * 4096 }
	b.Run("direct", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if err := c.WriteAt(buf, at(i)); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, depth := range []int{1, 8, 32, 128} {
		for _, seq := range []bool{false, true} {
			name := fmt.Sprintf("batch%d", depth)
			if seq {
				name += "-sequential"
			}
			b.Run(name, func(b *testing.B) {
				back := make(chan int, 4096)
				q := NewQueue(c, 16, func(d []*IO) { back <- len(d) })
				defer q.Close()
				batch := make([]*IO, depth)
				for i := range batch {
					batch[i] = &IO{Kind: IOWrite, Len: 4096, Buf: buf}
				}
				b.ReportAllocs()
				i := 0
				for left := b.N; left > 0; left -= depth {
					for k := range batch {
						if seq {
							batch[k].Off = int64(i) * 4096 % size
						} else {
							batch[k].Off = at(i)
						}
						i++
					}
					q.Submit(batch)
					for n := 0; n < depth; {
						n += <-back
					}
				}
			})
		}
	}
}

// BenchmarkQueueDisk keeps 32 random 4 KiB operations under way on a file on
// disk, past the page cache.
func BenchmarkQueueDisk(b *testing.B) {
	const size, depth = 256 << 20, 32
	c := fileComponent(b, b.TempDir(), size, false)
	if !c.Direct() {
		b.Skip("no O_DIRECT here")
	}
	buf := alignedBuf(1 << 20)
	for off := int64(0); off < size; off += 1 << 20 {
		if err := c.WriteAt(buf, off); err != nil {
			b.Fatal(err)
		}
	}
	for name, kind := range map[string]IOKind{"read": IORead, "write": IOWrite} {
		b.Run(name, func(b *testing.B) {
			back := make(chan *IO, depth)
			q := NewQueue(c, depth, func(d []*IO) {
				for _, io := range d {
					back <- io
				}
			})
			defer q.Close()
			b.ReportAllocs()
			one := make([]*IO, 1)
			for i := range b.N {
				var io *IO
				if i < depth {
					io = &IO{Kind: kind, Len: 4096, Buf: alignedBuf(4096)}
				} else if io = <-back; io.Err != nil {
					b.Fatal(io.Err)
				}
				io.Off = int64(uint32(i)*2654435761>>8) % (size / 4096) * 4096
				one[0] = io
				q.Submit(one)
			}
			for range min(depth, b.N) {
				<-back
			}
		})
	}
}
