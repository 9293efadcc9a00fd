package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hastd/test/lab/disk"
	"hastd/test/lab/ledger"
	"hastd/test/lab/nbdclient"
)

// A sample, on real processes, of what test/sim does with every operation: in a tale
// (promote, write, sync, recover, demote) the n-th read, write or flush of a node's
// disk fails. Nothing acknowledged and flushed may be lost, the daemon's log must say
// what failed, and the pair must be complete again afterwards.
//
// LAB_EVERY=n plays n cases instead of everySample, LAB_SEED=n draws others.

const everySample = 25

// everyTime is how long a lab goes on drawing; a case takes up to 12 seconds.
const everyTime = 18 * time.Second

// everyLabs play at the same time: most of their time is waiting.
const everyLabs = 2

// everyPair is a pair between cases: complete, alpha primary.
type everyPair struct {
	*pair
	led   *ledger.Ledger
	block int64 // where the tale writes
	mixed bool  // a person discarded what the ledger counts on
}

// blocksOfTale are what a tale writes to: an extent each.
const blocksOfTale = 4

// tellLimit is how long a daemon may take to log a failure.
const tellLimit = 10 * time.Second

type everyTale struct {
	name   string
	before func(e *everyPair) error // undisturbed
	then   func(e *everyPair) error
}

var everyTales = []everyTale{
	{"promote", func(e *everyPair) error { return e.orders(e.a, "secondary") }, func(e *everyPair) error {
		return errors.Join(e.orders(e.a, "primary"), e.writes(e.a))
	}},
	{"write", nil, func(e *everyPair) error { return e.writes(e.a) }},
	{"sync", func(e *everyPair) error {
		e.cut()
		return e.writes(e.a)
	}, func(e *everyPair) error {
		e.heal()
		return e.soon(e.b, "complete")
	}},
	{"recover", func(e *everyPair) error {
		e.cut()
		err := errors.Join(e.writes(e.a), e.orders(e.a, "secondary"), e.orders(e.b, "primary"), e.writes(e.b))
		e.heal()
		return errors.Join(err, e.a.WaitStatus("split-brain", waitLimit), e.b.WaitStatus("split-brain", waitLimit))
	}, func(e *everyPair) error {
		return errors.Join(e.a.RecoverDiscard(), e.soon(e.b, "complete"))
	}},
	{"demote", func(e *everyPair) error { return e.writes(e.a) }, func(e *everyPair) error {
		return errors.Join(e.orders(e.a, "secondary"), e.orders(e.b, "primary"), e.writes(e.b))
	}},
}

// soon waits for a status, or for a disk that failed.
func (e *everyPair) soon(n *Node, status string) error {
	_, err := n.Wait(soonLimit, status, func(st Status) bool {
		p, err := e.Nodes[n.Side.Other()].Status()
		return st.Status == status || st.Disk == "failed" || err == nil && p.Disk == "failed"
	})
	return err
}

// orders changes a role; a client that has just gone may still count as there.
func (e *everyPair) orders(n *Node, role string) error {
	return poll(orderLimit, func() (bool, error) {
		err := n.Role(role, false)
		no, refused := errors.AsType[*Refusal](err)
		return !refused || no.Code != CodeBusy, err
	})
}

// How long a tale goes on asking, and waits for what a failure may have prevented.
const (
	orderLimit = 2 * time.Second
	soonLimit  = 3 * time.Second
	ioLimit    = 2 * time.Second
)

