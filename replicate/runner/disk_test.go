package runner

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"hastd/blockdev"
	"hastd/metadata"
	"hastd/replicate"
)

// testDisk is an open disk on a sparse file whose operations end in the mailbox.
func testDisk(t *testing.T, size int64) (*Resource, *disk) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "component")
	if err := blockdev.CreateFileComponent(path, size); err != nil {
		t.Fatal(err)
	}
	c, err := blockdev.OpenComponent(blockdev.ComponentOptions{Path: path, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r := &Resource{box: newMailbox(), appMem: testArena(t, 32<<20), peerMem: testArena(t, 32<<20), syncMem: testArena(t, 32<<20)}
	r.mem = newMemories(r.appMem)
	d := &disk{data: c, meta: c}
	d.queue = blockdev.NewQueue(c, diskWorkers, r.ioDone)
	d.pool = newPool(r, d)
	d.unwatch = func() {}
	d.commits, d.committed = make(chan commitJob), make(chan struct{})
	close(d.committed)
	r.disk = d
	t.Cleanup(func() { <-r.release(d) })
	return r, d
}

// disk runs effects and returns their answers by OpID.
func (r *Resource) testDisk(effs ...replicate.Effect) map[replicate.OpID]replicate.Event {
	for i := range effs {
		effs[i].Kind = replicate.EffDisk
		r.begin(&effs[i])
	}
	r.flushOut()
	got := map[replicate.OpID]replicate.Event{}
	for len(got) < len(effs) {
		var w word
		r.box.take(&w)
		var evs []replicate.Event
		for _, io := range w.ios {
			evs = r.endedIO(io, evs)
		}
		for _, it := range w.items {
			evs = r.endedOp(it.op, evs)
		}
		for _, ev := range evs {
			got[ev.Op] = ev
		}
	}
	return got
}

func randomBytes(n int, seed uint64) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(seed, seed))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestDiskHashesAndCompares(t *testing.T) {
	const size = 3*replicate.WindowSize + 8*metadata.BlockSize
	r, _ := testDisk(t, size)
	src := r.mem.add(randomBytes(replicate.WindowSize, 1), nil)
	write := uint64(0xff00000000000003)
	ev := r.testDisk(replicate.Effect{Op: 1, Disk: replicate.DiskWriteMasked, Off: replicate.WindowSize, Mask: write, Buf: src.handle})[1]
	if ev.Err != 0 {
		t.Fatal(ev.Text)
	}
	ask := write | 0xf0
	ev = r.testDisk(replicate.Effect{Op: 2, Disk: replicate.DiskReadHash, Off: replicate.WindowSize, Mask: ask})[2]
	if ev.Err != 0 || ev.Mask != 0xf0 {
		t.Fatalf("zero blocks %#x, %s", ev.Mask, ev.Text)
	}
	read := r.mem.get(ev.Buf)
	for i := range replicate.Window {
		if write>>i&1 == 1 && !bytes.Equal(read.buf[i*4096:(i+1)*4096], src.buf[i*4096:(i+1)*4096]) {
			t.Errorf("block %d differs", i)
		}
	}
	// The other side has other bytes in block 1 and zeroes in block 63.
	hashes := r.mem.add(read.hashes.put(nil, ask), nil)
	hashes.mask = ask
	one := r.mem.add(randomBytes(replicate.WindowSize, 2), nil)
	ev = r.testDisk(replicate.Effect{Op: 3, Disk: replicate.DiskWriteMasked, Off: replicate.WindowSize, Mask: 2 | 1<<63, Zeroes: 1 << 63, Buf: one.handle})[3]
	if ev.Err != 0 {
		t.Fatal(ev.Text)
	}
	ev = r.testDisk(replicate.Effect{Op: 4, Disk: replicate.DiskCompare, Off: replicate.WindowSize, Mask: ask, Aux: hashes.handle})[4]
	if ev.Err != 0 || ev.Mask != 2|1<<63 || ev.Zeroes != 1<<63 {
		t.Fatalf("differing %#x, of these zero %#x, %s", ev.Mask, ev.Zeroes, ev.Text)
	}
	r.mem.drop(r.mem.get(ev.Buf))
	r.mem.drop(read)
	if r.syncMem.Free() != r.syncMem.Size() {
		t.Error("memory for sync was not given back")
	}
	// The end of the device: a window that is not whole.
	ev = r.testDisk(replicate.Effect{Op: 5, Disk: replicate.DiskReadHash, Off: 3 * replicate.WindowSize, Mask: 0xff})[5]
	if ev.Err != 0 || ev.Mask != 0xff {
		t.Fatalf("zero blocks %#x, %s", ev.Mask, ev.Text)
	}
}

