package runner

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hastd/blockdev"
	"hastd/metadata"
	"hastd/replicate"
	labdisk "hastd/test/lab/disk"
)

// node is one side of a pair of shells with real machines.
type node struct {
	*Resource
	file string
	log  *syncBuffer
}

// realPair makes two new replicas on files and puts b to secondary, a to primary.
func realPair(t testing.TB, size int64, change func(o *Options)) (a, b *node) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "hast-pair")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	nodes := [2]*node{}
	size = metadata.ComponentSize(size)
	ra, rb := testPair(t, func(i int, o *Options) {
		n := &node{file: filepath.Join(dir, []string{"a", "b"}[i]), log: new(syncBuffer)}
		nodes[i] = n
		o.Component = n.file
		o.Log = slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		if change != nil {
			change(o)
		}
		if o.Component == n.file {
			if err := blockdev.CreateFileComponent(o.Component, size); err != nil {
				t.Fatal(err)
			}
		}
		makeReplica(t, o.Component, "", nil)
	})
	a, b = nodes[0], nodes[1]
	a.Resource, b.Resource = ra, rb
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("alpha:\n%s\nbravo:\n%s", a.log, b.log)
		}
	})
	b.order(t, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Secondary})
	a.order(t, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Secondary})
	a.until(t, func(s *Snapshot) bool { return s.Connection == "connected" })
	a.order(t, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Primary})
	a.until(t, func(s *Snapshot) bool { return s.Status.Status == "complete" })
	return a, b
}

func (n *node) order(t testing.TB, c replicate.Command) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := n.Command(ctx, c); err != nil {
		t.Fatalf("%s: order %d: %v", n.opts.Node, c.Kind, err)
	}
}

func (n *node) until(t testing.TB, f func(*Snapshot) bool) {
	t.Helper()
	end := time.Now().Add(15 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		s, err := n.Status(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if f(&s) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: stays at %+v", n.opts.Node, s.Status)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (n *node) write(t testing.TB, c *client, off int64, b []byte) {
	t.Helper()
	buf := n.Alloc(len(b))
	copy(buf, b)
	c.do(t, &blockdev.Request{Op: blockdev.OpWrite, Off: off, Len: int64(len(b)), Buf: buf})
	n.Free(buf)
}

func (n *node) read(t testing.TB, c *client, off int64, length int) []byte {
	t.Helper()
	buf := n.Alloc(length)
	defer n.Free(buf)
	c.do(t, &blockdev.Request{Op: blockdev.OpRead, Off: off, Len: int64(length), Buf: buf})
	return bytes.Clone(buf)
}

func sameData(t testing.TB, a, b *node, size int64) {
	t.Helper()
	one, err1 := os.ReadFile(a.file)
	two, err2 := os.ReadFile(b.file)
	if err1 != nil || err2 != nil || !bytes.Equal(one[:size], two[:size]) {
		t.Errorf("the replicas differ (%v, %v)", err1, err2)
	}
}

func TestPairWritesLosesAndCatchesUp(t *testing.T) {
	const size = 64 << 20
	a, b := realPair(t, size, nil)
	a.until(t, func(s *Snapshot) bool { return s.Counters.Reconnects == 0 }) // a promotion is none
	c := &client{r: a.Resource, done: make(chan *blockdev.Request, 64)}
	for i := range int64(20) {
		a.write(t, c, i*3<<20, randomBytes(300<<10, uint64(i)))
	}
	c.do(t, &blockdev.Request{Op: blockdev.OpFlush})
	c.do(t, &blockdev.Request{Op: blockdev.OpTrim, Off: 3 << 20, Len: 40 << 20})

	// The session dies by itself: both come back to each other.
	a.eventually(t, "session cut", func() bool { a.session.s.Close("cut"); return true })
	a.write(t, c, 50<<20, randomBytes(1<<20, 99))
	a.until(t, func(s *Snapshot) bool { return s.Status.Status == "complete" })

	// Parted on purpose, with writes meanwhile.
	b.order(t, replicate.Command{Kind: replicate.CmdDisconnect})
	a.until(t, func(s *Snapshot) bool { return s.Connection != "connected" })
	for i := range int64(50) {
		a.write(t, c, i<<20, randomBytes(4096, 1000+uint64(i)))
	}
	c.do(t, &blockdev.Request{Op: blockdev.OpZero, Off: 60 << 20, Len: 1 << 20, NoHole: true})
	c.do(t, &blockdev.Request{Op: blockdev.OpFlush})
	a.until(t, func(s *Snapshot) bool { return s.DirtyBytes >= 50*4096 })
	b.order(t, replicate.Command{Kind: replicate.CmdConnect})
	a.until(t, func(s *Snapshot) bool {
		return s.Status.Status == "complete" && s.DirtyBytes == 0 && s.Counters.Reconnects == 2
	})
	c.do(t, &blockdev.Request{Op: blockdev.OpFlush})
	a.order(t, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Init})
	b.order(t, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Init})
	sameData(t, a, b, size)
	for _, n := range []*node{a, b} {
		for _, m := range []struct {
			name string
			free int64
			size int64
		}{{"application", n.appMem.Free(), n.appMem.Size()}, {"peer", n.peerMem.Free(), n.peerMem.Size()}, {"sync", n.syncMem.Free(), n.syncMem.Size()}} {
			if m.free != m.size {
				t.Errorf("%s: %d bytes of %s memory were not given back", n.opts.Node, m.size-m.free, m.name)
			}
		}
	}
}

