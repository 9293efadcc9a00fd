package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"hastd/test/lab/nbdclient"
)

// pair is a lab with the verbs of the scenarios. Every verb fails the test when
// it cannot do what it says.
type pair struct {
	testing.TB
	*Lab
	a, b *Node
}

// waitLimit bounds what a verb waits for.
const waitLimit = 45 * time.Second

func newPair(t testing.TB, o Options) *pair {
	t.Helper()
	if o.Size == 0 {
		o.Size = 32 << 20
	}
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	l := newLab(t, o)
	return &pair{t, l, l.Nodes[Alpha], l.Nodes[Bravo]}
}

// slowSync are the options of a pair whose sync takes long enough to be met under
// way: small disks and little a second.
var slowSync = Options{Size: 8 << 20, Extra: `sync.max-rate = "1MiB"`}

// slowSyncBytes is how much a scenario writes for a sync of three seconds.
const slowSyncBytes = 3 << 20

func (p *pair) ok(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// together makes both replicas, alpha primary, everything in sync. The disks are
// all zeroes, so nothing needs to be copied.
func (p *pair) together() {
	p.Helper()
	p.ok(p.CreateAndStart("--assume-clean"))
	p.ok(p.AwaitConnected(waitLimit)) // a new replica asks its peer before it is promoted
	p.promote(p.a)
	p.complete()
}

func (p *pair) promote(n *Node)        { p.Helper(); p.ok(p.role(n, "primary", false)) }
func (p *pair) promoteByForce(n *Node) { p.Helper(); p.ok(p.role(n, "primary", true)) }
func (p *pair) demote(n *Node)         { p.Helper(); p.ok(p.role(n, "secondary", false)) }

// role does as the daemon's hint says while another order is being carried out:
// it tries again in a moment.
func (p *pair) role(n *Node, role string, force bool) error {
	return poll(startLimit, func() (bool, error) {
		err := n.Role(role, force)
		no, refused := errors.AsType[*Refusal](err)
		return !refused || no.Code != CodeBusy, err
	})
}

// swap moves the primary from one node to the other.
func (p *pair) swap(from, to *Node) {
	p.Helper()
	p.demote(from)
	p.promote(to)
}

// cut parts the nodes; each knows at once.
func (p *pair) cut() {
	p.Helper()
	p.ok(p.Cut(Alpha, CutReset))
	for _, n := range p.Nodes {
		if n.cmd != nil {
			_, err := n.Wait(waitLimit, "the loss of its peer", func(s Status) bool { return s.Connection != "connected" })
			p.ok(err)
		}
	}
}

func (p *pair) heal() {
	p.Helper()
	p.ok(p.Lab.Heal())
}

// complete waits until both are in sync, and compares them.
func (p *pair) complete() {
	p.Helper()
	for _, n := range p.Nodes {
		p.ok(n.WaitStatus("complete", waitLimit))
	}
	p.same()
}

func (p *pair) primary() *Node {
	for _, n := range p.Nodes {
		if s, err := n.Status(); err == nil && s.Role == "primary" {
			return n
		}
	}
	return nil
}

// same compares both replicas as far as the provider reaches.
func (p *pair) same() {
	p.Helper()
	n := p.primary()
	if n == nil {
		p.Fatal("no primary to ask for the size")
	}
	s, err := n.Status()
	p.ok(err)
	if s.Provider == nil {
		p.Fatalf("%v is primary and has no provider: %v", n.Side, s)
	}
	p.flush(n)
	p.ok(p.CompareReplicas(s.Provider.Size))
}

// splitBrain waits until both say so.
func (p *pair) splitBrain() {
	p.Helper()
	for _, n := range p.Nodes {
		p.ok(n.WaitStatus("split-brain", waitLimit))
	}
}

// counters wants l/r of a node.
func (p *pair) counters(n *Node, l, r uint64) {
	p.Helper()
	s, err := n.Status()
	p.ok(err)
	if s.LocalCnt != l || s.RemoteCnt != r {
		p.Fatalf("%v has counters %d/%d, want %d/%d", n.Side, s.LocalCnt, s.RemoteCnt, l, r)
	}
}

// die is a power loss of one node. The link is cut by it and stays so.
func (p *pair) die(n *Node) {
	p.Helper()
	p.ok(n.PowerLoss())
}

// rise brings it back, its link too.
func (p *pair) rise(n *Node) {
	p.Helper()
	p.ok(n.PowerUp())
}

// riseApart brings it back without its link.
func (p *pair) riseApart(n *Node) {
	p.Helper()
	p.ok(n.Disk.PowerUp())
	p.ok(n.Start())
}

func (p *pair) open(n *Node) *nbdclient.Client {
	p.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := n.NBD(ctx)
	p.ok(err)
	p.Cleanup(c.Abort)
	return c
}

// content is 4 KiB that only this tag has.
func content(tag string) []byte {
	b := make([]byte, BlockSize)
	x := uint64(14695981039346656037)
	for _, c := range []byte(tag) {
		x = (x ^ uint64(c)) * 1099511628211
	}
	for i := 0; i < len(b); i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(b[i:], x)
	}
	copy(b, tag)
	return b
}