func TestDiskReadsIntoItsOwnMemory(t *testing.T) {
	r, _ := testDisk(t, 1<<20)
	src := r.mem.add(randomBytes(8192, 3), nil)
	got := r.testDisk(replicate.Effect{Op: 1, Disk: replicate.DiskWrite, Off: 4096, Len: 8192, Buf: src.handle})
	if got[1].Err != 0 {
		t.Fatal(got[1].Text)
	}
	ev := r.testDisk(replicate.Effect{Op: 2, Disk: replicate.DiskRead, Off: 4096, Len: 8192})[2]
	if ev.Err != 0 || !bytes.Equal(r.mem.get(ev.Buf).buf, src.buf) {
		t.Fatal("read something else", ev.Text)
	}
	ev = r.testDisk(replicate.Effect{Op: 3, Disk: replicate.DiskRead, Off: 1 << 20, Len: 4096})[3]
	if ev.Err != replicate.ErrIO || ev.Text == "" || ev.Buf != 0 {
		t.Fatalf("a read beyond the end gave %+v", ev)
	}
	r.mem.drop(r.mem.get(r.testDisk(replicate.Effect{Op: 4, Disk: replicate.DiskRead, Len: 512})[4].Buf))
}

func TestDiskWithoutComponentAnswers(t *testing.T) {
	r, d := testDisk(t, 1<<20)
	r.disk = nil
	defer func() { r.disk = d }()
	r.begin(&replicate.Effect{Kind: replicate.EffDisk, Op: 9, Disk: replicate.DiskFlush})
	if evs := r.endedIO(r.failedOps[0], nil); evs[0].Err != replicate.ErrShut || evs[0].Op != 9 {
		t.Errorf("%+v", evs)
	}
}

// countingHoles counts how often a file is asked for its holes.
type countingHoles struct {
	*blockdev.Component
	asked int
	then  func()
}

func (c *countingHoles) Holes(off, n int64) ([]blockdev.Run, error) {
	c.asked++
	runs, err := c.Component.Holes(off, n)
	if c.then != nil {
		c.then()
	}
	return runs, err
}

func TestHolesAreAskedOnceAndForgottenWhenWritten(t *testing.T) {
	const size = 64 << 20
	r, d := testDisk(t, size)
	c := &countingHoles{Component: d.data}
	d.pool.holes.c = c
	window := int64(5 * replicate.WindowSize)
	for off := int64(0); off < size; off += replicate.WindowSize {
		if !d.pool.holes.is(off) {
			t.Fatalf("an empty file has data at %d", off)
		}
	}
	if c.asked != 1 {
		t.Errorf("asked %d times", c.asked)
	}
	src := r.mem.add(randomBytes(4096, 4), nil)
	if ev := r.testDisk(replicate.Effect{Op: 1, Disk: replicate.DiskWrite, Off: window + 8192, Len: 4096, Buf: src.handle})[1]; ev.Err != 0 {
		t.Fatal(ev.Text)
	}
	if d.pool.holes.is(window) {
		t.Error("a window that was written passes for a hole")
	}
	if !d.pool.holes.is(window-replicate.WindowSize) || !d.pool.holes.is(window+replicate.WindowSize) {
		t.Error("its neighbours were forgotten too")
	}
	// A write that ends while the question is under way.
	h := newHoleCache(d.data)
	h.c = &countingHoles{Component: d.data, then: func() { h.spoil(7*replicate.WindowSize, 512) }}
	if h.is(7 * replicate.WindowSize) {
		t.Error("a window written during the question passes for a hole")
	}
}