// TestPairUnderLoadAndCuts keeps many writes under way while the session is cut
// again and again; what was acknowledged must be on both sides in the end.
func TestPairUnderLoadAndCuts(t *testing.T) {
	const size, depth, block = 32 << 20, 16, 8192
	for _, mode := range []replicate.Mode{replicate.Fullsync, replicate.Memsync, replicate.Async} {
		t.Run(mode.String(), func(t *testing.T) {
			a, b := realPair(t, size, func(o *Options) { o.Mode = mode })
			c := &client{r: a.Resource, done: make(chan *blockdev.Request, depth)}
			stop := make(chan struct{})
			cuts := make(chan int)
			go func() {
				n := 0
				defer func() { cuts <- n }()
				for {
					select {
					case <-stop:
						return
					case <-time.After(100 * time.Millisecond):
					}
					ctx, cancel := context.WithTimeout(context.Background(), time.Second)
					_ = b.onOwner(ctx, func() {
						if b.session != nil {
							b.session.s.Close("cut")
							n++
						}
					})
					cancel()
				}
			}()
			latest := make([]uint64, size/block) // what each block holds
			fill := func(q *blockdev.Request, i int64, gen uint64) {
				copy(q.Buf, randomBytes(64, gen))
				q.Off, q.Tag = i*block, gen
				latest[i] = gen
			}
			busy := map[int64]bool{}
			gen := uint64(0)
			next := func(q *blockdev.Request) {
				for {
					gen++
					i := int64(gen*7919) % (size / block)
					if !busy[i] {
						busy[i] = true
						fill(q, i, gen)
						a.Submit([]*blockdev.Request{q})
						return
					}
				}
			}
			for range depth {
				next(&blockdev.Request{Op: blockdev.OpWrite, Len: block, Buf: a.Alloc(block), Owner: c})
			}
			for end := time.Now().Add(time.Second); time.Now().Before(end); {
				q := <-c.done
				if q.Err != nil {
					t.Fatal(q.Err)
				}
				delete(busy, q.Off/block)
				// Never written to again: its bytes may still be on their way.
				a.Free(q.Buf)
				q.Buf = a.Alloc(block)
				next(q)
			}
			for range depth {
				q := <-c.done
				if q.Err != nil {
					t.Fatal(q.Err)
				}
				a.Free(q.Buf)
			}
			close(stop)
			n := <-cuts
			t.Logf("%d writes, %d cuts", gen, n)
			a.until(t, func(s *Snapshot) bool { return s.Status.Status == "complete" && s.DirtyBytes == 0 })
			c.do(t, &blockdev.Request{Op: blockdev.OpFlush})
			a.order(t, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Init})
			b.order(t, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Init})
			sameData(t, a, b, size)
			data, _ := os.ReadFile(b.file)
			for i, gen := range latest {
				if gen != 0 && !bytes.Equal(data[i*block:i*block+64], randomBytes(64, gen)) {
					t.Fatalf("block %d lost its last acknowledged write", i)
				}
			}
		})
	}
}

// startDisk is a disk of the lab: it hangs and errs on command.
func startDisk(t *testing.T) *labdisk.Process {
	t.Helper()
	needRoot(t)
	log := new(syncBuffer)
	p, err := labdisk.Start(os.Args[0], t.TempDir(), labdisk.Options{}, log)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Errorf("stop the disk: %v\n%s", err, log)
		}
	})
	return p
}

func TestPairNoticesAComponentThatVanishes(t *testing.T) {
	a, _ := realPair(t, 16<<20, nil)
	if err := os.Remove(a.file); err != nil {
		t.Fatal(err)
	}
	a.until(t, func(s *Snapshot) bool { return s.Disk == "failed" && strings.Contains(s.Reason, "vanished") })
	c := &client{r: a.Resource, done: make(chan *blockdev.Request, 8)}
	a.write(t, c, 0, randomBytes(4096, 1)) // the peer has it
}