// writes writes the tale's blocks and flushes, and tells the ledger.
func (e *everyPair) writes(n *Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := n.NBD(ctx)
	if err != nil {
		return err
	}
	defer c.Abort()
	var first error
	for i := range int64(blocksOfTale) {
		off := (e.block + i*64) * BlockSize
		id := e.led.Begin(ledger.Data, off, BlockSize, false)
		b := make([]byte, BlockSize)
		e.led.Fill(b, off, id)
		_, err := within(ioLimit, func() (int, error) { return c.WriteAt(b, off) })
		switch {
		case err == nil:
			e.led.Acked(id)
		case errors.Is(err, nbdclient.ErrDisconnected), errors.Is(err, errTooLong):
			e.led.Unanswered(id)
		default:
			e.led.Failed(id)
		}
		first = errors.Join(first, err)
		if errors.Is(err, errTooLong) {
			return first // suspended until a person acts
		}
	}
	f := e.led.BeginFlush()
	_, err = within(ioLimit, func() (int, error) { return 0, c.Flush() })
	if err == nil {
		e.led.FlushAcked(f)
	}
	return errors.Join(first, err)
}

// mend heals everything and does what a person does until the pair is complete and
// alpha is primary.
func (e *everyPair) mend() error {
	for _, n := range e.Nodes {
		e.ok(n.Disk.Heal())
	}
	e.heal()
	alone := time.Now()
	return poll(waitLimit, func() (bool, error) {
		var st [2]Status
		for i, n := range e.Nodes {
			var err error
			if st[i], err = n.Status(); err != nil {
				return false, err
			}
		}
		a, b := st[0], st[1]
		what := fmt.Errorf("alpha: %v; bravo: %v", a, b)
		for i, n := range e.Nodes {
			s := st[i]
			switch {
			case s.Disk == "failed" && s.Role != "init":
				return false, errors.Join(what, n.Role("init", true))
			case s.Role == "init":
				return false, errors.Join(what, n.Role("secondary", false))
			case s.Connection == "standalone":
				return false, errors.Join(what, n.Connect())
			}
		}
		switch {
		case a.Status == "split-brain" || b.Status == "split-brain":
			e.mixed = true
			victim := e.a
			if a.Role == "primary" {
				victim = e.b
			}
			return false, errors.Join(what, victim.RecoverDiscard())
		case a.Role != "primary" && b.Role != "primary":
			err := e.a.Role("primary", false)
			if err != nil && time.Since(alone) > 2*time.Second {
				err = e.b.Role("primary", false)
			}
			return false, errors.Join(what, err)
		case a.Status != "complete" || b.Status != "complete":
			return false, what
		case b.Role == "primary":
			return false, errors.Join(what, e.b.Role("secondary", false))
		}
		return true, nil
	})
}

// judge reads everything and compares.
func (e *everyPair) judge() error {
	e.led.Settle()
	if e.mixed {
		e.mixed = false
		if err := e.writes(e.a); err != nil {
			return err
		}
	}
	c := e.open(e.a)
	defer c.Abort()
	rep, err := e.led.Check(c, true)
	if err != nil {
		return err
	}
	if err := rep.Err(); err != nil {
		return err
	}
	e.same()
	return nil
}

// everyAt is where a case strikes.
type everyAt struct {
	tale int
	side Side
	op   disk.Op
	n    int
}

func (c everyAt) String() string {
	return fmt.Sprintf("%s: %s %d of %v fails", everyTales[c.tale].name, c.op, c.n, c.side)
}

// play plays a tale; with a fault, it may end however it likes. It says whether the
// fault came.
func (e *everyPair) play(tale int, at *everyAt) (came bool, err error) {
	t := &everyTales[tale]
	e.block = int64(1 + tale*8)
	if t.before != nil {
		if err := t.before(e); err != nil {
			return false, fmt.Errorf("before: %w", err)
		}
	}
	var told [2]int
	for i, n := range e.Nodes {
		e.ok(n.Disk.ResetStats())
		told[i] = len(n.Log())
	}
	if at == nil {
		return false, t.then(e)
	}
	n := e.Nodes[at.side]
	e.ok(n.Disk.Fail(disk.Fault{Op: at.op, After: at.n, Count: 1}))
	_ = t.then(e) // whatever it says
	s, err := n.Disk.Stats()
	e.ok(err)
	if s.Errors == 0 {
		return false, nil
	}
	return true, poll(tellLimit, func() (bool, error) {
		for line := range strings.Lines(n.Log()[told[at.side]:]) {
			if strings.Contains(line, "resource="+Resource) && tellsOfDisk(line) {
				return true, nil
			}
		}
		return false, fmt.Errorf("the log of %v does not say that its disk failed", n.Side)
	})
}