func TestDiskZeroesInLongRunsMakeHoles(t *testing.T) {
	r, d := testDisk(t, 1<<20)
	src := r.mem.add(randomBytes(replicate.WindowSize, 5), nil)
	all := ^uint64(0)
	r.testDisk(replicate.Effect{Op: 1, Disk: replicate.DiskWriteMasked, Mask: all, Buf: src.handle})
	if ev := r.testDisk(replicate.Effect{Op: 3, Disk: replicate.DiskWriteMasked, Mask: 0xffffffff, Zeroes: 0xffffffff})[3]; ev.Err != 0 {
		t.Fatal(ev.Text)
	}
	runs, err := d.data.Holes(0, replicate.WindowSize)
	if err != nil || len(runs) != 2 || !runs[0].Hole || runs[0].Len != replicate.WindowSize/2 {
		t.Errorf("%v, %v", runs, err)
	}
}

func TestSplitRequestsAnswerOnce(t *testing.T) {
	r := &Resource{box: newMailbox(), appMem: testArena(t, 64<<20), maxRequest: 64 << 10, born: testStart}
	r.mem = newMemories(r.appMem)
	r.export.Store(&export{size: 1 << 40, sector: 4096})
	owner := new(recorder)
	buf := r.Alloc(200 << 10)
	long := &blockdev.Request{Op: blockdev.OpWrite, FUA: true, Off: 4096, Len: 200 << 10, Buf: buf, Owner: owner}
	evs := r.admit(arrival{long, 1}, nil)
	if len(evs) != 4 || evs[3].Len != 8<<10 || evs[3].Off != 4096+192<<10 || evs[0].Flags != replicate.FUA {
		t.Fatalf("split into %+v", evs)
	}
	for i, ev := range evs {
		from := int64(i) * (64 << 10)
		if got := r.mem.get(ev.Buf).buf; &got[0] != &buf[from] || int64(len(got)) != ev.Len {
			t.Errorf("part %d has other memory", i)
		}
		if more := r.reply(ev.Req, replicate.OK, nil); len(more) != 0 {
			t.Errorf("more parts: %+v", more)
		}
	}
	r.complete()
	if len(owner.done) != 1 || owner.done[0] != long || long.Err != nil {
		t.Fatalf("told of %d requests, %v", len(owner.done), long.Err)
	}
	r.Free(buf)
	if r.appMem.Free() != r.appMem.Size() {
		t.Error("memory was not given back")
	}

	// 4 GiB of TRIM: the machine never has more than maxParts of it, and an error
	// ends it early.
	trim := &blockdev.Request{Op: blockdev.OpTrim, NoHole: true, Len: 4 << 30, Owner: owner}
	evs = r.admit(arrival{trim, 1}, nil)
	if len(evs) != maxParts || evs[0].Flags != 0 {
		t.Fatalf("%d parts at once", len(evs))
	}
	more := r.reply(evs[0].Req, replicate.OK, nil)
	if len(more) != 1 {
		t.Fatalf("%d parts follow one that ended", len(more))
	}
	if n := len(r.reply(evs[1].Req, replicate.ErrIO, nil)); n != 0 {
		t.Errorf("%d parts follow one that failed", n)
	}
	for _, ev := range append(evs[2:], more...) {
		r.reply(ev.Req, replicate.OK, nil)
	}
	r.complete()
	if len(owner.done) != 2 || trim.Err == nil || r.front.inflight != 0 {
		t.Errorf("trim ended with %v, %d told", trim.Err, len(owner.done))
	}

	// What is left of one when the provider goes away reaches the machine no more.
	trim = &blockdev.Request{Op: blockdev.OpTrim, Len: 4 << 30, Owner: owner}
	evs = r.admit(arrival{trim, 1}, nil)
	gone := r.export.Swap(nil)
	for _, ev := range evs {
		if n := len(r.reply(ev.Req, replicate.OK, nil)); n != 0 {
			t.Fatalf("%d parts reach the machine without a provider", n)
		}
	}
	r.complete()
	if len(owner.done) != 3 || trim.Err != unix.ESHUTDOWN || r.front.inflight != 0 {
		t.Errorf("trim ended with %v, %d told", trim.Err, len(owner.done))
	}
	r.export.Store(gone)

	// What cannot be.
	for _, q := range []*blockdev.Request{
		{Op: blockdev.OpRead, Off: 1 << 40, Len: 4096},
		{Op: blockdev.OpRead, Off: 512, Len: 4096},
		{Op: blockdev.OpWrite, Len: 4096},
		{Op: blockdev.OpZero, Off: -4096, Len: 4096},
		{Op: blockdev.OpZero, Off: 4096, Len: 1<<63 - 4096},
	} {
		q.Owner = owner
		if evs := r.admit(arrival{q, 1}, nil); len(evs) != 0 || q.Err == nil {
			t.Errorf("%+v reached the machine", q)
		}
	}
}

