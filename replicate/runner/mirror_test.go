package runner

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hastd/blockdev"
	"hastd/metadata"
	"hastd/replicate"
)

// mirror is the simplest machine that replicates: it opens, connects and serves
// at its first event, and acknowledges a write when both sides wrote. It shows
// that the shell does as it is told, and what the shell itself costs.
type mirror struct {
	primary bool
	size    int64
	session replicate.SessionID
	next    uint64
	ops     []mirrorOp // by OpID - 1
	idle    []replicate.OpID
	peers   []uint64 // by Seq % len: the OpID it belongs to
	wrote   []uint64
	cmd     uint64
}

type mirrorOp struct {
	req  replicate.ReqID
	left int
	err  replicate.Err
	seq  uint64           // of the peer's
	buf  replicate.Handle // to release
	kind replicate.MsgKind
}

const (
	mirrorOpen  replicate.OpID = 1 << 40
	mirrorServe replicate.OpID = 1<<40 + 1
	mirrorClose replicate.OpID = 1<<40 + 2
	mirrorDown  replicate.OpID = 1<<40 + 3
)

func (m *mirror) Deadline() (replicate.Instant, bool) { return 0, false }

func (m *mirror) Status(replicate.Instant) replicate.Status {
	return replicate.Status{Disk: "uptodate", Reads: m.primary, Size: m.size}
}

func (m *mirror) op() replicate.OpID {
	if n := len(m.idle); n > 0 {
		id := m.idle[n-1]
		m.idle = m.idle[:n-1]
		return id
	}
	m.ops = append(m.ops, mirrorOp{})
	return replicate.OpID(len(m.ops))
}

func (m *mirror) Step(_ replicate.Instant, batch []replicate.Event, out []replicate.Effect) []replicate.Effect {
	m.wrote = m.wrote[:0]
	if m.peers == nil {
		m.peers = make([]uint64, 1<<16)
	}
	type E = replicate.Effect
	for i := range batch {
		ev := &batch[i]
		switch ev.Kind {
		case replicate.EvCommand:
			switch ev.Command.Kind {
			case replicate.CmdShutdown:
				m.cmd = ev.Command.ID
				if m.primary {
					out = append(out, E{Kind: replicate.EffProviderStop, Op: mirrorDown, Force: true})
				} else {
					out = append(out, E{Kind: replicate.EffClose, Op: mirrorClose})
				}
			case replicate.CmdRole:
				m.cmd = ev.Command.ID
				out = append(out, E{Kind: replicate.EffOpen, Op: mirrorOpen})
			}
		case replicate.EvOpened:
			if ev.Image == nil {
				panic(ev.Text)
			}
			m.size = ev.Image.Layout.DataSize
			out = append(out, E{Kind: replicate.EffConnect, Now: true})
		case replicate.EvSessionUp:
			m.session = ev.Session
			if m.primary {
				out = append(out, E{Kind: replicate.EffProviderStart, Op: mirrorServe, Size: m.size, SectorSize: 512})
			} else {
				out = append(out, E{Kind: replicate.EffAnswer, Command: m.cmd})
			}
		case replicate.EvSessionDown:
			m.session = 0
		case replicate.EvProviderUp:
			if ev.Err != 0 {
				panic(ev.Text)
			}
			out = append(out, E{Kind: replicate.EffAnswer, Command: m.cmd})
		case replicate.EvProviderDown:
			out = append(out, E{Kind: replicate.EffClose, Op: mirrorClose})
		case replicate.EvClosed:
			out = append(out, E{Kind: replicate.EffAnswer, Command: m.cmd})
		case replicate.EvRequest:
			id := m.op()
			op := &m.ops[id-1]
			*op = mirrorOp{req: ev.Req, left: 2}
			m.next++
			m.peers[m.next%uint64(len(m.peers))] = uint64(id)
			disk := E{Kind: replicate.EffDisk, Op: id, Off: ev.Off, Len: ev.Len, Buf: ev.Buf, Flags: ev.Flags}
			msg := replicate.Msg{Seq: m.next, Off: ev.Off, Len: uint32(ev.Len), Buf: ev.Buf, Flags: ev.Flags}
			switch ev.Request {
			case replicate.ReqRead:
				disk.Disk, op.left = replicate.DiskRead, 1
			case replicate.ReqWrite:
				disk.Disk, msg.Kind = replicate.DiskWrite, replicate.MsgWrite
			case replicate.ReqZero:
				disk.Disk, msg.Kind = replicate.DiskZero, replicate.MsgZero
			case replicate.ReqFlush:
				disk.Disk, msg = replicate.DiskFlush, replicate.Msg{Kind: replicate.MsgFlush, Seq: m.next}
			}
			out = append(out, disk)
			if msg.Kind != 0 {
				if m.session == 0 {
					op.left--
				}
				out = append(out, E{Kind: replicate.EffSend, Session: m.session, Msg: msg})
			}
		case replicate.EvMessage:
			msg := &ev.Msg
			switch msg.Kind {
			case replicate.MsgWrote:
				for _, s := range msg.Seqs {
					out = m.done(replicate.OpID(m.peers[s%uint64(len(m.peers))]), out)
				}
				continue
			case replicate.MsgFlushed:
				out = m.done(replicate.OpID(m.peers[msg.Seq%uint64(len(m.peers))]), out)
				continue
			}
			id := m.op()
			m.ops[id-1] = mirrorOp{left: 1, seq: msg.Seq, buf: msg.Buf, kind: msg.Kind}
			e := E{Kind: replicate.EffDisk, Op: id, Off: msg.Off, Len: int64(msg.Len), Buf: msg.Buf}
			switch msg.Kind {
			case replicate.MsgWrite:
				e.Disk = replicate.DiskWrite
			case replicate.MsgZero:
				e.Disk = replicate.DiskZero
			case replicate.MsgFlush:
				e.Disk = replicate.DiskFlush
			}
			out = append(out, e)
		case replicate.EvDone:
			if ev.Err != 0 {
				m.ops[ev.Op-1].err = ev.Err
			}
			out = m.done(ev.Op, out)
		}
	}
	if len(m.wrote) > 0 {
		out = append(out, E{Kind: replicate.EffSend, Session: m.session, Msg: replicate.Msg{Kind: replicate.MsgWrote, Seqs: m.wrote}})
	}
	return out
}