func TestPairGoesOnWithoutADisk(t *testing.T) {
	for name, strike := range map[string]func(p *labdisk.Process) error{
		"that hangs": func(p *labdisk.Process) error { return p.Freeze() },
		"that fails": func(p *labdisk.Process) error { return p.PowerLoss() },
	} {
		t.Run(name, func(t *testing.T) {
			p := startDisk(t)
			a, b := realPair(t, 16<<20, func(o *Options) {
				o.DiskTimeout = 300 * time.Millisecond
				if o.Node == "alpha" {
					o.Component = p.Path()
				}
			})
			c := &client{r: a.Resource, done: make(chan *blockdev.Request, 8)}
			before, after := randomBytes(64<<10, 1), randomBytes(64<<10, 2)
			a.write(t, c, 1<<20, before)
			if err := strike(p); err != nil {
				t.Fatal(err)
			}
			a.write(t, c, 8<<20, after)
			a.until(t, func(s *Snapshot) bool { return s.Disk == "failed" && s.Role == metadata.Primary })
			if !bytes.Equal(a.read(t, c, 1<<20, 64<<10), before) || !bytes.Equal(a.read(t, c, 8<<20, 64<<10), after) {
				t.Error("the peer's replica gives other data")
			}
			c.do(t, &blockdev.Request{Op: blockdev.OpFlush})
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			start := time.Now()
			err := a.Close(ctx)
			if d := time.Since(start); d > 15*time.Second {
				t.Errorf("closing took %v", d)
			}
			t.Logf("closed after %v: %v", time.Since(start), err)
			b.until(t, func(s *Snapshot) bool { return s.Connection != "connected" })
			if err := p.Thaw(); err != nil {
				t.Fatal(err)
			}
			// What hung returns, and its memory with it.
			for end := time.Now().Add(5 * time.Second); a.appMem.Free() != a.appMem.Size(); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("memory did not come back")
				}
			}
		})
	}
}

// inUse is a provider that finds out slowly that somebody uses it.
type inUse struct {
	blockdev.Provider
	asked chan struct{}
}

func (p inUse) Close(force bool) error {
	if force {
		return p.Provider.Close(true)
	}
	close(p.asked)
	time.Sleep(300 * time.Millisecond)
	return &blockdev.InUseError{Path: p.Path(), Users: []string{"mount"}}
}

// An order that is being carried out does not keep a daemon from a clean stop: it waits
// for its end. Were the session cut first, the primary would go on alone.
func TestStopWaitsForAnOrder(t *testing.T) {
	a, b := realPair(t, 16<<20, nil)
	asked := make(chan struct{})
	if err := a.onOwner(t.Context(), func() { a.provider = inUse{a.provider, asked} }); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		answer <- a.Command(t.Context(), replicate.Command{Kind: replicate.CmdRole, Role: metadata.Secondary})
	}()
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := a.Close(ctx); err != nil {
		t.Errorf("stopped with %v", err)
	}
	var no *replicate.Refusal
	if err := <-answer; !errors.As(err, &no) || no.Code != replicate.RefusedBusy {
		t.Errorf("the order ended with %v", err)
	}
	r := &Resource{box: newMailbox(), opts: a.opts}
	d, err := r.openDisk()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { <-r.release(d) }()
	st, _, err := metadata.Load(d.image)
	if err != nil {
		t.Fatal(err)
	}
	if sb := st.Super(); sb.Localcnt != 0 || sb.Marks != 0 || sb.PrevRole == metadata.Primary {
		t.Errorf("localcnt %d, marks %v, role %v", sb.Localcnt, sb.Marks, sb.PrevRole)
	}
	b.until(t, func(s *Snapshot) bool { return s.Role == metadata.Secondary && s.Connection != "connected" })
}

// While reads are held nobody is told of holes: what is one here the peer may have
// written since.
func TestHoldingPrimaryTellsOfNoHoles(t *testing.T) {
	const size = 16 << 20
	a, b := realPair(t, size, nil)
	holes := func(what string, want bool) {
		t.Helper()
		runs, err := a.Allocated(0, size)
		if err != nil || (len(runs) == 1 && runs[0] == blockdev.Run{Len: size}) == want {
			t.Errorf("%s: %+v, %v", what, runs, err)
		}
	}
	holes("connected", true)
	a.order(t, replicate.Command{Kind: replicate.CmdSuspend})
	holes("suspended", false)
	b.order(t, replicate.Command{Kind: replicate.CmdDisconnect})
	b.order(t, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Primary, Force: true})
	a.until(t, func(s *Snapshot) bool { return s.Connection != "connected" })
	holes("the peer is primary", false)
	a.order(t, replicate.Command{Kind: replicate.CmdResume})
	holes("nothing was read alone", false)
	c := &client{r: a.Resource, done: make(chan *blockdev.Request, 8)}
	a.read(t, c, 0, 4096)
	holes("it reads alone", true)
}

// An operation of a front end that hangs in the component does not keep an order waiting.
func TestOrderWhileAFrontEndHangsInTheComponent(t *testing.T) {
	a, _ := realPair(t, 16<<20, nil)
	d := a.pin()
	if d == nil {
		t.Fatal("no component")
	}
	t.Cleanup(d.pins.Done) // before the resource is closed
	a.order(t, replicate.Command{Kind: replicate.CmdRole, Role: metadata.Init})
	if d := a.pin(); d != nil {
		t.Error("the component is still there for others")
		d.pins.Done()
	}
}