type recorder struct{ done []*blockdev.Request }

func (r *recorder) Complete(done []*blockdev.Request) { r.done = append(r.done, done...) }

func needRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for loop devices")
	}
}

// A read whose local operation hangs is answered with what the peer read: not from
// the memory that the operation may still write to.
func TestReadFromPeerKeepsAwayFromAHangingOperation(t *testing.T) {
	for _, length := range []int64{64 << 10, 200 << 10} {
		r := &Resource{box: newMailbox(), appMem: testArena(t, 64<<20), maxRequest: 64 << 10, born: testStart}
		r.mem = newMemories(r.appMem)
		r.export.Store(&export{size: 1 << 40, sector: 4096})
		owner := new(recorder)
		q := &blockdev.Request{Op: blockdev.OpRead, Off: 4096, Len: length, Buf: r.Alloc(int(length)), Owner: owner}
		evs := r.admit(arrival{q, 1}, nil)
		want := randomBytes(int(length), 9)
		hung := []*memory{}
		for i, ev := range evs {
			m, bytes := r.mem.get(ev.Buf), want[int64(i)*(64<<10):][:ev.Len]
			if i == 1 { // this part was read before the disk hung
				copy(m.buf, bytes)
				r.reply(ev.Req, replicate.OK, nil)
				continue
			}
			hung = append(hung, m.hold())
		}
		for i, ev := range evs {
			if i == 1 {
				continue
			}
			body := r.mem.add(want[int64(i)*(64<<10):][:ev.Len], nil)
			r.carryOut([]replicate.Effect{
				{Kind: replicate.EffReply, Req: ev.Req, Buf: body.handle, Len: ev.Len},
				{Kind: replicate.EffRelease, Buf: body.handle},
			}, nil)
		}
		r.complete()
		if len(owner.done) != 1 || q.Err != nil {
			t.Fatalf("%d requests done, %v", len(owner.done), q.Err)
		}
		for _, m := range hung { // the disk wakes up
			for i := range m.buf {
				m.buf[i] = 0xee
			}
		}
		if !bytes.Equal(q.Buf, want) {
			t.Errorf("%d bytes: the late read shows in the answer", length)
		}
		r.Free(q.Buf)
		if r.appMem.Free() == r.appMem.Size() {
			t.Errorf("%d bytes: memory went back under a disk that hangs", length)
		}
		for _, m := range hung {
			r.mem.drop(m)
		}
		if r.appMem.Free() != r.appMem.Size() || r.mem.lending.Load() != 0 || len(r.mem.spare)+len(r.mem.lent) != 0 {
			t.Errorf("%d bytes: %d of %d bytes given back, %d lent", length, r.appMem.Free(), r.appMem.Size(), r.mem.lending.Load())
		}
	}
}