func (m *mirror) done(id replicate.OpID, out []replicate.Effect) []replicate.Effect {
	op := &m.ops[id-1]
	if op.left--; op.left > 0 {
		return out
	}
	m.idle = append(m.idle, id)
	if op.req != 0 {
		return append(out, replicate.Effect{Kind: replicate.EffReply, Req: op.req, Err: op.err})
	}
	if op.buf != 0 {
		out = append(out, replicate.Effect{Kind: replicate.EffRelease, Buf: op.buf})
	}
	if op.kind == replicate.MsgFlush {
		return append(out, replicate.Effect{Kind: replicate.EffSend, Session: m.session, Msg: replicate.Msg{Kind: replicate.MsgFlushed, Seq: op.seq}})
	}
	m.wrote = append(m.wrote, op.seq)
	return out
}

// mirrorPair starts two shells with mirrors on files in dir.
func mirrorPair(t testing.TB, dir string, size int64) (a, b *Resource) {
	t.Helper()
	size = metadata.ComponentSize(size)
	a, b = testPair(t, func(node int, o *Options) {
		o.machine = &mirror{primary: node == 0}
		o.Component = filepath.Join(dir, []string{"a", "b"}[node])
		if err := blockdev.CreateFileComponent(o.Component, size); err != nil {
			t.Fatal(err)
		}
		makeReplica(t, o.Component, "", nil)
	})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	errs := make(chan error, 2)
	for _, r := range []*Resource{a, b} {
		go func() { errs <- r.Command(ctx, replicate.Command{Kind: replicate.CmdRole}) }()
	}
	for range 2 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	return a, b
}

// client is an application of its own: it keeps depth requests under way.
type client struct {
	r    *Resource
	done chan *blockdev.Request
}

func (c *client) Complete(done []*blockdev.Request) {
	for _, q := range done {
		c.done <- q
	}
}