// tellsOfDisk knows the lines that name a failure of the node's own disk.
func tellsOfDisk(line string) bool {
	for _, text := range []string{"Local disk is failed.", "could not be read", "could not be written"} {
		if strings.Contains(line, text) {
			return true
		}
	}
	return false
}

// counts are the operations of each tale on each disk, undisturbed.
func (e *everyPair) counts() map[everyAt]int {
	c := map[everyAt]int{}
	for i := range everyTales {
		if _, err := e.play(i, nil); err != nil {
			e.Fatalf("%s, undisturbed: %v", everyTales[i].name, err)
		}
		for side, n := range e.Nodes {
			s, err := n.Disk.Stats()
			e.ok(err)
			for op, k := range map[disk.Op]int64{disk.OpRead: s.Reads, disk.OpWrite: s.Writes, disk.OpFlush: s.Flushes} {
				c[everyAt{i, Side(side), op, 0}] = int(k)
			}
		}
		e.ok(e.mend())
	}
	return c
}

// draw picks a case among those that came in the undisturbed run.
func draw(rng *rand.Rand, counts map[everyAt]int) everyAt {
	// Few reads: a sync that could not read rests for seconds.
	ops := []disk.Op{disk.OpWrite, disk.OpWrite, disk.OpFlush}
	if rng.IntN(12) == 0 {
		ops = []disk.Op{disk.OpRead}
	}
	for {
		at := everyAt{rng.IntN(len(everyTales)), Side(rng.IntN(2)), ops[rng.IntN(len(ops))], 0}
		if k := counts[at]; k > 0 {
			at.n = rng.IntN(k)
			return at
		}
	}
}

func TestOperationsFail(t *testing.T) {
	t.Parallel()
	cases, seed, span := everySample, uint64(1), everyTime
	for env, set := range map[string]func(n uint64){"LAB_EVERY": func(n uint64) { cases, span = int(n), 24*time.Hour }, "LAB_SEED": func(n uint64) { seed = n }} {
		if v := os.Getenv(env); v != "" {
			n, err := strconv.ParseUint(v, 10, 32)
			if err != nil || n == 0 {
				t.Fatalf("%s=%s is not a number", env, v)
			}
			set(n)
		}
	}
	if testing.Short() {
		cases = min(cases, 6)
	}
	var next, played, came atomic.Int64
	t.Run("labs", func(t *testing.T) {
		for i := range everyLabs {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				e := &everyPair{pair: newPair(t, Options{Size: 6 << 20, Seed: seed*everyLabs + uint64(i)})}
				e.together()
				s, err := e.a.Status()
				e.ok(err)
				e.led = ledger.New(ledger.Options{Size: s.Provider.Size, Seed: seed})
				counts := e.counts()
				limit := time.Now().Add(span)
				rng := rand.New(rand.NewPCG(seed, uint64(i)))
				for next.Add(1) <= int64(cases) && time.Now().Before(limit) {
					played.Add(1)
					at := draw(rng, counts)
					began := time.Now()
					hit, err := e.play(at.tale, &at)
					if err == nil {
						err = e.mend()
					}
					if err == nil {
						err = e.judge()
					}
					t.Logf("%v, came %v, %.1fs", at, hit, time.Since(began).Seconds())
					if err != nil {
						t.Fatalf("%v (lab %d, LAB_SEED=%d): %v", at, i, seed, err)
					}
					if hit {
						came.Add(1)
					}
				}
			})
		}
	})
	t.Logf("%d cases of (tale, node, operation, n); the operation came in %d", played.Load(), came.Load())
	if !t.Failed() && !t.Skipped() && came.Load() == 0 && os.Getuid() == 0 {
		t.Error("no operation failed in any case")
	}
}
