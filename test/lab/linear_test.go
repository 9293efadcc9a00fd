package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"hastd/test/lab/nbdclient"
	"hastd/test/linear"
)

// linearPair is a pair under clients whose histories are judged.
type linearPair struct {
	*pair
	load    *linearLoad
	rng     *rand.Rand
	primary atomic.Int32 // a Side
}

// linearFaults are what happens, with what may be lost by it: only when all power
// was gone, or that of a node that served alone.
var linearFaults = []struct {
	name string
	do   func(*linearPair)
}{
	{"primary loses power, the other takes over", (*linearPair).takeOver},
	{"both lose power", (*linearPair).bothPower},
	{"role switched", (*linearPair).switchRoles},
	{"secondary loses power", (*linearPair).secondaryPower},
	{"a node that serves alone loses power", (*linearPair).alonePower},
	{"link cut", (*linearPair).linkCut},
	{"daemon frozen", (*linearPair).freeze},
	{"primary's daemon killed and started", (*linearPair).restart},
}

// linearLap is how many faults a history has: a longer one takes long to judge. A
// short run has every fault once.
const linearLap = 8

// TestLinearPair judges what clients of a real pair saw through faults (test/linear):
// LINEAR_ROUNDS=n for n faults, LAB_SEED=n for others.
func TestLinearPair(t *testing.T) {
	t.Parallel()
	rounds := int(envInt("LINEAR_ROUNDS", linearLap))
	rng := rand.New(rand.NewPCG(*seedFlag, 0x6c696e))
	var plan []int
	for len(plan) < rounds {
		plan = append(plan, rng.Perm(len(linearFaults))...)
	}
	plan = plan[:rounds]
	for lap := 0; len(plan) > 0; lap++ {
		n := min(linearLap, len(plan))
		t.Run(fmt.Sprint("lap-", lap+1), func(t *testing.T) { linearHistory(t, plan[:n], *seedFlag+uint64(lap)) })
		plan = plan[n:]
	}
}

// linearHistory lets faults happen to a new pair and judges what its clients saw.
func linearHistory(t *testing.T, plan []int, seed uint64) {
	p := &linearPair{pair: newPair(t, Options{Seed: seed}), rng: rand.New(rand.NewPCG(seed, 1))}
	p.together()
	p.load = startLinearLoad(t.Context(), seed, p.dial)
	defer p.load.end() // a fault that fails ends the test
	for _, f := range plan {
		began, before := time.Now(), p.load.served.Load()
		p.more(300)
		p.load.note(linearFaults[f].name)
		linearFaults[f].do(p)
		for _, n := range p.Nodes {
			p.ok(n.WaitStatus("complete", waitLimit))
		}
		t.Logf("%s: %d requests in %.1fs", linearFaults[f].name, p.load.served.Load()-before, time.Since(began).Seconds())
	}
	p.more(100)
	h := p.load.end()
	p.pair.complete()
	rep, err := linear.Check(h, 0)
	t.Logf("%d requests; %d registers, the largest with %d operations, %d reads, %d unanswered writes that were seen, %d losses, judged in %.1fs",
		len(h.Ops), rep.Registers, rep.Largest, rep.Reads, rep.Unknown, rep.Losses, rep.Took.Seconds())
	if err != nil {
		dir, derr := os.MkdirTemp("", "linear-")
		if derr == nil {
			derr = linear.Save(dir, h, err)
		}
		t.Fatalf("seed %d: %v; the history is in %s %v", seed, err, dir, derr)
	}
	if rep.Registers < hotGroups*hotBlocks || rep.Reads < 20*len(plan) {
		t.Errorf("little was seen: %+v", rep)
	}
}

// dial is the clients' way to the primary of the moment.
func (p *linearPair) dial(ctx context.Context) (*nbdclient.Client, error) {
	c, err := p.Nodes[p.primary.Load()].NBD(ctx)
	if err != nil {
		select {
		case <-ctx.Done():
		case <-time.After(pollEvery):
		}
	}
	return c, err
}

func (p *linearPair) now() (primary, secondary *Node) {
	s := Side(p.primary.Load())
	return p.Nodes[s], p.Nodes[s.Other()]
}

// more lets n more requests be answered.
func (p *linearPair) more(n int64) {
	p.Helper()
	want := p.load.served.Load() + n
	p.ok(poll(waitLimit, func() (bool, error) {
		if have := p.load.served.Load(); have < want {
			return false, fmt.Errorf("%d requests too few were answered", want-have)
		}
		return true, nil
	}))
}

func (p *linearPair) serve(n *Node) {
	p.Helper()
	p.promote(n)
	p.load.note(n.Side.String() + " serves")
	p.primary.Store(int32(n.Side))
}

// some is a time that lets clients get into the way of a fault.
func (p *linearPair) some() { p.more(1 + p.rng.Int64N(60)) }

func (p *linearPair) takeOver() {
	p.Helper()
	one, other := p.now()
	p.die(one)
	p.serve(other) // it has every acknowledged write, in its cache at least
	p.more(200)
	p.rise(one)
}

func (p *linearPair) secondaryPower() {
	p.Helper()
	_, other := p.now()
	p.die(other)
	p.more(100)
	p.rise(other)
}

func (p *linearPair) bothPower() {
	p.Helper()
	first, second := p.now()
	if p.rng.IntN(2) == 0 {
		first, second = second, first
	}
	p.die(first)
	p.die(second)
	p.load.loss("both lost power")
	p.rise(first)
	p.rise(second)
	p.ok(p.AwaitConnected(waitLimit)) // apart, either could be behind
	p.serve(p.Nodes[p.rng.IntN(2)])
	p.more(100)
}

// alonePower: what one wrote alone and did not flush goes with its power.
func (p *linearPair) alonePower() {
	p.Helper()
	one, other := p.now()
	p.die(other)
	p.more(150)
	p.die(one)
	p.load.loss("the one that served alone lost power")
	p.rise(one)
	p.rise(other)
	p.ok(p.AwaitConnected(waitLimit))
	p.serve(one)
	p.more(100)
}

func (p *linearPair) linkCut() {
	p.Helper()
	p.ok(p.Cut(Side(p.rng.IntN(2)), []Cut{CutBoth, CutFrom, CutTo, CutReset}[p.rng.IntN(4)]))
	p.more(150)
	p.heal()
}

func (p *linearPair) freeze() {
	p.Helper()
	n := p.Nodes[p.rng.IntN(2)]
	p.ok(n.Freeze())
	time.Sleep(time.Duration(200+p.rng.IntN(2000)) * time.Millisecond) // the fault itself
	p.ok(n.Thaw())
	p.more(50)
}

func (p *linearPair) switchRoles() {
	p.Helper()
	one, other := p.now()
	p.some()
	if no, ok := errors.AsType[*Refusal](one.Role("secondary", false)); !ok || no.Code != CodeBusy {
		p.Fatalf("demotion of a primary in use was answered with %v, want code %d", no, CodeBusy)
	}
	p.ok(p.role(one, "secondary", true))
	p.serve(other)
	p.more(100)
}

// restart: the daemon dies, the machine and its disk's cache do not.
func (p *linearPair) restart() {
	p.Helper()
	one, _ := p.now()
	p.ok(one.Kill())
	p.ok(one.Start())
	p.ok(p.AwaitConnected(waitLimit))
	p.serve(one)
	p.more(100)
}