func (c *client) do(t testing.TB, q *blockdev.Request) {
	t.Helper()
	q.Owner = c
	c.r.Submit([]*blockdev.Request{q})
	if got := <-c.done; got.Err != nil {
		t.Fatalf("op %d at %d: %v", got.Op, got.Off, got.Err)
	}
}

func TestShellMirrorsOverTCP(t *testing.T) {
	dir := t.TempDir()
	a, b := mirrorPair(t, dir, 16<<20)
	c := &client{r: a, done: make(chan *blockdev.Request, 64)}
	buf := a.Alloc(3 << 20) // longer than a request of the machine at this geometry
	copy(buf, randomBytes(3<<20, 9))
	c.do(t, &blockdev.Request{Op: blockdev.OpWrite, Off: 4096, Len: 3 << 20, Buf: buf})
	c.do(t, &blockdev.Request{Op: blockdev.OpTrim, Off: 1 << 20, Len: 1 << 20})
	c.do(t, &blockdev.Request{Op: blockdev.OpFlush})
	back := a.Alloc(3 << 20)
	c.do(t, &blockdev.Request{Op: blockdev.OpRead, Off: 4096, Len: 3 << 20, Buf: back})
	want := bytes.Clone(buf)
	clear(want[1<<20-4096 : 2<<20-4096])
	if !bytes.Equal(back, want) {
		t.Error("read something else than was written")
	}
	a.Free(buf)
	a.Free(back)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	st, err := a.Status(ctx)
	if err != nil || st.Provider == nil || st.Provider.Size != 16<<20 || st.PeerAddress == "" || st.BuffersFree != 32<<20 {
		t.Errorf("%+v, %v", st, err)
	}
	if m := st.Metrics; m.Total[opWrite] != 1 || m.Bytes[opWrite] != 3<<20 || m.Seconds[opTrim][stageTotal].Count != 1 || m.Seconds[opWrite][stageLocal].Count == 0 || m.Seconds[opWrite][stagePeer].Count == 0 {
		t.Errorf("metrics %+v", m.Total)
	}
	for _, r := range []*Resource{a, b} {
		if err := r.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	one, _ := os.ReadFile(filepath.Join(dir, "a"))
	two, _ := os.ReadFile(filepath.Join(dir, "b"))
	if !bytes.Equal(one[:16<<20], two[:16<<20]) {
		t.Error("the replicas differ")
	}
	if !bytes.Equal(one[4096:4096+3<<20], want) {
		t.Error("the replica holds something else")
	}
}

// benchmarkWrites measures a replicated write of 4 KiB, both nodes in this process.
func benchmarkWrites(b *testing.B, depth int, r *Resource) {
	c := &client{r: r, done: make(chan *blockdev.Request, depth)}
	for i := range depth {
		c.done <- &blockdev.Request{Op: blockdev.OpWrite, Off: int64(i) * 8192, Len: 4096, Buf: r.Alloc(4096), Owner: c}
	}
	b.ReportAllocs()
	b.ResetTimer()
	batch := make([]*blockdev.Request, 0, depth)
	for n := 0; n < b.N; {
		batch = append(batch[:0], <-c.done)
	more:
		for len(batch) < depth {
			select {
			case q := <-c.done:
				batch = append(batch, q)
			default:
				break more
			}
		}
		n += len(batch)
		for _, q := range batch {
			q.Off = (q.Off + 1<<20 + 4096) % (64 << 20)
		}
		r.Submit(batch)
	}
	for range depth {
		q := <-c.done
		r.Free(q.Buf)
	}
}

// The shell alone: a machine that does the least.
func BenchmarkShell(b *testing.B) {
	dir, err := os.MkdirTemp("/dev/shm", "hast-bench")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	r, _ := mirrorPair(b, dir, 64<<20)
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("depth %d", depth), func(b *testing.B) { benchmarkWrites(b, depth, r) })
	}
}

// Shell and machine.
func BenchmarkPair(b *testing.B) {
	r, _ := realPair(b, 64<<20, nil)
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("depth %d", depth), func(b *testing.B) { benchmarkWrites(b, depth, r.Resource) })
	}
}