// write writes a block through a node, and flushes.
func (p *pair) write(n *Node, block int64, tag string) {
	p.Helper()
	c := p.open(n)
	defer c.Abort()
	_, err := within(waitLimit, func() (int, error) { return c.WriteAt(content(tag), block*BlockSize) })
	p.ok(err)
	_, err = within(waitLimit, func() (int, error) { return 0, c.Flush() })
	p.ok(err)
}

// writeMany writes n bytes from a block on, each block with a tag of its own.
func (p *pair) writeMany(n *Node, block, bytes int64, tag string) {
	p.Helper()
	c := p.open(n)
	defer c.Abort()
	done := make(chan *nbdclient.Call, bytes/BlockSize)
	for i := range bytes / BlockSize {
		c.Go(&nbdclient.Call{Cmd: nbdclient.Write, Off: uint64((block + i) * BlockSize), Data: content(fmt.Sprint(tag, i)), Done: done})
	}
	for range bytes / BlockSize {
		select {
		case call := <-done:
			p.ok(call.Err)
		case <-time.After(waitLimit):
			p.Fatalf("writes on %v hang", n.Side)
		}
	}
	p.ok(c.Flush())
}

// begin issues a write and does not wait for its end.
func (p *pair) begin(n *Node, block int64, tag string) {
	p.Helper()
	c := p.open(n)
	c.Go(&nbdclient.Call{Cmd: nbdclient.Write, Off: uint64(block * BlockSize), Data: content(tag), Done: make(chan *nbdclient.Call, 1)})
}

func (p *pair) flush(n *Node) {
	p.Helper()
	c := p.open(n)
	defer c.Abort()
	_, err := within(waitLimit, func() (int, error) { return 0, c.Flush() })
	p.ok(err)
}

// holds wants a block to read as one of the tags through a node; "" is zeroes.
func (p *pair) holds(n *Node, block int64, tags ...string) {
	p.Helper()
	c := p.open(n)
	defer c.Abort()
	b := make([]byte, BlockSize)
	_, err := within(waitLimit, func() (int, error) { return c.ReadAt(b, block*BlockSize) })
	p.ok(err)
	for _, tag := range tags {
		want := make([]byte, BlockSize)
		if tag != "" {
			want = content(tag)
		}
		if bytes.Equal(b, want) {
			return
		}
	}
	p.Fatalf("block %d on %v begins with %q, want one of %q", block, n.Side, b[:16], tags)
}

// localHolds looks at a node's disk itself.
func (p *pair) localHolds(n *Node, block int64, tag string) bool {
	p.Helper()
	f, err := os.Open(n.Local())
	p.ok(err)
	defer f.Close()
	b := make([]byte, BlockSize)
	_, err = f.ReadAt(b, block*BlockSize)
	p.ok(err)
	return bytes.Equal(b, content(tag))
}

// midSync waits until a sync between the nodes is under way, with some of it done
// and some left.
func (p *pair) midSync(n *Node) {
	p.Helper()
	_, err := n.Wait(waitLimit, "a sync under way", func(s Status) bool {
		return s.Sync.State == "running" && s.Sync.BytesDone > 0 && s.Sync.BytesLeft > 0
	})
	p.ok(err)
}

// logs wants a node's log to hold all of the texts in one line.
func (p *pair) logs(n *Node, texts ...string) {
	p.Helper()
	err := poll(waitLimit, func() (bool, error) {
		for line := range strings.Lines(n.Log()) {
			all := true
			for _, t := range texts {
				all = all && strings.Contains(line, t)
			}
			if all {
				return true, nil
			}
		}
		return false, fmt.Errorf("the log of %v has no line with all of %q", n.Side, texts)
	})
	p.ok(err)
}

var errTooLong = errors.New("no answer in time")

// within bounds a call that may hang.
func within[T any](limit time.Duration, do func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := do()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-time.After(limit):
		var zero T
		return zero, errTooLong
	}
}
